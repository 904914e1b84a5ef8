"""Batchnorm in training, backward, first pass: the gradients of bias and weight.

With n = (z − mean) · inverse and g the gradient of n · weight + bias, over the N values of a
channel: the bias has Σ g, the weight Σ g·n. Sums are split over programs and added in a fixed
order.
"""

import triton
import triton.language as tl
from torch import Tensor

from cnndsl.rt.module import full_dtype
from cnndsl.rt.norm_operator import NormGeometry, norm_sizes
from cnndsl.rt.shared import (
    COUNTS,
    allocated,
    block_size,
    channels_last,
    count_blocks,
    full,
    launch,
    refuse_launch,
    split_count,
)
from cnndsl.rt.windows import windows_of_pixel

from .norm import norm_channel, norm_normal
from .norm_rebuild import norm_blocked, norm_unpooled

# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


@triton.jit(do_not_specialize=COUNTS)
def norm_gradient_sums(
    gradient_ptr,  # [batch, out_height, out_width, CHANNELS]
    winner_ptr,  # like the gradient, written by the forward kernel
    z_ptr,  # [batch, height, width, CHANNELS]
    mean_ptr,  # [CHANNELS]
    inverse_ptr,  # [CHANNELS]
    weight_ptr,  # [CHANNELS]
    bias_ptr,  # [CHANNELS]
    residual_ptr,  # like z
    dresidual_ptr,  # like z: the gradient before the activation
    partial_ptr,  # [splits, 2, CHANNELS]
    splits,
    batch,
    height: tl.constexpr,
    width: tl.constexpr,
    out_height: tl.constexpr,  # after the pool
    out_width: tl.constexpr,
    CHANNELS: tl.constexpr,
    AFFINE: tl.constexpr,
    RESIDUAL: tl.constexpr,
    ACTIVATION: tl.constexpr,
    POOL: tl.constexpr,
    POOL_SIZE: tl.constexpr,
    POOL_STRIDE: tl.constexpr,
    POOL_PAD: tl.constexpr,
    POOL_DILATION: tl.constexpr,
    COUNT_PAD: tl.constexpr,
    WINDOWS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Compute a part of the gradients of bias and weight: sums over some pixels."""
    CHANNEL_BLOCKS: tl.constexpr = (CHANNELS + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS
    channel = tl.program_id(0) % CHANNEL_BLOCKS * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    channel_mask = channel < CHANNELS
    mean, inverse = norm_channel(mean_ptr, inverse_ptr, channel, channel_mask)
    split = tl.program_id(0) // CHANNEL_BLOCKS
    blocks = tl.cdiv(batch * height * width, BLOCK_PIXELS)
    first = split * tl.cdiv(blocks, splits)
    last = tl.minimum(first + tl.cdiv(blocks, splits), blocks)
    dbias = tl.zeros((BLOCK_PIXELS, BLOCK_CHANNELS), partial_ptr.dtype.element_ty)
    dweight = tl.zeros((BLOCK_PIXELS, BLOCK_CHANNELS), partial_ptr.dtype.element_ty)
    for step in range(first, last):
        pixel = step * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
        pixel_mask = pixel < batch * height * width
        offset = pixel.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
        mask = pixel_mask[:, None] & channel_mask[None, :]
        normal = norm_normal(z_ptr, offset, mask, mean, inverse)
        if POOL == "none":
            gradient = full(tl.load(gradient_ptr + offset, mask=mask, other=0.0))
        else:
            gradient = norm_unpooled(
                gradient_ptr=gradient_ptr,
                winner_ptr=winner_ptr,
                pixel=pixel,
                pixel_mask=pixel_mask,
                channel=channel,
                channel_mask=channel_mask,
                height=height,
                width=width,
                out_height=out_height,
                out_width=out_width,
                CHANNELS=CHANNELS,
                POOL=POOL,
                POOL_SIZE=POOL_SIZE,
                POOL_STRIDE=POOL_STRIDE,
                POOL_PAD=POOL_PAD,
                POOL_DILATION=POOL_DILATION,
                COUNT_PAD=COUNT_PAD,
                WINDOWS=WINDOWS,
                BLOCK_PIXELS=BLOCK_PIXELS,
                BLOCK_CHANNELS=BLOCK_CHANNELS,
            )
        if ACTIVATION != "none":
            gradient = norm_blocked(
                gradient=gradient,
                normal=normal,
                residual_ptr=residual_ptr,
                weight_ptr=weight_ptr,
                bias_ptr=bias_ptr,
                offset=offset,
                mask=mask,
                channel=channel,
                channel_mask=channel_mask,
                AFFINE=AFFINE,
                RESIDUAL=RESIDUAL,
                ACTIVATION=ACTIVATION,
            )
            if RESIDUAL:
                # Before the activation all gradients are the residual's: the next pass reads this.
                rounded = gradient.to(dresidual_ptr.dtype.element_ty)
                tl.store(dresidual_ptr + offset, rounded, mask=mask)
                gradient = full(rounded)
        # A masked lane holds no gradient, but its value need not be a number.
        dbias += tl.where(mask, gradient, 0.0)
        dweight += tl.where(mask, gradient * normal, 0.0)
    place = partial_ptr + split.to(tl.int64) * (2 * CHANNELS) + channel
    tl.store(place, tl.sum(dbias, axis=0), mask=channel_mask)
    tl.store(place + CHANNELS, tl.sum(dweight, axis=0), mask=channel_mask)


# ── launches ────────────────────────────────────────────────────────────────────────────────────


def norm_launch_gradient_sums(
    geometry: NormGeometry,
    gradient: Tensor,
    winner: Tensor,
    z: Tensor,
    mean: Tensor,
    inverse: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    dresidual: Tensor,
) -> Tensor:
    """Launch the first pass: parts of the gradients of bias and weight, [parts, 2, channels].

    Where there is a residual and an activation, it fills `dresidual`.
    """
    if geometry.residual and geometry.activation != "none":
        residual = channels_last(residual)
    out_height, out_width = norm_sizes(geometry, z.shape[2], z.shape[3])
    pixels = z.shape[0] * z.shape[2] * z.shape[3]
    block_pixels = 16 if z.element_size() == 8 else 32
    block_channels = block_size(geometry.channels, 64)
    programs = count_blocks(geometry.channels, block_channels)
    splits = split_count(programs, count_blocks(pixels, block_pixels))
    refuse_launch(z, programs * splits, pixels)
    partial = allocated(z.new_empty((splits, 2, geometry.channels), dtype=full_dtype(z)))
    launch(
        norm_gradient_sums,
        programs * splits,
        gradient_ptr=gradient,
        winner_ptr=winner,
        z_ptr=channels_last(z),
        mean_ptr=mean,
        inverse_ptr=inverse,
        weight_ptr=weight,
        bias_ptr=bias,
        residual_ptr=residual,
        dresidual_ptr=dresidual,
        partial_ptr=partial,
        splits=splits,
        batch=z.shape[0],
        height=z.shape[2],
        width=z.shape[3],
        out_height=out_height,
        out_width=out_width,
        CHANNELS=geometry.channels,
        AFFINE=geometry.affine,
        RESIDUAL=geometry.residual,
        ACTIVATION=geometry.activation,
        POOL=geometry.pool,
        POOL_SIZE=geometry.pool_size,
        POOL_STRIDE=geometry.pool_stride,
        POOL_PAD=geometry.pool_pad,
        POOL_DILATION=geometry.pool_dilation,
        COUNT_PAD=geometry.count_pad,
        WINDOWS=windows_of_pixel(geometry.pool_size, geometry.pool_stride, geometry.pool_dilation),
        BLOCK_PIXELS=block_pixels,
        BLOCK_CHANNELS=block_channels,
        num_warps=4,
    )
    return partial
