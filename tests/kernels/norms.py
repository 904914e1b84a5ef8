"""Batchnorms in training to test, alone or behind a convolution, and how far off they may be."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from cnndsl.kernels.norm import norm_launch_forward
from cnndsl.kernels.norm_input_gradient import norm_launch_input_gradient
from cnndsl.kernels.norm_statistics import norm_launch_statistics
from cnndsl.kernels.norm_sums import norm_launch_gradient_sums
from torch import Tensor, nn

from cnndsl.rt.conv_geometry import ConvGeometry
from cnndsl.rt.conv_operator import conv_op
from cnndsl.rt.norm_operator import NormGeometry, NormLaunches, norm_op

from .regions import LAUNCHES, UNIT, Case, pooled, worst

NORM_LAUNCHES = NormLaunches(
    statistics=norm_launch_statistics,
    forward=norm_launch_forward,
    gradient_sums=norm_launch_gradient_sums,
    input_gradient=norm_launch_input_gradient,
)


def norm_geometry(channels: int, **given: Any) -> NormGeometry:
    """Fill a geometry in as the emitter does: pairs from numbers."""
    if "pool_size" in given:
        given.setdefault("pool", "max")
        given.setdefault("pool_stride", given["pool_size"])
    for name in ("pool_size", "pool_stride", "pool_pad", "pool_dilation"):
        if isinstance(given.get(name), int):
            given[name] = (given[name], given[name])
    return NormGeometry(channels, **given)


class Found(NamedTuple):
    """An output, running statistics and gradients; None where there is none."""

    y: Tensor
    running_mean: Tensor
    running_var: Tensor
    dz: Tensor
    dweight: Tensor | None
    dbias: Tensor | None
    dresidual: Tensor | None


@dataclass
class NormCase:
    """A batchnorm in training with its tensors, made from a seed."""

    geometry: NormGeometry
    shape: tuple[int, int, int]  # batch, height, width
    dtype: torch.dtype = torch.float32
    seed: int = 0
    center: float = 0.0
    tile: int = 16
    z: Tensor = field(init=False)
    norm: nn.BatchNorm2d = field(init=False)
    residual: Tensor | None = field(init=False, default=None)
    gradient: Tensor = field(init=False)

    def __post_init__(self) -> None:
        g, (batch, height, width) = self.geometry, self.shape
        torch.manual_seed(self.seed)
        self.z = (torch.randn(batch, g.channels, height, width) + self.center).to(self.dtype)
        self.norm = new_norm(g)
        if g.residual:
            self.residual = torch.randn(self.z.shape).to(self.dtype)
        with torch.no_grad():
            y = pooled(g, self.z)
        self.gradient = torch.randn(y.shape).to(self.dtype)

    @property
    def sums(self) -> Tensor:
        """What the kernel before would have written of z."""
        values = self.z.detach().float().permute(0, 2, 3, 1).flatten(0, 2)
        tiles = values.split(self.tile)
        rows = [
            torch.stack([torch.full_like(t[0], len(t)), t.mean(0), t.var(0, False) * len(t)])
            for t in tiles
        ]
        return torch.stack(rows)


def new_norm(g: NormGeometry) -> nn.BatchNorm2d:
    """Make a batchnorm of which each part matters."""
    norm = nn.BatchNorm2d(g.channels, affine=g.affine, eps=1e-3, momentum=0.3)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.uniform_(-0.5, 0.5)
    norm.running_var.uniform_(0.5, 2.0)
    if g.affine:
        with torch.no_grad():
            norm.weight.normal_()
            norm.bias.normal_()
    return norm


def copied(norm: nn.BatchNorm2d, dtype: torch.dtype | None = None) -> nn.BatchNorm2d:
    twin = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum, norm.affine)
    twin.load_state_dict(norm.state_dict())
    return twin if dtype is None else twin.to(dtype)


def after(g: NormGeometry, norm: nn.BatchNorm2d, z: Tensor, residual: Tensor | None) -> Tensor:
    """Do what the region does, by PyTorch's own operators; ReLU stands for every activation."""
    u = norm(z)
    if residual is not None:
        u = u + residual
    if g.activation != "none":
        u = u.relu()
    return pooled(g, u)


def parameters(norm: nn.BatchNorm2d) -> list[Tensor | None]:
    found = (norm.weight, norm.bias)
    return [None if p is None else p.grad for p in found]


def leaf(tensor: Tensor | None, dtype: torch.dtype | None = None) -> Tensor | None:
    return None if tensor is None else tensor.detach().clone().to(dtype).requires_grad_()


def run(
    case: NormCase, gradient: Tensor | None = None, launches: NormLaunches = NORM_LAUNCHES
) -> Found:
    """Run the kernels, forward and backward."""
    region = norm_op("tests::norm", case.geometry, launches)
    norm, z, residual = copied(case.norm), leaf(case.z), leaf(case.residual)
    y = region(z, case.sums, norm, residual)
    y.backward(case.gradient if gradient is None else gradient)
    statistics = (norm.running_mean, norm.running_var)
    last = None if residual is None else residual.grad
    return Found(y.detach(), *statistics, z.grad, *parameters(norm), last)


def expected(case: NormCase) -> Found:
    """Compute the same in float64."""
    norm, z, residual = copied(case.norm, torch.float64), leaf(case.z, torch.float64), None
    residual = leaf(case.residual, torch.float64)
    y = after(case.geometry, norm, z, residual)
    y.backward(case.gradient.double())
    last = None if residual is None else residual.grad
    return Found(y.detach(), norm.running_mean, norm.running_var, z.grad, *parameters(norm), last)


def arriving(
    g: NormGeometry, norm: nn.BatchNorm2d, z: Tensor, residual: Any, gradient: Tensor
) -> Any:
    """Give n, 1/√(variance + eps), weight and bias in float64, and g: the gradient before."""
    z = z.double()
    mean, var = z.mean((0, 2, 3), True), z.var((0, 2, 3), False, True)
    inverse = 1 / (var + norm.eps).sqrt()
    n = (z - mean) * inverse
    weight = torch.ones(g.channels) if norm.weight is None else norm.weight.detach()
    bias = torch.zeros(g.channels) if norm.bias is None else norm.bias.detach()
    weight, bias = (v.double()[:, None, None] for v in (weight, bias))
    u = (n * weight + bias).requires_grad_()
    v = u if residual is None else u + residual.double()
    pooled(g, v if g.activation == "none" else v.relu()).backward(gradient.double())
    return n, inverse, weight, bias, u.grad


def average(tensor: Tensor) -> Tensor:
    return tensor.mean((0, 2, 3), True)


def bounds(
    g: NormGeometry,
    norm: nn.BatchNorm2d,
    z: Tensor,
    residual: Tensor | None,
    gradient: Tensor,
    off: Tensor | float = 0.0,
) -> Found:
    """Say how far each result may be off, to first order, where z may be off by `off`.

    Each sum of K terms is off by 4·2⁻²⁴·√K·Σ|terms|, as everywhere; the mean moves n by that much
    of the mean |z|, and what moves n moves the rest by the derivative of the formulas.
    """
    n, inverse, weight, bias, dn = arriving(g, norm, z, residual, gradient)
    values = z.shape[0] * z.shape[2] * z.shape[3]
    c = 4 * 2.0**-24 * values**0.5
    off = torch.zeros_like(n) + off
    moved = off + average(off) + c * average(z.double().abs())
    stretched = average(n.abs() * inverse * moved) + c  # of inverse, relative
    dnormal = inverse * moved + n.abs() * stretched
    weight, dn, n = weight.abs(), dn.abs(), n.abs()
    extra = 0.0 if residual is None else residual.double().abs()
    u = weight * dnormal + c * (weight * n + bias.abs() + extra)
    y = (
        F.max_pool2d(u, g.pool_size, g.pool_stride, g.pool_pad, g.pool_dilation, g.ceil)
        if g.pool == "max"
        else pooled(g, u)
    )
    dbias = c * dn.sum((0, 2, 3))
    dweight = (c * dn * n + dn * dnormal).sum((0, 2, 3))
    inner = c * (dn + average(dn) + n * average(dn * n))
    inner = inner + dnormal * average(dn * n) + n * average(dn * dnormal)
    dz = weight * inverse * (inner + (dn + average(dn) + n * average(dn * n)) * stretched)
    mean = average(z.double().abs()).flatten() * c + average(off).flatten()
    spread = z.double().var((0, 2, 3))
    var = 2 * spread * stretched.flatten() + c * spread + 2.0**-22
    return Found(y, mean + 2.0**-22, var, dz, dweight, dbias, torch.zeros_like(u))


def compare(found: NamedTuple, wanted: NamedTuple, allowed: NamedTuple) -> dict[str, float]:
    errors = {}
    for name, a, b, c in zip(found._fields, found, wanted, allowed, strict=True):
        assert (a is None) == (b is None), name
        if a is not None:
            errors[name] = worst(a, b, c)
    assert max(errors.values()) <= 1, errors
    return errors


def check(case: NormCase, found: Found | None = None) -> dict[str, float]:
    """Compare all results with float64, each against its bound."""
    found = run(case) if found is None else found
    allowed = bounds(case.geometry, case.norm, case.z, case.residual, case.gradient)
    return compare(found, expected(case), allowed)


# ── behind a convolution ─────────────────────────────────────────────────────────────────────────


class Whole(NamedTuple):
    """The same of a convolution and the batchnorm behind it."""

    y: Tensor
    running_mean: Tensor
    running_var: Tensor
    dx: Tensor
    dkernel: Tensor
    dweight: Tensor | None
    dbias: Tensor | None
    dresidual: Tensor | None


def check_whole(
    conv: ConvGeometry,
    g: NormGeometry,
    shape: tuple[int, int, int],
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> dict[str, float]:
    """Run a convolution with statistics and its batchnorm; compare all with float64."""
    case = Case(conv._replace(statistics=True), shape, dtype=dtype, seed=seed)
    norm = new_norm(g)
    sum_op = conv_op("tests::sum", case.geometry, LAUNCHES)
    region = norm_op("tests::norm", g, NORM_LAUNCHES)
    given = [leaf(t) for t in (case.x, case.weight, case.bias)]
    residual = torch.randn(case.gradient.shape).to(dtype) if g.residual else None
    mine, added = copied(norm), leaf(residual)
    z, sums = sum_op(*given)
    y = region(z, sums, mine, added)
    gradient = torch.randn(y.shape).to(dtype)
    y.backward(gradient)
    last = None if added is None else added.grad
    found = Whole(
        y.detach(),
        mine.running_mean,
        mine.running_var,
        given[0].grad,
        given[1].grad,
        *parameters(mine),
        last,
    )
    theirs = [leaf(t, torch.float64) for t in (case.x, case.weight, case.bias)]
    twin, added = copied(norm, torch.float64), leaf(residual, torch.float64)
    before = F.conv2d(*theirs, conv.stride, conv.pad, conv.dilation, conv.groups)
    before.retain_grad()
    exact = pooled(conv, before)
    y = after(g, twin, exact, added)
    y.backward(gradient.double())
    last = None if added is None else added.grad
    wanted = Whole(
        y.detach(),
        twin.running_mean,
        twin.running_var,
        theirs[0].grad,
        theirs[1].grad,
        *parameters(twin),
        last,
    )
    # How far z may be off, and what that does to all that follows.
    x, kernel = (t.detach().abs().requires_grad_() for t in theirs[:2])
    terms = conv.kernel[0] * conv.kernel[1] * conv.channels // conv.groups
    magnitude = F.conv2d(x, kernel, None, conv.stride, conv.pad, conv.dilation, conv.groups)
    c = 4 * 2.0**-24 * (terms + 2) ** 0.5
    stored = UNIT[dtype] * exact.detach().abs()
    bias = 0.0 if case.bias is None else case.bias.double().abs()[:, None, None]
    off = pooled(conv, c * (magnitude.detach() + bias)) + stored
    allowed = bounds(g, norm, exact.detach(), residual, gradient, off)
    values = before.numel() // conv.filters
    c = 4 * 2.0**-24 * max(values, terms * conv.filters) ** 0.5 + UNIT[dtype]
    spread = allowed.dz if conv.pool == "none" else spread_out(conv, before.detach(), allowed.dz)
    magnitude.backward(c * before.grad.abs() + spread)
    limits = Whole(
        allowed.y,
        allowed.running_mean,
        allowed.running_var,
        x.grad,
        kernel.grad,
        allowed.dweight,
        allowed.dbias,
        allowed.dresidual,
    )
    return compare(found, wanted, limits)


def spread_out(conv: ConvGeometry, z: Tensor, gradient: Tensor) -> Tensor:
    z = z.requires_grad_()
    pooled(conv, z).backward(gradient)
    assert z.grad is not None
    return z.grad
