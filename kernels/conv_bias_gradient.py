"""Backward kernel of a convolution region: the gradient of the bias, a sum over windows.

It reads each value of the gradient once. So it also writes the gradient before the activation,
where more than the other kernels want it: it is a residual's, or what a library multiplies. Split
and added as the gradient of the weight is.
"""

import triton
import triton.language as tl
from torch import Tensor

from cnndsl.rt.conv_geometry import ConvGeometry, conv_sizes
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

from .conv_rebuild import conv_activation_gradient

# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


@triton.jit(do_not_specialize=COUNTS)
def conv_bias_gradient(
    gradient_ptr,  # [batch, out_height, out_width, C.filters]
    winner_ptr,  # like the gradient, written by the forward kernel
    alive_ptr,
    saved_ptr,
    dz_ptr,  # like the gradient
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
    """Compute a part of the bias's gradient: a sum over some windows."""
    ROWS: tl.constexpr = T.rows
    COLUMNS: tl.constexpr = T.columns
    FILTER_BLOCKS: tl.constexpr = (C.filters + COLUMNS - 1) // COLUMNS
    filter = tl.program_id(0) % FILTER_BLOCKS * COLUMNS + tl.arange(0, COLUMNS)
    filter_mask = filter < C.filters
    split = tl.program_id(0) // FILTER_BLOCKS
    window_blocks = tl.cdiv(batch * out_height * out_width, ROWS)
    first = split * tl.cdiv(window_blocks, splits)
    last = tl.minimum(first + tl.cdiv(window_blocks, splits), window_blocks)
    total = tl.zeros((ROWS, COLUMNS), partial_ptr.dtype.element_ty)
    for step in range(first, last):
        window = step * ROWS + tl.arange(0, ROWS)
        window_mask = window < batch * out_height * out_width
        offset = window.to(tl.int64)[:, None] * C.filters + filter[None, :]
        mask = window_mask[:, None] & filter_mask[None, :]
        gradient = full(tl.load(gradient_ptr + offset, mask=mask, other=0.0))
        if C.pool == "max":
            # Each window that is not dead gives all of its gradient to one pixel.
            winner = tl.load(winner_ptr + offset, mask=mask, other=0)
            gradient = tl.where(winner != 0, gradient, 0.0)
        if C.pool == "average":
            _, row, column = pixel_place(window, out_height, out_width)
            pixels = window_pixels(
                row=row,
                column=column,
                height=conv_height,
                width=conv_width,
                C=C,
                COUNT_PAD=C.count_pad,
            )[:, None]
            if C.activation == "relu":
                alive = tl.load(alive_ptr + offset, mask=mask, other=0).to(tl.int32)
                taking = alive & 1
                for position in range(1, C.pool_size[0] * C.pool_size[1]):
                    taking += (alive >> position) & 1
            else:
                taking = window_pixels(
                    row=row,
                    column=column,
                    height=conv_height,
                    width=conv_width,
                    C=C,
                    COUNT_PAD=False,
                )[:, None]
            # Without a live pixel there is no gradient, even of an infinite one.
            gradient = tl.where(taking == 0, 0.0, gradient * taking / pixels)
        if (C.activation == "output" or C.activation == "input") or (
            C.activation == "relu" and C.pool == "none"
        ):
            saved = full(tl.load(saved_ptr + offset, mask=mask, other=0.0))
            gradient = conv_activation_gradient(saved, gradient)
        if C.residual or C.backward == "library":
            if C.pool == "none" and C.activation != "none":
                tl.store(dz_ptr + offset, gradient.to(dz_ptr.dtype.element_ty), mask=mask)
        total += gradient
    tl.store(
        partial_ptr + split.to(tl.int64) * C.filters + filter,
        tl.sum(total, axis=0),
        mask=filter_mask,
    )


# ── launches ────────────────────────────────────────────────────────────────────────────────────


def conv_launch_bias_gradient(
    geometry: ConvGeometry,
    gradient: Tensor,
    code: Tensor,
    saved: Tensor | None,
    dz: Tensor,
    height: int,
    width: int,
) -> Tensor:
    """Launch the kernel of the bias's gradient: parts of its sum.

    It fills dz with the gradient before the activation, where dz is wanted and is not that itself.
    """
    sizes = conv_sizes(geometry, height, width)
    windows = gradient.shape[0] * sizes.out_height * sizes.out_width
    columns = block_size(geometry.filters, 16 if gradient.element_size() == 8 else 64)
    tile = Tile(32, columns, 1, 4, 3)
    programs = count_blocks(geometry.filters, tile.columns)
    splits = split_count(programs, count_blocks(windows, tile.rows))
    refuse_launch(gradient, programs * splits, windows)
    shape = (splits, geometry.filters)
    partial = allocated(gradient.new_empty(shape, dtype=full_dtype(gradient)))
    launch(
        conv_bias_gradient,
        programs * splits,
        gradient_ptr=gradient,
        winner_ptr=code,
        alive_ptr=code,
        saved_ptr=saved,
        dz_ptr=dz,
        partial_ptr=partial,
        splits=splits,
        batch=gradient.shape[0],
        conv_height=sizes.conv_height,
        conv_width=sizes.conv_width,
        out_height=sizes.out_height,
        out_width=sizes.out_width,
        C=geometry,
        T=tile,
        num_warps=tile.warps,
    )
    return partial
