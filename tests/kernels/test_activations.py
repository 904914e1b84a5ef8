"""Gradients of activations where rounding or NaN would spoil them, through compiled networks."""

import os
from collections.abc import Callable
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cnndsl

# Lanes that are not stored multiply an infinity by a masked zero; numpy says so.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")

MANY = os.environ.get("CNNDSL_MANY") == "1"

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "elu": F.elu,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "gelu": F.gelu,
    "silu": F.silu,
}
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "pool max 2": lambda y: F.max_pool2d(y, 2),
    "pool max 3": lambda y: F.max_pool2d(y, 3),
    "pool max 3 stride=2 pad=1": lambda y: F.max_pool2d(y, 3, 2, 1),
    "pool max 2 stride=1": lambda y: F.max_pool2d(y, 2, 1),
    "pool max 2 stride=1 dilation=2": lambda y: F.max_pool2d(y, 2, 1, dilation=2),
}
SOME = [
    ("sigmoid", "pool max 2"),
    ("elu", "pool max 3"),
    ("tanh", "pool max 3 stride=2 pad=1"),
    ("hardsigmoid", "pool max 2 stride=1"),
]


def children(model: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, kind)]


@pytest.mark.parametrize(
    ("channels", "branches"),
    [
        (1, [*product(FUNCTIONS, POOLS)] if MANY else SOME),
        (16, [*product(FUNCTIONS, POOLS)] if MANY else SOME[::2]),  # a library's products
    ],
    ids=["few channels", "many channels"],
)
def test_nan_stays_in_its_pixel(channels: int, branches: list[tuple[str, str]]) -> None:
    """A pixel that lost gets a gradient of 0, also from a NaN, or from an infinite gradient."""
    torch.manual_seed(0)
    text = " ".join(f"{{ conv 1 1x1; {f}; {p}; flatten }}" for f, p in branches)
    model = cnndsl.compile(source=f"input 4 x 4 x {channels}\nconcat {text}\n")
    images = torch.randn(2, channels, 4, 4)
    images[0, 0, 1, 1] = float("nan")
    ours, theirs = images.clone().requires_grad_(), images.clone().requires_grad_()
    found = model(ours)
    parts = []
    for (function, pool), conv in zip(branches, children(model, nn.Conv2d), strict=True):
        z = F.conv2d(theirs, conv.weight, conv.bias)
        parts.append(POOLS[pool](FUNCTIONS[function](z)).flatten(1))
    wanted = torch.cat(parts, 1)
    torch.testing.assert_close(found, wanted, equal_nan=True)
    start = 0
    for part, branch in zip(parts, branches, strict=True):
        gradient = torch.zeros_like(found)
        gradient[:, start : start + part.shape[1]] = torch.randn_like(part)
        gradient[1, start] = float("inf")
        (mine,) = torch.autograd.grad(found, ours, gradient, retain_graph=True)
        (other,) = torch.autograd.grad(wanted, theirs, gradient, retain_graph=True)
        assert (~torch.isfinite(other)).sum() <= 2 * channels
        torch.testing.assert_close(mine, other, equal_nan=True, msg=f"{branch}: {mine} {other}")
        start += part.shape[1]


ELU = """\
input 1 x 1 x 1
concat
    { flatten; fc 1; elu }
    { conv 1 1x1; elu; flatten }
    { conv 1 1x1; batchnorm; elu; flatten }
    { conv 1 1x1; hardsigmoid; flatten }
"""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_slope_is_not_taken_from_a_rounded_output(dtype: torch.dtype) -> None:
    """Where elu is -1 but for rounding, its slope is still exp(x)."""
    model = cnndsl.compile(source=ELU).to(dtype).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(float(name.endswith("weight")))
    deep = [-9.0, -7.5, -3.0, 0.5] if dtype == torch.float16 else [-20.0, -17.5, -3.0, 0.5]
    x = torch.tensor([*deep, 2.9990, -2.9990], dtype=dtype).view(-1, 1, 1, 1).requires_grad_()
    y = model(x)
    for column, function in enumerate([F.elu] * 3 + [F.hardsigmoid]):
        leaf = x.detach().clone().requires_grad_()
        (wanted,) = torch.autograd.grad(function(leaf).sum(), leaf)
        (found,) = torch.autograd.grad(y[:, column].sum(), x, retain_graph=True)
        assert (wanted != 0).sum() >= 3
        bound = 2e-4 + 4 * torch.finfo(dtype).eps  # a batchnorm divides by the root of 1.00001
        torch.testing.assert_close(found, wanted, rtol=bound, atol=0)


def test_a_slope_behind_a_batchnorm_in_training_is_not_either() -> None:
    model = cnndsl.compile(source="input 2 x 2 x 1\nconv 1 1x1; batchnorm; elu").train()
    twin = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.ELU()).train()
    twin[1].bias.data.fill_(-19.0)
    twin.load_state_dict(dict(zip(twin.state_dict(), model.state_dict().values(), strict=True)))
    x = torch.tensor([1.0, 2.0, 3.0, 5.0]).view(1, 1, 2, 2)
    for network in (model, twin):
        *_, norm_bias = network.parameters()
        norm_bias.data.fill_(-19.0)
        network(x).sum().backward()
    mine, theirs = ([p.grad for p in m.parameters()][2:] for m in (model, twin))
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=0)
    assert (mine[1] != 0).all()
