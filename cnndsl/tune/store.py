"""What was chosen, kept in the user's cache folder, so that it is measured once on a machine.

A file for each task, named by all on which the choice depends: the kernels' text, the layers,
shapes, type, GPU and versions. A file holds a sum of its content: one that is damaged, or not
ours, counts for nothing and is made anew. Where no file can be written, one warning says so, and
all is measured each time.
"""

import contextlib
import hashlib
import json
import warnings
from pathlib import Path
from typing import Any, cast

from cnndsl.fuse.choices import layers, pin_as_json, pin_of_json
from cnndsl.fuse.ways import allowed
from cnndsl.runtime import cache
from cnndsl.tune.device import Device
from cnndsl.tune.task import DIRECTIONS, Row, Task, Verdict

VERSION = 1  # of the files, and of how candidates are made, checked and timed
FOLDER = "choices"
MOST_BYTES = 2**20


class Store:
    """Verdicts in a folder, by default the user's."""

    def __init__(self, folder: Path | None = None) -> None:
        """The folder is made when it is first needed."""
        self._given = folder
        self._warned = False

    def get(self, task: Task, device: Device) -> Verdict | None:
        """What was chosen before; None where nothing whole is there."""
        try:
            path = self._folder() / f"{key(task, device)}.json"
            content = cache.read_own(path, MOST_BYTES)
        except OSError:
            return None
        return _read(content, task) if content is not None else None

    def put(self, task: Task, device: Device, verdict: Verdict) -> None:
        """Keep it; warns once where that cannot be."""
        try:
            cache.write(self._folder() / f"{key(task, device)}.json", _write(task, verdict))
        except OSError as error:
            if not self._warned:
                self._warned = True
                why = error.strerror or str(error)
                warnings.warn(
                    f"what was measured cannot be kept ({why}), so it is measured each time",
                    stacklevel=2,
                )

    def _folder(self) -> Path:
        return cache.own_folder(FOLDER) if self._given is None else cache.ours(self._given)


def key(task: Task, device: Device) -> str:
    """A name for all on which the choice depends."""
    parts = {
        "version": VERSION,
        "text": hashlib.sha256(task.text.encode()).hexdigest(),
        "layers": layers(task.region),
        "role": task.role,
        "bucket": task.bucket,
        "size": task.size,
        "dtype": task.dtype,
        "input gradient": task.needs_input_gradient,
        "device": device.name,
        "versions": dict(device.versions),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _write(task: Task, verdict: Verdict) -> bytes:
    content = {
        "region": task.name,
        "pin": pin_as_json(verdict.pin),
        "rows": [[row.direction, row.name, row.us, row.why] for row in verdict.rows],
        "why": list(verdict.why),
    }
    return json.dumps({**content, "sha256": _digest(content)}).encode()


def _read(content: bytes, task: Task) -> Verdict | None:
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError, RecursionError):
        found = cast("dict[str, Any]", json.loads(content))
        digest = found.pop("sha256")
        if digest != _digest(found):
            return None
        pin = pin_of_json(found["pin"])
        known = allowed(task.region, task.role) or (None,)
        rows = tuple(Row(d, n, us, why) for d, n, us, why in found["rows"] if d in DIRECTIONS)
        if pin.choice in known:
            return Verdict(pin, rows, tuple(found["why"]))
    return None


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
