"""Batchnorm in training, backward, second pass: the gradient of what it was given.

It is inverse · weight · (g − Σ g/N − n · Σ g·n/N), with the sums of the first pass: each value
moves the mean and the variance too.
"""

import triton
import triton.language as tl
from torch import Tensor

from cnndsl.rt.norm_operator import NormGeometry, norm_sizes
from cnndsl.rt.shared import (
    COUNTS,
    block_size,
    channels_last,
    count_blocks,
    full,
    launch,
    refuse_launch,
)
from cnndsl.rt.windows import windows_of_pixel

from .norm import norm_affine, norm_channel, norm_normal
from .norm_rebuild import norm_blocked, norm_unpooled

# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


@triton.jit(do_not_specialize=COUNTS)
def norm_input_gradient(
    gradient_ptr,  # [batch, out_height, out_width, CHANNELS]
    winner_ptr,  # like the gradient, written by the forward kernel
    z_ptr,  # [batch, height, width, CHANNELS]
    mean_ptr,  # [CHANNELS]
    inverse_ptr,  # [CHANNELS]
    weight_ptr,  # [CHANNELS]
    bias_ptr,  # [CHANNELS]
    sums_ptr,  # [2, CHANNELS]: the gradients of bias and weight
    dz_ptr,  # like z
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
    """Compute the gradient of z."""
    CHANNEL_BLOCKS: tl.constexpr = (CHANNELS + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS
    channel = tl.program_id(0) % CHANNEL_BLOCKS * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    channel_mask = channel < CHANNELS
    mean, inverse = norm_channel(mean_ptr, inverse_ptr, channel, channel_mask)
    pixel = tl.program_id(0) // CHANNEL_BLOCKS * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
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
    # Where there is a residual, of which this is the gradient too, that has been done before.
    if ACTIVATION != "none" and not RESIDUAL:
        gradient = norm_blocked(
            gradient=gradient,
            normal=normal,
            residual_ptr=z_ptr,  # there is none
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
    values = batch * height * width
    dbias = tl.load(sums_ptr + channel, mask=channel_mask, other=0.0) / values
    sums_ptr += CHANNELS
    dweight = tl.load(sums_ptr + channel, mask=channel_mask, other=0.0) / values
    dz = (gradient - dbias[None, :] - normal * dweight[None, :]) * inverse
    if AFFINE:
        weight, _ = norm_affine(weight_ptr, bias_ptr, channel, channel_mask)
        dz *= weight
    tl.store(dz_ptr + offset, dz.to(dz_ptr.dtype.element_ty), mask=mask)


# ── launches ────────────────────────────────────────────────────────────────────────────────────


def norm_launch_input_gradient(
    geometry: NormGeometry,
    gradient: Tensor,
    winner: Tensor,
    z: Tensor,
    mean: Tensor,
    inverse: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    sums: Tensor,
    dz: Tensor,
) -> None:
    """Launch the second pass, which fills dz."""
    out_height, out_width = norm_sizes(geometry, z.shape[2], z.shape[3])
    pixels = z.shape[0] * z.shape[2] * z.shape[3]
    block_pixels = 32
    block_channels = block_size(geometry.channels, 64)
    programs = count_blocks(pixels, block_pixels)
    programs *= count_blocks(geometry.channels, block_channels)
    refuse_launch(z, programs, pixels)
    launch(
        norm_input_gradient,
        programs,
        gradient_ptr=gradient,
        winner_ptr=winner,
        z_ptr=channels_last(z),
        mean_ptr=mean,
        inverse_ptr=inverse,
        weight_ptr=weight,
        bias_ptr=bias,
        sums_ptr=sums,
        dz_ptr=dz,
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
