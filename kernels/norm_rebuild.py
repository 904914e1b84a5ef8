"""Batchnorm in training, backward: the gradient before pool and activation, rebuilt.

Windows give theirs to the pixel that won, or to each its share. What the activation was given is
computed anew, from what the batchnorm was given.
"""

import triton
import triton.language as tl

from cnndsl.rt.shared import full
from cnndsl.rt.windows import pixel_place, window_holding, window_pixels

from .norm import norm_activation, norm_affine

# ── holes: the emitter puts the region's own functions here ─────────────────────────────────────


@triton.jit
def norm_activation_gradient(saved, gradient):
    """Take a gradient back through ReLU, of which the output is given; NaN is alive."""
    return tl.where(saved <= 0, 0.0, gradient)


# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


@triton.jit
def norm_unpooled(
    gradient_ptr,
    winner_ptr,
    pixel,
    pixel_mask,
    channel,
    channel_mask,
    height,
    width,
    out_height,
    out_width,
    CHANNELS: tl.constexpr,
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
    """Add up what the windows give to the pixels of a tile: in each it has another position."""
    image, row, column = pixel_place(pixel, height, width)
    total = full(tl.zeros((BLOCK_PIXELS, BLOCK_CHANNELS), gradient_ptr.dtype.element_ty))
    for turn in range(WINDOWS[0] * WINDOWS[1]):
        window_row, window_column, position, exists = window_holding(
            row=row,
            column=column,
            turn=turn,
            out_height=out_height,
            out_width=out_width,
            POOL_SIZE=POOL_SIZE,
            POOL_STRIDE=POOL_STRIDE,
            POOL_PAD=POOL_PAD,
            POOL_DILATION=POOL_DILATION,
            WINDOWS=WINDOWS,
        )
        place = (image * out_height + window_row) * out_width + window_column
        offset = (place * CHANNELS)[:, None] + channel[None, :]
        mask = (exists & pixel_mask)[:, None] & channel_mask[None, :]
        gradient = full(tl.load(gradient_ptr + offset, mask=mask, other=0.0))
        if POOL == "max":
            winner = tl.load(winner_ptr + offset, mask=mask, other=0).to(tl.int32)
            gradient = tl.where(winner == position[:, None] + 1, gradient, 0.0)
        else:
            pixels = window_pixels(
                row=window_row,
                column=window_column,
                height=height,
                width=width,
                POOL_SIZE=POOL_SIZE,
                POOL_STRIDE=POOL_STRIDE,
                POOL_PAD=POOL_PAD,
                COUNT_PAD=COUNT_PAD,
            )
            gradient /= pixels[:, None]
        total += gradient
    return total


@triton.jit
def norm_blocked(
    gradient,
    normal,
    residual_ptr,
    weight_ptr,
    bias_ptr,
    offset,
    mask,
    channel,
    channel_mask,
    AFFINE: tl.constexpr,
    RESIDUAL: tl.constexpr,
    ACTIVATION: tl.constexpr,
):
    """Take a gradient back through the activation, of which the input is computed anew."""
    saved = normal
    if AFFINE:
        weight, bias = norm_affine(weight_ptr, bias_ptr, channel, channel_mask)
        saved = saved * weight + bias
    if RESIDUAL:
        saved += tl.load(residual_ptr + offset, mask=mask, other=0.0)
    if ACTIVATION != "input":
        saved = norm_activation(saved)
    return norm_activation_gradient(saved, gradient)
