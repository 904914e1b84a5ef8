"""Where pixels and windows lie, and which pixel wins, for all kernels that work on images."""

import triton
import triton.language as tl


@triton.jit
def pixel_place(pixel, rows, columns):
    """Say in which image, row and column a pixel lies; the image in 64 bits, for addresses."""
    image = (pixel // (rows * columns)).to(tl.int64)
    return image, pixel // columns % rows, pixel % columns


@triton.jit
def is_better(z, best):
    """Say which values beat the best so far: the first of equals stays, the last NaN wins."""
    itself = z  # only NaN differs from itself
    return (z > best) | (z != itself)


@triton.jit
def window_holding(
    row,
    column,
    turn,
    out_height,
    out_width,
    C: tl.constexpr,  # the geometry of a convolution or a batchnorm
):
    """Say which window may hold a pixel, at which position, and whether it does.

    At most C.windows (down, right) hold one pixel: each turn is another of these.
    """
    top = row + C.pool_pad[0]
    left = column + C.pool_pad[1]
    window_row = top // C.pool_stride[0] - turn // C.windows[1]
    window_column = left // C.pool_stride[1] - turn % C.windows[1]
    # How far into the window the pixel lies.
    down = top - window_row * C.pool_stride[0]
    right = left - window_column * C.pool_stride[1]
    holds = (window_row >= 0) & (window_row < out_height)
    holds &= (window_column >= 0) & (window_column < out_width)
    holds &= (down % C.pool_dilation[0] == 0) & (right % C.pool_dilation[1] == 0)
    down = down // C.pool_dilation[0]
    right = right // C.pool_dilation[1]
    holds &= (down < C.pool_size[0]) & (right < C.pool_size[1])
    # Outside a window there is no position; a position is shifted by all the same.
    position = tl.where(holds, down * C.pool_size[1] + right, 0)
    return window_row, window_column, position, holds


@triton.jit
def window_pixels(
    row,
    column,
    height,
    width,
    C: tl.constexpr,
    COUNT_PAD: tl.constexpr,
):
    """Say by how many pixels of an image of this height and width a window's average divides."""
    top = row * C.pool_stride[0] - C.pool_pad[0]
    left = column * C.pool_stride[1] - C.pool_pad[1]
    if COUNT_PAD:
        # Rounding up (ceil) may make a window reach past the padding: that part never counts.
        rows = tl.minimum(top + C.pool_size[0], height + C.pool_pad[0]) - top
        columns = tl.minimum(left + C.pool_size[1], width + C.pool_pad[1]) - left
    else:
        rows = tl.minimum(top + C.pool_size[0], height) - tl.maximum(top, 0)
        columns = tl.minimum(left + C.pool_size[1], width) - tl.maximum(left, 0)
    # Windows outside the image, in a tile that is not full, must not divide by zero.
    return tl.maximum(rows * columns, 1).to(tl.float32)


def windows_of_pixel(
    size: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int]:
    """Give how many windows may hold one pixel, along each axis."""
    axes = zip(size, stride, dilation, strict=True)
    down, right = (((w - 1) * d + s) // s for w, s, d in axes)
    return down, right
