"""The folder of a run: what was asked for, what came of it, and the checkpoints.

    config.json    the settings, the data, the classes, the versions
    source.cnn     the network as it was written   (a run from Python has none)
    used/          the files that it uses, at their paths from its folder; often there are none
    model.py       the module that it became       (likewise)
    choices.json   the kernels that were chosen    (where `tune` was asked for)
    metrics.jsonl  one line an epoch
    checkpoints/   see `checkpoint`; `best/` likewise

A folder appears under its name when it is complete, with a first checkpoint in it, so it can be
resumed from the moment it exists. One process at a time may train in it.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from cnndsl.record import Record
from cnndsl.train import config, disk
from cnndsl.train.checkpoint import BEST, NEWEST, Checkpoint, save
from cnndsl.train.errors import UsageError


class Origin(Record):
    """Where a network comes from: its source, and what was set (`width=64`).

    `used` are the paths and texts of the files that the source uses; `module` is what a run folder
    shows of the network: a file that stands alone, with the kernels that are run.
    """

    source: str
    settings: tuple[str, ...]
    module: str = ""
    used: tuple[tuple[str, str], ...] = ()


class Run:
    """A run folder that exists."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path = path
        self.config = config
        self._lock = -1

    @property
    def source(self) -> Path:
        """The network's source."""
        return self.path / "source.cnn"

    @property
    def used(self) -> Path:
        """The folder of the files that the source uses."""
        return self.path / "used"

    @property
    def choices(self) -> Path:
        """What was chosen for the network's kernels; there only where that was measured."""
        return self.path / "choices.json"

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """What `metrics.jsonl` says of each finished epoch, without lines that are damaged.

        It is for people: what a run has done is in its checkpoints, which put the file right.
        """
        return _read_metrics(self.path / "metrics.jsonl")

    def add_metrics(self, values: dict[str, Any]) -> None:
        """Append an epoch's line, and wait until the disk has it."""
        with (self.path / "metrics.jsonl").open("ab") as file:
            file.write(_line(values))
            file.flush()
            os.fsync(file.fileno())

    def put_metrics(self, epochs: Sequence[dict[str, Any]]) -> None:
        """Let `metrics.jsonl` have a line for each of these epochs, and no other."""
        path = self.path / "metrics.jsonl"
        text = b"".join(map(_line, epochs))
        if not path.is_file() or path.read_bytes() != text:
            disk.replace(path, text)

    def lock(self) -> None:
        """Keep other processes from training here, until this one ends however it ends."""
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.unlock()
            raise UsageError(
                f"another process is training in `{self.path}`",
                "wait for it to end, or train into another folder: `--out`",
            ) from error
        for folder in (self.path, self.path / NEWEST, self.path / BEST):
            disk.sweep(folder)

    def unlock(self) -> None:
        """Let other processes train here."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def refuse_existing(path: Path) -> None:
    """Raise `UsageError` when a new run cannot be made at `path`."""
    if (path / "config.json").exists():
        raise UsageError(
            f"`{path}` holds a run already, which would be lost",
            f"go on with it: `--resume {path}`",
            "or train into another folder: `--out`",
        )
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UsageError(
            f"`{path}` exists and is no run", "train into a folder that does not exist: `--out`"
        )
    if path.is_symlink() and not path.exists():
        raise UsageError(
            f"`{path}` is a link that leads nowhere",
            "train into a folder that does not exist: `--out`",
        )
    above = next((folder for folder in path.parents if folder.exists()), path)
    if not above.is_dir():
        raise UsageError(
            f"no run can be made at `{path}`: `{above}` is a file", "choose another place: `--out`"
        )
    if not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(
            f"no run can be made at `{path}`: you may not write in `{above}`",
            "choose another place: `--out`",
        )


def create(
    path: Path,
    settings: dict[str, Any],
    origin: Origin | None,
    first: Checkpoint,
    choices: str = "",
) -> Run:
    """Make the folder of a new run.

    `settings` are what config.json says; `choices` is the text of choices.json, or empty.
    """
    refuse_existing(path)
    shown, path = path, Path(os.path.realpath(path))  # a link to an empty folder stays a link
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{path.name}.*.new"):
        if not _alive(leftover.name.split(".")[-2]):
            shutil.rmtree(leftover, ignore_errors=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        _fill(fresh, settings, origin, first)
        if choices:
            disk.write(fresh / "choices.json", choices.encode())
            disk.settle(fresh)
        try:
            fresh.rename(path)  # onto nothing, or an empty folder
        except OSError:
            refuse_existing(path)  # another process was faster
            raise
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    disk.settle(path.parent)
    return Run(shown, settings)


def _fill(fresh: Path, settings: dict[str, Any], origin: Origin | None, first: Checkpoint) -> None:
    fresh.mkdir()
    disk.write(fresh / "config.json", (json.dumps(settings, indent=2) + "\n").encode())
    disk.write(fresh / "metrics.jsonl", b"")
    if origin is not None:
        disk.write(fresh / "source.cnn", origin.source.encode())
        disk.write(fresh / "model.py", origin.module.encode())
        for name, text in origin.used:
            disk.write_below(fresh, Path("used") / name, text.encode())
    save(fresh, first)
    disk.settle(fresh)


def _alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass  # it is somebody else's
    return True


def open_run(path: Path) -> Run:
    """The run in a folder; `UsageError` if there is none, `TrainError` for a damaged one."""
    return Run(path, config.read(path / "config.json"))


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values).encode() + b"\n"


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    found: list[dict[str, Any]] = []
    for line in path.read_bytes().split(b"\n"):
        try:
            value = cast("object", json.loads(line)) if line else None
        except (ValueError, RecursionError):  # cut off when the process was killed
            continue
        match value:
            case {"epoch": int()}:
                found.append(cast("dict[str, Any]", value))
            case _:
                pass
    return found
