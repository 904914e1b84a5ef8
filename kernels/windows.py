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
