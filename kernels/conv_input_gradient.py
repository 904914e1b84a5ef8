"""Backward kernel of a convolution region: the gradient of the input."""

import math

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
    gradient_ptr,  # [batch, out_height, out_width, FILTERS]
    winner_ptr,  # like the gradient, written by the forward kernel
    alive_ptr,
    saved_ptr,
    weight_ptr,  # [FILTERS, *KERNEL, CHANNELS // GROUPS]
    dx_ptr,  # [batch, height, width, CHANNELS]
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
    TAP_STEP: tl.constexpr,
    TAP_INVERSE: tl.constexpr,
    RESIDUAL: tl.constexpr,
    ACTIVATION: tl.constexpr,
    POOL: tl.constexpr,
    POOL_SIZE: tl.constexpr,
    POOL_STRIDE: tl.constexpr,
    POOL_PAD: tl.constexpr,
    POOL_DILATION: tl.constexpr,
    WINDOW_STEP: tl.constexpr,
    WINDOW_INVERSE: tl.constexpr,
    COUNT_PAD: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_FILTERS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the gradient of x: for each pixel, a sum over taps, windows and filters.

    All pixels of a program have the same phase: row and column modulo the strides of convolution
    and pool together. They share the taps that reach them and the positions in the windows, so
    these are scalars, and only taps that exist are visited. Pixel = cell · CELL + phase.
    """
    GROUP_CHANNELS: tl.constexpr = CHANNELS // GROUPS
    GROUP_FILTERS: tl.constexpr = FILTERS // GROUPS
    GROUP_BLOCKS: tl.constexpr = (GROUP_CHANNELS + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS
    CELL_HEIGHT: tl.constexpr = STRIDE[0] * POOL_STRIDE[0]
    CELL_WIDTH: tl.constexpr = STRIDE[1] * POOL_STRIDE[1]
    cell_rows = (height + CELL_HEIGHT - 1) // CELL_HEIGHT
    cell_columns = (width + CELL_WIDTH - 1) // CELL_WIDTH

    block = tl.program_id(0) % (GROUP_BLOCKS * GROUPS)
    tile = tl.program_id(0) // (GROUP_BLOCKS * GROUPS)
    phase = tile % (CELL_HEIGHT * CELL_WIDTH)
    phase_row = phase // CELL_WIDTH
    phase_column = phase % CELL_WIDTH
    cell = tile // (CELL_HEIGHT * CELL_WIDTH) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    cells = batch * cell_rows * cell_columns
    image, cell_row, cell_column = pixel_place(cell, cell_rows, cell_columns)
    group = block // GROUP_BLOCKS
    channel = block % GROUP_BLOCKS * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    channel_mask = channel < GROUP_CHANNELS

    # The taps of the right remainder; the next one is TAP_STEP further.
    first_down = conv_first(
        phase_row + PAD[0],
        STRIDE[0],
        TAP_STEP[0],
        TAP_INVERSE[0],
        KERNEL[0],
    )
    first_right = conv_first(
        phase_column + PAD[1],
        STRIDE[1],
        TAP_STEP[1],
        TAP_INVERSE[1],
        KERNEL[1],
    )
    taps_down = (KERNEL[0] - first_down + TAP_STEP[0] - 1) // TAP_STEP[0]
    taps_right = (KERNEL[1] - first_right + TAP_STEP[1] - 1) // TAP_STEP[1]
    # At most so many windows hold one pixel of the convolution, along each axis.
    WINDOWS_DOWN: tl.constexpr = (POOL_SIZE[0] + WINDOW_STEP[0] - 1) // WINDOW_STEP[0]
    WINDOWS_RIGHT: tl.constexpr = (POOL_SIZE[1] + WINDOW_STEP[1] - 1) // WINDOW_STEP[1]
    WINDOWS: tl.constexpr = WINDOWS_DOWN * WINDOWS_RIGHT
    FILTER_STEPS: tl.constexpr = (GROUP_FILTERS + BLOCK_FILTERS - 1) // BLOCK_FILTERS
    dx = full(tl.zeros((BLOCK_PIXELS, BLOCK_CHANNELS), dx_ptr.dtype.element_ty))
    for step in range(taps_down * taps_right * (WINDOWS * FILTER_STEPS)):
        filter = step % FILTER_STEPS * BLOCK_FILTERS + tl.arange(0, BLOCK_FILTERS)
        filter_mask = filter < GROUP_FILTERS
        filter += group * GROUP_FILTERS
        tap = step // (WINDOWS * FILTER_STEPS)
        down = first_down + tap // taps_right * TAP_STEP[0]
        right = first_right + tap % taps_right * TAP_STEP[1]
        # The pixel of the convolution that this tap feeds; the division leaves no remainder.
        row = (phase_row + PAD[0] - down * DILATION[0]) // STRIDE[0]
        column = (phase_column + PAD[1] - right * DILATION[1]) // STRIDE[1]
        mask = cell < cells
        if POOL != "none":
            # A window that holds it, and its place there; the multiple keeps remainders positive.
            turn = step // FILTER_STEPS % WINDOWS
            place_row = conv_first(
                row + POOL_PAD[0] + POOL_STRIDE[0] * (KERNEL[0] * DILATION[0]),
                POOL_STRIDE[0],
                WINDOW_STEP[0],
                WINDOW_INVERSE[0],
                POOL_SIZE[0],
            )
            place_column = conv_first(
                column + POOL_PAD[1] + POOL_STRIDE[1] * (KERNEL[1] * DILATION[1]),
                POOL_STRIDE[1],
                WINDOW_STEP[1],
                WINDOW_INVERSE[1],
                POOL_SIZE[1],
            )
            place_row += turn // WINDOWS_RIGHT * WINDOW_STEP[0]
            place_column += turn % WINDOWS_RIGHT * WINDOW_STEP[1]
            fits = (place_row < POOL_SIZE[0]) & (place_column < POOL_SIZE[1])
            mask &= cell < tl.where(fits, cells, 0)
            if POOL == "average":
                # The share of a place in the padding is nobody's.
                mask &= cell_row * POOL_STRIDE[0] + row >= 0
                mask &= cell_row * POOL_STRIDE[0] + row < conv_height
                mask &= cell_column * POOL_STRIDE[1] + column >= 0
                mask &= cell_column * POOL_STRIDE[1] + column < conv_width
            row += POOL_PAD[0] - place_row * POOL_DILATION[0]
            row = row // POOL_STRIDE[0]
            column += POOL_PAD[1] - place_column * POOL_DILATION[1]
            column = column // POOL_STRIDE[1]
        row += cell_row
        column += cell_column
        mask &= (row >= 0) & (row < out_height) & (column >= 0) & (column < out_width)
        offset = ((image * out_height + row) * out_width + column) * FILTERS
        if POOL == "none":
            gradient = conv_unpooled(
                gradient_ptr=gradient_ptr,
                saved_ptr=saved_ptr,
                offset=offset[:, None] + filter[None, :],
                mask=mask[:, None] & filter_mask[None, :],
                RESIDUAL=RESIDUAL,
                ACTIVATION=ACTIVATION,
            )
        else:
            gradient = conv_rebuilt(
                gradient_ptr=gradient_ptr,
                winner_ptr=winner_ptr,
                alive_ptr=alive_ptr,
                saved_ptr=saved_ptr,
                offset=offset[:, None] + filter[None, :],
                mask=mask[:, None] & filter_mask[None, :],
                position=place_row * POOL_SIZE[1] + place_column,
                ACTIVATION=ACTIVATION,
                POOL=POOL,
            )
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
            gradient = (gradient / pixels[:, None]).to(gradient_ptr.dtype.element_ty)
        term = (down * KERNEL[1] + right) * GROUP_CHANNELS + channel
        terms = filter * (KERNEL[0] * KERNEL[1] * GROUP_CHANNELS)
        weight = tl.load(
            weight_ptr + terms[:, None] + term[None, :],
            mask=filter_mask[:, None] & channel_mask[None, :],
            other=0.0,
        )
        dx = tl.dot(gradient, weight, dx, input_precision=PRECISION, out_dtype=dx.dtype)
    row = cell_row * CELL_HEIGHT + phase_row
    column = cell_column * CELL_WIDTH + phase_column
    mask = (cell < cells) & (row < height) & (column < width)
    offset = ((image * height + row) * width + column) * CHANNELS
    offset += group * GROUP_CHANNELS
    tl.store(
        dx_ptr + offset[:, None] + channel[None, :],
        dx.to(dx_ptr.dtype.element_ty),
        mask=mask[:, None] & channel_mask[None, :],
    )


# ── launches ────────────────────────────────────────────────────────────────────────────────────


def conv_steps(strides: tuple[int, int], dilations: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Give STEP and INVERSE of `conv_first`, a pair each."""
    steps = [s // math.gcd(s, d) for s, d in zip(strides, dilations, strict=True)]
    divided = [d // math.gcd(s, d) for s, d in zip(strides, dilations, strict=True)]
    inverses = [pow(d, -1, step) for d, step in zip(divided, steps, strict=True)]
    return (steps[0], steps[1]), (inverses[0], inverses[1])


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
    tap_step, tap_inverse = conv_steps(geometry.stride, geometry.dilation)
    window_step, window_inverse = conv_steps(geometry.pool_stride, geometry.pool_dilation)
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
        CHANNELS=geometry.channels,
        FILTERS=geometry.filters,
        GROUPS=geometry.groups,
        KERNEL=geometry.kernel,
        STRIDE=geometry.stride,
        PAD=geometry.pad,
        DILATION=geometry.dilation,
        TAP_STEP=tap_step,
        TAP_INVERSE=tap_inverse,
        RESIDUAL=geometry.residual,
        ACTIVATION=geometry.activation,
        POOL=geometry.pool,
        POOL_SIZE=geometry.pool_size,
        POOL_STRIDE=geometry.pool_stride,
        POOL_PAD=geometry.pool_pad,
        POOL_DILATION=geometry.pool_dilation,
        WINDOW_STEP=window_step,
        WINDOW_INVERSE=window_inverse,
        COUNT_PAD=geometry.count_pad,
        BLOCK_PIXELS=tile.rows,
        BLOCK_CHANNELS=tile.columns,
        BLOCK_FILTERS=tile.terms,
        PRECISION=precision,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
