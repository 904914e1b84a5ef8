"""Batchnorm in training, backward: the gradient before pool and activation, rebuilt.

Windows give theirs to the pixel that won, or to each its share. What the activation was given is
computed anew, from what the batchnorm was given.
"""

import triton
import triton.language as tl

from .norm import norm_activation, norm_affine
from .windows import pixel_place, window_pixels

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
    positions,
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
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Add up what the windows give to the pixels of a tile: in each it has another position."""
    image, row, column = pixel_place(pixel, height, width)
    total = tl.zeros((BLOCK_PIXELS, BLOCK_CHANNELS), tl.float32)
    for position in range(positions):
        top = row + POOL_PAD[0] - position // POOL_SIZE[1] * POOL_DILATION[0]
        left = column + POOL_PAD[1] - position % POOL_SIZE[1] * POOL_DILATION[1]
        window_row = top // POOL_STRIDE[0]
        window_column = left // POOL_STRIDE[1]
        exists = pixel_mask & (top >= 0) & (left >= 0)
        exists &= (window_row * POOL_STRIDE[0] == top) & (window_row < out_height)
        exists &= (window_column * POOL_STRIDE[1] == left) & (window_column < out_width)
        place = (image * out_height + window_row) * out_width + window_column
        offset = (place * CHANNELS)[:, None] + channel[None, :]
        mask = exists[:, None] & channel_mask[None, :]
        gradient = tl.load(gradient_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        if POOL == "max":
            winner = tl.load(winner_ptr + offset, mask=mask, other=0).to(tl.int32)
            gradient = tl.where(winner == position + 1, gradient, 0.0)
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
        saved += tl.load(residual_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    if ACTIVATION != "input":
        saved = norm_activation(saved)
    return norm_activation_gradient(saved, gradient)
