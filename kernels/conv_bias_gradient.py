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
    gradient_ptr,  # [batch, out_height, out_width, FILTERS]
    winner_ptr,  # like the gradient, written by the forward kernel
    alive_ptr,
    saved_ptr,
    dz_ptr,  # like the gradient
    partial_ptr,  # [splits, FILTERS]
    splits,
    batch,
    conv_height: tl.constexpr,  # before the pool
    conv_width: tl.constexpr,
    out_height: tl.constexpr,  # after it
    out_width: tl.constexpr,
    FILTERS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    BACKWARD: tl.constexpr,
    ACTIVATION: tl.constexpr,
    POOL: tl.constexpr,
    POOL_SIZE: tl.constexpr,
    POOL_STRIDE: tl.constexpr,
    POOL_PAD: tl.constexpr,
    COUNT_PAD: tl.constexpr,
    BLOCK_WINDOWS: tl.constexpr,
    BLOCK_FILTERS: tl.constexpr,
):
    """Compute a part of the bias's gradient: a sum over some windows."""
    FILTER_BLOCKS: tl.constexpr = (FILTERS + BLOCK_FILTERS - 1) // BLOCK_FILTERS
    filter = tl.program_id(0) % FILTER_BLOCKS * BLOCK_FILTERS + tl.arange(0, BLOCK_FILTERS)
    filter_mask = filter < FILTERS
    split = tl.program_id(0) // FILTER_BLOCKS
    window_blocks = tl.cdiv(batch * out_height * out_width, BLOCK_WINDOWS)
    first = split * tl.cdiv(window_blocks, splits)
    last = tl.minimum(first + tl.cdiv(window_blocks, splits), window_blocks)
    total = tl.zeros((BLOCK_WINDOWS, BLOCK_FILTERS), partial_ptr.dtype.element_ty)
    for step in range(first, last):
        window = step * BLOCK_WINDOWS + tl.arange(0, BLOCK_WINDOWS)
        window_mask = window < batch * out_height * out_width
        offset = window.to(tl.int64)[:, None] * FILTERS + filter[None, :]
        mask = window_mask[:, None] & filter_mask[None, :]
        gradient = full(tl.load(gradient_ptr + offset, mask=mask, other=0.0))
        if POOL == "max":
            # Each window that is not dead gives all of its gradient to one pixel.
            winner = tl.load(winner_ptr + offset, mask=mask, other=0)
            gradient = tl.where(winner != 0, gradient, 0.0)
        if POOL == "average":
            _, row, column = pixel_place(window, out_height, out_width)
            pixels = window_pixels(
                row=row,
                column=column,
                height=conv_height,
                width=conv_width,
                POOL_SIZE=POOL_SIZE,
                POOL_STRIDE=POOL_STRIDE,
                POOL_PAD=POOL_PAD,
                COUNT_PAD=COUNT_PAD,
            )[:, None]
            if ACTIVATION == "relu":
                alive = tl.load(alive_ptr + offset, mask=mask, other=0).to(tl.int32)
                taking = alive & 1
                for position in range(1, POOL_SIZE[0] * POOL_SIZE[1]):
                    taking += (alive >> position) & 1
            else:
                taking = window_pixels(
                    row=row,
                    column=column,
                    height=conv_height,
                    width=conv_width,
                    POOL_SIZE=POOL_SIZE,
                    POOL_STRIDE=POOL_STRIDE,
                    POOL_PAD=POOL_PAD,
                    COUNT_PAD=False,
                )[:, None]
            # Without a live pixel there is no gradient, even of an infinite one.
            gradient = tl.where(taking == 0, 0.0, gradient * taking / pixels)
        if (ACTIVATION == "output" or ACTIVATION == "input") or (
            ACTIVATION == "relu" and POOL == "none"
        ):
            saved = full(tl.load(saved_ptr + offset, mask=mask, other=0.0))
            gradient = conv_activation_gradient(saved, gradient)
        if POOL == "none" and ACTIVATION != "none" and (RESIDUAL or BACKWARD == "library"):
            tl.store(dz_ptr + offset, gradient.to(dz_ptr.dtype.element_ty), mask=mask)
        total += gradient
    tl.store(
        partial_ptr + split.to(tl.int64) * FILTERS + filter,
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
    block_windows = 32
    block_filters = block_size(geometry.filters, 16 if gradient.element_size() == 8 else 64)
    programs = count_blocks(geometry.filters, block_filters)
    splits = split_count(programs, count_blocks(windows, block_windows))
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
        FILTERS=geometry.filters,
        RESIDUAL=geometry.residual,
        BACKWARD=geometry.backward,
        ACTIVATION=geometry.activation,
        POOL=geometry.pool,
        POOL_SIZE=geometry.pool_size,
        POOL_STRIDE=geometry.pool_stride,
        POOL_PAD=geometry.pool_pad,
        COUNT_PAD=geometry.count_pad,
        BLOCK_WINDOWS=block_windows,
        BLOCK_FILTERS=block_filters,
        num_warps=4,
    )
    return partial
