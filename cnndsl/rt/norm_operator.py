"""What all batchnorms in training of a module share: their geometry, and the way into PyTorch.

A region computes y = pool(activation(batchnorm(z) + residual)), from z and from the statistics of
tiles that the kernel before has written; all but the batchnorm may be absent. This file knows
sizes, checks, memory, autograd, and when running statistics move. It does not know how anything is
computed: that is for the kernels, which it is handed as functions.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.autograd.graph import increment_version

from .conv_geometry import window_count
from .dispatch import Direction, as_inputs, differentiable, is_opaque, stand_in
from .module import full_dtype, is_plain_tensor, is_unaltered, plain_weights, widened
from .replay import remembered
from .shared import cast_as_wished, channels_last, done, new_image, packed, refuse_residual, summed
from .windows import windows_of_pixel

NORM_FORWARD = """(
    Tensor z, Tensor mean, Tensor inverse, Tensor? weight, Tensor? bias, Tensor? residual
) -> (Tensor y, Tensor winner)"""
NORM_BACKWARD = """(
    Tensor gradient, Tensor? winner, Tensor z, Tensor mean, Tensor inverse,
    Tensor? weight, Tensor? bias, Tensor? residual, bool[] needs
) -> (Tensor dz, Tensor sums, Tensor dresidual)"""


class NormGeometry(NamedTuple):
    """All that is fixed in a region; pairs are (height, width)."""

    channels: int
    affine: bool = True
    residual: bool = False
    activation: str = "none"
    pool: str = "none"
    pool_size: tuple[int, int] = (1, 1)
    pool_stride: tuple[int, int] = (1, 1)
    pool_pad: tuple[int, int] = (0, 0)
    pool_dilation: tuple[int, int] = (1, 1)
    ceil: bool = False
    count_pad: bool = True

    @property
    def windows(self) -> tuple[int, int]:
        """Count the windows of the pool that may hold one pixel, along each axis."""
        return windows_of_pixel(self.pool_size, self.pool_stride, self.pool_dilation)


class NormLaunches(NamedTuple):
    """The functions of a region that launch its kernels; `activation` is PyTorch's function.

    `before` is not read: all that an activation was given can be computed once more.
    """

    statistics: Callable[..., None]
    forward: Callable[..., None]
    gradient_sums: Callable[..., Tensor]
    input_gradient: Callable[..., None]
    activation: Callable[[Tensor], Tensor] = F.relu
    before: Callable[[Tensor], Tensor] | None = None


def is_norm(layer: nn.Module, geometry: NormGeometry) -> bool:
    """Say whether a layer is the batchnorm that was compiled, but for `eps` and `momentum`.

    SyncBatchNorm is none: it asks other processes.
    """
    if not is_unaltered(layer, nn.BatchNorm2d):
        return False
    shape = (geometry.channels,)
    buffers = vars(layer)["_buffers"]
    mean, var = buffers.get("running_mean"), buffers.get("running_var")
    if mean is None or var is None:
        has_statistics = mean is var
    else:
        count = buffers.get("num_batches_tracked")
        plain = is_plain_tensor(mean, shape) and is_plain_tensor(var, shape)
        has_statistics = plain and count is not None
    if not geometry.affine:
        return has_statistics and layer.weight is None and layer.bias is None
    return has_statistics and plain_weights(layer, shape, True)[0] is not None


def norm_sizes(geometry: NormGeometry, height: int, width: int) -> tuple[int, int]:
    """Height and width after the pool."""
    out = [
        window_count(
            size,
            geometry.pool_size[axis],
            geometry.pool_stride[axis],
            geometry.pool_pad[axis],
            geometry.pool_dilation[axis],
            geometry.ceil,
        )
        for axis, size in enumerate((height, width))
    ]
    return out[0], out[1]


def refuse_norm(geometry: NormGeometry) -> None:
    """Raise for a region that these kernels cannot compute, whatever its input."""
    positions = geometry.pool_size[0] * geometry.pool_size[1]
    if geometry.pool == "max" and positions > 255:
        raise ValueError(f"a byte cannot tell which of {positions} pixels of a window won")
    if geometry.pool != "none" and geometry.residual:
        raise ValueError("a region with a residual has no pool")


def norm_outputs(
    geometry: NormGeometry,
    z: Tensor,
    mean: Tensor,
    inverse: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Allocate y, and shaped as y a byte for the position that won, where there is a maximum.

    Raise for a residual that does not fit.
    """
    sizes = norm_sizes(geometry, z.shape[2], z.shape[3])
    y = new_image(z, (z.shape[0], geometry.channels, *sizes))
    if geometry.residual:
        refuse_residual(z, residual, y.shape)
    return y, torch.empty_like(y, dtype=torch.uint8) if geometry.pool == "max" else None


def norm_merged(
    geometry: NormGeometry,
    launches: NormLaunches,
    sums: Tensor,
    running: tuple[Tensor, Tensor, float],
    values: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Give mean and 1 / √(variance + eps) of each channel, and move the running statistics."""
    mean = sums.new_empty(geometry.channels)
    inverse = sums.new_empty(geometry.channels)
    if values > 0:
        with torch.cuda.device_of(sums):
            *moving, momentum = running
            if sums.dtype == torch.float64:  # a kernel is given numbers of 32 bits
                found = [torch.zeros_like(mean), torch.zeros_like(mean)]
                launches.statistics(packed(sums), mean, inverse, *found, 1.0, values, eps)
                for statistic, of_batch in zip(moving, found, strict=True):
                    statistic.lerp_(of_batch.to(statistic.dtype), momentum)
                return mean, inverse
            dense = [packed(statistic) for statistic in moving]
            launches.statistics(packed(sums), mean, inverse, *dense, momentum, values, eps)
            for statistic, moved in zip(moving, dense, strict=True):
                if moved is not statistic:
                    statistic.copy_(moved)
    return mean, inverse


def norm_values(
    geometry: NormGeometry,
    launches: NormLaunches,
    z: Tensor,
    mean: Tensor,
    inverse: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Compute y, and the winners of a maximum."""
    y, winner = norm_outputs(geometry, z, mean, inverse, weight, bias, residual)
    if y.numel() > 0:
        mean, inverse = packed(mean), packed(inverse)
        weight, bias = packed(weight), packed(bias)
        with torch.cuda.device_of(z):
            launches.forward(geometry, z, mean, inverse, weight, bias, residual, y, winner)
    return y, winner


def norm_empty_gradients(
    geometry: NormGeometry,
    gradient: Tensor,
    winner: Tensor | None,
    z: Tensor,
    mean: Tensor,
    inverse: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    needs: Sequence[bool],
) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """Allocate what norm_gradients gives."""
    dz = new_image(z, z.shape) if needs[0] else None
    sums = z.new_empty((2, geometry.channels), dtype=full_dtype(z))
    dresidual = None
    if geometry.residual and geometry.activation != "none":
        dresidual = new_image(z, z.shape)
    return dz, sums, dresidual


def norm_gradients(
    geometry: NormGeometry,
    launches: NormLaunches,
    gradient: Tensor,
    winner: Tensor | None,
    z: Tensor,
    mean: Tensor,
    inverse: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    needs: Sequence[bool],
) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """Compute the gradients of z (if needed), of bias and weight (a pair), and of the residual."""
    dz, sums, dresidual = norm_empty_gradients(
        geometry, gradient, winner, z, mean, inverse, weight, bias, residual, needs
    )
    if z.numel() == 0:
        return dz, sums.zero_(), dresidual
    gradient, winner = channels_last(gradient), packed(winner)
    mean, inverse = packed(mean), packed(inverse)
    weight, bias = packed(weight), packed(bias)
    with torch.cuda.device_of(gradient):
        parts = launches.gradient_sums(
            geometry,
            gradient,
            winner,
            z,
            mean,
            inverse,
            weight,
            bias,
            residual,
            dresidual,
        )
        sums = done(summed, parts)
        if geometry.residual and geometry.activation != "none":
            gradient = dresidual
        if needs[0]:
            launches.input_gradient(
                geometry, gradient, winner, z, mean, inverse, weight, bias, sums, dz
            )
    return dz, sums, dresidual


def norm_keep(
    geometry: NormGeometry,
    ctx: FunctionCtx,
    inputs: tuple[Tensor | None, ...],
    output: tuple[Tensor, Tensor | None],
) -> None:
    """Save for backward what was normalised, and the rest of which slopes are computed anew."""
    *others, residual = inputs
    ctx.set_materialize_grads(False)
    if output[1] is not None:
        ctx.mark_non_differentiable(output[1])
    ctx.dtype = None if inputs[3] is None else inputs[3].dtype
    slope = geometry.activation != "none"
    ctx.save_for_backward(output[1], *others, residual if slope else None)


def norm_differentiate(
    geometry: NormGeometry,
    run_backward: Callable[..., tuple[Tensor | None, ...]],
    ctx: FunctionCtx,
    gradient: Tensor,
) -> tuple[Tensor | None, ...]:
    """Give the gradients of z, mean, inverse, weight, bias and residual.

    Mean and inverse have none: what they owe to z is in the gradient of z.
    """
    needs = [ctx.needs_input_grad[index] for index in (0, 3, 4, 5)]
    dz, sums, dresidual = run_backward(gradient, *ctx.saved_tensors, needs[:1])
    dbias, dweight = sums
    if geometry.activation == "none":
        dresidual = gradient  # an operator may not return what it was given
    return (
        dz if needs[0] else None,
        None,
        None,
        dweight.to(ctx.dtype) if needs[1] else None,
        dbias.to(ctx.dtype) if needs[2] else None,
        dresidual if needs[3] else None,
    )


def norm_differentiate_again(
    geometry: NormGeometry, launches: NormLaunches, ctx: FunctionCtx, gradient: Tensor
) -> tuple[Tensor, list[Tensor | None]]:
    """Give y by PyTorch's operators, from z, mean, inverse, weight, bias, residual; and these."""
    g = geometry
    _, *kept, residual = ctx.saved_tensors
    if residual is None and ctx.needs_input_grad[5]:
        # It is added only, so no gradient depends on its values.
        residual = stand_in(gradient, gradient.shape, gradient.dtype)
    given = as_inputs((*kept, residual))
    z, _, inverse, weight, bias, residual = given
    values = widened(z)
    mean = values.mean((0, 2, 3), keepdim=True)
    variance = (values - mean).square().mean((0, 2, 3), keepdim=True)
    # inverse² · (variance + eps) = 1
    eps = inverse.double()[:, None, None] ** -2 - variance.detach().double()
    y = (values - mean) * (variance + eps.to(values.dtype)).rsqrt()
    if weight is not None:
        y = y * weight[:, None, None] + bias[:, None, None]
    if residual is not None:
        y = y + residual
    if geometry.activation != "none":
        y = launches.activation(y)
    if geometry.pool == "max":
        y = F.max_pool2d(y, g.pool_size, g.pool_stride, g.pool_pad, g.pool_dilation, g.ceil)
    elif geometry.pool == "average":
        y = F.avg_pool2d(y, g.pool_size, g.pool_stride, g.pool_pad, g.ceil, g.count_pad)
    return y.to(z.dtype), given


def norm_running(norm: nn.BatchNorm2d, like: Tensor) -> tuple[Tensor, Tensor, float]:
    """Give the running mean and variance, and by how much this batch moves them; it is counted."""
    if not norm.training or not norm.track_running_stats or norm.running_mean is None:
        channels = norm.num_features
        return like.new_zeros(channels), like.new_zeros(channels), 0.0
    momentum = norm.momentum
    norm.num_batches_tracked.add_(1)
    if momentum is None:  # the mean over all batches
        momentum = 1.0 / float(norm.num_batches_tracked)
    return norm.running_mean, norm.running_var, momentum


def refuse_single(z: Tensor) -> int:
    """Count the values of a channel; raise where it is one, which has no variance, as PyTorch."""
    values = z.shape[0] * z.shape[2] * z.shape[3]
    if values == 1:
        message = "Expected more than 1 value per channel when training, got input size"
        raise ValueError(f"{message} {z.shape}")
    return values


def norm_op(name: str, geometry: NormGeometry, launches: NormLaunches) -> Callable[..., Tensor]:
    """Register a region with PyTorch; the function that is returned runs it.

    The operators `name`, `name_statistics` and `name_backward` are opaque to torch.compile, which
    sees their shapes only. The second moves the running statistics in place.
    """
    refuse_norm(geometry)

    def statistics(
        sums: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        values: int,
        eps: float,
    ) -> tuple[Tensor, Tensor]:
        running = (running_mean, running_var, momentum)
        return norm_merged(geometry, launches, sums, running, values, eps)

    def fake_statistics(
        sums: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        values: int,
        eps: float,
    ) -> tuple[Tensor, Tensor]:
        return sums.new_empty(geometry.channels), sums.new_empty(geometry.channels)

    statistics_op = torch.library.custom_op(
        f"{name}_statistics", statistics, mutates_args=("running_mean", "running_var")
    )
    statistics_op.register_fake(fake_statistics)
    region = differentiable(
        name,
        Direction(
            NORM_FORWARD,
            compute=remembered(partial(norm_values, geometry, launches)),
            allocate=partial(norm_outputs, geometry),
        ),
        Direction(
            NORM_BACKWARD,
            compute=remembered(partial(norm_gradients, geometry, launches)),
            allocate=partial(norm_empty_gradients, geometry),
        ),
        partial(norm_keep, geometry),
        partial(norm_differentiate, geometry),
        partial(norm_differentiate_again, geometry, launches),
    )

    def run(
        z: Tensor,
        sums: Tensor,
        norm: nn.BatchNorm2d,
        residual: Tensor | None = None,
    ) -> Tensor:
        values = refuse_single(z)
        running = norm_running(norm, sums)
        if residual is not None:
            (residual,) = cast_as_wished(residual)
        if is_opaque(z, sums, *running[:2]):
            mean, inverse = statistics_op(sums, *running, values, norm.eps)
        else:
            mean, inverse = statistics(sums, *running, values, norm.eps)
            increment_version(running[:2])
        y, _ = region(z, mean, inverse, norm.weight, norm.bias, residual)
        return y

    run.operators = {**region.operators, f"{name}_statistics": statistics}
    return run
