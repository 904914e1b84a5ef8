"""Backward kernel of a convolution region: the gradient of the weight.

The sum is split over programs, and its parts are added in a fixed order, so that the same input
gives the same bits.
"""

import triton
import triton.language as tl
from torch import Tensor

from cnndsl.rt.conv_geometry import ConvGeometry, conv_precision, conv_sizes
from cnndsl.rt.conv_rows import conv_row_terms, conv_rows
from cnndsl.rt.module import full_dtype
from cnndsl.rt.shared import (
    COUNTS,
    Tile,
    allocated,
    block_size,
    channels_last,
    count_blocks,
    launch,
    measured_tile,
    power_of_two,
    refuse_launch,
    split_count,
)
from cnndsl.rt.windows import pixel_place, window_pixels

from .conv_rebuild import conv_rebuilt, conv_unpooled

# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


@triton.jit(do_not_specialize=COUNTS)
def conv_weight_gradient(
    gradient_ptr,  # [batch, out_height, out_width, FILTERS]
    winner_ptr,  # like the gradient, written by the forward kernel
    alive_ptr,
    saved_ptr,
    x_ptr,  # [batch, height, width, CHANNELS]
    partial_ptr,  # [splits, FILTERS, *KERNEL, CHANNELS // GROUPS]
    splits,
    batch,
    height: tl.constexpr,
    width: tl.constexpr,
    conv_height: tl.constexpr,  # before the pool
    conv_width: tl.constexpr,
    out_height: tl.constexpr,  # after it
    out_width: tl.constexpr,
    CHANNELS: tl.constexpr,
    FILTERS: tl.constexpr,
    GROUPS: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PAD: tl.constexpr,
    DILATION: tl.constexpr,
    TAPS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    ACTIVATION: tl.constexpr,
    POOL: tl.constexpr,
    POOL_SIZE: tl.constexpr,
    POOL_STRIDE: tl.constexpr,
    POOL_PAD: tl.constexpr,
    POOL_DILATION: tl.constexpr,
    COUNT_PAD: tl.constexpr,
    ROW: tl.constexpr,  # of a filter, in terms: only where such rows are runs of memory
    BLOCK_FILTERS: tl.constexpr,
    BLOCK_TERMS: tl.constexpr,
    BLOCK_WINDOWS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute a part of the weight's gradient: a sum over some windows and their positions."""
    GROUP_CHANNELS: tl.constexpr = CHANNELS // GROUPS
    GROUP_FILTERS: tl.constexpr = FILTERS // GROUPS
    TERMS: tl.constexpr = KERNEL[0] * KERNEL[1] * GROUP_CHANNELS
    POSITIONS: tl.constexpr = POOL_SIZE[0] * POOL_SIZE[1]
    GROUP_BLOCKS: tl.constexpr = (GROUP_FILTERS + BLOCK_FILTERS - 1) // BLOCK_FILTERS
    if TAPS == "rows":
        # A tile's columns are all rows of the filter, in runs of memory as `conv_rows` lays out x.
        TERM_BLOCKS: tl.constexpr = 1
        place = tl.arange(0, BLOCK_TERMS)
        down = place // ROW
        right = place % ROW // 4
        channel = place % 4
        term_mask = (down < KERNEL[0]) & (right < KERNEL[1])
        term = (down * KERNEL[1] + right) * CHANNELS + channel
        run = down * (width * 4) + place % ROW
    elif TAPS == "packed":
        # Few channels: a tile's columns are terms of several taps.
        TERM_BLOCKS: tl.constexpr = (TERMS + BLOCK_TERMS - 1) // BLOCK_TERMS
        term = tl.program_id(0) % TERM_BLOCKS * BLOCK_TERMS + tl.arange(0, BLOCK_TERMS)
        term_mask = term < TERMS
        tap = term // GROUP_CHANNELS
        channel = term % GROUP_CHANNELS
    else:
        CHANNEL_BLOCKS: tl.constexpr = (GROUP_CHANNELS + BLOCK_TERMS - 1) // BLOCK_TERMS
        TERM_BLOCKS: tl.constexpr = KERNEL[0] * KERNEL[1] * CHANNEL_BLOCKS
        tap = tl.program_id(0) % TERM_BLOCKS // CHANNEL_BLOCKS
        channel = tl.program_id(0) % CHANNEL_BLOCKS * BLOCK_TERMS + tl.arange(0, BLOCK_TERMS)
        term_mask = channel < GROUP_CHANNELS
        term = tap * GROUP_CHANNELS + channel
    if TAPS != "rows":
        down = tap // KERNEL[1] * DILATION[0]
        right = tap % KERNEL[1] * DILATION[1]
    block = tl.program_id(0) // TERM_BLOCKS % (GROUP_BLOCKS * GROUPS)
    group = block // GROUP_BLOCKS
    filter = block % GROUP_BLOCKS * BLOCK_FILTERS + tl.arange(0, BLOCK_FILTERS)
    filter_mask = filter < GROUP_FILTERS
    filter += group * GROUP_FILTERS
    split = tl.program_id(0) // (TERM_BLOCKS * GROUP_BLOCKS * GROUPS)
    window_blocks = tl.cdiv(batch * out_height * out_width, BLOCK_WINDOWS)
    first = split * tl.cdiv(window_blocks, splits)
    last = tl.minimum(first + tl.cdiv(window_blocks, splits), window_blocks)

    dweight = tl.zeros((BLOCK_FILTERS, BLOCK_TERMS), partial_ptr.dtype.element_ty)
    for step in range(first * POSITIONS, last * POSITIONS):
        window = step // POSITIONS * BLOCK_WINDOWS + tl.arange(0, BLOCK_WINDOWS)
        exists = window < batch * out_height * out_width
        image, row, column = pixel_place(window, out_height, out_width)
        if POOL == "average":
            pixels = window_pixels(
                row=row,
                column=column,
                height=conv_height,
                width=conv_width,
                POOL_SIZE=POOL_SIZE,
                POOL_STRIDE=POOL_STRIDE,
                POOL_PAD=POOL_PAD,
                COUNT_PAD=COUNT_PAD,
            )
        offset = window.to(tl.int64)[None, :] * FILTERS + filter[:, None]
        if POOL == "none":
            gradient = conv_unpooled(
                gradient_ptr=gradient_ptr,
                saved_ptr=saved_ptr,
                offset=offset,
                mask=filter_mask[:, None] & exists[None, :],
                RESIDUAL=RESIDUAL,
                ACTIVATION=ACTIVATION,
            )
        else:
            position = step % POSITIONS
            row = row * POOL_STRIDE[0] - POOL_PAD[0]
            row += position // POOL_SIZE[1] * POOL_DILATION[0]
            column = column * POOL_STRIDE[1] - POOL_PAD[1]
            column += position % POOL_SIZE[1] * POOL_DILATION[1]
            exists &= (row >= 0) & (row < conv_height)
            exists &= (column >= 0) & (column < conv_width)
            gradient = conv_rebuilt(
                gradient_ptr=gradient_ptr,
                winner_ptr=winner_ptr,
                alive_ptr=alive_ptr,
                saved_ptr=saved_ptr,
                offset=offset,
                mask=filter_mask[:, None] & exists[None, :],
                position=position,
                ACTIVATION=ACTIVATION,
                POOL=POOL,
            )
        if POOL == "average":
            gradient = (gradient / pixels[None, :]).to(gradient_ptr.dtype.element_ty)
        if TAPS == "rows":
            start = ((image * height + row * STRIDE[0]) * width + column * STRIDE[1]) * 4
            offset = run
        else:
            row = row * STRIDE[0] - PAD[0]
            column = column * STRIDE[1] - PAD[1]
            start = ((image * height + row) * width + column) * CHANNELS
            start += group * GROUP_CHANNELS
            offset = (down * width + right) * CHANNELS + channel
        if TAPS == "rows":
            x_mask = exists[:, None] & term_mask[None, :]
        elif TAPS == "packed":
            x_mask = exists[:, None] & term_mask[None, :]
            x_mask &= row[:, None] + down[None, :] >= 0
            x_mask &= row[:, None] + down[None, :] < height
            x_mask &= column[:, None] + right[None, :] >= 0
            x_mask &= column[:, None] + right[None, :] < width
        else:
            exists &= (row + down >= 0) & (row + down < height)
            exists &= (column + right >= 0) & (column + right < width)
            x_mask = exists[:, None] & term_mask[None, :]
        x = tl.load(x_ptr + start[:, None] + offset[None, :], mask=x_mask, other=0.0)
        dweight = tl.dot(
            gradient,
            x,
            dweight,
            input_precision=PRECISION,
            out_dtype=dweight.dtype,
        )
    row = split.to(tl.int64) * FILTERS + filter
    if TAPS == "rows":
        term_mask &= channel < CHANNELS
    tl.store(
        partial_ptr + row[:, None] * TERMS + term[None, :],
        dweight,
        mask=filter_mask[:, None] & term_mask[None, :],
    )


# ── launches ────────────────────────────────────────────────────────────────────────────────────


def conv_weight_gradient_tile(geometry: ConvGeometry, x: Tensor, precision: str) -> Tile:
    """Choose filters x terms, and windows a step, by what compiles without spills."""
    if geometry.tiles:
        measured = measured_tile(geometry.tiles, "weight_gradient", x, precision)
        if measured is not None:
            return measured
    filters = geometry.filters // geometry.groups
    terms = geometry.channels // geometry.groups
    if geometry.taps == "packed":
        terms *= geometry.kernel[0] * geometry.kernel[1]
    most, windows = 64, 32
    if precision == "ieee" and x.element_size() >= 4:
        most, windows = 32, 16
    if geometry.taps == "rows":
        terms = conv_row_terms(geometry) * power_of_two(geometry.kernel[0])
        if x.element_size() >= 4:
            return Tile(block_size(filters, most), terms, windows, 8, 2)
        return Tile(block_size(filters, most), terms, windows, 4, 3)
    most_terms = 32 if x.element_size() == 8 else 64
    return Tile(block_size(filters, most), block_size(terms, most_terms), windows, 4, 2)


def conv_launch_weight_gradient(
    geometry: ConvGeometry,
    gradient: Tensor,
    code: Tensor,
    saved: Tensor | None,
    x: Tensor,
) -> Tensor:
    """Launch the kernel of the weight's gradient: parts of its sum, in float32."""
    sizes = conv_sizes(geometry, x.shape[2], x.shape[3])
    precision = conv_precision(x)
    tile = conv_weight_gradient_tile(geometry, x, precision)
    channels = geometry.channels // geometry.groups
    taps = geometry.kernel[0] * geometry.kernel[1]
    height, width = sizes.height, sizes.width
    if geometry.taps == "rows":
        x = conv_rows(geometry, channels_last(x))
        height, width = x.shape[2:]
        programs = 1
    elif geometry.taps == "packed":
        programs = count_blocks(taps * channels, tile.columns)
    else:
        programs = taps * count_blocks(channels, tile.columns)
    programs *= geometry.groups * count_blocks(geometry.filters // geometry.groups, tile.rows)
    windows = x.shape[0] * sizes.out_height * sizes.out_width
    splits = split_count(programs, count_blocks(windows, tile.terms))
    refuse_launch(x, programs * splits, windows * geometry.pool_size[0] * geometry.pool_size[1])
    shape = (splits, geometry.filters, *geometry.kernel, channels)
    partial = allocated(x.new_empty(shape, dtype=full_dtype(x)))
    launch(
        conv_weight_gradient,
        programs * splits,
        gradient_ptr=gradient,
        winner_ptr=code,
        alive_ptr=code,
        saved_ptr=saved,
        x_ptr=channels_last(x),
        partial_ptr=partial,
        splits=splits,
        batch=x.shape[0],
        height=height,
        width=width,
        conv_height=sizes.conv_height,
        conv_width=sizes.conv_width,
        out_height=sizes.out_height,
        out_width=sizes.out_width,
        CHANNELS=geometry.channels,
        FILTERS=geometry.filters,
        GROUPS=geometry.groups,
        KERNEL=geometry.kernel,
        STRIDE=geometry.stride,
        PAD=geometry.pad,
        DILATION=geometry.dilation,
        TAPS=geometry.taps,
        RESIDUAL=geometry.residual,
        ACTIVATION=geometry.activation,
        POOL=geometry.pool,
        POOL_SIZE=geometry.pool_size,
        POOL_STRIDE=geometry.pool_stride,
        POOL_PAD=geometry.pool_pad,
        POOL_DILATION=geometry.pool_dilation,
        COUNT_PAD=geometry.count_pad,
        ROW=conv_row_terms(geometry),
        BLOCK_FILTERS=tile.rows,
        BLOCK_TERMS=tile.columns,
        BLOCK_WINDOWS=tile.terms,
        PRECISION=precision,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return partial
