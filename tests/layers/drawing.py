"""Layers and inputs drawn at random, as text for the checker and as tensors for PyTorch."""

import random

import torch
import torch.nn.functional as F  # noqa: F401 (layer.torch() names it)
from torch import nn

from cnndsl.check import check_source
from cnndsl.check.report import Report
from cnndsl.layers import arguments
from cnndsl.layers.base import Layer, Merge
from cnndsl.layers.merge import Multiply
from cnndsl.layers.types import ImageType, TensorType, VectorType
from cnndsl.record import Record
from cnndsl.rt.scale import Scale  # noqa: F401 (what layers write is evaluated here)
from cnndsl.sizes.dim import Dim
from cnndsl.source import Source

OTHER = "other"


class Case(Record):
    """A layer, its input, and what else it reads: all the tensors for a merge, one for `like`."""

    layer: Layer
    types: tuple[TensorType, ...]

    @property
    def x(self):
        """What the layer's methods take."""
        return self.types if isinstance(self.layer, Merge) else self.types[0]


def draw_value(kind: arguments.Kind, rng: random.Random) -> object:
    match kind:
        case arguments.Word():
            return rng.choice(kind.words)
        case arguments.Flag():
            return rng.random() < 0.5
        case arguments.Number():
            low = 0.125 if kind.positive else max(kind.low, -2.0)
            return rng.choice([low, 0.25, min(kind.high, 3.0)])
        case arguments.Padding() if rng.random() < 0.3:
            return "same"
        case arguments.Size():
            low, high = kind.least, kind.least + 3
            height = rng.randint(low, high)
            return arguments.Pair(height, height if rng.random() < 0.6 else rng.randint(low, high))
        case arguments.Whole():
            return rng.randint(kind.least, kind.least + 3)
        case arguments.Count():
            return Dim.of(rng.choice([kind.least, 2, 3, 4, 6, 12]))
        case arguments.Like():
            return arguments.Labelled(OTHER, draw_image(rng) if rng.random() < 0.95 else vector(5))
    raise AssertionError(f"no way to draw a {type(kind).__name__}")


def draw_layer(form: type[Layer], rng: random.Random) -> Layer:
    given = {
        name: draw_value(slot.kind, rng)
        for name, slot in form.slots.items()
        if slot.required or slot.way in ("to", "like") or rng.random() < 0.4
    }
    return form(**given)


def image(height: int, width: int, channels: int) -> ImageType:
    return ImageType(Dim.of(height), Dim.of(width), Dim.of(channels))


def vector(features: int) -> VectorType:
    return VectorType(Dim.of(features))


def draw_image(rng: random.Random) -> ImageType:
    return image(*(rng.choice([1, 2, 3, 4, 5, 7, 8, 12]) for _ in range(3)))


def draw_type(form: type[Layer], rng: random.Random) -> TensorType:
    if rng.choice(form.accepts) is VectorType:
        return vector(rng.randint(1, 9))
    return draw_image(rng)


def draw(form: type[Layer], rng: random.Random) -> Case:
    layer, first = draw_layer(form, rng), draw_type(form, rng)
    if isinstance(layer, Merge):
        others = tuple(_near(first, rng) for _ in range(rng.choice([1, 1, 2])))
        return Case(layer, (first, *others))
    like = [value for value in layer.values() if isinstance(value, arguments.Labelled)]
    return Case(layer, (first, *(value.type for value in like)))


def _near(type_: TensorType, rng: random.Random) -> TensorType:
    """The same type, mostly; else one that differs in one size, is a gate, or is a vector."""
    dims = [dim.constant for dim in type_.dims]
    chance = rng.random()
    if chance < 0.3:
        dims[rng.randrange(len(dims))] = rng.randint(1, 9)
    elif chance < 0.45 and len(dims) == 3:
        dims[:2] = [1, 1]
    elif chance < 0.5:
        return vector(dims[-1])
    return image(*dims) if len(dims) == 3 else vector(*dims)


# ── as text ──────────────────────────────────────────────────────────────────────────────────────


def shape(type_: TensorType) -> str:
    return " x ".join(str(dim) for dim in type_.dims)


def source(case: Case) -> Source:
    """A file of which the last layer is the case's, on tensors of its types."""
    if isinstance(case.layer, Merge):
        branches = " ".join(f"{{ {_made(type_)} }}" for type_ in case.types)
        text = f"input 4 x 4 x 3\n{case.layer.write()} {branches}\n"
    elif len(case.types) == 2:
        other = _made(case.types[1])
        text = f"skip as first\n{other} as {OTHER}\nfrom first\n{case.layer.write()}\n"
        text = f"input {shape(case.types[0])}\n{text}"
    else:
        text = f"input {shape(case.types[0])}\n{case.layer.write()}\n"
    return Source("drawn.cnn", text)


def _made(type_: TensorType) -> str:
    """Layers that make a tensor of that type of any image."""
    if isinstance(type_, VectorType):
        return f"flatten; fc {type_.features}"
    return f"pool avg to {type_.height}x{type_.width}; conv {type_.channels} 1x1"


def check(case: Case) -> Report:
    return check_source(source(case))


# ── in PyTorch ───────────────────────────────────────────────────────────────────────────────────


def tensor(type_: TensorType, images: int = 2) -> torch.Tensor:
    sizes = [dim.constant for dim in type_.dims]
    if len(sizes) == 3:
        sizes = [sizes[2], sizes[0], sizes[1]]
    return torch.randn(images, *sizes)


class Holder(nn.Module):
    """Runs a layer's PyTorch text."""

    def __init__(self, case: Case, x: object = None) -> None:
        """`x` stands in for the type of the input, for texts that depend on it."""
        super().__init__()
        text = case.layer.module(case.x)
        self.layer = eval(text) if text else None
        self.names = [f"x{i}" for i in range(len(case.types))]
        self.text = case.layer.torch(case.x if x is None else x, "self.layer", *self.names)

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        return eval(
            self.text, globals(), {"self": self, **dict(zip(self.names, values, strict=True))}
        )


def run(case: Case) -> torch.Tensor | str:
    """What PyTorch makes of it, or why it refuses.

    Where PyTorch does something that the language has no use for, that counts as a refusal: slices
    beyond the end, images without pixels, and tensors repeated to fit, but for gates.
    """
    values = [tensor(type_) for type_ in case.types]
    try:
        refuse(case, values)
        out = Holder(case)(*values)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        return str(error)
    return out if out.numel() else "the output is empty"


def refuse(case: Case, values: list[torch.Tensor]) -> None:
    match case.layer.kind:
        case "take":
            layer = case.layer
            torch.narrow(values[0], 1, layer.first.constant, (layer.end - layer.first).constant)
        case "crop" if len(values) == 2:
            symbols = ImageType(Dim.symbol("H"), Dim.symbol("W"), Dim.symbol("C"))
            Holder(case, symbols)(*values)  # the form that is written for sizes not yet known
        case "crop":
            layer = case.layer
            for axis, cut in ((2, layer.top + layer.bottom), (3, layer.left + layer.right)):
                torch.narrow(values[0], axis, 0, values[0].shape[axis] - cut)
        case "add" | "multiply":
            gates = isinstance(case.layer, Multiply)
            whole = [v for v in values if not (gates and v.ndim == 4 and v.shape[2:] == (1, 1))]
            if len({v.shape for v in whole}) > 1 or len({v.shape[1] for v in values}) > 1:
                raise ValueError("shapes differ")
            if len({v.ndim for v in values}) > 1:
                raise ValueError("images and vectors")
