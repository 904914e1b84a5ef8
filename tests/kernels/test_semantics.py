"""What PyTorch does at the edges: NaN, infinities, no images, odd gradients, frozen weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cnndsl.rt.conv_geometry import ConvGeometry
from cnndsl.rt.conv_operator import conv_op, conv_outputs

from .hostile import HostileInterpreter
from .regions import LAUNCHES, Case, Result, check, conv_geometry, ours, reference

# Lanes that are not stored multiply an infinity by a masked zero; numpy says so.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")

POOLS: list[dict[str, Any]] = [
    {},
    {"pool_size": 2},
    {"pool_size": 3, "pool_stride": 2, "pool_pad": 1},
    {"pool": "average", "pool_size": 2},
    {"pool": "average", "pool_size": 3, "pool_stride": 2, "pool_pad": 1},
]


def small(pool: dict[str, Any], activation: str = "relu", **given: Any) -> ConvGeometry:
    return conv_geometry(2, 3, 3, pad=1, activation=activation, **pool, **given)


def pytorch(case: Case) -> Result:
    """Run the region by PyTorch's own operators, in the case's own type."""
    leaves = [None if t is None else t.detach().clone().requires_grad_() for t in case.given]
    _, y = reference(case.geometry, *leaves)
    y.backward(case.gradient)
    return Result(y.detach(), *(None if t is None else t.grad for t in leaves))


@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize("pool", POOLS)
def test_nan_goes_through(pool: dict[str, Any], activation: str) -> None:
    case = Case(small(pool, activation), (1, 6, 4), whole=True)
    case.x[0, 0, 2, 3] = float("nan")
    case.x[0, 1, 5, 0] = float("nan")
    found, wanted = ours(case), pytorch(case)
    assert torch.isnan(wanted.y).any()
    for name, mine, theirs in zip(Result._fields, found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, equal_nan=True, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("pool", POOLS[1:])
def test_an_infinite_gradient_stays_with_its_pixel(pool: dict[str, Any]) -> None:
    """Infinity times the 0 of a pixel that lost, or is dead, would be NaN."""
    case = Case(small(pool), (1, 6, 4))
    assert case.bias is not None
    case.weight[0], case.bias[0] = 0.0, -1.0  # all dead
    case.gradient[0, :, 1, 1] = float("inf")
    found, wanted = ours(case), pytorch(case)
    assert wanted.dbias is not None
    assert wanted.dbias[0] == 0
    for name in ("y", "dx", "dbias"):
        mine, theirs = getattr(found, name), getattr(wanted, name)
        torch.testing.assert_close(mine, theirs, equal_nan=True, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("pool", POOLS)
def test_zero_has_no_gradient(pool: dict[str, Any], hostile: HostileInterpreter) -> None:
    """A channel that is exactly zero before ReLU: the slope is 0 there, as in PyTorch."""
    case = Case(small(pool), (2, 6, 5))
    assert case.bias is not None
    case.weight[0], case.bias[0] = 0.0, 0.0
    check(case)


def codes(case: Case) -> Tensor:
    """Give the bytes that forward keeps."""
    name = "tests::codes"
    conv_op(name, case.geometry, LAUNCHES)
    return torch.ops.tests.codes(*case.given)[1]


@pytest.mark.parametrize("pool", POOLS[1:3])
@pytest.mark.parametrize("value", [float("nan"), float("-inf"), float("inf"), 1.0])
def test_the_winner_of_equals(pool: dict[str, Any], value: float) -> None:
    """The last NaN of a window, the first of everything else; never a pixel of the padding."""
    case = Case(conv_geometry(1, 1, 1, bias=False, **pool), (1, 5, 6))
    case.x[:], case.weight[:] = value, 1.0
    kept = codes(case)
    indices = torch.nn.functional.max_pool2d_with_indices(
        case.x, case.geometry.pool_size, case.geometry.pool_stride, case.geometry.pool_pad
    )[1]
    (pad, _), (stride, _), size = (
        case.geometry.pool_pad,
        case.geometry.pool_stride,
        case.geometry.pool_size[1],
    )
    code = kept.long() - 1
    rows = torch.arange(code.shape[2])[:, None] * stride - pad + code // size
    columns = torch.arange(code.shape[3]) * stride - pad + code % size
    torch.testing.assert_close(rows * 6 + columns, indices)


def test_minus_infinity_is_dead_after_relu() -> None:
    case = Case(conv_geometry(1, 1, 1, bias=False, activation="relu", pool_size=2), (1, 4, 4))
    case.x[:], case.weight[:] = float("-inf"), 1.0
    assert codes(case).eq(0).all()


@pytest.mark.parametrize("pool", POOLS)
def test_no_images(pool: dict[str, Any]) -> None:
    case = Case(small(pool, scale=True), (0, 6, 6))
    found = ours(case)
    assert found.y.shape == pytorch(case).y.shape
    assert found.dx is not None
    assert found.dx.shape == case.x.shape
    for gradient in found[2:5]:
        assert gradient is not None
        assert gradient.eq(0).all()


@pytest.mark.parametrize("pool", POOLS[:2])
def test_the_same_input_gives_the_same_bits(pool: dict[str, Any]) -> None:
    case = Case(small(pool, scale=True), (2, 7, 8))
    first, second = ours(case), ours(case)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True) if a is not None)


def expanded(gradient: Tensor) -> Tensor:
    return torch.tensor(0.5).expand(gradient.shape)


def view(gradient: Tensor) -> Tensor:
    return torch.cat([gradient, gradient], 1)[:, 1 : 1 + gradient.shape[1]]


def turned(gradient: Tensor) -> Tensor:
    return gradient.flip(3).transpose(2, 3).contiguous().transpose(2, 3)


@pytest.mark.parametrize("arrive", [expanded, view, turned])
@pytest.mark.parametrize("pool", POOLS[:3])
def test_gradients_of_any_strides(
    pool: dict[str, Any], arrive: Any, hostile: HostileInterpreter
) -> None:
    case = Case(small(pool), (2, 6, 5))
    gradient = arrive(case.gradient)
    case.gradient = gradient.contiguous()
    check(case, ours(case, gradient))


@pytest.mark.parametrize("pool", POOLS[:2])
def test_images_of_any_strides(pool: dict[str, Any], hostile: HostileInterpreter) -> None:
    case = Case(small(pool), (2, 6, 5))
    plain = ours(case)
    case.x = case.x.contiguous(memory_format=torch.channels_last)
    last = ours(case)
    case.x = torch.cat([case.x, case.x], 3)[..., 2:7].roll(2, 3)
    case.weight = case.weight.flip(0).contiguous(memory_format=torch.channels_last).flip(0)
    check(case)
    assert all(torch.equal(a, b) for a, b in zip(plain, last, strict=True) if a is not None)


def test_channels_last_is_used_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(small(POOLS[1]), (2, 6, 5))
    x = case.x.contiguous(memory_format=torch.channels_last)
    seen: list[int] = []
    real = LAUNCHES.forward

    def launch(geometry: ConvGeometry, x: Tensor, *rest: Any) -> None:
        seen.append(x.contiguous(memory_format=torch.channels_last).data_ptr())
        real(geometry, x, *rest)

    run = conv_op("tests::layout", case.geometry, LAUNCHES._replace(forward=launch))
    y = run(x, case.weight, case.bias)
    assert seen == [x.data_ptr()]
    assert y.is_contiguous(memory_format=torch.channels_last)


FROZEN = [
    ((True, True, True), ["conv_bias_gradient", "conv_input_gradient", "conv_weight_gradient"]),
    ((False, True, True), ["conv_bias_gradient", "conv_weight_gradient"]),
    ((True, False, False), ["conv_input_gradient"]),
    ((False, False, True), ["conv_bias_gradient"]),
    ((False, True, False), ["conv_weight_gradient"]),
]


@pytest.mark.parametrize(("needed", "kernels"), FROZEN)
def test_what_is_frozen_costs_no_kernel(
    needed: tuple[bool, ...], kernels: list[str], hostile: HostileInterpreter
) -> None:
    case = Case(small(POOLS[1]), (1, 4, 4))
    run = conv_op("tests::frozen", case.geometry, LAUNCHES)
    leaves = [
        t.clone().requires_grad_(need)
        for t, need in zip((case.x, case.weight, case.bias), needed, strict=True)
        if t is not None
    ]
    run(*leaves).backward(case.gradient)
    assert hostile.launches == ["conv_forward", *kernels]
    assert [leaf.grad is not None for leaf in leaves] == list(needed)


def saved_bytes(code: Any) -> int:
    """Count what autograd keeps, each piece of memory once."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        code()
    return sum(kept.values())


def test_saved_for_backward() -> None:
    """The input, the weight, a byte a window; eager saves the sum twice, and 64-bit indices."""
    geometry = conv_geometry(4, 16, 3, pad=1, activation="relu", pool_size=2)
    case = Case(geometry, (2, 8, 8))
    x = case.x.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = case.weight.contiguous(memory_format=torch.channels_last).requires_grad_()
    assert case.bias is not None
    run = conv_op("tests::saved", geometry, LAUNCHES)
    mine = saved_bytes(lambda: run(x, weight, case.bias))
    windows = 2 * 16 * 4 * 4
    assert mine == 4 * (x.numel() + weight.numel()) + windows

    def eager() -> None:
        y = torch.nn.functional.conv2d(x, weight, case.bias, padding=1).relu()
        torch.nn.functional.max_pool2d(y, 2)

    inputs = 4 * (x.numel() + weight.numel())
    assert saved_bytes(eager) - inputs > 20 * (mine - inputs)


def test_saved_without_a_pool() -> None:
    case = Case(conv_geometry(4, 16, 3, pad=1, activation="relu"), (2, 8, 8))
    x = case.x.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = case.weight.contiguous(memory_format=torch.channels_last).requires_grad_()
    run = conv_op("tests::saved", case.geometry, LAUNCHES)
    assert saved_bytes(lambda: run(x, weight, case.bias)) == 4 * (
        x.numel() + weight.numel() + case.gradient.numel()
    )


def test_errors_come_before_the_launch(hostile: HostileInterpreter) -> None:
    case = Case(small({}), (1, 4, 4))
    run = conv_op("tests::errors", case.geometry, LAUNCHES)
    with pytest.raises(TypeError, match="complex64"):
        run(case.x.to(torch.complex64), case.weight.to(torch.complex64), case.bias)
    with pytest.raises(TypeError, match=r"x is torch.float16, weight torch.float32"):
        run(case.x.half(), case.weight, case.bias)
    with pytest.raises(ValueError, match="takes a bias"):
        run(case.x, case.weight)
    with pytest.raises(ValueError, match=r"not \(N, 2, H, W\)"):
        run(case.x[:, :1], case.weight, case.bias)
    with pytest.raises((ValueError, RuntimeError), match="meta"):
        run(case.x, case.weight.to("meta"), case.bias)
    with pytest.raises(ValueError, match="too small"):
        conv_op("tests::errors", small({"pool_size": 5}), LAUNCHES)(case.x, case.weight, case.bias)
    assert hostile.launches == []


def test_a_second_derivative_is_pytorchs() -> None:
    case = Case(conv_geometry(2, 3, 3, pad=1), (1, 4, 4))
    run = conv_op("tests::second", case.geometry, LAUNCHES)

    def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv2d(x, weight, bias, padding=1)

    def second(function: Callable[..., Tensor]) -> Tensor:
        x, weight = (t.detach().clone().requires_grad_() for t in (case.x, case.weight))
        y = function(x, weight, case.bias)
        (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), weight)[0]

    torch.testing.assert_close(second(run), second(plain), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        (conv_geometry(1, 1, 1, pool_size=16), "256 pixels"),
        (conv_geometry(1, 1, 1, pool="average", pool_size=6, activation="relu"), "36 bits"),
        (conv_geometry(3, 4, 1, groups=2), "groups"),
        (conv_geometry(1, 1, 1, pool_size=2, residual=True), "residual has no pool"),
        (conv_geometry(1, 1, 1, forward="libary"), "no way forward named 'libary'"),
        (conv_geometry(1, 1, 1, backward="staged"), "no way backward named 'staged'"),
        (conv_geometry(2, 2, 1, groups=2, forward="staged"), "several groups is not staged"),
        (conv_geometry(1, 1, 1, pool="average", pool_size=2, scale="pool"), "needs a maximum"),
        (conv_geometry(1, 1, 1, pool="average", pool_size=2, activation="output"), "only ReLU"),
    ],
)
def test_regions_that_no_kernel_computes(geometry: ConvGeometry, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conv_op("tests::refused", geometry, LAUNCHES)


def test_a_large_window_still_fits_a_byte() -> None:
    check(Case(conv_geometry(1, 2, 1, pool_size=(3, 85), pool_stride=1), (1, 3, 85)))


def test_averages_of_many_positions_keep_more_bits() -> None:
    geometry = conv_geometry(1, 2, 1, pool="average", pool_size=(3, 3), activation="relu")
    x, weight, bias = torch.zeros(1, 1, 6, 6), torch.zeros(2, 1, 1, 1), torch.zeros(2)
    outputs = conv_outputs(geometry, LAUNCHES, x, weight, bias, None, None)
    assert outputs.code is not None
    assert outputs.code.dtype == torch.int32
