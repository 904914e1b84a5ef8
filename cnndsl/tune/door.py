"""`cnndsl.tune`: measure the kernels of a compiled model, and give it those that are fastest.

From the model to its regions, from these to tasks, from the verdicts to a file of choices and to a
model that follows them.
"""

import os
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, closing
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnndsl import output
from cnndsl.emit.module import emit, emit_region
from cnndsl.fuse import choices as files
from cnndsl.fuse.choices import Choices, Chosen, layers, title
from cnndsl.fuse.pins import Pin, Role
from cnndsl.fuse.regions import Region, parts
from cnndsl.fuse.ways import roles
from cnndsl.graph.graph import Graph
from cnndsl.layers.conv import Conv
from cnndsl.layers.types import ImageType
from cnndsl.record import Record
from cnndsl.runtime.load import Origin, origin_of, remember
from cnndsl.tune import ranks
from cnndsl.tune.chooser import choose, refuse_capture
from cnndsl.tune.cuda import Cuda
from cnndsl.tune.device import Device
from cnndsl.tune.errors import TuneError
from cnndsl.tune.model import with_kernels
from cnndsl.tune.store import Store
from cnndsl.tune.task import Task, Verdict, without_labels

DTYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
Listener = Callable[[Task, Verdict], None]


class Shape(Record):
    """What a network is given: images, their height and width (none: vectors), and their type."""

    images: int
    size: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, x: Tensor, model: nn.Module) -> "Shape":
        """That of a batch, in the type in which its device computes with it."""
        kind = x.device.type
        dtype = x.dtype if x.is_floating_point() else next(model.parameters()).dtype
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
        return cls(x.shape[0], tuple(x.shape[2:]), dtype)


def tune(
    model: nn.Module, example: Tensor | None = None, /, *, pin: str | PathLike[str] | None = None
) -> nn.Module:
    """Give a model of the same parameters that runs the fastest kernels for batches like `example`.

    `example` is a batch as training has it, (N, C, H, W) on a GPU: its shape, type and device say
    what is measured; under `torch.autocast`, in that type. All of a region's ways and tiles are
    checked against PyTorch in float64, those that are right are timed, and what was chosen is kept
    in the user's cache. `pin` is a file: where it exists, it is followed and nothing is measured;
    else what was chosen is written there. It can be committed.

    The model that is returned shares all parameters, buffers and layers with the one given, so an
    optimizer goes on; the one given keeps its kernels. On a CPU there is nothing to choose: a
    warning says so, and the model itself is returned. Where processes train together, all call
    this: the first one measures, and the others follow.

    Raises `TuneError` for a model that `cnndsl.compile` or `cnndsl.load` did not make in this
    process, and while a CUDA graph is captured; `ChoicesError` for a file that is not for this
    network.
    """
    origin = origin_of(model)
    if origin is None:
        raise TuneError(
            f"{type(model).__name__} was not compiled here, so its regions are not known",
            "tune what `cnndsl.compile` or `cnndsl.load` gives, before it is wrapped or pickled",
        )
    path = None if pin is None else Path(pin)

    def decide() -> str:
        if path is not None and path.exists():
            return files.write(files.load(path))
        if path is not None:
            output.check(path)  # before anything is measured
        found = _measured(model, origin.graph, example)
        if found is not None and path is not None:
            with output.replacing(path) as file:
                file.write_text(files.write(found), encoding="utf-8")
        return "" if found is None else files.write(found)

    text = ranks.decided(decide)
    return following(model, origin, files.read(text, "choices")) if text else model


def following(model: nn.Module, origin: Origin, choices: Choices) -> nn.Module:
    """The model with the kernels that were chosen; itself, where it has them already."""
    if choices == origin.choices:
        return model
    written = emit(origin.graph, origin.source, choices)
    remember(written, origin.replace(choices=choices))
    return with_kernels(model, written)


def _measured(model: nn.Module, graph: Graph, example: Tensor | None) -> Choices | None:
    """What is chosen on the example's device; None where there is nothing to choose."""
    if example is None:
        raise TuneError(
            "without an example there is nothing to measure with",
            "give a batch as training has it: `cnndsl.tune(model, images)`",
            "or a file of choices that exists: `cnndsl.tune(model, pin=…)`",
        )
    shape = Shape.of(example, model)
    found = device_of(example)
    if found is None:
        warnings.warn(
            f"there is nothing to choose on {example.device}: PyTorch's operators run there; the "
            "model stays as it is",
            stacklevel=5,
        )
        return None
    if shape.dtype not in DTYPES:
        raise TuneError(
            f"no kernels are measured in {shape.dtype}",
            "give the example in float32, float16 or bfloat16",
        )
    with found as device:
        return measure(graph, shape, device, Store())


def device_of(x: Tensor) -> AbstractContextManager[Device] | None:
    """The machine that kernels run on for x; None where PyTorch's operators run."""
    return closing(Cuda(x.device)) if x.device.type == "cuda" else None


def measure(
    graph: Graph, shape: Shape, device: Device, store: Store, heard: Listener | None = None
) -> Choices:
    """Choose for each region of a network; what is in the store is not measured again."""
    refuse_capture(device)
    found: list[Chosen] = []
    known: dict[tuple[object, ...], Verdict] = {}
    for region in (part for part in parts(graph) if isinstance(part, Region)):
        pins = list[tuple[Role, Pin]]()
        why: list[str] = []
        for task in tasks(graph, region, shape):
            key = (*layers(region), task.role, task.size, task.text, task.needs_input_gradient)
            verdict = known.get(key) or store.get(task, device)
            if verdict is None:
                verdict = choose(task, device)
                store.put(task, device, verdict)
            known[key] = verdict
            pins.append((task.role, verdict.pin))
            why += verdict.why
            if heard is not None:
                heard(task, verdict)
        found.append(Chosen(title(region), layers(region), tuple(pins), tuple(why)))
    return Choices(tuple(found), tuple(_made(shape, device)))


def tasks(graph: Graph, region: Region, shape: Shape) -> Iterable[Task]:
    """What is to be chosen for a region, for batches of that shape."""
    bare = without_labels(region)
    text = text_of(bare)
    size = None
    arrives = region.arrives
    if isinstance(arrives, ImageType):
        known = sizes_of(graph, shape)
        size = (arrives.height.evaluate(known), arrives.width.evaluate(known))
    dtype = DTYPES[shape.dtype]
    if dtype == "fp32" and _rounds(region):
        dtype = "tf32"
    for role in roles(region):
        yield Task(title(region), bare, role, shape.images, size, dtype, text)


@lru_cache(maxsize=256)
def text_of(region: Region) -> str:
    """A region's emitted text, as the rules have it."""
    return emit_region(region).text


def sizes_of(graph: Graph, shape: Shape) -> dict[str, int]:
    """The values of the network's symbols; those that no example tells, as in `check`."""
    known = dict(graph.example)
    for dim, value in zip(graph.source.dims, shape.size, strict=False):
        if str(dim) in graph.symbols:
            known[str(dim)] = value
    return known


def _rounds(region: Region) -> bool:
    """Whether PyTorch may multiply float32 in TF32: what the emitted kernels then do, too."""
    backends: Any = torch.backends
    is_conv = isinstance(region.anchor.layer, Conv)
    settings = backends.cudnn.conv if is_conv else backends.cuda.matmul
    return settings.fp32_precision == "tf32" and os.environ.get("TRITON_INTERPRET") != "1"


def _made(shape: Shape, device: Device) -> Iterable[tuple[str, str]]:
    yield "device", device.name
    yield from device.versions.items()
    yield "images", str(shape.images)
    yield "size", " x ".join(map(str, shape.size))
    yield "dtype", DTYPES[shape.dtype]
