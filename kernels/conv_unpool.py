"""Backward kernel of a convolution region with a pool: the gradient before it, written once.

For the products of a library, which cannot rebuild it where they read it.
"""

import triton
import triton.language as tl
from torch import Tensor

from cnndsl.rt.conv_geometry import ConvGeometry
from cnndsl.rt.module import full_dtype
from cnndsl.rt.shared import (
    COUNTS,
    allocated,
    block_size,
    count_blocks,
    full,
    launch,
    refuse_launch,
    split_count,
)
from cnndsl.rt.windows import pixel_place, window_pixels, windows_of_pixel

from .conv_rebuild import conv_rebuilt

# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


@triton.jit(do_not_specialize=COUNTS)
def conv_unpool(
    gradient_ptr,  # [batch, out_height, out_width, FILTERS]
    winner_ptr,  # like the gradient, written by the forward kernel
    alive_ptr,
    saved_ptr,
    dz_ptr,  # [batch, conv_height, conv_width, FILTERS]
    partial_ptr,  # [splits, FILTERS]
    splits,
    batch,
    conv_height: tl.constexpr,  # before the pool
    conv_width: tl.constexpr,
    out_height: tl.constexpr,  # after it
    out_width: tl.constexpr,
    FILTERS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    POOL: tl.constexpr,
    POOL_SIZE: tl.constexpr,
    POOL_STRIDE: tl.constexpr,
    POOL_PAD: tl.constexpr,
    POOL_DILATION: tl.constexpr,
    COUNT_PAD: tl.constexpr,
    WINDOWS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_FILTERS: tl.constexpr,
):
    """Compute the gradient of some pixels, and its sum over them: a part of the bias's."""
    FILTER_BLOCKS: tl.constexpr = (FILTERS + BLOCK_FILTERS - 1) // BLOCK_FILTERS
    filter = tl.program_id(0) % FILTER_BLOCKS * BLOCK_FILTERS + tl.arange(0, BLOCK_FILTERS)
    filter_mask = filter < FILTERS
    split = tl.program_id(0) // FILTER_BLOCKS
    # The pixels of a tile have one phase: row and column, with the padding, modulo the strides. So
    # their positions in windows are scalars.
    PHASES: tl.constexpr = POOL_STRIDE[0] * POOL_STRIDE[1]
    cell_rows = (conv_height + POOL_PAD[0] + POOL_STRIDE[0] - 1) // POOL_STRIDE[0]
    cell_columns = (conv_width + POOL_PAD[1] + POOL_STRIDE[1] - 1) // POOL_STRIDE[1]
    cells = batch * cell_rows * cell_columns
    blocks = tl.cdiv(cells, BLOCK_PIXELS) * PHASES
    first = split * tl.cdiv(blocks, splits)
    last = tl.minimum(first + tl.cdiv(blocks, splits), blocks)
    total = tl.zeros((BLOCK_PIXELS, BLOCK_FILTERS), partial_ptr.dtype.element_ty)
    for step in range(first, last):
        phase_row = step % PHASES // POOL_STRIDE[1]
        phase_column = step % POOL_STRIDE[1]
        cell = step // PHASES * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
        image, cell_row, cell_column = pixel_place(cell, cell_rows, cell_columns)
        row = cell_row * POOL_STRIDE[0] + phase_row - POOL_PAD[0]
        column = cell_column * POOL_STRIDE[1] + phase_column - POOL_PAD[1]
        pixel_mask = (cell < cells) & (row >= 0) & (row < conv_height)
        pixel_mask &= (column >= 0) & (column < conv_width)
        dz = tl.zeros((BLOCK_PIXELS, BLOCK_FILTERS), partial_ptr.dtype.element_ty)
        for turn in range(WINDOWS[0] * WINDOWS[1]):
            # A window that may hold the pixels, and how far into it they lie.
            window_row = cell_row - turn // WINDOWS[1]
            window_column = cell_column - turn % WINDOWS[1]
            down = phase_row + turn // WINDOWS[1] * POOL_STRIDE[0]
            right = phase_column + turn % WINDOWS[1] * POOL_STRIDE[1]
            fits = (down % POOL_DILATION[0] == 0) & (right % POOL_DILATION[1] == 0)
            down = down // POOL_DILATION[0]
            right = right // POOL_DILATION[1]
            if fits & (down < POOL_SIZE[0]) & (right < POOL_SIZE[1]):
                holds = pixel_mask & (window_row >= 0) & (window_row < out_height)
                holds &= (window_column >= 0) & (window_column < out_width)
                window = (image * out_height + window_row) * out_width + window_column
                gradient = conv_rebuilt(
                    gradient_ptr=gradient_ptr,
                    winner_ptr=winner_ptr,
                    alive_ptr=alive_ptr,
                    saved_ptr=saved_ptr,
                    offset=(window * FILTERS)[:, None] + filter[None, :],
                    mask=holds[:, None] & filter_mask[None, :],
                    position=down * POOL_SIZE[1] + right,
                    ACTIVATION=ACTIVATION,
                    POOL=POOL,
                )
                gradient = full(gradient)
                if POOL == "average":
                    pixels = window_pixels(
                        row=window_row,
                        column=window_column,
                        height=conv_height,
                        width=conv_width,
                        POOL_SIZE=POOL_SIZE,
                        POOL_STRIDE=POOL_STRIDE,
                        POOL_PAD=POOL_PAD,
                        COUNT_PAD=COUNT_PAD,
                    )
                    gradient /= pixels[:, None]
                dz += gradient
        pixel = (image * conv_height + row) * conv_width + column
        tl.store(
            dz_ptr + pixel[:, None] * FILTERS + filter[None, :],
            dz.to(dz_ptr.dtype.element_ty),
            mask=pixel_mask[:, None] & filter_mask[None, :],
        )
        total += dz
    tl.store(
        partial_ptr + split.to(tl.int64) * FILTERS + filter,
        tl.sum(total, axis=0),
        mask=filter_mask,
    )


# ── launches ────────────────────────────────────────────────────────────────────────────────────


def conv_launch_unpool(
    geometry: ConvGeometry,
    gradient: Tensor,
    code: Tensor,
    saved: Tensor | None,
    dz: Tensor,
) -> Tensor:
    """Launch the kernel that fills dz, and give parts of the bias's gradient, in float32."""
    pixels = dz.shape[0] * dz.shape[2] * dz.shape[3]
    # Where slopes are read, too: of float32, half as many.
    has_slopes = geometry.activation in ("output", "input")
    block_pixels = 16 if has_slopes and dz.element_size() >= 4 else 32
    block_filters = block_size(geometry.filters, 64)
    programs = count_blocks(geometry.filters, block_filters)
    splits = split_count(programs, count_blocks(pixels, block_pixels), 2048)
    refuse_launch(dz, programs * splits, pixels)
    partial = allocated(dz.new_empty((splits, geometry.filters), dtype=full_dtype(dz)))
    launch(
        conv_unpool,
        programs * splits,
        gradient_ptr=gradient,
        winner_ptr=code,
        alive_ptr=code,
        saved_ptr=saved,
        dz_ptr=dz,
        partial_ptr=partial,
        splits=splits,
        batch=dz.shape[0],
        conv_height=dz.shape[2],
        conv_width=dz.shape[3],
        out_height=gradient.shape[2],
        out_width=gradient.shape[3],
        FILTERS=geometry.filters,
        ACTIVATION=geometry.activation,
        POOL=geometry.pool,
        POOL_SIZE=geometry.pool_size,
        POOL_STRIDE=geometry.pool_stride,
        POOL_PAD=geometry.pool_pad,
        POOL_DILATION=geometry.pool_dilation,
        COUNT_PAD=geometry.count_pad,
        WINDOWS=windows_of_pixel(geometry.pool_size, geometry.pool_stride, geometry.pool_dilation),
        BLOCK_PIXELS=block_pixels,
        BLOCK_FILTERS=block_filters,
        num_warps=4,
    )
    return partial
