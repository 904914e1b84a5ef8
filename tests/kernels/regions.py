"""Regions to test, what PyTorch says of them in float64, and how far a kernel may be from it."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from cnndsl.kernels.conv import conv_launch_forward, conv_launch_windows
from cnndsl.kernels.conv_bias_gradient import conv_launch_bias_gradient
from cnndsl.kernels.conv_input_gradient import conv_launch_input_gradient
from cnndsl.kernels.conv_unpool import conv_launch_unpool
from cnndsl.kernels.conv_weight_gradient import conv_launch_weight_gradient
from cnndsl.kernels.fc import fc_launch_activate, fc_launch_forward
from cnndsl.kernels.fc_gradients import (
    fc_launch_bias_gradient,
    fc_launch_input_gradient,
    fc_launch_slope,
    fc_launch_weight_gradient,
)
from torch import Tensor

from cnndsl.rt.conv_geometry import ConvGeometry, conv_sizes
from cnndsl.rt.conv_operator import ConvLaunches, conv_op
from cnndsl.rt.fc_operator import FcLaunches

LAUNCHES = ConvLaunches(
    forward=conv_launch_forward,
    input_gradient=conv_launch_input_gradient,
    weight_gradient=conv_launch_weight_gradient,
    bias_gradient=conv_launch_bias_gradient,
    unpool=conv_launch_unpool,
    windows=conv_launch_windows,
)
FC_LAUNCHES = FcLaunches(
    forward=fc_launch_forward,
    activate=fc_launch_activate,
    slope=fc_launch_slope,
    input_gradient=fc_launch_input_gradient,
    weight_gradient=fc_launch_weight_gradient,
    bias_gradient=fc_launch_bias_gradient,
)
UNIT = {
    torch.float64: 2.0**-53,
    torch.float32: 2.0**-24,
    torch.float16: 2.0**-11,
    torch.bfloat16: 2.0**-8,
}


def conv_geometry(channels: int, filters: int, kernel: Any, **given: Any) -> ConvGeometry:
    """Fill a geometry in as the emitter does: pairs from numbers, and the fields that follow."""
    pairs = ("stride", "pad", "dilation", "pool_size", "pool_stride", "pool_pad", "pool_dilation")
    if "pool_size" in given:
        given.setdefault("pool", "max")
        given.setdefault("pool_stride", given["pool_size"])
    for name in pairs:
        if isinstance(given.get(name), int):
            given[name] = (given[name], given[name])
    if "scale" in given:
        given["scale"] = "sum" if given["scale"] is True else given["scale"]
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    g = ConvGeometry(channels, filters, kernel, **given)
    plain = g.pool_pad == (0, 0) and g.pool_dilation == (1, 1) and not g.ceil
    if g.pool == "none":
        window = "one"
    elif g.pool_size == g.pool_stride == (2, 2) and plain:
        window = "quad"
    else:
        window = "loop"
    taps = "packed" if channels // g.groups < 16 else "apart"
    is_large = g.kernel[0] * g.kernel[1] * channels > 64
    if 2 <= channels <= 4 and is_large and g.groups == 1 and g.dilation == (1, 1):
        taps = "rows"
    return g._replace(window=window, taps=taps)


class Result(NamedTuple):
    """An output and the gradients of all that was given; None where there is none."""

    y: Tensor
    dx: Tensor | None
    dweight: Tensor | None
    dbias: Tensor | None
    dscale: Tensor | None
    dresidual: Tensor | None


@dataclass
class Case:
    """A region with its tensors, made from a seed."""

    geometry: ConvGeometry
    shape: tuple[int, int, int]  # batch, height, width
    dtype: torch.dtype = torch.float32
    whole: bool = False  # whole numbers: sums are exact, and ties are many
    seed: int = 0
    x: Tensor = field(init=False)
    weight: Tensor = field(init=False)
    bias: Tensor | None = field(init=False, default=None)
    scale: Tensor | None = field(init=False, default=None)
    residual: Tensor | None = field(init=False, default=None)
    gradient: Tensor = field(init=False)

    def __post_init__(self) -> None:
        g, (batch, height, width) = self.geometry, self.shape
        torch.manual_seed(self.seed)
        self.x = self.draw(batch, g.channels, height, width)
        self.weight = self.draw(g.filters, g.channels // g.groups, *g.kernel)
        if g.bias:
            self.bias = self.draw(g.filters)
        if g.scale != "none":
            self.scale = self.draw(g.filters)
        sizes = conv_sizes(g, height, width)
        shape = (batch, g.filters, sizes.out_height, sizes.out_width)
        if g.residual:
            self.residual = self.draw(*shape)
        self.gradient = self.draw(*shape)

    @property
    def given(self) -> list[Tensor | None]:
        return [self.x, self.weight, self.bias, self.scale, self.residual]

    def draw(self, *shape: int) -> Tensor:
        if self.whole:
            return torch.randint(-1, 2, shape).to(self.dtype)
        return torch.randn(shape).to(self.dtype)


def reference(
    g: ConvGeometry,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Give the sum before pool and activation, and the output, by PyTorch's own operators.

    ReLU stands for every activation, as in the kernels whose holes are not filled.
    """
    z = F.conv2d(x, weight, None, g.stride, g.pad, g.dilation, g.groups)
    if scale is not None and g.scale == "sum":
        z = z * scale[:, None, None]
    y = z
    if scale is not None and g.scale == "pool":
        y = pooled(g, z) * scale[:, None, None]
    if bias is not None:
        y = y + bias[:, None, None]
    if residual is not None:
        y = y + residual
    if g.activation != "none":
        y = y.relu()
    return z, y if g.scale == "pool" else pooled(g, y)


def pooled(g: ConvGeometry, y: Tensor) -> Tensor:
    if g.pool == "max":
        return F.max_pool2d(y, g.pool_size, g.pool_stride, g.pool_pad, g.pool_dilation, g.ceil)
    if g.pool == "average":
        return F.avg_pool2d(y, g.pool_size, g.pool_stride, g.pool_pad, g.ceil, g.count_pad)
    return y


def ours(
    case: Case,
    gradient: Tensor | None = None,
    name: str = "tests::region",
    launches: ConvLaunches = LAUNCHES,
) -> Result:
    """Run the kernels, forward and backward."""
    region = conv_op(name, case.geometry, launches)
    leaves = [None if t is None else t.detach().clone().requires_grad_() for t in case.given]
    y = region(*leaves)
    y.backward(case.gradient if gradient is None else gradient)
    return Result(y.detach(), *(None if t is None else t.grad for t in leaves))


def double(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().double().requires_grad_()


def expected(case: Case) -> tuple[Result, Tensor]:
    """Compute the same in float64, and the sum of all |gradient| that comes to a pixel."""
    leaves = [double(t) for t in case.given]
    z, y = reference(case.geometry, *leaves)
    z.retain_grad()
    y.backward(case.gradient.double(), retain_graph=True)
    result = Result(y.detach(), *(None if t is None else t.grad.clone() for t in leaves))
    z.grad = None
    y.backward(case.gradient.double().abs())
    if case.geometry.scale == "pool":
        assert case.scale is not None
        z.grad /= case.scale.double().abs()[:, None, None]  # for one scaled before the pool
    return result, z.grad


def bounds(case: Case, dz: Tensor, mma: float = 0.0) -> Result:
    """Say how far each result may be off.

    (4·2⁻²⁴·√K + 2.5·u_mma)·Σ|a||b| + u_out·|result|, where K counts the terms of a sum; the last
    part is added by `worst`. (In float64 2⁻⁵³, and as much again for what it is compared with.) In
    16 bits the gradient before the pool is rounded once where it is divided (an average) or written
    (for a library), and the weight where it is scaled, as in
    PyTorch's own chain.
    """
    g = case.geometry
    x, weight = case.x.double().abs(), case.weight.double().abs()
    scale = torch.ones(g.filters).double() if case.scale is None else case.scale.double().abs()
    bias = torch.zeros(g.filters).double() if case.bias is None else case.bias.double().abs()
    taps = g.kernel[0] * g.kernel[1]
    many = 1 + g.pool_size[0] * g.pool_size[1]
    # Not-a-numbers and infinities are compared for themselves, not for their distance.
    x, weight, dz = (torch.nan_to_num(t, 0.0, 0.0, 0.0) for t in (x, weight, dz.abs()))
    is_rounded = g.pool == "average" or g.scale != "none" or g.backward == "library"
    rounded = UNIT[case.dtype] if is_rounded else 0.0

    def coefficient(terms: int, extra: float = 0.0) -> float:
        added = 2 * UNIT[case.dtype] if case.dtype == torch.float64 else UNIT[torch.float32]
        return 4 * added * terms**0.5 + 2.5 * mma + extra

    magnitude = F.conv2d(x, weight, None, g.stride, g.pad, g.dilation, g.groups)
    magnitude = magnitude * scale[:, None, None] + bias[:, None, None]
    if case.residual is not None:
        magnitude = magnitude + case.residual.double().abs()
    y = coefficient(taps * g.channels // g.groups + 3) * pooled(g, magnitude)
    xg, wg = x.requires_grad_(), (weight * scale[:, None, None, None]).requires_grad_()
    z = F.conv2d(xg, wg, None, g.stride, g.pad, g.dilation, g.groups)
    z.backward(dz)
    assert xg.grad is not None
    assert wg.grad is not None
    terms = dz.numel() // g.filters * many
    dx = coefficient(taps * g.filters // g.groups * many, rounded) * xg.grad
    raw = coefficient(terms, rounded) * wg.grad
    dscale = (raw * weight).sum((1, 2, 3))
    dweight = raw * scale[:, None, None, None]
    dbias = coefficient(terms) * dz.sum((0, 2, 3))
    return Result(y, dx, dweight, dbias, dscale, torch.zeros_like(y))


def worst(found: Tensor, wanted: Tensor, bound: Tensor) -> float:
    """Give the largest error in units of what is allowed: right if at most 1."""
    assert found.shape == wanted.shape
    if found.numel() == 0:
        return 0.0
    special = ~torch.isfinite(wanted)
    same = torch.where(torch.isnan(wanted), torch.isnan(found), found.double() == wanted)
    if not bool(same[special].all()) or not bool(torch.isfinite(found[~special]).all()):
        return float("inf")
    bound = bound + UNIT[found.dtype] * wanted.abs() + 1e-40
    if found.dtype == torch.float16:
        bound = bound + 2.0**-25  # half of the least subnormal
    error = (found.double() - wanted).abs()
    return float(torch.where(special, 0.0, error / bound).max())


def check(case: Case, found: Result | None = None, mma: float = 0.0) -> dict[str, float]:
    """Compare output and gradients with float64, each against its bound."""
    found = ours(case) if found is None else found
    wanted, dz = expected(case)
    allowed = bounds(case, dz, mma)
    errors = {}
    for name in Result._fields:
        a, b, c = getattr(found, name), getattr(wanted, name), getattr(allowed, name)
        assert (a is None) == (b is None), name
        if a is not None:
            errors[name] = worst(a, b, c)
    assert max(errors.values()) <= 1, errors
    return errors
