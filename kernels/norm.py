"""Batchnorm in training, with what follows it: residual, activation and pool, in one pass.

Images lie in memory as [batch, height, width, channels]. A program computes a tile of windows
(pixels, where nothing is pooled) by channels. Backward reads what the batchnorm was given and
computes the rest anew: nothing else is kept but a byte a window.
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
from cnndsl.rt.windows import is_better, pixel_place, window_pixels

# ── holes: the emitter puts the region's own functions here ─────────────────────────────────────


@triton.jit
def norm_activation(z):
    """Apply ReLU; NaN passes."""
    return tl.where(z <= 0, 0.0, z)


# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


@triton.jit
def norm_channel(mean_ptr, inverse_ptr, channel, channel_mask):
    """Read the statistics of some channels."""
    mean = tl.load(mean_ptr + channel, mask=channel_mask, other=0.0)
    inverse = tl.load(inverse_ptr + channel, mask=channel_mask, other=0.0)
    return mean[None, :], inverse[None, :]


@triton.jit
def norm_affine(weight_ptr, bias_ptr, channel, channel_mask):
    """Read the weights and biases of some channels."""
    weight = tl.load(weight_ptr + channel, mask=channel_mask, other=0.0)
    bias = tl.load(bias_ptr + channel, mask=channel_mask, other=0.0)
    return full(weight)[None, :], full(bias)[None, :]


@triton.jit
def norm_normal(z_ptr, offset, mask, mean, inverse):
    """Read a tile, of mean 0 and variance 1 then."""
    z = full(tl.load(z_ptr + offset, mask=mask, other=0.0))
    return (z - mean) * inverse


@triton.jit(do_not_specialize=COUNTS)
def norm_forward(
    z_ptr,  # [batch, height, width, CHANNELS]
    mean_ptr,  # [CHANNELS]
    inverse_ptr,  # [CHANNELS]: 1 / √(variance + eps)
    weight_ptr,  # [CHANNELS]
    bias_ptr,  # [CHANNELS]
    residual_ptr,  # like z: added before the activation
    y_ptr,  # [batch, out_height, out_width, CHANNELS]
    winner_ptr,  # like y: 1 + position in the window of the pixel that won
    positions,  # of a window: not a constant, or the compiler unrolls the loop and spills
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
    BLOCK_WINDOWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Compute y = pool(activation((z − mean) · inverse · weight + bias + residual))."""
    CHANNEL_BLOCKS: tl.constexpr = (CHANNELS + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS
    tile = tl.program_id(0) // CHANNEL_BLOCKS
    channel = tl.program_id(0) % CHANNEL_BLOCKS * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    channel_mask = channel < CHANNELS
    mean, inverse = norm_channel(mean_ptr, inverse_ptr, channel, channel_mask)
    if AFFINE:
        weight, bias = norm_affine(weight_ptr, bias_ptr, channel, channel_mask)
    window = tile * BLOCK_WINDOWS + tl.arange(0, BLOCK_WINDOWS)
    window_mask = window < batch * out_height * out_width
    offset = window.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    mask = window_mask[:, None] & channel_mask[None, :]
    if POOL == "none":
        y = norm_normal(z_ptr, offset, mask, mean, inverse)
        if AFFINE:
            y = y * weight + bias
        if RESIDUAL:
            y += tl.load(residual_ptr + offset, mask=mask, other=0.0)
    else:
        image, row, column = pixel_place(window, out_height, out_width)
        y = tl.zeros((BLOCK_WINDOWS, BLOCK_CHANNELS), mean_ptr.dtype.element_ty)
        winner = tl.zeros((BLOCK_WINDOWS, BLOCK_CHANNELS), tl.int32)
        for position in range(positions):
            down = position // POOL_SIZE[1] * POOL_DILATION[0]
            right = position % POOL_SIZE[1] * POOL_DILATION[1]
            z_row = row * POOL_STRIDE[0] - POOL_PAD[0] + down
            z_column = column * POOL_STRIDE[1] - POOL_PAD[1] + right
            exists = window_mask & (z_row >= 0) & (z_row < height)
            exists &= (z_column >= 0) & (z_column < width)
            place = ((image * height + z_row) * width + z_column) * CHANNELS
            z = norm_normal(
                z_ptr,
                place[:, None] + channel[None, :],
                exists[:, None] & channel_mask[None, :],
                mean,
                inverse,
            )
            if AFFINE:
                z = z * weight + bias
            if POOL == "max":
                # Padding is never chosen; the first pixel is, whatever it holds.
                better = exists[:, None] & (is_better(z, y) | (winner == 0))
                y = tl.where(better, z, y)
                winner = tl.where(better, position + 1, winner)
            else:
                if ACTIVATION != "none":
                    z = norm_activation(z)
                y += tl.where(exists[:, None], z, 0.0)
        if POOL == "average":
            y /= window_pixels(
                row=row,
                column=column,
                height=height,
                width=width,
                POOL_SIZE=POOL_SIZE,
                POOL_STRIDE=POOL_STRIDE,
                POOL_PAD=POOL_PAD,
                COUNT_PAD=COUNT_PAD,
            )[:, None]
        else:
            tl.store(winner_ptr + offset, winner.to(tl.uint8), mask=mask)
    if ACTIVATION != "none" and POOL != "average":
        y = norm_activation(y)
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=mask)


# ── launches ────────────────────────────────────────────────────────────────────────────────────


def norm_launch_forward(
    geometry: NormGeometry,
    z: Tensor,
    mean: Tensor,
    inverse: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    y: Tensor,
    winner: Tensor,
) -> None:
    """Launch the kernel that fills y and winner."""
    if geometry.residual:
        residual = channels_last(residual)
    out_height, out_width = norm_sizes(geometry, z.shape[2], z.shape[3])
    windows = z.shape[0] * out_height * out_width
    block_windows = 16 if z.element_size() == 8 else 32
    block_channels = block_size(geometry.channels, 64)
    programs = count_blocks(windows, block_windows)
    programs *= count_blocks(geometry.channels, block_channels)
    refuse_launch(z, programs, z.shape[0] * z.shape[2] * z.shape[3])
    launch(
        norm_forward,
        programs,
        z_ptr=channels_last(z),
        mean_ptr=mean,
        inverse_ptr=inverse,
        weight_ptr=weight,
        bias_ptr=bias,
        residual_ptr=residual,
        y_ptr=y,
        winner_ptr=winner,
        positions=geometry.pool_size[0] * geometry.pool_size[1],
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
        BLOCK_WINDOWS=block_windows,
        BLOCK_CHANNELS=block_channels,
        num_warps=4,
    )
