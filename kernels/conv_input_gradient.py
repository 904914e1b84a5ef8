"""Backward kernel of a convolution region: the gradient of the input."""

import triton
import triton.language as tl
from torch import Tensor

from cnndsl.rt.conv_geometry import ConvGeometry, conv_precision, conv_sizes
from cnndsl.rt.shared import (
    COUNTS,
    Tile,
    block_size,
    channels_last,
    count_blocks,
    full,
    launch,
    measured_tile,
    refuse_launch,
)
from cnndsl.rt.windows import pixel_place, window_pixels

from .conv_rebuild import conv_rebuilt, conv_unpooled

# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


@triton.jit
def conv_first(
    place,
    STRIDE: tl.constexpr,
    STEP: tl.constexpr,
    INVERSE: tl.constexpr,
    NONE: tl.constexpr,
):
    """Solve k · dilation ≡ place (modulo STRIDE) for the first k; every STEP further is another.

    STEP is STRIDE / gcd(STRIDE, dilation), and INVERSE that of dilation / gcd, modulo STEP.
    """
    COMMON: tl.constexpr = STRIDE // STEP
    return tl.where(place % COMMON == 0, place // COMMON * INVERSE % STEP, NONE)


@triton.jit(do_not_specialize=COUNTS)
def conv_input_gradient(
    gradient_ptr,  # [batch, out_height, out_width, C.filters]
    winner_ptr,  # like the gradient, written by the forward kernel
    alive_ptr,
    saved_ptr,
    weight_ptr,  # [C.filters, *C.kernel, C.channels // C.groups]
    dx_ptr,  # [batch, height, width, C.channels]
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
    """Compute the gradient of x: for each pixel, a sum over taps, windows and filters.

    All pixels of a program have the same phase: row and column modulo the strides of convolution
    and pool together. They share the taps that reach them and the positions in the windows, so
    these are scalars, and only taps that exist are visited. Pixel = cell · CELL + phase.
    """
    ROWS: tl.constexpr = T.rows
    COLUMNS: tl.constexpr = T.columns
    GROUP_CHANNELS: tl.constexpr = C.channels // C.groups
    GROUP_FILTERS: tl.constexpr = C.filters // C.groups
    GROUP_BLOCKS: tl.constexpr = (GROUP_CHANNELS + COLUMNS - 1) // COLUMNS
    CELL_HEIGHT: tl.constexpr = C.stride[0] * C.pool_stride[0]
    CELL_WIDTH: tl.constexpr = C.stride[1] * C.pool_stride[1]
    cell_rows = (height + CELL_HEIGHT - 1) // CELL_HEIGHT
    cell_columns = (width + CELL_WIDTH - 1) // CELL_WIDTH

    block = tl.program_id(0) % (GROUP_BLOCKS * C.groups)
    tile = tl.program_id(0) // (GROUP_BLOCKS * C.groups)
    phase = tile % (CELL_HEIGHT * CELL_WIDTH)
    phase_row = phase // CELL_WIDTH
    phase_column = phase % CELL_WIDTH
    cell = tile // (CELL_HEIGHT * CELL_WIDTH) * ROWS + tl.arange(0, ROWS)
    cells = batch * cell_rows * cell_columns
    image, cell_row, cell_column = pixel_place(cell, cell_rows, cell_columns)
    group = block // GROUP_BLOCKS
    channel = block % GROUP_BLOCKS * COLUMNS + tl.arange(0, COLUMNS)
    channel_mask = channel < GROUP_CHANNELS

    # The taps of the right remainder; the next one is C.tap_step further.
    first_down = conv_first(
        phase_row + C.pad[0],
        C.stride[0],
        C.tap_step[0],
        C.tap_inverse[0],
        C.kernel[0],
    )
    first_right = conv_first(
        phase_column + C.pad[1],
        C.stride[1],
        C.tap_step[1],
        C.tap_inverse[1],
        C.kernel[1],
    )
    taps_down = (C.kernel[0] - first_down + C.tap_step[0] - 1) // C.tap_step[0]
    taps_right = (C.kernel[1] - first_right + C.tap_step[1] - 1) // C.tap_step[1]
    # At most so many windows hold one pixel of the convolution, along each axis.
    STEP: tl.constexpr = C.window_step
    WINDOWS_DOWN: tl.constexpr = (C.pool_size[0] + STEP[0] - 1) // STEP[0]
    WINDOWS_RIGHT: tl.constexpr = (C.pool_size[1] + STEP[1] - 1) // STEP[1]
    WINDOWS: tl.constexpr = WINDOWS_DOWN * WINDOWS_RIGHT
    # Multiples of the pool's strides, which keep remainders positive.
    MORE_DOWN: tl.constexpr = C.pool_stride[0] * (C.kernel[0] * C.dilation[0])
    MORE_RIGHT: tl.constexpr = C.pool_stride[1] * (C.kernel[1] * C.dilation[1])
    FILTER_STEPS: tl.constexpr = (GROUP_FILTERS + T.terms - 1) // T.terms
    dx = full(tl.zeros((ROWS, COLUMNS), dx_ptr.dtype.element_ty))
    for step in range(taps_down * taps_right * (WINDOWS * FILTER_STEPS)):
        filter = step % FILTER_STEPS * T.terms + tl.arange(0, T.terms)
        filter_mask = filter < GROUP_FILTERS
        filter += group * GROUP_FILTERS
        tap = step // (WINDOWS * FILTER_STEPS)
        down = first_down + tap // taps_right * C.tap_step[0]
        right = first_right + tap % taps_right * C.tap_step[1]
        # The pixel of the convolution that this tap feeds; the division leaves no remainder.
        row = (phase_row + C.pad[0] - down * C.dilation[0]) // C.stride[0]
        column = (phase_column + C.pad[1] - right * C.dilation[1]) // C.stride[1]
        mask = cell < cells
        if C.pool != "none":
            # A window that holds it, and its place there.
            turn = step // FILTER_STEPS % WINDOWS
            place_row = conv_first(
                row + C.pool_pad[0] + MORE_DOWN,
                C.pool_stride[0],
                STEP[0],
                C.window_inverse[0],
                C.pool_size[0],
            )
            place_column = conv_first(
                column + C.pool_pad[1] + MORE_RIGHT,
                C.pool_stride[1],
                STEP[1],
                C.window_inverse[1],
                C.pool_size[1],
            )
            place_row += turn // WINDOWS_RIGHT * STEP[0]
            place_column += turn % WINDOWS_RIGHT * STEP[1]
            fits = (place_row < C.pool_size[0]) & (place_column < C.pool_size[1])
            mask &= cell < tl.where(fits, cells, 0)
            if C.pool == "average":
                # The share of a place in the padding is nobody's.
                mask &= cell_row * C.pool_stride[0] + row >= 0
                mask &= cell_row * C.pool_stride[0] + row < conv_height
                mask &= cell_column * C.pool_stride[1] + column >= 0
                mask &= cell_column * C.pool_stride[1] + column < conv_width
            row += C.pool_pad[0] - place_row * C.pool_dilation[0]
            row = row // C.pool_stride[0]
            column += C.pool_pad[1] - place_column * C.pool_dilation[1]
            column = column // C.pool_stride[1]
        row += cell_row
        column += cell_column
        mask &= (row >= 0) & (row < out_height) & (column >= 0) & (column < out_width)
        offset = ((image * out_height + row) * out_width + column) * C.filters
        if C.pool == "none":
            gradient = conv_unpooled(
                gradient_ptr=gradient_ptr,
                saved_ptr=saved_ptr,
                offset=offset[:, None] + filter[None, :],
                mask=mask[:, None] & filter_mask[None, :],
                C=C,
            )
        else:
            gradient = conv_rebuilt(
                gradient_ptr=gradient_ptr,
                winner_ptr=winner_ptr,
                alive_ptr=alive_ptr,
                saved_ptr=saved_ptr,
                offset=offset[:, None] + filter[None, :],
                mask=mask[:, None] & filter_mask[None, :],
                position=place_row * C.pool_size[1] + place_column,
                C=C,
            )
        if C.pool == "average":
            pixels = window_pixels(
                row=row,
                column=column,
                height=conv_height,
                width=conv_width,
                C=C,
                COUNT_PAD=C.count_pad,
            )
            gradient = (gradient / pixels[:, None]).to(gradient_ptr.dtype.element_ty)
        term = (down * C.kernel[1] + right) * GROUP_CHANNELS + channel
        terms = filter * (C.kernel[0] * C.kernel[1] * GROUP_CHANNELS)
        weight = tl.load(
            weight_ptr + terms[:, None] + term[None, :],
            mask=filter_mask[:, None] & channel_mask[None, :],
            other=0.0,
        )
        dx = tl.dot(gradient, weight, dx, input_precision=PRECISION, out_dtype=dx.dtype)
    row = cell_row * CELL_HEIGHT + phase_row
    column = cell_column * CELL_WIDTH + phase_column
    mask = (cell < cells) & (row < height) & (column < width)
    offset = ((image * height + row) * width + column) * C.channels
    offset += group * GROUP_CHANNELS
    tl.store(
        dx_ptr + offset[:, None] + channel[None, :],
        dx.to(dx_ptr.dtype.element_ty),
        mask=mask[:, None] & channel_mask[None, :],
    )


# ── launches ────────────────────────────────────────────────────────────────────────────────────


def conv_input_gradient_tile(geometry: ConvGeometry, dx: Tensor, precision: str) -> Tile:
    """Choose pixels x channels, and filters a step, by what compiles without spills."""
    if geometry.tiles:
        measured = measured_tile(geometry.tiles, "input_gradient", dx, precision)
        if measured is not None:
            return measured
    channels = geometry.channels // geometry.groups
    filters = geometry.filters // geometry.groups
    if precision == "ieee" and dx.element_size() >= 4:
        return Tile(32, block_size(channels, 64), 16, 4, 2)
    most = 64
    if geometry.pool == "average":
        most = 32
    if dx.element_size() == 4:
        return Tile(64, block_size(channels, 32), block_size(filters, most // 2), 4, 3)
    return Tile(64, block_size(channels, 64), block_size(filters, most), 4, 3)


def conv_launch_input_gradient(
    geometry: ConvGeometry,
    gradient: Tensor,
    code: Tensor,
    saved: Tensor | None,
    weight: Tensor,
    dx: Tensor,
) -> None:
    """Launch the kernel that fills dx; its programs are all phases of all tiles."""
    sizes = conv_sizes(geometry, dx.shape[2], dx.shape[3])
    precision = conv_precision(dx)
    tile = conv_input_gradient_tile(geometry, dx, precision)
    cell_height = geometry.stride[0] * geometry.pool_stride[0]
    cell_width = geometry.stride[1] * geometry.pool_stride[1]
    cells = dx.shape[0] * count_blocks(sizes.height, cell_height)
    cells *= count_blocks(sizes.width, cell_width)
    blocks = geometry.groups * count_blocks(geometry.channels // geometry.groups, tile.columns)
    programs = count_blocks(cells, tile.rows) * cell_height * cell_width * blocks
    refuse_launch(dx, programs, dx.shape[0] * sizes.height * sizes.width)
    launch(
        conv_input_gradient,
        programs,
        gradient_ptr=gradient,
        winner_ptr=code,
        alive_ptr=code,
        saved_ptr=saved,
        weight_ptr=channels_last(weight),
        dx_ptr=dx,
        batch=dx.shape[0],
        height=sizes.height,
        width=sizes.width,
        conv_height=sizes.conv_height,
        conv_width=sizes.conv_width,
        out_height=sizes.out_height,
        out_width=sizes.out_width,
        C=geometry,
        T=tile,
        PRECISION=precision,
        **tile.options,
    )
