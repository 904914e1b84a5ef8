"""Forward kernel of a convolution alone, whose result another launch goes on with.

For pools whose windows overlap: computing a value anew for each window that holds it would cost
more than to write it once.
"""

import triton
import triton.language as tl
from torch import Tensor

from cnndsl.rt.conv_geometry import ConvGeometry, conv_precision, conv_sizes
from cnndsl.rt.conv_rows import conv_rows
from cnndsl.rt.shared import (
    COUNTS,
    Tile,
    block_size,
    channels_last,
    count_blocks,
    launch,
    measured_tile,
    new_image,
    refuse_launch,
)
from cnndsl.rt.windows import pixel_place

from .conv_sum import conv_products

# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


@triton.jit(do_not_specialize=COUNTS)
def conv_stage(
    x_ptr,  # [batch, height, width, C.channels]
    weight_ptr,  # [C.filters, *C.kernel, C.channels]
    z_ptr,  # [batch, conv_height, conv_width, C.filters]
    batch,
    height: tl.constexpr,
    width: tl.constexpr,
    conv_height: tl.constexpr,
    conv_width: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute z = conv(x, weight), of one group."""
    ROWS: tl.constexpr = T.rows
    COLUMNS: tl.constexpr = T.columns
    FILTER_BLOCKS: tl.constexpr = (C.filters + ROWS - 1) // ROWS
    filter = tl.program_id(0) % FILTER_BLOCKS * ROWS + tl.arange(0, ROWS)
    filter_mask = filter < C.filters
    pixel = tl.program_id(0) // FILTER_BLOCKS * COLUMNS + tl.arange(0, COLUMNS)
    pixel_mask = pixel < batch * conv_height * conv_width
    image, row, column = pixel_place(pixel, conv_height, conv_width)
    z = conv_products(
        x_ptr=x_ptr,
        weight_ptr=weight_ptr,
        image=image,
        row=row,
        column=column,
        pixel_mask=pixel_mask,
        group=0,
        filter=filter,
        filter_mask=filter_mask,
        height=height,
        width=width,
        C=C,
        T=T,
        PRECISION=PRECISION,
    )
    tl.store(
        z_ptr + pixel.to(tl.int64)[None, :] * C.filters + filter[:, None],
        z.to(z_ptr.dtype.element_ty),
        mask=filter_mask[:, None] & pixel_mask[None, :],
    )


# ── launches ────────────────────────────────────────────────────────────────────────────────────


def conv_stage_tile(geometry: ConvGeometry, x: Tensor, precision: str) -> Tile:
    """Choose filters x pixels, and terms a step, by what compiles without spills."""
    if geometry.tiles:
        measured = measured_tile(geometry.tiles, "stage", x, precision)
        if measured is not None:
            return measured
    terms = geometry.channels
    if geometry.taps == "packed":
        terms *= geometry.kernel[0] * geometry.kernel[1]
    if geometry.taps == "rows":
        terms = geometry.row_terms
    is_wide = x.element_size() >= 4
    if x.element_size() == 8:
        return Tile(16, 32, block_size(terms, 32), 8, 2)
    if is_wide and precision == "ieee":
        return Tile(block_size(geometry.filters, 32), 32, block_size(terms, 32), 4, 2)
    pixels = 64 if is_wide else 256
    return Tile(block_size(geometry.filters, 64), pixels, block_size(terms, 32), 4, 3)


def conv_launch_stage(geometry: ConvGeometry, x: Tensor, weight: Tensor) -> Tensor:
    """Launch the kernel, and give what it fills: (N, filters, H, W), before the pool."""
    sizes = conv_sizes(geometry, x.shape[2], x.shape[3])
    z = new_image(x, (x.shape[0], geometry.filters, sizes.conv_height, sizes.conv_width))
    precision = conv_precision(x)
    tile = conv_stage_tile(geometry, x, precision)
    pixels = x.shape[0] * sizes.conv_height * sizes.conv_width
    height, width = sizes.height, sizes.width
    if geometry.taps == "rows":
        x = conv_rows(geometry, channels_last(x))
        height, width = x.shape[2:]
    programs = count_blocks(geometry.filters, tile.rows) * count_blocks(pixels, tile.columns)
    refuse_launch(x, programs, pixels)
    launch(
        conv_stage,
        programs,
        x_ptr=channels_last(x),
        weight_ptr=channels_last(weight),
        z_ptr=z,
        batch=x.shape[0],
        height=height,
        width=width,
        conv_height=sizes.conv_height,
        conv_width=sizes.conv_width,
        C=geometry,
        T=tile,
        PRECISION=precision,
        **tile.options,
    )
    return z
