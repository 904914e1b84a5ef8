"""Pools over the sums of a convolution, in registers: values that lose are never written."""

import triton
import triton.language as tl

from cnndsl.rt.shared import full
from cnndsl.rt.windows import is_better, window_pixels

from .conv_epilogue import conv_activation, conv_each
from .conv_sum import conv_sum


@triton.jit
def conv_corners(
    tile,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Take a tile apart into the four pixels of its 2x2 windows."""
    windows = tl.permute(tl.reshape(tile, (ROWS, 2, COLUMNS // 4, 2)), (0, 2, 1, 3))
    left, right = tl.split(windows)
    top_left, bottom_left = tl.split(left)
    top_right, bottom_right = tl.split(right)
    return top_left, top_right, bottom_left, bottom_right


@triton.jit
def conv_quads(
    z,
    bias_ptr,
    filter,
    filter_mask,
    BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    POOL: tl.constexpr,
    BLOCK_FILTERS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
):
    """Pool a tile over 2x2 windows, in registers; also say which pixel won, or which are alive."""
    code = tl.full((BLOCK_FILTERS, BLOCK_PIXELS // 4), 1, tl.int32)
    if POOL == "max":
        y, b, c, d = conv_corners(z, BLOCK_FILTERS, BLOCK_PIXELS)
        code = tl.where(is_better(b, y), 2, code)
        y = tl.where(is_better(b, y), b, y)
        code = tl.where(is_better(c, y), 3, code)
        y = tl.where(is_better(c, y), c, y)
        code = tl.where(is_better(d, y), 4, code)
        y = tl.where(is_better(d, y), d, y)
    else:
        if BIAS:
            z += conv_each(bias_ptr, filter, filter_mask).to(z.dtype)
        if ACTIVATION == "relu":
            alive = tl.where(z <= 0, 0, 1)
            a, b, c, d = conv_corners(alive, BLOCK_FILTERS, BLOCK_PIXELS)
            code = a | b << 1 | c << 2 | d << 3
            z = conv_activation(z)
        a, b, c, d = conv_corners(z, BLOCK_FILTERS, BLOCK_PIXELS)
        y = (a + b + c + d) / 4
    return y, code


@triton.jit
def conv_windows(
    x_ptr,
    weight_ptr,
    bias_ptr,
    scale_ptr,
    positions,
    image,
    row,
    column,
    window_mask,
    group,
    filter,
    filter_mask,
    height: tl.constexpr,
    width: tl.constexpr,
    conv_height: tl.constexpr,
    conv_width: tl.constexpr,
    CHANNELS: tl.constexpr,
    GROUPS: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PAD: tl.constexpr,
    DILATION: tl.constexpr,
    TAPS: tl.constexpr,
    BIAS: tl.constexpr,
    SCALE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    POOL: tl.constexpr,
    POOL_SIZE: tl.constexpr,
    POOL_STRIDE: tl.constexpr,
    POOL_PAD: tl.constexpr,
    POOL_DILATION: tl.constexpr,
    COUNT_PAD: tl.constexpr,
    FORWARD: tl.constexpr,
    BLOCK_FILTERS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_TERMS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Convolve and pool over any windows: once for each position in them, keeping best or sum."""
    y = full(tl.zeros((BLOCK_FILTERS, BLOCK_PIXELS), x_ptr.dtype.element_ty))
    code = tl.zeros((BLOCK_FILTERS, BLOCK_PIXELS), tl.int32)
    for position in range(positions):
        down = position // POOL_SIZE[1] * POOL_DILATION[0]
        right = position % POOL_SIZE[1] * POOL_DILATION[1]
        conv_row = row * POOL_STRIDE[0] - POOL_PAD[0] + down
        conv_column = column * POOL_STRIDE[1] - POOL_PAD[1] + right
        exists = window_mask & (conv_row >= 0) & (conv_row < conv_height)
        exists &= (conv_column >= 0) & (conv_column < conv_width)
        z = conv_sum(
            x_ptr=x_ptr,
            weight_ptr=weight_ptr,
            scale_ptr=scale_ptr,
            image=image,
            row=conv_row,
            column=conv_column,
            pixel_mask=exists,
            group=group,
            filter=filter,
            filter_mask=filter_mask,
            height=height,
            width=width,
            CHANNELS=CHANNELS,
            GROUPS=GROUPS,
            KERNEL=KERNEL,
            STRIDE=STRIDE,
            PAD=PAD,
            DILATION=DILATION,
            TAPS=TAPS,
            SCALE=SCALE,
            FORWARD=FORWARD,
            BLOCK_FILTERS=BLOCK_FILTERS,
            BLOCK_PIXELS=BLOCK_PIXELS,
            BLOCK_TERMS=BLOCK_TERMS,
            PRECISION=PRECISION,
        )
        if POOL == "max":
            # Padding is never chosen; the first pixel is, whatever it holds.
            better = exists[None, :] & (is_better(z, y) | (code == 0))
            y = tl.where(better, z, y)
            code = tl.where(better, position + 1, code)
        else:
            if BIAS:
                z += conv_each(bias_ptr, filter, filter_mask).to(z.dtype)
            if ACTIVATION == "relu":
                code |= tl.where(exists[None, :] & ~(z <= 0), 1, 0) << position
                z = conv_activation(z)
            y += tl.where(exists[None, :], z, 0.0)
    if POOL == "average":
        y /= window_pixels(
            row=row,
            column=column,
            height=conv_height,
            width=conv_width,
            POOL_SIZE=POOL_SIZE,
            POOL_STRIDE=POOL_STRIDE,
            POOL_PAD=POOL_PAD,
            COUNT_PAD=COUNT_PAD,
        )[None, :]
    return y, code
