"""Backward kernel of a convolution region: the gradient of the weight.

The sum is split over programs, and its parts are added in a fixed order, so that the same input
gives the same bits.
"""

import triton
import triton.language as tl
from torch import Tensor

from cnndsl.rt.conv_geometry import ConvGeometry, conv_precision, conv_sizes
from cnndsl.rt.conv_rows import conv_rows
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
    gradient_ptr,  # [batch, out_height, out_width, C.filters]
    winner_ptr,  # like the gradient, written by the forward kernel
    alive_ptr,
    saved_ptr,
    x_ptr,  # [batch, height, width, C.channels]
    partial_ptr,  # [splits, C.filters, *C.kernel, C.channels // C.groups]
    splits,
    batch,
    height: tl.constexpr,
    width: tl.constexpr,
    conv_height: tl.constexpr,  # before the pool
    conv_width: tl.constexpr,
    out_height: tl.constexpr,  # after it
    out_width: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute a part of the weight's gradient: a sum over some windows and their positions."""
    ROWS: tl.constexpr = T.rows
    COLUMNS: tl.constexpr = T.columns
    GROUP_CHANNELS: tl.constexpr = C.channels // C.groups
    GROUP_FILTERS: tl.constexpr = C.filters // C.groups
    TERMS: tl.constexpr = C.kernel[0] * C.kernel[1] * GROUP_CHANNELS
    POSITIONS: tl.constexpr = C.pool_size[0] * C.pool_size[1]
    GROUP_BLOCKS: tl.constexpr = (GROUP_FILTERS + ROWS - 1) // ROWS
    if C.taps == "rows":
        # A tile's columns are all rows of the filter, in runs of memory as `conv_rows` lays out x.
        TERM_BLOCKS: tl.constexpr = 1
        place = tl.arange(0, COLUMNS)
        down = place // C.row_terms
        right = place % C.row_terms // 4
        channel = place % 4
        term_mask = (down < C.kernel[0]) & (right < C.kernel[1])
        term = (down * C.kernel[1] + right) * C.channels + channel
        run = down * (width * 4) + place % C.row_terms
    elif C.taps == "packed":
        # Few channels: a tile's columns are terms of several taps.
        TERM_BLOCKS: tl.constexpr = (TERMS + COLUMNS - 1) // COLUMNS
        term = tl.program_id(0) % TERM_BLOCKS * COLUMNS + tl.arange(0, COLUMNS)
        term_mask = term < TERMS
        tap = term // GROUP_CHANNELS
        channel = term % GROUP_CHANNELS
    else:
        CHANNEL_BLOCKS: tl.constexpr = (GROUP_CHANNELS + COLUMNS - 1) // COLUMNS
        TERM_BLOCKS: tl.constexpr = C.kernel[0] * C.kernel[1] * CHANNEL_BLOCKS
        tap = tl.program_id(0) % TERM_BLOCKS // CHANNEL_BLOCKS
        channel = tl.program_id(0) % CHANNEL_BLOCKS * COLUMNS + tl.arange(0, COLUMNS)
        term_mask = channel < GROUP_CHANNELS
        term = tap * GROUP_CHANNELS + channel
    if C.taps != "rows":
        down = tap // C.kernel[1] * C.dilation[0]
        right = tap % C.kernel[1] * C.dilation[1]
    block = tl.program_id(0) // TERM_BLOCKS % (GROUP_BLOCKS * C.groups)
    group = block // GROUP_BLOCKS
    filter = block % GROUP_BLOCKS * ROWS + tl.arange(0, ROWS)
    filter_mask = filter < GROUP_FILTERS
    filter += group * GROUP_FILTERS
    split = tl.program_id(0) // (TERM_BLOCKS * GROUP_BLOCKS * C.groups)
    window_blocks = tl.cdiv(batch * out_height * out_width, T.terms)
    first = split * tl.cdiv(window_blocks, splits)
    last = tl.minimum(first + tl.cdiv(window_blocks, splits), window_blocks)

    dweight = tl.zeros((ROWS, COLUMNS), partial_ptr.dtype.element_ty)
    for step in range(first * POSITIONS, last * POSITIONS):
        window = step // POSITIONS * T.terms + tl.arange(0, T.terms)
        exists = window < batch * out_height * out_width
        image, row, column = pixel_place(window, out_height, out_width)
        if C.pool == "average":
            pixels = window_pixels(
                row=row,
                column=column,
                height=conv_height,
                width=conv_width,
                C=C,
                COUNT_PAD=C.count_pad,
            )
        offset = window.to(tl.int64)[None, :] * C.filters + filter[:, None]
        if C.pool == "none":
            gradient = conv_unpooled(
                gradient_ptr=gradient_ptr,
                saved_ptr=saved_ptr,
                offset=offset,
                mask=filter_mask[:, None] & exists[None, :],
                C=C,
            )
        else:
            position = step % POSITIONS
            row = row * C.pool_stride[0] - C.pool_pad[0]
            row += position // C.pool_size[1] * C.pool_dilation[0]
            column = column * C.pool_stride[1] - C.pool_pad[1]
            column += position % C.pool_size[1] * C.pool_dilation[1]
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
                C=C,
            )
        if C.pool == "average":
            gradient = (gradient / pixels[None, :]).to(gradient_ptr.dtype.element_ty)
        if C.taps == "rows":
            start = (image * height + row * C.stride[0]) * width
            start = (start + column * C.stride[1]) * 4
            offset = run
        else:
            row = row * C.stride[0] - C.pad[0]
            column = column * C.stride[1] - C.pad[1]
            start = ((image * height + row) * width + column) * C.channels
            start += group * GROUP_CHANNELS
            offset = (down * width + right) * C.channels + channel
        if C.taps == "rows":
            x_mask = exists[:, None] & term_mask[None, :]
        elif C.taps == "packed":
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
    row = split.to(tl.int64) * C.filters + filter
    if C.taps == "rows":
        term_mask &= channel < C.channels
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
        terms = geometry.row_terms * power_of_two(geometry.kernel[0])
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
        C=geometry,
        T=tile,
        PRECISION=precision,
        **tile.options,
    )
    return partial
