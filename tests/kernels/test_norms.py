"""Batchnorm in training: statistics, what follows them, and all gradients, against float64."""

from typing import Any

import pytest
import torch

from cnndsl.rt.conv_operator import conv_op
from cnndsl.rt.norm_operator import norm_op

from .hostile import HostileInterpreter
from .norms import (
    NORM_LAUNCHES,
    NormCase,
    after,
    check,
    check_whole,
    copied,
    norm_geometry,
    run,
)
from .regions import LAUNCHES, Case, conv_geometry

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")

RELU: dict[str, Any] = {"activation": "relu"}
POOL2: dict[str, Any] = {"activation": "relu", "pool_size": 2}
POOL3: dict[str, Any] = {"activation": "relu", "pool_size": 3, "pool_stride": 2, "pool_pad": 1}
MEAN3: dict[str, Any] = {**POOL3, "pool": "average"}

# channels, the rest of the geometry, (batch, height, width)
NORMS: list[tuple[int, dict[str, Any], tuple[int, int, int]]] = [
    (1, {}, (2, 1, 1)),
    (3, {}, (2, 5, 4)),
    (3, {"affine": False}, (1, 5, 4)),
    (5, RELU, (2, 3, 11)),
    (17, {"activation": "output"}, (1, 4, 8)),
    (15, {"activation": "input", "affine": False}, (1, 3, 11)),
    (65, RELU, (1, 3, 3)),
    (3, {"residual": True}, (2, 4, 4)),
    (3, {"residual": True, **RELU}, (2, 4, 4)),
    (33, {"residual": True, "activation": "input"}, (3, 1, 11)),
    (3, POOL2, (2, 6, 7)),
    (3, POOL3, (1, 7, 8)),
    (3, {**POOL3, "ceil": True}, (1, 8, 7)),
    (3, {"pool_size": 2, "pool_stride": 3, "activation": "input"}, (1, 9, 8)),
    (3, {"pool_size": (2, 3), "pool_stride": 1, "pool_dilation": (2, 1)}, (1, 6, 7)),
    (3, MEAN3, (1, 7, 8)),
    (3, {**MEAN3, "count_pad": False, "ceil": True}, (1, 8, 7)),
    (3, {"pool": "average", "pool_size": 2, "affine": False}, (2, 5, 6)),
    (3, {"pool_size": 2}, (2, 6, 7)),  # in some windows all is below zero
]


def case(index: int, **given: Any) -> NormCase:
    channels, rest, shape = NORMS[index]
    return NormCase(norm_geometry(channels, **rest), shape, seed=index, **given)


@pytest.mark.parametrize("index", range(len(NORMS)))
def test_float32(index: int, hostile: HostileInterpreter) -> None:
    check(case(index))


@pytest.mark.parametrize("index", [3, 8, 10, 15])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits(index: int, dtype: torch.dtype, hostile: HostileInterpreter) -> None:
    check(case(index, dtype=dtype))


@pytest.mark.parametrize("tile", [1, 7, 100])
def test_a_large_mean_costs_no_digits(tile: int, hostile: HostileInterpreter) -> None:
    """Sums of squares in float32 would be all noise here: 1000² of which the variance is 1."""
    check(NormCase(norm_geometry(3), (3, 7, 8), center=1000.0, tile=tile))


def test_many_tiles(hostile: HostileInterpreter) -> None:
    check(NormCase(norm_geometry(18, activation="relu"), (3, 9, 16), tile=3))


def test_ties_and_zeros(hostile: HostileInterpreter) -> None:
    """Of equal values the first wins, and at zero ReLU has no slope."""
    batch = case(11)
    batch.z = batch.z.round()
    with torch.no_grad():
        batch.norm.weight[0] = batch.norm.bias[0] = 0.0
    check(batch)


# channels, filters, kernel, geometry of the convolution, of the batchnorm, (batch, height, width)
WHOLES: list[tuple[int, int, Any, dict[str, Any], dict[str, Any], tuple[int, int, int]]] = [
    (3, 5, 3, {"bias": False, "pad": 1}, RELU, (2, 6, 5)),
    (3, 5, 3, {"stride": 2}, {"residual": True, **RELU}, (2, 9, 8)),
    (17, 15, 1, {"bias": False}, {"residual": True}, (1, 7, 11)),
    (6, 6, 3, {"bias": False, "pad": 1, "groups": 6}, {"activation": "output"}, (2, 5, 6)),
    (2, 34, 3, {"bias": False}, {"activation": "input"}, (3, 5, 5)),
    (3, 4, 7, {"bias": False, "stride": 2, "pad": 3}, POOL3, (1, 15, 14)),
    (3, 4, 3, {"pad": 1, "pool_size": 2}, {"activation": "input"}, (2, 8, 9)),
    (3, 4, 3, {"bias": False, "pool_size": 3, "pool_stride": 2, "pool_pad": 1}, {}, (2, 9, 8)),
    (1, 3, 1, {}, {"affine": False, "pool": "average", "pool_size": 2, **RELU}, (2, 7, 10)),
]


def check_one(index: int, dtype: torch.dtype = torch.float32) -> None:
    channels, filters, kernel, conv, norm, shape = WHOLES[index]
    geometry = conv_geometry(channels, filters, kernel, **conv)
    check_whole(geometry, norm_geometry(filters, **norm), shape, dtype, index)


@pytest.mark.parametrize("index", range(len(WHOLES)))
def test_behind_a_convolution(index: int, hostile: HostileInterpreter) -> None:
    check_one(index)


@pytest.mark.parametrize("index", [0, 2])
def test_behind_a_convolution_in_16_bits(index: int, hostile: HostileInterpreter) -> None:
    check_one(index, torch.bfloat16)


# ── what PyTorch does at the edges ───────────────────────────────────────────────────────────────


def test_one_value_has_no_variance() -> None:
    small = NormCase(norm_geometry(2), (1, 1, 1))
    with pytest.raises(ValueError, match="Expected more than 1 value per channel") as mine:
        run(small)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel") as theirs:
        small.norm(small.z)
    assert str(mine.value) == str(theirs.value)


@pytest.mark.parametrize("index", [3, 8, 11])
def test_no_images(index: int) -> None:
    channels, rest, (_, height, width) = NORMS[index]
    empty = NormCase(norm_geometry(channels, **rest), (0, height, width))
    region = norm_op("tests::norm", empty.geometry, NORM_LAUNCHES)
    norm, twin = copied(empty.norm), copied(empty.norm)
    z = empty.z.requires_grad_()
    y = region(z, torch.empty(0, 3, channels), norm, empty.residual)
    y.sum().backward()
    after(empty.geometry, twin, empty.z, empty.residual).sum().backward()
    assert y.shape[0] == 0
    assert norm.weight.grad is not None
    assert norm.weight.grad.eq(0).all()
    for mine, theirs in zip(norm.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("momentum", [0.1, None, 0.0, 1.0])
@pytest.mark.parametrize("tracked", [True, False])
def test_running_statistics_move_as_pytorchs(momentum: float | None, tracked: bool) -> None:
    batch = case(3)
    norms = [torch.nn.BatchNorm2d(5, 1e-3, momentum, True, tracked) for _ in range(2)]
    region = norm_op("tests::norm", batch.geometry, NORM_LAUNCHES)
    for _ in range(2):
        region(batch.z, batch.sums, norms[0])
        norms[1](batch.z)
    state = [norm.state_dict() for norm in norms]
    assert list(state[0]) == list(state[1])
    for name, mine in state[0].items():
        torch.testing.assert_close(mine, state[1][name], rtol=1e-6, atol=1e-6)


def test_inference_without_running_statistics_moves_nothing() -> None:
    batch = case(3)
    region = norm_op("tests::norm", batch.geometry, NORM_LAUNCHES)
    norm = torch.nn.BatchNorm2d(5, track_running_stats=False).eval()
    wanted = after(batch.geometry, norm, batch.z, None)
    torch.testing.assert_close(region(batch.z, batch.sums, norm), wanted)


@pytest.mark.parametrize("index", [3, 8, 10, 15])
def test_nan_stays_in_its_channel(index: int) -> None:
    batch = case(index)
    batch.z[0, 1, 2, 1] = float("nan")
    found = run(batch)
    norm, z = copied(batch.norm), batch.z.clone().requires_grad_()
    residual = None if batch.residual is None else batch.residual.clone().requires_grad_()
    y = after(batch.geometry, norm, z, residual)
    y.backward(batch.gradient)
    close: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4, "equal_nan": True}
    torch.testing.assert_close(found.y, y.detach(), **close)
    torch.testing.assert_close(found.running_var, norm.running_var, **close)
    torch.testing.assert_close(found.dz, z.grad, **close)
    torch.testing.assert_close(found.dweight, norm.weight.grad, **close)


def test_the_same_input_gives_the_same_bits() -> None:
    first, second = run(case(8)), run(case(8))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True) if a is not None)


@pytest.mark.parametrize("index", [3, 8, 10])
def test_gradients_of_any_strides(index: int, hostile: HostileInterpreter) -> None:
    batch = case(index)
    for gradient in (
        torch.tensor(0.5).expand(batch.gradient.shape),
        batch.gradient.contiguous(memory_format=torch.channels_last).flip(3),
    ):
        batch.gradient = gradient.contiguous()
        check(batch, run(batch, gradient))


def test_what_is_frozen_costs_no_kernel(hostile: HostileInterpreter) -> None:
    batch = case(8)
    region = norm_op("tests::norm", batch.geometry, NORM_LAUNCHES)
    region(batch.z, batch.sums, batch.norm, batch.residual).backward(batch.gradient)
    assert hostile.launches == ["norm_statistics", "norm_forward", "norm_gradient_sums"]
    assert batch.norm.weight.grad is not None
    for parameter in batch.norm.parameters():
        parameter.requires_grad_(False)
    hostile.launches.clear()
    z = batch.z.requires_grad_()
    region(z, batch.sums, batch.norm, batch.residual).backward(batch.gradient)
    assert hostile.launches[2:] == ["norm_gradient_sums", "norm_input_gradient"]


# ── as PyTorch sees the operators ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("index", [3, 7, 8, 10])
def test_opcheck(index: int) -> None:
    batch = case(index)
    norm_op("tests::checked_norm", batch.geometry, NORM_LAUNCHES)
    channels = batch.geometry.channels
    mean, inverse = torch.zeros(channels), torch.ones(channels)
    norm = batch.norm
    inputs = (batch.z.requires_grad_(), mean, inverse, norm.weight, norm.bias, batch.residual)
    torch.library.opcheck(torch.ops.tests.checked_norm.default, inputs)
    torch.library.opcheck(
        torch.ops.tests.checked_norm_statistics.default,
        (batch.sums, norm.running_mean, norm.running_var, 0.1, batch.z[:, 0].numel(), 1e-5),
    )


def test_torch_compile() -> None:
    conv = Case(conv_geometry(2, 3, 3, pad=1, statistics=True), (2, 5, 4))
    sum_op = conv_op("tests::compiled_sum", conv.geometry, LAUNCHES)
    region = norm_op("tests::compiled_norm", norm_geometry(3, **RELU), NORM_LAUNCHES)
    results = []

    def whole(x: Any, weight: Any, bias: Any, norm: Any) -> Any:
        z, sums = sum_op(x, weight, bias)
        return region(z, sums, norm)

    for function in (whole, torch.compile(whole, fullgraph=True, backend="aot_eager")):
        norm = torch.nn.BatchNorm2d(3)
        leaves = [t.detach().clone().requires_grad_() for t in conv.given[:3]]
        y = function(*leaves, norm)
        y.backward(conv.gradient)
        gradients = [leaf.grad for leaf in leaves]
        results.append([y.detach(), *gradients, norm.weight.grad, *norm.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_parameters_in_16_bits(hostile: HostileInterpreter) -> None:
    batch = case(8, dtype=torch.bfloat16)
    norm, z = copied(batch.norm, torch.bfloat16), batch.z.requires_grad_()
    y = norm_op("tests::norm", batch.geometry, NORM_LAUNCHES)(z, batch.sums, norm, batch.residual)
    y.backward(batch.gradient)
    assert y.dtype == torch.bfloat16
    assert norm.running_mean is not None
    assert norm.running_mean.dtype == torch.bfloat16
    assert norm.weight.grad is not None
    assert norm.weight.grad.dtype == torch.bfloat16
