"""What PyTorch's own operators make of a trial in float64, and how far kernels may be from it.

Knows layers as an emitted region calls them; knows nothing of kernels.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnndsl.fuse.regions import Region
from cnndsl.fuse.ways import ruled
from cnndsl.layers.conv import Conv
from cnndsl.tune.built import Built, write
from cnndsl.tune.expected import UNITS, Expected, coefficient
from cnndsl.tune.task import Task
from cnndsl.tune.trial import Given

Untyped = Any


class Reference:
    """What each direction must give."""

    def __init__(self, task: Task, built: Built, tensors: Given) -> None:
        """Compute it, in both directions."""
        self._task, self._built, self._given = task, built, tensors
        searches = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = False  # in float64 a search takes minutes
        try:
            self._compute(task, built, tensors)
        finally:
            torch.backends.cudnn.benchmark = searches

    def _compute(self, task: Task, built: Built, tensors: Given) -> None:
        region, same = task.region, built
        if task.role == "sums":
            region = bare(region)
            same = Built(write(region, "whole", ruled(region, "whole")))
        leaves = [_double(t) for t in tensors.tensors[:5]]
        self._leaves = leaves
        layer, others = _modules(region, built, leaves)
        sums: list[Tensor] = []

        def note(_module: nn.Module, _given: object, z: Tensor) -> None:
            sums.append(z)

        hook = layer.register_forward_hook(note)
        with same.by_operators() as function:
            arguments = [leaves[0]] + ([leaves[4]] if leaves[4] is not None else [])
            self.y = cast("Tensor", function(*arguments, layer, *others))
        hook.remove()
        (self._z,) = sums
        self._z.retain_grad()
        torch.autograd.backward(self.y, tensors.gradient.double())
        self._layer, self._norm = layer, others[0] if others else None

    def forward(self) -> tuple[Expected, ...]:
        """The output; before a batchnorm also its mean and variance, of y as it is stored."""
        task, g = self._task, self._built.geometry
        y = self.y.detach()
        bound = coefficient(self._terms + 3) * self._magnitude() if self._is_exact else None
        if bound is None:
            # An activation that is no ReLU is computed to within a few units in the last place.
            bound = 16 * coefficient(self._terms + 3) * (self._magnitude() + y.abs())
        found = [Expected("y", y, bound)]
        if task.role == "sums":
            stored = y.to(self._given.x.dtype).double()
            mean = stored.mean((0, 2, 3))
            variance = stored.var((0, 2, 3), correction=0)
            close = 1e-4 + 2 * UNITS[self._given.x.dtype] * (g.pool != "none")
            spread = close * (variance.sqrt() + mean.abs() + 1e-6)
            found.append(Expected("mean", mean, spread))
            found.append(Expected("variance", variance, close * (variance + 1e-6) + spread))
        return tuple(found)

    def backward(self) -> tuple[Expected, ...]:
        """The gradients of x, weight and bias, and for a convolution of scale and residual."""
        g, given = self._built.geometry, self._given
        assert self._z.grad is not None
        dz = self._z.grad.detach()
        rounded, dz = 0.0, dz.abs() + (0.0 if self._is_exact else (dz != 0).double())
        if not self._is_exact:
            # Slopes, and shares of an average, are rounded; gradients are 1 at the most.
            rounded = max(2 * UNITS[given.x.dtype], 4e-6)
        # Σ|a||b| of each product.
        xa, wa = given.x.double().abs(), given.weight.double().abs()
        xa.requires_grad_()
        wa.requires_grad_()
        torch.autograd.backward(self._product(xa, wa), dz)
        assert xa.grad is not None
        assert wa.grad is not None
        many = dz.numel() // dz.shape[1]
        gradients = self._gradients()
        dx = coefficient(self._terms_back, rounded) * xa.grad
        dweight = coefficient(many, rounded) * wa.grad
        dbias = coefficient(many, rounded) * dz.sum((0, *range(2, dz.dim())))
        found = [
            Expected("dx", gradients[0] if given.needs[0] else None, dx),
            Expected("dweight", gradients[1], dweight),
            Expected("dbias", gradients[2], dbias),
        ]
        if not self._task.is_conv:
            return tuple(found)
        dscale = None
        if given.scale is not None and gradients[1] is not None:
            # A library rounds what is multiplied by the weight.
            raw = dweight + UNITS[given.x.dtype] * gradients[1].abs()
            dscale = (raw * wa.detach()).sum((1, 2, 3))
        found.append(Expected("dscale", gradients[3], dscale))
        keeps = given.residual is not None and g.activation != "none"
        place = rounded * torch.ones_like(self.y.detach()) if keeps else None
        found.append(Expected("dresidual", gradients[4] if keeps else None, place))
        return tuple(found)

    @property
    def _is_exact(self) -> bool:
        """Whether nothing but whole numbers is computed with."""
        g = self._built.geometry
        pool = getattr(g, "pool", "none")
        return g.activation in ("none", "relu") and pool != "average"

    @property
    def _terms(self) -> int:
        return self._given.weight[0].numel()

    @property
    def _terms_back(self) -> int:
        g = self._built.geometry
        pools = math.prod(getattr(g, "pool_size", (1,)))
        return self._given.weight.numel() // self._given.weight.shape[1] * (1 + pools)

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        g = self._built.geometry
        if not self._task.is_conv:
            return F.linear(x.flatten(1), weight)
        return F.conv2d(x, weight, None, g.stride, g.pad, g.dilation, g.groups)

    def _magnitude(self) -> Tensor:
        """Σ|x||weight|, brought to the output's shape by the largest of each window."""
        g = self._built.geometry
        found = self._product(self._given.x.double().abs(), self._given.weight.double().abs())
        if found.shape == self.y.shape:
            return found
        largest = F.max_pool2d(
            found, g.pool_size, g.pool_stride, g.pool_pad, g.pool_dilation, g.ceil
        )
        return largest[:, :, : self.y.shape[2], : self.y.shape[3]]

    def _gradients(self) -> list[Tensor | None]:
        """By PyTorch, in the order in which our operator gives them."""
        x, _, bias, scale, residual = self._leaves
        found = [x.grad if x is not None else None, self._layer.weight.grad]
        norm = self._norm
        if norm is None:
            found.append(self._layer.bias.grad if bias is not None else None)
        else:
            found.append(norm.bias.grad)
        found.append(norm.weight.grad if scale is not None and norm is not None else None)
        found.append(residual.grad if residual is not None else None)
        return found


def bare(region: Region) -> Region:
    """What of a region stands before its batchnorm."""
    pool = region.pool if region.pools_first else None
    nodes = (region.anchor,) if pool is None else (region.anchor, pool)
    return Region(nodes, region.anchor, pool=pool)


def _modules(
    region: Region, built: Built, leaves: Sequence[Tensor | None]
) -> tuple[Untyped, list[Untyped]]:
    """The modules that hold its weights, in float64; a batchnorm that scales as it is told."""
    _, weight, bias, scale, _ = leaves
    assert weight is not None
    g, device = built.geometry, weight.device
    if not isinstance(region.anchor.layer, Conv):
        layer: Untyped = nn.Linear(g.features, g.outputs, g.bias, device, torch.float64)
    else:
        layer = nn.Conv2d(
            g.channels, g.filters, g.kernel, g.stride, g.pad, g.dilation, g.groups,
            bias=bias is not None and scale is None, device=device, dtype=torch.float64,
        )  # fmt: skip
    layer.weight = nn.Parameter(weight.detach())
    if scale is None:
        if bias is not None:
            layer.bias = nn.Parameter(bias.detach())
        return layer, []
    norm = nn.BatchNorm2d(g.filters, device=device, dtype=torch.float64).eval()
    assert norm.running_var is not None
    assert bias is not None
    norm.running_var.fill_(1 - norm.eps)
    norm.weight, norm.bias = nn.Parameter(scale.detach()), nn.Parameter(bias.detach())
    return layer, [norm]


def _double(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().double().requires_grad_()
