"""Backward kernels of a convolution region: gradients of the input, the weight and the bias.

The gradient before the pool is never stored. It is rebuilt wherever it is read: of a window's
gradient, the pixel that won gets all, or each pixel of an average its share, and a pixel that the
activation blocks gets none. Sums are split over programs and added in a fixed order, so that the
same input gives the same bits.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .conv import conv_place, conv_window_pixels
from .conv_op import (
    ConvGeometry,
    channels_last,
    conv_precision,
    conv_sizes,
)
from .shared import Tile, block_size, refuse_launch, split_count

# ── holes: the emitter puts the region's own functions here ─────────────────────────────────────


@triton.jit
def conv_activation_gradient(saved, gradient):
    """Take a gradient back through ReLU, of which the output was saved; NaN is alive."""
    return tl.where(saved <= 0, 0.0, gradient)


# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


@triton.jit
def conv_unpooled(
    gradient_ptr,
    saved_ptr,
    offset,
    mask,
    ACTIVATION: tl.constexpr,
):
    """Read a tile of the gradient and take it back through the activation."""
    gradient = tl.load(gradient_ptr + offset, mask=mask, other=0.0)
    if ACTIVATION != "none":
        saved = tl.load(saved_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        gradient = conv_activation_gradient(saved, gradient.to(tl.float32))
    return gradient.to(gradient_ptr.dtype.element_ty)


@triton.jit
def conv_rebuilt(
    gradient_ptr,
    winner_ptr,
    alive_ptr,
    saved_ptr,
    offset,
    mask,
    position,
    ACTIVATION: tl.constexpr,
    POOL: tl.constexpr,
):
    """Rebuild a tile of the gradient before the pool: what windows give to one position in each.

    An average gives a share of it: that division is left to the caller.
    """
    gradient = tl.load(gradient_ptr + offset, mask=mask, other=0.0)
    if POOL == "max":
        winner = tl.load(winner_ptr + offset, mask=mask, other=0).to(tl.int32)
        gradient = tl.where(winner == position + 1, gradient, 0.0)
    elif ACTIVATION == "relu":
        alive = tl.load(alive_ptr + offset, mask=mask, other=0).to(tl.int32)
        gradient = tl.where(((alive >> position) & 1) == 1, gradient, 0.0)
    if ACTIVATION == "output":
        saved = tl.load(saved_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        gradient = conv_activation_gradient(saved, gradient.to(tl.float32))
    return gradient.to(gradient_ptr.dtype.element_ty)


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


@triton.jit
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
    image, cell_row, cell_column = conv_place(cell, cell_rows, cell_columns)
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
    dx = tl.zeros((BLOCK_PIXELS, BLOCK_CHANNELS), tl.float32)
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
            pixels = conv_window_pixels(
                row=row,
                column=column,
                conv_height=conv_height,
                conv_width=conv_width,
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
        dx = tl.dot(gradient, weight, dx, input_precision=PRECISION)
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


@triton.jit
def conv_weight_gradient(
    gradient_ptr,  # [batch, out_height, out_width, FILTERS]
    winner_ptr,  # like the gradient, written by the forward kernel
    alive_ptr,
    saved_ptr,
    x_ptr,  # [batch, height, width, CHANNELS]
    partial_ptr,  # [splits, FILTERS, *KERNEL, CHANNELS // GROUPS] float32
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
    ACTIVATION: tl.constexpr,
    POOL: tl.constexpr,
    POOL_SIZE: tl.constexpr,
    POOL_STRIDE: tl.constexpr,
    POOL_PAD: tl.constexpr,
    POOL_DILATION: tl.constexpr,
    COUNT_PAD: tl.constexpr,
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
    if TAPS == "packed":
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

    dweight = tl.zeros((BLOCK_FILTERS, BLOCK_TERMS), tl.float32)
    for step in range(first * POSITIONS, last * POSITIONS):
        window = step // POSITIONS * BLOCK_WINDOWS + tl.arange(0, BLOCK_WINDOWS)
        exists = window < batch * out_height * out_width
        image, row, column = conv_place(window, out_height, out_width)
        if POOL == "average":
            pixels = conv_window_pixels(
                row=row,
                column=column,
                conv_height=conv_height,
                conv_width=conv_width,
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
        row = row * STRIDE[0] - PAD[0]
        column = column * STRIDE[1] - PAD[1]
        start = ((image * height + row) * width + column) * CHANNELS
        start += group * GROUP_CHANNELS
        if TAPS == "packed":
            x_mask = exists[:, None] & term_mask[None, :]
            x_mask &= row[:, None] + down[None, :] >= 0
            x_mask &= row[:, None] + down[None, :] < height
            x_mask &= column[:, None] + right[None, :] >= 0
            x_mask &= column[:, None] + right[None, :] < width
        else:
            exists &= (row + down >= 0) & (row + down < height)
            exists &= (column + right >= 0) & (column + right < width)
            x_mask = exists[:, None] & term_mask[None, :]
        offset = (down * width + right) * CHANNELS + channel
        x = tl.load(x_ptr + start[:, None] + offset[None, :], mask=x_mask, other=0.0)
        dweight = tl.dot(gradient, x, dweight, input_precision=PRECISION)
    row = split.to(tl.int64) * FILTERS + filter
    tl.store(
        partial_ptr + row[:, None] * TERMS + term[None, :],
        dweight,
        mask=filter_mask[:, None] & term_mask[None, :],
    )


@triton.jit
def conv_bias_gradient(
    gradient_ptr,  # [batch, out_height, out_width, FILTERS]
    winner_ptr,  # like the gradient, written by the forward kernel
    alive_ptr,
    saved_ptr,
    partial_ptr,  # [splits, FILTERS] float32
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
    total = tl.zeros((BLOCK_WINDOWS, BLOCK_FILTERS), tl.float32)
    for step in range(first, last):
        window = step * BLOCK_WINDOWS + tl.arange(0, BLOCK_WINDOWS)
        window_mask = window < batch * out_height * out_width
        offset = window.to(tl.int64)[:, None] * FILTERS + filter[None, :]
        mask = window_mask[:, None] & filter_mask[None, :]
        gradient = tl.load(gradient_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        if POOL == "max":
            # Each window that is not dead gives all of its gradient to one pixel.
            winner = tl.load(winner_ptr + offset, mask=mask, other=0)
            gradient = tl.where(winner != 0, gradient, 0.0)
        if POOL == "average":
            _, row, column = conv_place(window, out_height, out_width)
            pixels = conv_window_pixels(
                row=row,
                column=column,
                conv_height=conv_height,
                conv_width=conv_width,
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
                taking = conv_window_pixels(
                    row=row,
                    column=column,
                    conv_height=conv_height,
                    conv_width=conv_width,
                    POOL_SIZE=POOL_SIZE,
                    POOL_STRIDE=POOL_STRIDE,
                    POOL_PAD=POOL_PAD,
                    COUNT_PAD=False,
                )[:, None]
            gradient *= taking / pixels
        if ACTIVATION == "output" or (ACTIVATION != "none" and POOL == "none"):
            saved = tl.load(saved_ptr + offset, mask=mask, other=0.0).to(tl.float32)
            gradient = conv_activation_gradient(saved, gradient)
        total += gradient
    tl.store(
        partial_ptr + split.to(tl.int64) * FILTERS + filter,
        tl.sum(total, axis=0),
        mask=filter_mask,
    )


# ── launches ────────────────────────────────────────────────────────────────────────────────────


def conv_steps(strides: tuple[int, int], dilations: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Give STEP and INVERSE of `conv_first`, a pair each."""
    steps = [s // math.gcd(s, d) for s, d in zip(strides, dilations, strict=True)]
    divided = [d // math.gcd(s, d) for s, d in zip(strides, dilations, strict=True)]
    inverses = [pow(d, -1, step) for d, step in zip(divided, steps, strict=True)]
    return (steps[0], steps[1]), (inverses[0], inverses[1])


def conv_saved(geometry: ConvGeometry, kept: Tensor, y: Tensor | None) -> Tensor | None:
    """Say from what the slope of the activation follows."""
    return kept if geometry.activation == "input" else y


def conv_input_gradient_tile(geometry: ConvGeometry, dx: Tensor, precision: str) -> Tile:
    """Choose pixels x channels, and filters a step, by what compiles without spills."""
    channels = geometry.channels // geometry.groups
    filters = geometry.filters // geometry.groups
    if dx.element_size() == 4 and precision == "ieee":
        return Tile(32, block_size(channels, 64), 16, 4, 2)
    most = 128 // dx.element_size()
    if geometry.pool == "average":
        most = 32
    return Tile(64, block_size(channels, 64), block_size(filters, most), 4, 3)


def conv_weight_gradient_tile(geometry: ConvGeometry, x: Tensor, precision: str) -> Tile:
    """Choose filters x terms, and windows a step, by what compiles without spills."""
    filters = geometry.filters // geometry.groups
    terms = geometry.channels // geometry.groups
    if geometry.taps == "packed":
        terms *= geometry.kernel[0] * geometry.kernel[1]
    if x.element_size() == 4 and precision == "ieee":
        return Tile(block_size(filters, 32), block_size(terms, 64), 16, 4, 2)
    return Tile(block_size(filters, 64), block_size(terms, 64), 32, 4, 2)


def conv_launch_input_gradient(
    geometry: ConvGeometry,
    gradient: Tensor,
    kept: Tensor,
    y: Tensor | None,
    weight: Tensor,
    dx: Tensor,
) -> None:
    """Launch the kernel that fills dx; its programs are all phases of all tiles."""
    sizes = conv_sizes(geometry, dx.shape[2], dx.shape[3])
    precision = conv_precision(dx)
    tile = conv_input_gradient_tile(geometry, dx, precision)
    cell_height = geometry.stride[0] * geometry.pool_stride[0]
    cell_width = geometry.stride[1] * geometry.pool_stride[1]
    cells = dx.shape[0] * triton.cdiv(sizes.height, cell_height)
    cells *= triton.cdiv(sizes.width, cell_width)
    blocks = geometry.groups * triton.cdiv(geometry.channels // geometry.groups, tile.columns)
    programs = triton.cdiv(cells, tile.rows) * cell_height * cell_width * blocks
    refuse_launch(dx, programs, dx.shape[0] * sizes.height * sizes.width)
    tap_step, tap_inverse = conv_steps(geometry.stride, geometry.dilation)
    window_step, window_inverse = conv_steps(geometry.pool_stride, geometry.pool_dilation)
    conv_input_gradient[(programs,)](
        gradient_ptr=gradient,
        winner_ptr=kept,
        alive_ptr=kept,
        saved_ptr=conv_saved(geometry, kept, y),
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


def conv_launch_weight_gradient(
    geometry: ConvGeometry,
    gradient: Tensor,
    kept: Tensor,
    y: Tensor | None,
    x: Tensor,
) -> Tensor:
    """Launch the kernel of the weight's gradient, and add its parts up, in float32."""
    sizes = conv_sizes(geometry, x.shape[2], x.shape[3])
    precision = conv_precision(x)
    tile = conv_weight_gradient_tile(geometry, x, precision)
    channels = geometry.channels // geometry.groups
    taps = geometry.kernel[0] * geometry.kernel[1]
    if geometry.taps == "packed":
        programs = triton.cdiv(taps * channels, tile.columns)
    else:
        programs = taps * triton.cdiv(channels, tile.columns)
    programs *= geometry.groups * triton.cdiv(geometry.filters // geometry.groups, tile.rows)
    windows = x.shape[0] * sizes.out_height * sizes.out_width
    splits = split_count(programs, triton.cdiv(windows, tile.terms))
    refuse_launch(x, programs * splits, windows * geometry.pool_size[0] * geometry.pool_size[1])
    partial = x.new_empty((splits, geometry.filters, taps, channels), dtype=torch.float32)
    conv_weight_gradient[(programs * splits,)](
        gradient_ptr=gradient,
        winner_ptr=kept,
        alive_ptr=kept,
        saved_ptr=conv_saved(geometry, kept, y),
        x_ptr=channels_last(x),
        partial_ptr=partial,
        splits=splits,
        batch=x.shape[0],
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
        TAPS=geometry.taps,
        ACTIVATION=geometry.activation,
        POOL=geometry.pool,
        POOL_SIZE=geometry.pool_size,
        POOL_STRIDE=geometry.pool_stride,
        POOL_PAD=geometry.pool_pad,
        POOL_DILATION=geometry.pool_dilation,
        COUNT_PAD=geometry.count_pad,
        BLOCK_FILTERS=tile.rows,
        BLOCK_TERMS=tile.columns,
        BLOCK_WINDOWS=tile.terms,
        PRECISION=precision,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    shape = (geometry.filters, *geometry.kernel, channels)
    return partial.sum(0).view(shape).permute(0, 3, 1, 2)


def conv_launch_bias_gradient(
    geometry: ConvGeometry,
    gradient: Tensor,
    kept: Tensor,
    y: Tensor | None,
    height: int,
    width: int,
) -> Tensor:
    """Launch the kernel of the bias's gradient, and add its parts up, in float32."""
    sizes = conv_sizes(geometry, height, width)
    windows = gradient.shape[0] * sizes.out_height * sizes.out_width
    block_windows = 32
    block_filters = block_size(geometry.filters, 64)
    programs = triton.cdiv(geometry.filters, block_filters)
    splits = split_count(programs, triton.cdiv(windows, block_windows))
    refuse_launch(gradient, programs * splits, windows)
    partial = gradient.new_empty((splits, geometry.filters), dtype=torch.float32)
    conv_bias_gradient[(programs * splits,)](
        gradient_ptr=gradient,
        winner_ptr=kept,
        alive_ptr=kept,
        saved_ptr=conv_saved(geometry, kept, y),
        partial_ptr=partial,
        splits=splits,
        batch=gradient.shape[0],
        conv_height=sizes.conv_height,
        conv_width=sizes.conv_width,
        out_height=sizes.out_height,
        out_width=sizes.out_width,
        FILTERS=geometry.filters,
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
    return partial.sum(0)
