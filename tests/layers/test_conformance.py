"""Every layer against PyTorch: a new line in the table of layers is tested without a new test."""

import random

import pytest
import torch
import torch.nn.functional as F  # noqa: F401 (layer.torch() names it)
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cnndsl.check import check_source
from cnndsl.layers import arguments
from cnndsl.layers.base import Layer
from cnndsl.layers.table import LAYERS
from cnndsl.layers.types import ImageType, TensorType, VectorType
from cnndsl.sizes.dim import Dim
from cnndsl.source import Source

DRAWS = 250


def draw_value(kind: arguments.Kind, rng: random.Random) -> object:
    match kind:
        case arguments.Word():
            return rng.choice(kind.words)
        case arguments.Flag():
            return rng.random() < 0.5
        case arguments.Number():
            low = 0.125 if kind.positive else kind.low
            return rng.choice([low, 0.25, kind.high if kind.high is not None else 3.0])
        case arguments.Padding() if rng.random() < 0.3:
            return "same"
        case arguments.Size():
            low, high = kind.least, kind.least + 3
            height = rng.randint(low, high)
            return arguments.Pair(height, height if rng.random() < 0.6 else rng.randint(low, high))
        case arguments.Count():
            return Dim.of(rng.choice([1, 2, 3, 4, 6, 12]))
    raise AssertionError(f"no way to draw a {type(kind).__name__}")


def draw(form: type[Layer], rng: random.Random) -> Layer:
    given = {
        name: draw_value(slot.kind, rng)
        for name, slot in form.slots.items()
        if slot.required or rng.random() < 0.4
    }
    return form(**given)


def draw_input(form: type[Layer], rng: random.Random) -> TensorType:
    if rng.choice(form.accepts) is VectorType:
        return VectorType(Dim.of(rng.randint(1, 9)))
    return ImageType(*(Dim.of(rng.choice([1, 2, 3, 4, 5, 7, 8, 12])) for _ in range(3)))


def tensor(type_: TensorType) -> torch.Tensor:
    sizes = [dim.constant for dim in type_.dims]
    if len(sizes) == 3:
        sizes = [sizes[2], sizes[0], sizes[1]]
    return torch.randn(2, *sizes)


class Holder(nn.Module):
    """Runs a layer's PyTorch text."""

    def __init__(self, layer: Layer, x: TensorType) -> None:
        super().__init__()
        text = layer.module(x)
        self.layer = eval(text) if text else None
        self.text = layer.torch(x, "self.layer", "x")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return eval(self.text, globals(), {"self": self, "x": x})


def run(layer: Layer, x: TensorType) -> torch.Tensor | str:
    """What PyTorch makes of it, or why it refuses."""
    try:
        return Holder(layer, x)(tensor(x))
    except (RuntimeError, TypeError, ValueError) as error:
        return str(error)


def source_for(layer: Layer, x: TensorType) -> Source:
    dims = " x ".join(str(dim) for dim in x.dims)
    return Source("drawn.cnn", f"input {dims}\n{layer.write()}\n")


@pytest.mark.parametrize("form", LAYERS, ids=lambda form: form.kind)
def test_accepted_exactly_when_pytorch_runs_and_with_its_shape(form):
    rng = random.Random(form.kind)
    accepted = 0
    for _ in range(DRAWS):
        layer, x = draw(form, rng), draw_input(form, rng)
        report = check_source(source_for(layer, x))
        if any(d.code == "E307" for d in report.diagnostics):
            continue  # `same` with an even extent is a rule of the language: its padding is uneven
        out = run(layer, x)
        messages = [d.message for d in report.diagnostics]
        if isinstance(out, str):
            assert not report.ok, f"{layer.write()} on {x}: PyTorch refuses it: {out}"
            continue
        assert report.ok, f"{layer.write()} on {x}: PyTorch runs it, but {messages}"
        got = [dim.constant for dim in report.layers[0].output]
        want = list(out.shape[1:]) if out.ndim == 2 else [*out.shape[2:], out.shape[1]]
        assert got == want, layer.write()
        accepted += 1
    assert accepted >= DRAWS // 5  # else nothing was compared


@pytest.mark.parametrize("form", LAYERS, ids=lambda form: form.kind)
def test_weights_are_those_of_the_module(form):
    rng = random.Random(form.kind)
    for _ in range(40):
        layer, x = draw(form, rng), draw_input(form, rng)
        if not check_source(source_for(layer, x)).ok:
            continue
        text = layer.module(x)
        module = eval(text) if text else nn.Identity()
        want = {n: (tuple(p.shape), True) for n, p in module.named_parameters()}
        want |= {n: (tuple(b.shape), False) for n, b in module.named_buffers() if b.ndim}
        got = {w.name: (tuple(d.constant for d in w.shape), w.trained) for w in layer.weights(x)}
        assert got == want, layer.write()


@pytest.mark.parametrize("form", LAYERS, ids=lambda form: form.kind)
def test_macs_are_those_that_pytorch_counts(form):
    rng = random.Random(form.kind)
    for _ in range(30):
        layer, x = draw(form, rng), draw_input(form, rng)
        if not check_source(source_for(layer, x)).ok:
            continue
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            Holder(layer, x).eval()(tensor(x)[:1])
        assert layer.macs(x) == Dim.of(counter.get_total_flops() // 2), layer.write()


@pytest.mark.parametrize("form", LAYERS, ids=lambda form: form.kind)
def test_round_trip_through_text(form):
    rng = random.Random(form.kind)
    for _ in range(60):
        layer = draw(form, rng)
        x = (
            VectorType(Dim.of(4))
            if form.accepts == (VectorType,)
            else ImageType(*(Dim.of(60),) * 3)
        )
        report = check_source(source_for(layer, x))
        if report.graph is not None:
            assert report.graph.nodes[0].layer == layer


@pytest.mark.parametrize(
    ("form", "line"), [(form, line) for form in LAYERS for line in form.examples]
)
def test_examples_check_clean(form, line):
    dims = "64" if form.accepts == (VectorType,) else "33 x 33 x 12"
    report = check_source(Source("example.cnn", f"input {dims}\n{line}\n"))
    assert report.ok, [d.message for d in report.diagnostics]
    assert report.graph.nodes[0].layer.write() == line


def test_every_layer_has_its_own_word():
    assert len({form.kind for form in LAYERS}) == len(LAYERS)
