"""A network against the same one in eager PyTorch and under torch.compile, in one run.

The eager one is the same file, each layer its operator; all have the same weights. They take turns
step by step, so that the load of the machine hits all alike; what is told are medians and ratios.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnndsl.emit.module import emit
from cnndsl.record import Record
from cnndsl.runtime.load import Origin, class_of

Untyped = Any
CONTENDERS = ("ours", "eager", "compile")
KINDS = ("training", "inference")
WARM_UPS = 2
# A large network on a slow machine gets fewer rounds than asked for, but never fewer than these.
SECONDS_OF_A_KIND, LEAST_ROUNDS = 60.0, 3


class Row(Record):
    """What was measured of a kind of step: milliseconds of each contender.

    `missing` says why one is not there.
    """

    kind: str
    rounds: int
    ms: Mapping[str, float]
    missing: Mapping[str, str]

    def ratio(self, name: str) -> float | None:
        """Their time / ours: above 1, ours is faster."""
        return self.ms[name] / self.ms["ours"] if name in self.ms else None


class Shape(Record):
    """The batch: its shape (N, C, H, W) or (N, features), the type of the network, and the device.

    With `takes_bytes` the images are bytes all the same.
    """

    size: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    takes_bytes: bool = False

    def draw(self) -> Tensor:
        """Images; with channels innermost, as our module lays them itself."""
        x = torch.rand(self.size, device=self.device)
        x = (x * 256).byte() if self.takes_bytes else x.to(self.dtype)
        return x.contiguous(memory_format=torch.channels_last) if len(self.size) == 4 else x


def machine(device: torch.device) -> dict[str, str | int]:
    """What is measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def eager(model: nn.Module, origin: Origin) -> nn.Module:
    """The network as one writes it in PyTorch, with the same weights."""
    written = emit(origin.graph, origin.source, fused=False)
    found = class_of(written)()
    found.load_state_dict(model.state_dict())
    return found


def race(
    model: nn.Module, origin: Origin, shape: Shape, rounds: int, against: str = "both"
) -> list[Row]:
    """A row for training (forward, loss, backward, SGD) and one for inference.

    `against` is "eager", "compile" or "both"; after a minute of a kind no round begins that is not
    needed. The networks' outputs are compared first; `RuntimeError` where they differ.
    """
    other = eager(model, origin)
    models = {"ours": model, "eager": other}
    for each in models.values():
        each.to(shape.device, shape.dtype)
        if len(shape.size) == 4:
            cast("Untyped", each).to(memory_format=torch.channels_last)
    x = shape.draw()
    _compare(models, x)
    compiled, missing = (None, dict[str, str]()) if against == "eager" else _compiled(other, x)
    rows: list[Row] = []
    for kind in KINDS:
        for each in models.values():
            each.train(kind == "training")
        ways: dict[str, Callable[[Tensor], Tensor]] = {n: _logits(m) for n, m in models.items()}
        if compiled is not None:
            ways["compile"] = compiled
        if against == "compile":
            del ways["eager"]
        steps = {
            name: _step(kind, logits, models.get(name, other), x) for name, logits in ways.items()
        }
        absent = dict(missing)
        for name, step in list(steps.items()):
            try:
                step()
            except Exception as error:  # a compiler may fail in any way; others are raised
                if name != "compile":
                    raise
                absent[name] = _first(error)
                del steps[name]
        times = _times(steps, rounds, shape.device)
        middle = {name: statistics.median(each) for name, each in times.items()}
        rows.append(Row(kind, len(times["ours"]), middle, absent))
    return rows


def _logits(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return cast("Untyped", model).logits


def _compare(models: Mapping[str, nn.Module], x: Tensor) -> None:
    with torch.no_grad():
        ours, other = (_logits(m.eval())(x).float() for m in models.values())
    bound = 1e-3 if x.dtype == torch.float32 else 5e-2
    scale = float(other.abs().max()) + 1e-6
    if not float((ours - other).abs().max()) <= bound * scale:
        raise RuntimeError("our network and eager PyTorch give different results")


def _compiled(
    model: nn.Module, x: Tensor
) -> tuple[Callable[[Tensor], Tensor] | None, dict[str, str]]:
    """The eager network under torch.compile; or why it is not there."""
    try:
        torch_: Untyped = torch
        found: Callable[[Tensor], Tensor] = torch_.compile(_logits(model))
        with torch.no_grad():
            found(x)
    except Exception as error:  # of many kinds: it may miss a C++ compiler, or have bugs
        return None, {"compile": _first(error)}
    return found, {}


def _first(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:120] if lines else ''}"


def _step(
    kind: str, logits: Callable[[Tensor], Tensor], model: nn.Module, x: Tensor
) -> Callable[[], object]:
    if kind == "inference":

        def infer() -> object:
            with torch.no_grad():
                return logits(x)

        return infer
    optimizer: Untyped = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    model.eval()
    with torch.no_grad():
        shape = _logits(model)(x).shape
    model.train()
    y = torch.randint(0, shape[1], (shape[0], *shape[2:]), device=x.device)

    def learn() -> object:
        optimizer.zero_grad()
        loss = F.cross_entropy(logits(x), y)
        torch.autograd.backward(loss)
        optimizer.step()
        return loss

    return learn


def _times(
    steps: Mapping[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Milliseconds of steps of each, in turns, the host's time and the device's."""
    cuda: Untyped = torch.cuda
    times: dict[str, list[float]] = {name: [] for name in steps}
    begun = time.perf_counter()
    for number in range(rounds + WARM_UPS):
        is_late = time.perf_counter() - begun > SECONDS_OF_A_KIND
        if is_late and number >= WARM_UPS + LEAST_ROUNDS:
            break
        for name, step in steps.items():
            if device.type == "cuda":
                cuda.synchronize(device)
            start = time.perf_counter()
            step()
            if device.type == "cuda":
                cuda.synchronize(device)
            if number >= WARM_UPS:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times
