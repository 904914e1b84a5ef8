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
    C: tl.constexpr,
    T: tl.constexpr,
):
    """Pool a tile over 2x2 windows, in registers; also say which pixel won, or which are alive."""
    ROWS: tl.constexpr = T.rows
    COLUMNS: tl.constexpr = T.columns
    code = tl.full((ROWS, COLUMNS // 4), 1, tl.int32)
    if C.pool == "max":
        y, b, c, d = conv_corners(z, ROWS, COLUMNS)
        code = tl.where(is_better(b, y), 2, code)
        y = tl.where(is_better(b, y), b, y)
        code = tl.where(is_better(c, y), 3, code)
        y = tl.where(is_better(c, y), c, y)
        code = tl.where(is_better(d, y), 4, code)
        y = tl.where(is_better(d, y), d, y)
    else:
        if C.bias:
            z += conv_each(bias_ptr, filter, filter_mask).to(z.dtype)
        if C.activation == "relu":
            alive = tl.where(z <= 0, 0, 1)
            a, b, c, d = conv_corners(alive, ROWS, COLUMNS)
            code = a | b << 1 | c << 2 | d << 3
            z = conv_activation(z)
        a, b, c, d = conv_corners(z, ROWS, COLUMNS)
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
    C: tl.constexpr,
    T: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Convolve and pool over any windows: once for each position in them, keeping best or sum."""
    ROWS: tl.constexpr = T.rows
    COLUMNS: tl.constexpr = T.columns
    y = full(tl.zeros((ROWS, COLUMNS), x_ptr.dtype.element_ty))
    code = tl.zeros((ROWS, COLUMNS), tl.int32)
    for position in range(positions):
        down = position // C.pool_size[1] * C.pool_dilation[0]
        right = position % C.pool_size[1] * C.pool_dilation[1]
        conv_row = row * C.pool_stride[0] - C.pool_pad[0] + down
        conv_column = column * C.pool_stride[1] - C.pool_pad[1] + right
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
            C=C,
            T=T,
            PRECISION=PRECISION,
        )
        if C.pool == "max":
            # Padding is never chosen; the first pixel is, whatever it holds.
            better = exists[None, :] & (is_better(z, y) | (code == 0))
            y = tl.where(better, z, y)
            code = tl.where(better, position + 1, code)
        else:
            if C.bias:
                z += conv_each(bias_ptr, filter, filter_mask).to(z.dtype)
            if C.activation == "relu":
                code |= tl.where(exists[None, :] & ~(z <= 0), 1, 0) << position
                z = conv_activation(z)
            y += tl.where(exists[None, :], z, 0.0)
    if C.pool == "average":
        y /= window_pixels(
            row=row,
            column=column,
            height=conv_height,
            width=conv_width,
            C=C,
            COUNT_PAD=C.count_pad,
        )[None, :]
    return y, code
