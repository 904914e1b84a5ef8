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
    POOL_SIZE: tl.constexpr,
    POOL_STRIDE: tl.constexpr,
    POOL_PAD: tl.constexpr,
    POOL_DILATION: tl.constexpr,
    WINDOWS: tl.constexpr,
):
    """Say which window may hold a pixel, at which position, and whether it does.

    At most WINDOWS (down, right) hold one pixel: each turn is another of these.
    """
    top = row + POOL_PAD[0]
    left = column + POOL_PAD[1]
    window_row = top // POOL_STRIDE[0] - turn // WINDOWS[1]
    window_column = left // POOL_STRIDE[1] - turn % WINDOWS[1]
    # How far into the window the pixel lies.
    down = top - window_row * POOL_STRIDE[0]
    right = left - window_column * POOL_STRIDE[1]
    holds = (window_row >= 0) & (window_row < out_height)
    holds &= (window_column >= 0) & (window_column < out_width)
    holds &= (down % POOL_DILATION[0] == 0) & (right % POOL_DILATION[1] == 0)
    down = down // POOL_DILATION[0]
    right = right // POOL_DILATION[1]
    holds &= (down < POOL_SIZE[0]) & (right < POOL_SIZE[1])
    # Outside a window there is no position; a position is shifted by all the same.
    position = tl.where(holds, down * POOL_SIZE[1] + right, 0)
    return window_row, window_column, position, holds


@triton.jit
def window_pixels(
    row,
    column,
    height,
    width,
    POOL_SIZE: tl.constexpr,
    POOL_STRIDE: tl.constexpr,
    POOL_PAD: tl.constexpr,
    COUNT_PAD: tl.constexpr,
):
    """Say by how many pixels of an image of this height and width a window's average divides."""
    top = row * POOL_STRIDE[0] - POOL_PAD[0]
    left = column * POOL_STRIDE[1] - POOL_PAD[1]
    if COUNT_PAD:
        # Rounding up (ceil) may make a window reach past the padding: that part never counts.
        rows = tl.minimum(top + POOL_SIZE[0], height + POOL_PAD[0]) - top
        columns = tl.minimum(left + POOL_SIZE[1], width + POOL_PAD[1]) - left
    else:
        rows = tl.minimum(top + POOL_SIZE[0], height) - tl.maximum(top, 0)
        columns = tl.minimum(left + POOL_SIZE[1], width) - tl.maximum(left, 0)
    # Windows outside the image, in a tile that is not full, must not divide by zero.
    return tl.maximum(rows * columns, 1).to(tl.float32)


def windows_of_pixel(
    size: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int]:
    """Give how many windows may hold one pixel, along each axis."""
    axes = zip(size, stride, dilation, strict=True)
    down, right = (((w - 1) * d + s) // s for w, s, d in axes)
    return down, right
