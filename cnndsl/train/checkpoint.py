"""Checkpoints: all that training depends on, one folder a step. Knows no models and no loop.

    checkpoints/step-00000920/model.safetensors      the network to use: parameters and buffers
    checkpoints/step-00000920/learning.safetensors   the network that learns, if it is another one
    checkpoints/step-00000920/optimizer.safetensors  the optimizer's moments, by parameter
    checkpoints/step-00000920/state.json             all else, and the sha256 of all of them
    checkpoints/latest                               the name of the newest folder
    best/step-00000460/…                             the best epoch's, where one is looked for

Nothing in them can run code: safetensors and JSON only.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from cnndsl.diagnostics.safe import safe
from cnndsl.record import Record
from cnndsl.runtime.values import bad_values
from cnndsl.train import disk
from cnndsl.train.errors import TrainError

# The second newest stays, should the newest be damaged by what rename and fsync cannot help.
KEPT = 2
NEWEST = "checkpoints"
BEST = "best"


class Checkpoint(Record):
    """The state after `step` steps: tensors by name, and everything else as JSON values.

    `model` is the network to use. `learning` is the one that learns, where `model` is an average of
    its weights over time; else it is empty.
    """

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]
    learning: dict[str, Tensor]


class Found(Record):
    """The newest valid checkpoint, and why each newer one was passed over."""

    checkpoint: Checkpoint
    skipped: tuple[str, ...]


class _DamagedError(Exception):
    """A checkpoint that must not be used, and why."""


_TENSORS = ("model", "optimizer", "learning")


def save(run: Path, checkpoint: Checkpoint, place: str = NEWEST, kept: int = KEPT) -> Path:
    """Write a checkpoint below a run folder; it exists whole or not at all. Older ones go."""
    folder = run / place
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{checkpoint.step:08d}"
    fresh = folder / f".{path.name}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    hashes: dict[str, str] = {}
    for kind in _TENSORS:
        tensors = cast("dict[str, Tensor]", getattr(checkpoint, kind))
        if not tensors and kind == "learning":
            continue
        name = f"{kind}.safetensors"
        content = safetensors.torch.save(_storable(tensors))
        hashes[name] = _hash(content)
        disk.write(fresh / name, content)
    state = {**checkpoint.state, "step": checkpoint.step}
    hashes["state"] = _hash(_canonical(state))
    text = json.dumps({**state, "sha256": hashes}, indent=1)
    disk.write(fresh / "state.json", text.encode())
    disk.publish(fresh, path)
    disk.replace(folder / "latest", f"{path.name}\n".encode())
    for old in _newest_first(folder)[kept:]:
        disk.discard(old)
    return path


def load(run: Path) -> Found:
    """Read the newest valid checkpoint of a run; `TrainError` if there is none."""
    return _first_valid(run, _newest_first(run / NEWEST))


def load_to_use(run: Path) -> Found:
    """Read the checkpoint whose network is used: the best epoch's where one was looked for."""
    return _first_valid(run, _newest_first(run / BEST) + _newest_first(run / NEWEST))


def _first_valid(run: Path, paths: list[Path]) -> Found:
    skipped: list[str] = []
    for path in paths:
        try:
            return Found(_read(path), tuple(skipped))
        except _DamagedError as error:
            skipped.append(f"{safe(path)}: {error}")
    raise TrainError(
        "; ".join([f"`{run}` has no checkpoint that can be used", *skipped]),
        "train again into another folder: `--out`",
    )


def _newest_first(folder: Path) -> list[Path]:
    return sorted((p for p in folder.glob("step-*") if p.is_dir()), reverse=True)


def _read(path: Path) -> Checkpoint:
    try:
        state = cast("object", json.loads(_content(path / "state.json")))
    except ValueError as error:
        raise _DamagedError("state.json is not whole") from error
    match state:
        case {"sha256": {}, "step": int(step)}:
            values = cast("dict[str, Any]", state)
        case _:
            raise _DamagedError("state.json lacks its hashes")
    hashes = cast("dict[str, object]", values.pop("sha256"))
    if hashes.get("state") != _hash(_canonical(values)):
        raise _DamagedError("state.json does not fit its sha256")
    tensors: dict[str, dict[str, Tensor]] = {"learning": {}}
    for kind in _TENSORS:
        name = f"{kind}.safetensors"
        if kind == "learning" and name not in hashes:
            continue
        content = _content(path / name)
        if hashes.get(name) != _hash(content):
            raise _DamagedError(f"{name} does not fit its sha256")
        try:
            tensors[kind] = safetensors.torch.load(content)
        except SafetensorError as error:
            raise _DamagedError(f"{name} cannot be read: {error}") from error
        _refuse_bad(name, tensors[kind])
    return Checkpoint(step, tensors["model"], tensors["optimizer"], values, tensors["learning"])


def _refuse_bad(name: str, tensors: dict[str, Tensor]) -> None:
    """Training saves no such numbers, so whoever made the file has put them there.

    A moment of the optimizer may be infinite: the square of a large gradient is.
    """
    if name == "optimizer.safetensors":
        tensors = {n: torch.nan_to_num(t, nan=torch.nan, posinf=0) for n, t in tensors.items()}
    bad = bad_values(tensors, {n: tensor.dtype for n, tensor in tensors.items()})
    if bad:
        raise _DamagedError(f"{name}: {bad}")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _DamagedError(f"{path.name}: {error.strerror}") from error


def _storable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU: safetensors takes no views, and no two names for one memory."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def _canonical(state: dict[str, Any]) -> bytes:
    return json.dumps(state, sort_keys=True, separators=(",", ":")).encode()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
