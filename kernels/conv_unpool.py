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
    Tile,
    allocated,
    block_size,
    count_blocks,
    full,
    launch,
    refuse_launch,
    split_count,
)
from cnndsl.rt.windows import pixel_place, window_pixels

from .conv_rebuild import conv_rebuilt

# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


@triton.jit(do_not_specialize=COUNTS)
def conv_unpool(
    gradient_ptr,  # [batch, out_height, out_width, C.filters]
    winner_ptr,  # like the gradient, written by the forward kernel
    alive_ptr,
    saved_ptr,
    dz_ptr,  # [batch, conv_height, conv_width, C.filters]
    partial_ptr,  # [splits, C.filters]
    splits,
    batch,
    conv_height: tl.constexpr,  # before the pool
    conv_width: tl.constexpr,
    out_height: tl.constexpr,  # after it
    out_width: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
):
    """Compute the gradient of some pixels, and its sum over them: a part of the bias's."""
    ROWS: tl.constexpr = T.rows
    COLUMNS: tl.constexpr = T.columns
    FILTER_BLOCKS: tl.constexpr = (C.filters + COLUMNS - 1) // COLUMNS
    filter = tl.program_id(0) % FILTER_BLOCKS * COLUMNS + tl.arange(0, COLUMNS)
    filter_mask = filter < C.filters
    split = tl.program_id(0) // FILTER_BLOCKS
    # The pixels of a tile have one phase: row and column, with the padding, modulo the strides. So
    # their positions in windows are scalars.
    PHASES: tl.constexpr = C.pool_stride[0] * C.pool_stride[1]
    STRIDE: tl.constexpr = C.pool_stride
    cell_rows = (conv_height + C.pool_pad[0] + STRIDE[0] - 1) // STRIDE[0]
    cell_columns = (conv_width + C.pool_pad[1] + STRIDE[1] - 1) // STRIDE[1]
    cells = batch * cell_rows * cell_columns
    blocks = tl.cdiv(cells, ROWS) * PHASES
    first = split * tl.cdiv(blocks, splits)
    last = tl.minimum(first + tl.cdiv(blocks, splits), blocks)
    total = tl.zeros((ROWS, COLUMNS), partial_ptr.dtype.element_ty)
    for step in range(first, last):
        phase_row = step % PHASES // C.pool_stride[1]
        phase_column = step % C.pool_stride[1]
        cell = step // PHASES * ROWS + tl.arange(0, ROWS)
        image, cell_row, cell_column = pixel_place(cell, cell_rows, cell_columns)
        row = cell_row * C.pool_stride[0] + phase_row - C.pool_pad[0]
        column = cell_column * C.pool_stride[1] + phase_column - C.pool_pad[1]
        pixel_mask = (cell < cells) & (row >= 0) & (row < conv_height)
        pixel_mask &= (column >= 0) & (column < conv_width)
        dz = tl.zeros((ROWS, COLUMNS), partial_ptr.dtype.element_ty)
        for turn in range(C.windows[0] * C.windows[1]):
            # A window that may hold the pixels, and how far into it they lie.
            window_row = cell_row - turn // C.windows[1]
            window_column = cell_column - turn % C.windows[1]
            down = phase_row + turn // C.windows[1] * C.pool_stride[0]
            right = phase_column + turn % C.windows[1] * C.pool_stride[1]
            fits = (down % C.pool_dilation[0] == 0) & (right % C.pool_dilation[1] == 0)
            down = down // C.pool_dilation[0]
            right = right // C.pool_dilation[1]
            if fits & (down < C.pool_size[0]) & (right < C.pool_size[1]):
                holds = pixel_mask & (window_row >= 0) & (window_row < out_height)
                holds &= (window_column >= 0) & (window_column < out_width)
                window = (image * out_height + window_row) * out_width + window_column
                gradient = conv_rebuilt(
                    gradient_ptr=gradient_ptr,
                    winner_ptr=winner_ptr,
                    alive_ptr=alive_ptr,
                    saved_ptr=saved_ptr,
                    offset=(window * C.filters)[:, None] + filter[None, :],
                    mask=holds[:, None] & filter_mask[None, :],
                    position=down * C.pool_size[1] + right,
                    C=C,
                )
                gradient = full(gradient)
                if C.pool == "average":
                    pixels = window_pixels(
                        row=window_row,
                        column=window_column,
                        height=conv_height,
                        width=conv_width,
                        C=C,
                        COUNT_PAD=C.count_pad,
                    )
                    gradient /= pixels[:, None]
                dz += gradient
        pixel = (image * conv_height + row) * conv_width + column
        tl.store(
            dz_ptr + pixel[:, None] * C.filters + filter[None, :],
            dz.to(dz_ptr.dtype.element_ty),
            mask=pixel_mask[:, None] & filter_mask[None, :],
        )
        total += dz
    tl.store(
        partial_ptr + split.to(tl.int64) * C.filters + filter,
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
    rows = 16 if has_slopes and dz.element_size() >= 4 else 32
    tile = Tile(rows, block_size(geometry.filters, 64), 1, 4, 3)
    programs = count_blocks(geometry.filters, tile.columns)
    splits = split_count(programs, count_blocks(pixels, tile.rows), 2048)
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
        C=geometry,
        T=tile,
        num_warps=tile.warps,
    )
    return partial
