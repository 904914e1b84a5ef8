"""The operators as PyTorch sees them: opcheck, torch.compile, autocast, a name used again."""

from typing import Any

import pytest
import torch

from cnndsl.rt.conv_operator import conv_op

from .conftest import ON_GPU
from .hostile import HostileInterpreter
from .regions import LAUNCHES, Case, check, conv_geometry, ours

DEVICE = "cuda" if ON_GPU else "cpu"

REGIONS: list[dict[str, Any]] = [
    {"activation": "relu", "pool_size": 2},
    {"activation": "relu"},
    {"pool": "average", "pool_size": 2},
    {"activation": "relu", "scale": True, "pool_size": 3, "pool_stride": 2, "ceil": True},
    {"activation": "relu", "scale": True, "residual": True},
    {"residual": True},
    {"activation": "input", "scale": "pool", "pool_size": 2},
    {"statistics": True},
]


@pytest.mark.parametrize("given", REGIONS)
def test_opcheck(given: dict[str, Any]) -> None:
    case = Case(conv_geometry(2, 3, 3, pad=1, **given), (2, 6, 6))
    conv_op("tests::checked", case.geometry, LAUNCHES)
    leaves = tuple(None if t is None else t.requires_grad_() for t in case.given)
    torch.library.opcheck(torch.ops.tests.checked.default, leaves)


def test_opcheck_without_images() -> None:
    case = Case(conv_geometry(2, 3, 3, pad=1, **REGIONS[0]), (0, 6, 6))
    conv_op("tests::checked", case.geometry, LAUNCHES)
    torch.library.opcheck(
        torch.ops.tests.checked.default,
        (case.x, case.weight.requires_grad_(), case.bias, None, None),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


@pytest.mark.parametrize("given", [REGIONS[0], REGIONS[1], REGIONS[4]])
def test_torch_compile(given: dict[str, Any]) -> None:
    case = Case(conv_geometry(2, 3, 3, pad=1, **given), (2, 6, 6))
    run = conv_op("tests::compiled", case.geometry, LAUNCHES)
    results = []
    for function in (run, torch.compile(run, fullgraph=True, backend="aot_eager")):
        leaves = [None if t is None else t.detach().clone().requires_grad_() for t in case.given]
        y = function(*leaves)
        y.backward(case.gradient)
        results.append([y.detach(), *(leaf.grad for leaf in leaves if leaf is not None)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_autocast(hostile: HostileInterpreter) -> None:
    case = Case(conv_geometry(2, 3, 3, **REGIONS[0]), (1, 6, 6))
    run = conv_op("tests::autocast", case.geometry, LAUNCHES)
    weight = case.weight.requires_grad_()
    with torch.autocast(DEVICE, torch.bfloat16):
        y = run(case.x, weight, case.bias)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def test_a_residual_under_autocast(hostile: HostileInterpreter) -> None:
    """It is cast as the image is, and has a gradient of its own type."""
    case = Case(conv_geometry(2, 3, 3, activation="relu", residual=True), (1, 6, 6))
    run = conv_op("tests::autocast", case.geometry, LAUNCHES)
    leaves = [None if t is None else t.requires_grad_() for t in case.given]
    with torch.autocast(DEVICE, torch.bfloat16):
        y = run(*leaves)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert case.residual is not None
    assert case.residual.grad is not None
    assert case.residual.grad.dtype == torch.float32


def test_bias_and_scale_may_have_more_precision_than_the_image(hostile: HostileInterpreter) -> None:
    case = Case(conv_geometry(2, 3, 3, scale=True), (1, 6, 6), dtype=torch.bfloat16)
    assert case.bias is not None
    assert case.scale is not None
    case.bias, case.scale = case.bias.float(), case.scale.float()
    found = ours(case)
    check(case, found)
    assert found.dbias is not None
    assert found.dbias.dtype == torch.float32


def test_a_name_can_be_registered_again() -> None:
    for filters in (3, 5):
        case = Case(conv_geometry(2, filters, 3, activation="relu"), (1, 5, 5))
        check(case, ours(case, name="tests::again"))
