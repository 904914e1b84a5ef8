"""Forward kernel: convolution, bias, activation and pool in one launch.

A program computes a tile of filters by pixels of the convolution. Only pooled values are
written.
"""

import triton
import triton.language as tl
from torch import Tensor

from cnndsl.rt.conv_geometry import ConvGeometry, ConvOutputs, conv_precision, conv_sizes
from cnndsl.rt.conv_library import conv_product
from cnndsl.rt.conv_rows import conv_rows
from cnndsl.rt.shared import (
    COUNTS,
    Tile,
    block_size,
    channels_last,
    count_blocks,
    done,
    full,
    launch,
    measured_tile,
    refuse_launch,
)
from cnndsl.rt.windows import pixel_place

from .conv_epilogue import conv_activation, conv_shifted, conv_statistics
from .conv_pool import conv_quads, conv_windows
from .conv_stage import conv_launch_stage
from .conv_sum import conv_sum

# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


@triton.jit(do_not_specialize=COUNTS)
def conv_forward(
    x_ptr,  # [batch, height, width, C.channels]
    weight_ptr,  # [C.filters, *C.kernel, C.channels // C.groups]
    bias_ptr,  # [C.filters]
    scale_ptr,  # [C.filters]
    y_ptr,  # [batch, out_height, out_width, C.filters]
    winner_ptr,  # like y: 0 = no gradient, 1 + position in the window of the pixel that won
    alive_ptr,  # like y: bit p is set where the pixel at position p of the window has a gradient
    before_ptr,  # like y: what the activation was given
    residual_ptr,  # like y: added before the activation
    sums_ptr,  # [tiles, 3, C.filters]: of a tile's values count, mean, squared distances
    positions,  # of a window: not a constant, or the compiler unrolls the loop and spills
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
    """Compute y = pool(activation(conv(x, weight) · scale + bias)), and what backward needs.

    Where that was done before, x is conv(x, weight), of C.filters channels and one group. A scale
    may also come behind the maximum, a residual may be added before the activation, and statistics
    of y may be written for a batchnorm that follows.
    """
    ROWS: tl.constexpr = T.rows
    COLUMNS: tl.constexpr = T.columns
    GROUPS: tl.constexpr = C.forward_groups
    GROUP_FILTERS: tl.constexpr = C.filters // GROUPS
    GROUP_BLOCKS: tl.constexpr = (GROUP_FILTERS + ROWS - 1) // ROWS
    # Programs that differ in their filters only run side by side: they share x in the cache.
    tile = tl.program_id(0) // (GROUP_BLOCKS * GROUPS)
    block = tl.program_id(0) % (GROUP_BLOCKS * GROUPS)
    group = block // GROUP_BLOCKS
    filter = block % GROUP_BLOCKS * ROWS + tl.arange(0, ROWS)
    filter_mask = filter < GROUP_FILTERS
    filter += group * GROUP_FILTERS
    if C.window == "loop":
        window = tile * COLUMNS + tl.arange(0, COLUMNS)
        window_mask = window < batch * out_height * out_width
        image, row, column = pixel_place(window, out_height, out_width)
        pooled = conv_windows(
            x_ptr=x_ptr,
            weight_ptr=weight_ptr,
            bias_ptr=bias_ptr,
            scale_ptr=scale_ptr,
            positions=positions,
            image=image,
            row=row,
            column=column,
            window_mask=window_mask,
            group=group,
            filter=filter,
            filter_mask=filter_mask,
            height=height,
            width=width,
            conv_height=conv_height,
            conv_width=conv_width,
            C=C,
            T=T,
            PRECISION=PRECISION,
        )
        y = pooled[0]
    else:
        pixel = tl.arange(0, COLUMNS)
        if C.window == "quad":
            # The pixels of a window lie in columns that one thread of the matrix unit holds.
            window = tile * (COLUMNS // 4) + pixel % (COLUMNS // 2) // 2
        else:
            window = tile * COLUMNS + pixel
        window_mask = window < batch * out_height * out_width
        image, row, column = pixel_place(window, out_height, out_width)
        if C.window == "quad":
            row = row * 2 + pixel // (COLUMNS // 2)
            column = column * 2 + pixel % 2
        y = conv_sum(
            x_ptr=x_ptr,
            weight_ptr=weight_ptr,
            scale_ptr=scale_ptr,
            image=image,
            row=row,
            column=column,
            pixel_mask=window_mask,
            group=group,
            filter=filter,
            filter_mask=filter_mask,
            height=height,
            width=width,
            C=C,
            T=T,
            PRECISION=PRECISION,
        )
        if C.window == "quad":
            pooled = conv_quads(
                z=y,
                bias_ptr=bias_ptr,
                filter=filter,
                filter_mask=filter_mask,
                C=C,
                T=T,
            )
            y = pooled[0]
            window = tile * (COLUMNS // 4) + tl.arange(0, COLUMNS // 4)
            window_mask = window < batch * out_height * out_width
    offset = window.to(tl.int64)[None, :] * C.filters + filter[:, None]
    mask = filter_mask[:, None] & window_mask[None, :]
    if C.pool == "average":
        if C.activation == "relu":
            tl.store(alive_ptr + offset, pooled[1].to(alive_ptr.dtype.element_ty), mask=mask)
    else:
        # Bias and a rising activation change no order, so they wait until the best is known.
        y = conv_shifted(
            y=y,
            bias_ptr=bias_ptr,
            scale_ptr=scale_ptr,
            residual_ptr=residual_ptr,
            offset=offset,
            mask=mask,
            filter=filter,
            filter_mask=filter_mask,
            C=C,
        )
        if C.pool == "max":
            code = pooled[1]
            if C.activation == "relu":
                code = tl.where(y <= 0, 0, code)
            tl.store(winner_ptr + offset, code.to(winner_ptr.dtype.element_ty), mask=mask)
        if C.activation == "input":
            tl.store(before_ptr + offset, y.to(before_ptr.dtype.element_ty), mask=mask)
        if C.activation != "none":
            y = conv_activation(y)
    rounded = y.to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + offset, rounded, mask=mask)
    if C.statistics:
        conv_statistics(
            sums_ptr=sums_ptr,
            y=full(rounded),
            mask=mask,
            window_mask=window_mask,
            tile=tile,
            filter=filter,
            filter_mask=filter_mask,
            C=C,
        )


# ── launches ────────────────────────────────────────────────────────────────────────────────────


def conv_forward_tile(geometry: ConvGeometry, x: Tensor, precision: str) -> Tile:
    """Choose filters x pixels, and terms a step, by what compiles without spills."""
    if geometry.tiles:
        measured = measured_tile(geometry.tiles, "forward", x, precision)
        if measured is not None:
            return measured
    if geometry.forward != "fused":
        # Beside a residual, or the best so far, a tile of float32 is half as large.
        most_bytes = 2 if geometry.residual or geometry.window == "loop" else 4
        pixels = 64 if x.element_size() <= most_bytes else 32
        return Tile(block_size(geometry.filters, 64), pixels, 16, 4, 2)
    filters = geometry.filters // geometry.groups
    terms = geometry.channels // geometry.groups
    if geometry.taps == "packed":
        terms *= geometry.kernel[0] * geometry.kernel[1]
    if geometry.taps == "rows":
        return conv_rows_tile(geometry, x, precision)
    if precision == "ieee" and x.element_size() >= 4:
        # No matrix unit multiplies so; each thread holds whole rows and columns of the operands.
        return Tile(block_size(filters, 32), 32 if geometry.window == "loop" else 64, 16, 4, 2)
    if geometry.window == "loop":
        # Beside the sum, the best so far and its position take as many registers again.
        if geometry.taps == "packed":
            return Tile(block_size(filters, 64), 16, 16, 4, 2)
        return Tile(block_size(filters, 64), 32, block_size(terms, 32), 4, 3)
    if x.element_size() == 4:
        return Tile(block_size(filters, 64), 128, block_size(terms, 32), 4, 3)
    if terms <= 32:
        # Little to multiply: what counts is how much is read at a time.
        return Tile(block_size(filters, 64), 256, block_size(terms, 32), 4, 4)
    if filters > 64 and terms >= 64 and geometry.taps == "apart":
        return Tile(128, 128, 64, 8, 3)
    most = 64 if geometry.taps == "apart" and geometry.stride == (1, 1) else 32
    return Tile(block_size(filters, 64), 128, block_size(terms, most), 4, 3)


def conv_rows_tile(geometry: ConvGeometry, x: Tensor, precision: str) -> Tile:
    """Choose where a step takes a row of the filter."""
    row = geometry.row_terms
    if precision == "ieee" and x.element_size() >= 4:
        warps = 8 if geometry.window == "loop" else 4
        return Tile(block_size(geometry.filters, 128 // x.element_size()), 32, row, warps, 2)
    filters = block_size(geometry.filters, 64)
    if x.element_size() == 4:
        return Tile(filters, 32 if geometry.window == "loop" else 64, row, 4, 3)
    if geometry.window == "loop":
        return Tile(filters, 64, row, 8, 3)
    return Tile(filters, 256 if geometry.window == "one" else 128, row, 4, 3)


def conv_launch_windows(geometry: ConvGeometry, x: Tensor) -> int:
    """Say how many windows (pixels, where nothing is pooled) a program of forward computes."""
    tile = conv_forward_tile(geometry, x, conv_precision(x))
    if geometry.window == "quad":
        return tile.columns // 4
    return tile.columns


def conv_launch_forward(
    geometry: ConvGeometry,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    residual: Tensor | None,
    outputs: ConvOutputs,
) -> None:
    """Launch the forward kernel, which fills y and all that is kept beside it."""
    if geometry.residual:
        residual = channels_last(residual)
    sizes = conv_sizes(geometry, x.shape[2], x.shape[3])
    precision = conv_precision(x)
    tile = conv_forward_tile(geometry, x, precision)
    windows = x.shape[0] * sizes.out_height * sizes.out_width
    height, width = sizes.height, sizes.width
    if geometry.forward == "library":
        x = done(conv_product, geometry, x, weight)
    elif geometry.forward == "staged":
        x = conv_launch_stage(geometry, x, weight)
    if geometry.forward != "fused":
        height, width = sizes.conv_height, sizes.conv_width
    elif geometry.taps == "rows":
        x = conv_rows(geometry, channels_last(x))
        height, width = x.shape[2:]
    groups = geometry.forward_groups
    blocks = groups * count_blocks(geometry.filters // groups, tile.rows)
    programs = blocks * count_blocks(windows, conv_launch_windows(geometry, x))
    refuse_launch(x, programs, 4 * windows)
    launch(
        conv_forward,
        programs,
        x_ptr=channels_last(x),
        weight_ptr=channels_last(weight),
        bias_ptr=bias,
        scale_ptr=scale,
        y_ptr=outputs.y,
        winner_ptr=outputs.code,
        alive_ptr=outputs.code,
        before_ptr=outputs.before,
        residual_ptr=residual,
        sums_ptr=outputs.sums,
        positions=geometry.pool_size[0] * geometry.pool_size[1],
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
