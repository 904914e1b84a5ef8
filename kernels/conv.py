"""Forward kernel: convolution, bias, activation and pool in one launch.

Images lie in memory as [batch, height, width, channels], weights as [filters, kernel height, kernel
width, channels of a group]. A program computes a tile whose rows are filters and whose columns are
pixels of the convolution, as one matrix product over the terms (kernel row, kernel column, channel)
of the sum. Only pooled values are written.
"""

import triton
import triton.language as tl
from torch import Tensor

from .conv_op import (
    ConvGeometry,
    channels_last,
    conv_precision,
    conv_sizes,
)
from .shared import Tile, block_size, refuse_launch

# ── holes: the emitter puts the region's own functions here ─────────────────────────────────────


@triton.jit
def conv_activation(z):
    """Apply ReLU; NaN passes."""
    return tl.where(z <= 0, 0.0, z)


# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


@triton.jit
def conv_place(
    pixel,
    rows: tl.constexpr,
    columns: tl.constexpr,
):
    """Say in which image, row and column a pixel lies; the image in 64 bits, for addresses."""
    image = (pixel // (rows * columns)).to(tl.int64)
    return image, pixel // columns % rows, pixel % columns


@triton.jit
def conv_sum(
    x_ptr,
    weight_ptr,
    scale_ptr,
    image,
    row,
    column,
    pixel_mask,
    group,
    filter,
    filter_mask,
    height: tl.constexpr,
    width: tl.constexpr,
    CHANNELS: tl.constexpr,
    GROUPS: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PAD: tl.constexpr,
    DILATION: tl.constexpr,
    TAPS: tl.constexpr,
    SCALE: tl.constexpr,
    BLOCK_FILTERS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_TERMS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Convolve: a tile of filters (rows) by pixels (columns)."""
    GROUP_CHANNELS: tl.constexpr = CHANNELS // GROUPS
    TERMS: tl.constexpr = KERNEL[0] * KERNEL[1] * GROUP_CHANNELS
    # Where the receptive fields start: in the padding, maybe, so these addresses are not read yet.
    row = row * STRIDE[0] - PAD[0]
    column = column * STRIDE[1] - PAD[1]
    x_ptr += ((image * height + row) * width + column) * CHANNELS
    x_ptr += group * GROUP_CHANNELS
    weight_ptr += filter * TERMS
    total = tl.zeros((BLOCK_FILTERS, BLOCK_PIXELS), tl.float32)
    if TAPS == "packed":
        # Few channels: one step takes the terms of several taps, to fill the matrix unit.
        for step in range((TERMS + BLOCK_TERMS - 1) // BLOCK_TERMS):
            term = step * BLOCK_TERMS + tl.arange(0, BLOCK_TERMS)
            tap = term // GROUP_CHANNELS
            down = (tap // KERNEL[1] * DILATION[0])[:, None]
            right = (tap % KERNEL[1] * DILATION[1])[:, None]
            x_mask = pixel_mask[None, :] & (term < TERMS)[:, None]
            x_mask &= (row[None, :] + down >= 0) & (row[None, :] + down < height)
            x_mask &= (column[None, :] + right >= 0) & (column[None, :] + right < width)
            offset = (down * width + right) * CHANNELS + (term % GROUP_CHANNELS)[:, None]
            x = tl.load(x_ptr[None, :] + offset, mask=x_mask, other=0.0)
            weight_mask = filter_mask[:, None] & (term < TERMS)[None, :]
            weight = tl.load(weight_ptr[:, None] + term[None, :], mask=weight_mask, other=0.0)
            total = tl.dot(weight, x, total, input_precision=PRECISION)
    else:
        # One step takes channels of one tap: whole cache lines, and one bounds check a pixel.
        CHANNEL_BLOCKS: tl.constexpr = (GROUP_CHANNELS + BLOCK_TERMS - 1) // BLOCK_TERMS
        for step in range(KERNEL[0] * KERNEL[1] * CHANNEL_BLOCKS):
            tap = step // CHANNEL_BLOCKS
            channel = step % CHANNEL_BLOCKS * BLOCK_TERMS + tl.arange(0, BLOCK_TERMS)
            channel_mask = channel < GROUP_CHANNELS
            down = tap // KERNEL[1] * DILATION[0]
            right = tap % KERNEL[1] * DILATION[1]
            inside = pixel_mask & (row + down >= 0) & (row + down < height)
            inside &= (column + right >= 0) & (column + right < width)
            offset = (down * width + right) * CHANNELS + channel
            x_mask = inside[None, :] & channel_mask[:, None]
            x = tl.load(x_ptr[None, :] + offset[:, None], mask=x_mask, other=0.0)
            term = tap * GROUP_CHANNELS + channel
            weight_mask = filter_mask[:, None] & channel_mask[None, :]
            weight = tl.load(weight_ptr[:, None] + term[None, :], mask=weight_mask, other=0.0)
            total = tl.dot(weight, x, total, input_precision=PRECISION)
    if SCALE:
        scale = tl.load(scale_ptr + filter, mask=filter_mask, other=0.0)
        total *= scale.to(tl.float32)[:, None]
    return total


@triton.jit
def conv_biased(z, bias_ptr, filter, filter_mask):
    """Add the bias to a tile of filters by pixels."""
    bias = tl.load(bias_ptr + filter, mask=filter_mask, other=0.0)
    return z + bias.to(tl.float32)[:, None]


@triton.jit
def conv_corners(
    tile,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Take a tile apart into the four pixels of its 2x2 windows."""
    windows = tl.permute(tl.reshape(tile, (ROWS, 2, COLUMNS // 4, 2)), (0, 2, 1, 3))
    left, right = tl.split(windows)
    top_left, bottom_left = tl.split(left)
    top_right, bottom_right = tl.split(right)
    return top_left, top_right, bottom_left, bottom_right


@triton.jit
def conv_better(z, best):
    """Say which values beat the best so far: the first of equals stays, the last NaN wins."""
    itself = z  # only NaN differs from itself
    return (z > best) | (z != itself)


@triton.jit
def conv_window_pixels(
    row,
    column,
    conv_height: tl.constexpr,
    conv_width: tl.constexpr,
    POOL_SIZE: tl.constexpr,
    POOL_STRIDE: tl.constexpr,
    POOL_PAD: tl.constexpr,
    COUNT_PAD: tl.constexpr,
):
    """Say by how many pixels the average of a window divides."""
    top = row * POOL_STRIDE[0] - POOL_PAD[0]
    left = column * POOL_STRIDE[1] - POOL_PAD[1]
    if COUNT_PAD:
        # Rounding up (ceil) may make a window reach past the padding: that part never counts.
        rows = tl.minimum(top + POOL_SIZE[0], conv_height + POOL_PAD[0]) - top
        columns = tl.minimum(left + POOL_SIZE[1], conv_width + POOL_PAD[1]) - left
    else:
        rows = tl.minimum(top + POOL_SIZE[0], conv_height) - tl.maximum(top, 0)
        columns = tl.minimum(left + POOL_SIZE[1], conv_width) - tl.maximum(left, 0)
    # Windows outside the image, in a tile that is not full, must not divide by zero.
    return tl.maximum(rows * columns, 1).to(tl.float32)


@triton.jit
def conv_quads(
    z,
    bias_ptr,
    filter,
    filter_mask,
    BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    POOL: tl.constexpr,
    BLOCK_FILTERS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
):
    """Pool a tile over 2x2 windows, in registers; also say which pixel won, or which are alive."""
    code = tl.full((BLOCK_FILTERS, BLOCK_PIXELS // 4), 1, tl.int32)
    if POOL == "max":
        y, b, c, d = conv_corners(z, BLOCK_FILTERS, BLOCK_PIXELS)
        code = tl.where(conv_better(b, y), 2, code)
        y = tl.where(conv_better(b, y), b, y)
        code = tl.where(conv_better(c, y), 3, code)
        y = tl.where(conv_better(c, y), c, y)
        code = tl.where(conv_better(d, y), 4, code)
        y = tl.where(conv_better(d, y), d, y)
    else:
        if BIAS:
            z = conv_biased(z, bias_ptr, filter, filter_mask)
        if ACTIVATION == "relu":
            alive = tl.where(z <= 0, 0, 1)
            a, b, c, d = conv_corners(alive, BLOCK_FILTERS, BLOCK_PIXELS)
            code = a | b << 1 | c << 2 | d << 3
            z = conv_activation(z)
        a, b, c, d = conv_corners(z, BLOCK_FILTERS, BLOCK_PIXELS)
        y = (a + b + c + d) / 4
    return y, code


@triton.jit
def conv_windows(
    x_ptr,
    weight_ptr,
    bias_ptr,
    scale_ptr,
    positions,
    image,
    row,
    column,
    window_mask,
    group,
    filter,
    filter_mask,
    height: tl.constexpr,
    width: tl.constexpr,
    conv_height: tl.constexpr,
    conv_width: tl.constexpr,
    CHANNELS: tl.constexpr,
    GROUPS: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PAD: tl.constexpr,
    DILATION: tl.constexpr,
    TAPS: tl.constexpr,
    BIAS: tl.constexpr,
    SCALE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    POOL: tl.constexpr,
    POOL_SIZE: tl.constexpr,
    POOL_STRIDE: tl.constexpr,
    POOL_PAD: tl.constexpr,
    POOL_DILATION: tl.constexpr,
    COUNT_PAD: tl.constexpr,
    BLOCK_FILTERS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_TERMS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Convolve and pool over any windows: once for each position in them, keeping best or sum."""
    y = tl.zeros((BLOCK_FILTERS, BLOCK_PIXELS), tl.float32)
    code = tl.zeros((BLOCK_FILTERS, BLOCK_PIXELS), tl.int32)
    for position in range(positions):
        down = position // POOL_SIZE[1] * POOL_DILATION[0]
        right = position % POOL_SIZE[1] * POOL_DILATION[1]
        conv_row = row * POOL_STRIDE[0] - POOL_PAD[0] + down
        conv_column = column * POOL_STRIDE[1] - POOL_PAD[1] + right
        exists = window_mask & (conv_row >= 0) & (conv_row < conv_height)
        exists &= (conv_column >= 0) & (conv_column < conv_width)
        z = conv_sum(
            x_ptr=x_ptr,
            weight_ptr=weight_ptr,
            scale_ptr=scale_ptr,
            image=image,
            row=conv_row,
            column=conv_column,
            pixel_mask=exists,
            group=group,
            filter=filter,
            filter_mask=filter_mask,
            height=height,
            width=width,
            CHANNELS=CHANNELS,
            GROUPS=GROUPS,
            KERNEL=KERNEL,
            STRIDE=STRIDE,
            PAD=PAD,
            DILATION=DILATION,
            TAPS=TAPS,
            SCALE=SCALE,
            BLOCK_FILTERS=BLOCK_FILTERS,
            BLOCK_PIXELS=BLOCK_PIXELS,
            BLOCK_TERMS=BLOCK_TERMS,
            PRECISION=PRECISION,
        )
        if POOL == "max":
            # Padding is never chosen; the first pixel is, whatever it holds.
            better = exists[None, :] & (conv_better(z, y) | (code == 0))
            y = tl.where(better, z, y)
            code = tl.where(better, position + 1, code)
        else:
            if BIAS:
                z = conv_biased(z, bias_ptr, filter, filter_mask)
            if ACTIVATION == "relu":
                code |= tl.where(exists[None, :] & ~(z <= 0), 1, 0) << position
                z = conv_activation(z)
            y += tl.where(exists[None, :], z, 0.0)
    if POOL == "average":
        y /= conv_window_pixels(
            row=row,
            column=column,
            conv_height=conv_height,
            conv_width=conv_width,
            POOL_SIZE=POOL_SIZE,
            POOL_STRIDE=POOL_STRIDE,
            POOL_PAD=POOL_PAD,
            COUNT_PAD=COUNT_PAD,
        )[None, :]
    return y, code


@triton.jit
def conv_forward(
    x_ptr,  # [batch, height, width, CHANNELS]
    weight_ptr,  # [FILTERS, *KERNEL, CHANNELS // GROUPS]
    bias_ptr,  # [FILTERS]
    scale_ptr,  # [FILTERS]
    y_ptr,  # [batch, out_height, out_width, FILTERS]
    winner_ptr,  # like y: 0 = no gradient, 1 + position in the window of the pixel that won
    alive_ptr,  # like y: bit p is set where the pixel at position p of the window has a gradient
    input_ptr,  # like y: what the activation was given
    positions,  # of a window: not a constant, or the compiler unrolls the loop and spills
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
    BIAS: tl.constexpr,
    SCALE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    POOL: tl.constexpr,
    POOL_SIZE: tl.constexpr,
    POOL_STRIDE: tl.constexpr,
    POOL_PAD: tl.constexpr,
    POOL_DILATION: tl.constexpr,
    COUNT_PAD: tl.constexpr,
    WINDOW: tl.constexpr,
    BLOCK_FILTERS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_TERMS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute y = pool(activation(conv(x, weight) · scale + bias)), and what backward needs."""
    GROUP_FILTERS: tl.constexpr = FILTERS // GROUPS
    GROUP_BLOCKS: tl.constexpr = (GROUP_FILTERS + BLOCK_FILTERS - 1) // BLOCK_FILTERS
    # Programs that differ in their filters only run side by side: they share x in the cache.
    tile = tl.program_id(0) // (GROUP_BLOCKS * GROUPS)
    block = tl.program_id(0) % (GROUP_BLOCKS * GROUPS)
    group = block // GROUP_BLOCKS
    filter = block % GROUP_BLOCKS * BLOCK_FILTERS + tl.arange(0, BLOCK_FILTERS)
    filter_mask = filter < GROUP_FILTERS
    filter += group * GROUP_FILTERS
    if WINDOW == "loop":
        window = tile * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
        window_mask = window < batch * out_height * out_width
        image, row, column = conv_place(window, out_height, out_width)
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
            CHANNELS=CHANNELS,
            GROUPS=GROUPS,
            KERNEL=KERNEL,
            STRIDE=STRIDE,
            PAD=PAD,
            DILATION=DILATION,
            TAPS=TAPS,
            BIAS=BIAS,
            SCALE=SCALE,
            ACTIVATION=ACTIVATION,
            POOL=POOL,
            POOL_SIZE=POOL_SIZE,
            POOL_STRIDE=POOL_STRIDE,
            POOL_PAD=POOL_PAD,
            POOL_DILATION=POOL_DILATION,
            COUNT_PAD=COUNT_PAD,
            BLOCK_FILTERS=BLOCK_FILTERS,
            BLOCK_PIXELS=BLOCK_PIXELS,
            BLOCK_TERMS=BLOCK_TERMS,
            PRECISION=PRECISION,
        )
        y = pooled[0]
    else:
        pixel = tl.arange(0, BLOCK_PIXELS)
        if WINDOW == "quad":
            # The pixels of a window lie in columns that one thread of the matrix unit holds.
            window = tile * (BLOCK_PIXELS // 4) + pixel % (BLOCK_PIXELS // 2) // 2
        else:
            window = tile * BLOCK_PIXELS + pixel
        window_mask = window < batch * out_height * out_width
        image, row, column = conv_place(window, out_height, out_width)
        if WINDOW == "quad":
            row = row * 2 + pixel // (BLOCK_PIXELS // 2)
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
            CHANNELS=CHANNELS,
            GROUPS=GROUPS,
            KERNEL=KERNEL,
            STRIDE=STRIDE,
            PAD=PAD,
            DILATION=DILATION,
            TAPS=TAPS,
            SCALE=SCALE,
            BLOCK_FILTERS=BLOCK_FILTERS,
            BLOCK_PIXELS=BLOCK_PIXELS,
            BLOCK_TERMS=BLOCK_TERMS,
            PRECISION=PRECISION,
        )
        if WINDOW == "quad":
            pooled = conv_quads(
                z=y,
                bias_ptr=bias_ptr,
                filter=filter,
                filter_mask=filter_mask,
                BIAS=BIAS,
                ACTIVATION=ACTIVATION,
                POOL=POOL,
                BLOCK_FILTERS=BLOCK_FILTERS,
                BLOCK_PIXELS=BLOCK_PIXELS,
            )
            y = pooled[0]
            window = tile * (BLOCK_PIXELS // 4) + tl.arange(0, BLOCK_PIXELS // 4)
            window_mask = window < batch * out_height * out_width
    offset = window.to(tl.int64)[None, :] * FILTERS + filter[:, None]
    mask = filter_mask[:, None] & window_mask[None, :]
    if POOL == "average":
        if ACTIVATION == "relu":
            tl.store(alive_ptr + offset, pooled[1].to(alive_ptr.dtype.element_ty), mask=mask)
    else:
        # Bias and a rising activation change no order, so they wait until the best is known.
        if BIAS:
            y = conv_biased(y, bias_ptr, filter, filter_mask)
        if POOL == "max":
            code = pooled[1]
            if ACTIVATION == "relu":
                code = tl.where(y <= 0, 0, code)
            tl.store(winner_ptr + offset, code.to(tl.uint8), mask=mask)
        if ACTIVATION == "input":
            tl.store(input_ptr + offset, y.to(input_ptr.dtype.element_ty), mask=mask)
        if ACTIVATION != "none":
            y = conv_activation(y)
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=mask)


# ── launches ────────────────────────────────────────────────────────────────────────────────────


def conv_forward_tile(geometry: ConvGeometry, x: Tensor, precision: str) -> Tile:
    """Choose filters x pixels, and terms a step, by what compiles without spills."""
    filters = geometry.filters // geometry.groups
    terms = geometry.channels // geometry.groups
    if geometry.taps == "packed":
        terms *= geometry.kernel[0] * geometry.kernel[1]
    if x.element_size() == 4 and precision == "ieee":
        # No matrix unit multiplies so; each thread holds whole rows and columns of the operands.
        return Tile(block_size(filters, 32), 32 if geometry.window == "loop" else 64, 16, 4, 2)
    if geometry.window == "loop":
        # Beside the sum, the best so far and its position take as many registers again.
        if geometry.taps == "packed":
            return Tile(block_size(filters, 64), 16, 16, 4, 2)
        return Tile(block_size(filters, 64), 32, block_size(terms, 32), 4, 2)
    return Tile(block_size(filters, 64), 128, block_size(terms, 32), 4, 3)


def conv_launch_forward(
    geometry: ConvGeometry,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    y: Tensor,
    kept: Tensor,
) -> None:
    """Launch the forward kernel, which fills y and what backward needs."""
    sizes = conv_sizes(geometry, x.shape[2], x.shape[3])
    precision = conv_precision(x)
    tile = conv_forward_tile(geometry, x, precision)
    windows = x.shape[0] * sizes.out_height * sizes.out_width
    block_windows = tile.columns
    if geometry.window == "quad":
        block_windows = tile.columns // 4
    blocks = geometry.groups * triton.cdiv(geometry.filters // geometry.groups, tile.rows)
    programs = blocks * triton.cdiv(windows, block_windows)
    refuse_launch(x, programs, 4 * windows)
    conv_forward[(programs,)](
        x_ptr=channels_last(x),
        weight_ptr=channels_last(weight),
        bias_ptr=bias,
        scale_ptr=scale,
        y_ptr=y,
        winner_ptr=kept,
        alive_ptr=kept,
        input_ptr=kept,
        positions=geometry.pool_size[0] * geometry.pool_size[1],
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
        BIAS=geometry.bias,
        SCALE=geometry.scale,
        ACTIVATION=geometry.activation,
        POOL=geometry.pool,
        POOL_SIZE=geometry.pool_size,
        POOL_STRIDE=geometry.pool_stride,
        POOL_PAD=geometry.pool_pad,
        POOL_DILATION=geometry.pool_dilation,
        COUNT_PAD=geometry.count_pad,
        WINDOW=geometry.window,
        BLOCK_FILTERS=tile.rows,
        BLOCK_PIXELS=tile.columns,
        BLOCK_TERMS=tile.terms,
        PRECISION=precision,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
