"""The Triton text of every activation, evaluated without Triton and held against PyTorch."""

import ast
import math

import pytest
import torch
import torch.nn.functional as F  # noqa: F401 (layer.torch() names it)
import triton.language

from cnndsl.layers.activations import Elu, HardSigmoid, LeakyRelu
from cnndsl.layers.base import Pointwise
from cnndsl.layers.table import LAYERS
from cnndsl.layers.types import VectorType
from cnndsl.sizes.dim import Dim

POINTWISE = [form() for form in LAYERS if issubclass(form, Pointwise)]
POINTWISE += [LeakyRelu(0.3), LeakyRelu(0.0), LeakyRelu(2.5)]

every_function = pytest.mark.parametrize("layer", POINTWISE, ids=lambda layer: layer.write())

# What a value may be off, in units in the last place of the larger of it and 1, as a function's
# value is no larger than its argument's where it counts.
UNITS = 4 * 2.0**-23


class Tl:
    """What the texts use of `triton.language`, on tensors."""

    abs, exp, sigmoid, erf = torch.abs, torch.exp, torch.sigmoid, torch.erf

    @staticmethod
    def where(condition, a, b):
        return torch.where(condition, a, b)

    @staticmethod
    def fma(a, b, c):
        return a * b + c

    @staticmethod
    def fdiv(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a / b


def evaluate(text: str, **names: torch.Tensor) -> torch.Tensor:
    return eval(text, {"tl": Tl}, names)


def arguments() -> torch.Tensor:
    """Bends, zeros, a fine grid, tiny and huge ones; all of them 32-bit floats."""
    bends = [b + d for b in (-6.0, -3.0, -0.5, -0.3, 0.0, 0.5, 3.0, 6.0) for d in (-1e-4, 0, 1e-4)]
    sizes = [
        s * m for s in (-1, 1) for m in (1e-38, 1e-20, 1e-7, 1e-3, 20, 50, 88, 89, 104, 1e4, 1e38)
    ]
    return torch.tensor([*bends, -0.0, *sizes, *torch.linspace(-12, 12, 2001).tolist()])


def meaning(layer: Pointwise, x: torch.Tensor) -> torch.Tensor:
    """What PyTorch says, in whatever precision x has."""
    return eval(layer.torch(VectorType(Dim.of(1)), "", "x"), globals(), {"x": x})


def saved(layer: Pointwise, x: torch.Tensor) -> torch.Tensor:
    """What a kernel keeps for the gradient."""
    return x if layer.slope_from == "input" else evaluate(layer.triton("x"), x=x)


@every_function
def test_values_are_those_of_pytorch_in_float64(layer):
    x = arguments()
    got, want = evaluate(layer.triton("x"), x=x), meaning(layer, x.double())
    error = (got.double() - want).abs()
    assert (error <= UNITS * want.abs().clamp(min=1.0)).all(), x[error.argmax()]


@every_function
def test_gradients_are_those_of_pytorch_in_float64(layer):
    x = arguments()
    gradient = torch.linspace(-3, 3, len(x))
    got = evaluate(layer.triton_gradient("s", "g"), s=saved(layer, x), g=gradient)
    leaf = x.double().requires_grad_()
    (want,) = torch.autograd.grad(meaning(layer, leaf), leaf, gradient.double())
    error = (got.double() - want).abs()
    assert (error <= UNITS * want.abs().clamp(min=4.0)).all(), x[error.argmax()]


@every_function
def test_the_derivative_in_float64_is_the_slope_between_neighbours(layer):
    """Apart from PyTorch: the two texts belong together."""
    x = torch.linspace(-7.9, 8.1, 977, dtype=torch.float64)  # without the bends
    step = 1e-6
    ends = (evaluate(layer.triton("x"), x=x + d) for d in (step, -step))
    slope = (next(ends) - next(ends)) / (2 * step)
    got = evaluate(layer.triton_gradient("s", "g"), s=saved(layer, x), g=torch.ones_like(x))
    assert torch.allclose(got, slope, atol=1e-6)


@pytest.mark.parametrize("layer", [Elu(), *(p for p in POINTWISE if p.kind == "tanh")], ids=str)
def test_small_values_keep_their_digits(layer):
    """Where exp(x) − 1 alone would cancel."""
    x = -torch.logspace(-30, 0, 999)
    want = meaning(layer, x.double())
    error = ((evaluate(layer.triton("x"), x=x).double() - want) / want).abs()
    assert error.max() < 4 * 2.0**-23


@every_function
def test_nan_stays_nan_and_its_gradient_is_not_lost(layer):
    nan = torch.tensor([math.nan])
    assert evaluate(layer.triton("x"), x=nan).isnan().all()
    gradient = evaluate(layer.triton_gradient("s", "g"), s=nan, g=torch.ones(1))
    if layer not in (LeakyRelu(0.0), HardSigmoid()):  # as in PyTorch: the slope there is 0
        assert (gradient != 0).all()


@every_function
def test_infinity_is_as_in_pytorch(layer):
    x = torch.tensor([-math.inf, math.inf])
    got, want = evaluate(layer.triton("x"), x=x), meaning(layer, x.double()).float()
    assert torch.equal(got.nan_to_num(nan=-7.0), want.nan_to_num(nan=-7.0))


@every_function
def test_only_what_never_falls_changes_places_with_a_maximum(layer):
    x = torch.linspace(-12, 12, 5001)
    falls = bool((evaluate(layer.triton("x"), x=x).diff() < 0).any())
    assert layer.rises == (not falls)
    assert layer.slope_from == "input" or layer.rises


@every_function
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_slope_vanishes_only_where_it_does_in_pytorch(layer, dtype):
    """The output that is kept has been rounded: 1 + elu(-9) is 0 in float16, exp(-9) is not."""
    x = arguments().clamp(-80, 80).to(dtype)
    kept = saved(layer, x.float()).to(dtype).float()
    got = evaluate(layer.triton_gradient("s", "g"), s=kept, g=torch.ones(len(x)))
    leaf = x.clone().requires_grad_()
    (want,) = torch.autograd.grad(meaning(layer, leaf).sum(), leaf)
    want = want.float()
    unit = torch.finfo(dtype).eps
    bound = 2 * unit * want.abs() + float(torch.finfo(dtype).smallest_normal)
    if layer.slope_from == "output":  # PyTorch's is rounded in the same place
        bound += 4 * unit
    if not layer.rises:  # where the slope changes its sign, terms cancel, in PyTorch too
        bound += 2.0**-21
    error = (got - want).abs()
    assert (error <= bound).all(), x[(error - bound).argmax()]


@every_function
def test_the_texts_use_what_triton_has_and_nothing_else(layer):
    for text in (layer.triton("z"), layer.triton_gradient("saved", "gradient")):
        for node in ast.walk(ast.parse(text, mode="eval")):
            if isinstance(node, ast.Attribute):
                assert hasattr(triton.language, node.attr), node.attr
            elif isinstance(node, ast.Name):
                assert node.id in ("tl", "z", "saved", "gradient")
