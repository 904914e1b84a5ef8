"""Kernels in float64: every form within float64's own bound, and by `torch.autograd.gradcheck`."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck

import cnndsl
from cnndsl.rt.conv_operator import conv_op
from cnndsl.rt.fc_operator import FcGeometry, fc_op
from cnndsl.rt.loss import loss_op
from cnndsl.rt.norm_operator import norm_op

from .hostile import HostileInterpreter
from .norms import NORM_LAUNCHES, new_norm, norm_geometry
from .regions import LAUNCHES, Case, check, conv_geometry
from .test_fc import LAUNCHES as FC_LAUNCHES
from .test_regions import AVERAGE2, POOL2, REGIONS, RELU, region

DOUBLE = torch.float64
# Overlapping windows, of few positions.
POOL3: dict[str, Any] = {**POOL2, "pool_size": (2, 3), "pool_stride": 1, "pool_pad": 1}
AVERAGE3: dict[str, Any] = {**POOL3, "pool": "average"}


@pytest.mark.parametrize("index", range(1, len(REGIONS), 4))
def test_regions(index: int, hostile: HostileInterpreter) -> None:
    check(Case(*region(index), dtype=DOUBLE, seed=index))


@pytest.mark.parametrize("index", range(3, len(REGIONS), 8))
def test_a_librarys_products(index: int, hostile: HostileInterpreter) -> None:
    geometry, shape = region(index)
    geometry = geometry._replace(forward="library", backward="library")
    check(Case(geometry, shape, dtype=DOUBLE, seed=index))


# Each form of each template: how terms are taken, windows, pools, what is added, whose products.
# channels, filters, kernel, the rest of the geometry, (batch, height, width)
FORMS: dict[str, tuple[int, int, int, dict[str, Any], tuple[int, int, int]]] = {
    "packed": (1, 2, 3, {"stride": 2, "pad": 1}, (2, 5, 4)),
    "apart": (16, 3, 3, {"pad": 1, **RELU}, (1, 3, 4)),
    "rows": (3, 2, 5, {"pad": 2, **RELU}, (1, 5, 6)),
    "groups": (4, 6, 3, {"groups": 2, "dilation": 2, "pad": 2, **RELU}, (1, 5, 4)),
    "quad": (2, 3, 3, {"pad": 1, **POOL2}, (1, 4, 6)),
    "quad average": (2, 3, 3, {"pad": 1, **AVERAGE2}, (1, 4, 6)),
    "loop": (2, 3, 3, {"pad": 1, **POOL3}, (1, 5, 6)),
    "loop average": (2, 3, 3, {"pad": 1, "ceil": True, **AVERAGE3}, (1, 6, 5)),
    "scale": (2, 3, 3, {"scale": True, **POOL2}, (1, 6, 7)),
    "scale behind": (2, 3, 3, {"scale": "pool", **POOL3}, (1, 7, 6)),
    "residual": (2, 3, 3, {"scale": True, "residual": True, "pad": 1, **RELU}, (1, 4, 5)),
    "staged": (2, 3, 3, {"pad": 1, "forward": "staged", **POOL3}, (1, 5, 6)),
    "library": (2, 3, 3, {"pad": 1, "forward": "library", "backward": "library"}, (1, 5, 6)),
    "library max": (2, 3, 3, {"pad": 1, "backward": "library", **POOL3}, (1, 5, 6)),
    "library average": (2, 3, 3, {"pad": 1, "backward": "library", **AVERAGE3}, (1, 5, 6)),
}


@pytest.mark.parametrize("form", FORMS)
def test_gradients_of_a_convolution(form: str) -> None:
    channels, filters, kernel, given, shape = FORMS[form]
    case = Case(conv_geometry(channels, filters, kernel, **given), shape, dtype=DOUBLE, seed=5)
    run = conv_op("tests::gradients", case.geometry, LAUNCHES)
    leaves = [None if t is None else t.requires_grad_() for t in case.given]
    assert gradcheck(run, leaves, fast_mode=True, nondet_tol=0.0)


NORMS: dict[str, dict[str, Any]] = {
    "alone": {"affine": False},
    "relu": {"activation": "relu"},
    "residual": {"activation": "relu", "residual": True},
    "maximum": {"activation": "relu", "pool_size": 3, "pool_stride": 2},
    "average": {"activation": "relu", "pool": "average", "pool_size": 2, "pool_stride": 1},
}


@pytest.mark.parametrize("name", NORMS)
def test_gradients_of_a_batchnorm(name: str) -> None:
    """Behind the convolution whose tiles write its statistics: the mean answers, too."""
    torch.manual_seed(7)
    geometry = conv_geometry(2, 3, 3, pad=1, bias=False, statistics=True)
    convolve = conv_op("tests::gradients_sums", geometry, LAUNCHES)
    normed = norm_geometry(3, **NORMS[name])
    normalise = norm_op("tests::gradients_norm", normed, NORM_LAUNCHES)
    norm = new_norm(normed).double()
    twin = new_norm(normed).double()
    twin.load_state_dict(norm.state_dict())
    x = torch.randn(2, 2, 5, 4, dtype=DOUBLE, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=DOUBLE, requires_grad=True)
    residual = torch.randn(2, 3, 5, 4, dtype=DOUBLE, requires_grad=normed.residual)
    parameters = tuple(norm.parameters())

    def run(x: Tensor, weight: Tensor, residual: Tensor, *_parameters: Tensor) -> Tensor:
        z, sums = convolve(x, weight)
        return normalise(z, sums, norm, residual if normed.residual else None)

    run(x, weight, residual)
    twin(F.conv2d(x, weight, padding=1))
    for moved, wanted in zip(norm.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(moved, wanted, rtol=1e-14, atol=1e-14)
    assert gradcheck(run, (x, weight, residual, *parameters), fast_mode=True, nondet_tol=0.0)


@pytest.mark.parametrize("activation", ["none", "relu"])
def test_gradients_of_a_fully_connected_layer(activation: str) -> None:
    torch.manual_seed(7)
    run = fc_op("tests::gradients_fc", FcGeometry(17, 5, activation=activation), FC_LAUNCHES)
    shapes = (3, 17), (5, 17), (5,)
    given = [torch.randn(shape, dtype=DOUBLE, requires_grad=True) for shape in shapes]
    assert gradcheck(run, given, fast_mode=True, nondet_tol=0.0)


def test_gradients_of_a_layer_that_flattens() -> None:
    torch.manual_seed(7)
    run = fc_op("tests::gradients_flat", FcGeometry(36, 5, size=(2, 3)), FC_LAUNCHES)
    shapes = (3, 6, 2, 3), (5, 36), (5,)
    given = [torch.randn(shape, dtype=DOUBLE, requires_grad=True) for shape in shapes]
    assert gradcheck(run, given, fast_mode=True, nondet_tol=0.0)


@pytest.mark.parametrize("classes", [3, 1100])
def test_gradients_of_the_loss(classes: int) -> None:
    torch.manual_seed(7)
    loss = loss_op("tests::gradients_loss")
    logits = torch.randn(4, classes, dtype=DOUBLE, requires_grad=True)
    target = torch.tensor([1, -100, 0, 2])
    wanted = F.cross_entropy(logits, target)
    torch.testing.assert_close(loss(logits, target), wanted, rtol=1e-14, atol=0.0)
    assert gradcheck(lambda logits: loss(logits, target), (logits,), fast_mode=True)


ACTIVATIONS = ("relu", "relu6", "sigmoid", "tanh", "gelu", "silu", "elu", "hardswish")


def test_activations_are_exact() -> None:
    """The expressions that the emitter puts in are not only good enough for float32."""
    branches = " ".join(f"{{ conv 1 1x1; {activation} }}" for activation in ACTIVATIONS)
    model = cnndsl.compile(source=f"input 1 x 201 x 1\nconcat {branches}\n").double()
    for name, parameter in model.named_parameters():
        torch.nn.init.constant_(parameter, float(name.endswith("weight")))
    x = torch.linspace(-10, 10, 201, dtype=DOUBLE).view(1, 1, 1, -1)
    theirs = [leaf.clone().requires_grad_() for leaf in [x] * len(ACTIVATIONS)]
    wanted = torch.cat(
        [
            getattr(F, name, getattr(torch, name, None))(t)
            for name, t in zip(ACTIVATIONS, theirs, strict=False)
        ],
        1,
    )
    found = model(x)
    torch.testing.assert_close(found, wanted, rtol=1e-14, atol=1e-15)
    gradient = torch.randn(found.shape, dtype=DOUBLE)
    found.backward(gradient)
    wanted.backward(gradient)
    slopes = [parameter.grad for name, parameter in model.named_parameters() if "bias" in name]
    sums = [(t.grad).sum().reshape(1) for t in theirs]
    torch.testing.assert_close(slopes, sums, rtol=1e-12, atol=1e-12)
