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
    Tile,
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
    z_ptr,  # [batch, height, width, C.channels]
    mean_ptr,  # [C.channels]
    inverse_ptr,  # [C.channels]: 1 / √(variance + eps)
    weight_ptr,  # [C.channels]
    bias_ptr,  # [C.channels]
    residual_ptr,  # like z: added before the activation
    y_ptr,  # [batch, out_height, out_width, C.channels]
    winner_ptr,  # like y: 1 + position in the window of the pixel that won
    positions,  # of a window: not a constant, or the compiler unrolls the loop and spills
    batch,
    height: tl.constexpr,
    width: tl.constexpr,
    out_height: tl.constexpr,  # after the pool
    out_width: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
):
    """Compute y = pool(activation((z − mean) · inverse · weight + bias + residual))."""
    ROWS: tl.constexpr = T.rows
    COLUMNS: tl.constexpr = T.columns
    CHANNEL_BLOCKS: tl.constexpr = (C.channels + COLUMNS - 1) // COLUMNS
    tile = tl.program_id(0) // CHANNEL_BLOCKS
    channel = tl.program_id(0) % CHANNEL_BLOCKS * COLUMNS + tl.arange(0, COLUMNS)
    channel_mask = channel < C.channels
    mean, inverse = norm_channel(mean_ptr, inverse_ptr, channel, channel_mask)
    if C.affine:
        weight, bias = norm_affine(weight_ptr, bias_ptr, channel, channel_mask)
    window = tile * ROWS + tl.arange(0, ROWS)
    window_mask = window < batch * out_height * out_width
    offset = window.to(tl.int64)[:, None] * C.channels + channel[None, :]
    mask = window_mask[:, None] & channel_mask[None, :]
    if C.pool == "none":
        y = norm_normal(z_ptr, offset, mask, mean, inverse)
        if C.affine:
            y = y * weight + bias
        if C.residual:
            y += tl.load(residual_ptr + offset, mask=mask, other=0.0)
    else:
        image, row, column = pixel_place(window, out_height, out_width)
        y = tl.zeros((ROWS, COLUMNS), mean_ptr.dtype.element_ty)
        winner = tl.zeros((ROWS, COLUMNS), tl.int32)
        for position in range(positions):
            down = position // C.pool_size[1] * C.pool_dilation[0]
            right = position % C.pool_size[1] * C.pool_dilation[1]
            z_row = row * C.pool_stride[0] - C.pool_pad[0] + down
            z_column = column * C.pool_stride[1] - C.pool_pad[1] + right
            exists = window_mask & (z_row >= 0) & (z_row < height)
            exists &= (z_column >= 0) & (z_column < width)
            place = ((image * height + z_row) * width + z_column) * C.channels
            z = norm_normal(
                z_ptr,
                place[:, None] + channel[None, :],
                exists[:, None] & channel_mask[None, :],
                mean,
                inverse,
            )
            if C.affine:
                z = z * weight + bias
            if C.pool == "max":
                # Padding is never chosen; the first pixel is, whatever it holds.
                better = exists[:, None] & (is_better(z, y) | (winner == 0))
                y = tl.where(better, z, y)
                winner = tl.where(better, position + 1, winner)
            else:
                if C.activation != "none":
                    z = norm_activation(z)
                y += tl.where(exists[:, None], z, 0.0)
        if C.pool == "average":
            y /= window_pixels(
                row=row,
                column=column,
                height=height,
                width=width,
                C=C,
                COUNT_PAD=C.count_pad,
            )[:, None]
        else:
            tl.store(winner_ptr + offset, winner.to(tl.uint8), mask=mask)
    if C.activation != "none" and C.pool != "average":
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
    rows = 16 if z.element_size() == 8 else 32
    tile = Tile(rows, block_size(geometry.channels, 64), 1, 4, 3)
    programs = count_blocks(windows, tile.rows)
    programs *= count_blocks(geometry.channels, tile.columns)
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
        C=geometry,
        T=tile,
        num_warps=tile.warps,
    )
