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
    C: tl.constexpr,
    T: tl.constexpr,
):
    """Add up what the windows give to the pixels of a tile: in each it has another position."""
    ROWS: tl.constexpr = T.rows
    COLUMNS: tl.constexpr = T.columns
    image, row, column = pixel_place(pixel, height, width)
    total = full(tl.zeros((ROWS, COLUMNS), gradient_ptr.dtype.element_ty))
    for turn in range(C.windows[0] * C.windows[1]):
        window_row, window_column, position, exists = window_holding(
            row=row,
            column=column,
            turn=turn,
            out_height=out_height,
            out_width=out_width,
            C=C,
        )
        place = (image * out_height + window_row) * out_width + window_column
        offset = (place * C.channels)[:, None] + channel[None, :]
        mask = (exists & pixel_mask)[:, None] & channel_mask[None, :]
        gradient = full(tl.load(gradient_ptr + offset, mask=mask, other=0.0))
        if C.pool == "max":
            winner = tl.load(winner_ptr + offset, mask=mask, other=0).to(tl.int32)
            gradient = tl.where(winner == position[:, None] + 1, gradient, 0.0)
        else:
            pixels = window_pixels(
                row=window_row,
                column=window_column,
                height=height,
                width=width,
                C=C,
                COUNT_PAD=C.count_pad,
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
    C: tl.constexpr,
):
    """Take a gradient back through the activation, of which the input is computed anew."""
    saved = normal
    if C.affine:
        weight, bias = norm_affine(weight_ptr, bias_ptr, channel, channel_mask)
        saved = saved * weight + bias
    if C.residual:
        saved += tl.load(residual_ptr + offset, mask=mask, other=0.0)
    if C.activation != "input":
        saved = norm_activation(saved)
    return norm_activation_gradient(saved, gradient)
