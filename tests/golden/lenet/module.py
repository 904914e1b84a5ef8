"""LeNet, a convolutional network: 28 x 28 x 1 to 10.

Made by cnndsl 0.1.0 from a source with this SHA-256; valid for this size of image only.
d5a4aac2f110a4376cba0bf55ba0f0dc417f521113f0af83e5d37bfa7d4431e3

It needs torch, triton and cnndsl. A region is a few layers in a row that one kernel
computes forward, and a few kernels backward. They run on CUDA, and in Triton's
interpreter where TRITON_INTERPRET=1 is set before the import; elsewhere the layers run
as PyTorch's operators. To see how, begin with the function at the end of a region.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from cnndsl.rt import (
    COUNTS,
    ConvGeometry,
    ConvLaunches,
    ConvOutputs,
    FcGeometry,
    FcLaunches,
    Tile,
    allocated,
    block_size,
    channels_last,
    conv_op,
    conv_precision,
    conv_sizes,
    conv_weights,
    count_blocks,
    cross_entropy,
    fc_op,
    fc_precision,
    fc_shape,
    fc_weights,
    full,
    full_dtype,
    in_layout_for,
    is_better,
    launch,
    max_pool2,
    pixel_place,
    refuse_launch,
    requires,
    runs_kernels,
    split_count,
)
from torch import Tensor, nn

requires(2)  # the version of cnndsl.rt

# Of this module's operators in PyTorch, so that two modules never meet.
NAMESPACE = "cnndsl_lenet_4795c3310a9e"


class LeNet(nn.Module):
    """28 x 28 x 1 to 10."""

    # channels, height, width; None: any size that `refuse_input` lets pass
    input_shape = (1, 28, 28)
    classes = ()

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Give the probabilities of the classes; a loss takes the logits, as `loss` does."""
        return F.softmax(self.logits(x), 1)

    def logits(self, x: Tensor) -> Tensor:
        """Give what the last layer before a softmax gives."""
        refuse_input(x)
        x = conv1_relu1_pool1(x, self.conv1)
        x = conv2_relu2_pool2(x, self.conv2)
        x = flatten1_fc1_relu3(x, self.fc1)
        x = fc2_relu4(x, self.fc2)
        return fc3(x, self.fc3)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy of the logits with the classes y, numbers from 0."""
        return cross_entropy(self.logits(x), y)

    def __prepare_scriptable__(self) -> torch.fx.GraphModule:
        """Give what `torch.jit.script` reads: PyTorch's operators, in the present mode."""
        return torch.fx.symbolic_trace(self)

    def dynamic_shapes(self) -> dict[str, dict[int, torch.export.Dim]]:
        """Give the sizes that are free, for `torch.export.export`."""
        return {"x": {0: torch.export.Dim("batch")}}


def refuse_input(x: Tensor) -> None:
    """Raise unless x is a batch of 28 x 28 x 1."""
    if not isinstance(x, Tensor):
        return  # torch.fx.symbolic_trace, which knows no sizes
    given = tuple(x.shape)
    if x.dim() != 4 or given[1:] != (1, 28, 28):
        raise ValueError(f"LeNet takes (N, 1, 28, 28), not {given} (cnn line 5)")


# ── region 1: conv1 + relu1 + pool1 ───────────────────────────────────────────────────
#          reads 28 x 28 x 1
#   conv1  conv 6 5x5 pad=same                                 28 x 28 x 6
#          O = (W − K + 2P)/S + 1 = (28 − 5 + 2·2)/1 + 1 = 28
#   relu1  relu                                                28 x 28 x 6
#   pool1  pool max 2                                          14 x 14 x 6
#          O = (W − K)/S + 1 = (28 − 2)/2 + 1 = 14
#   forward: 1 launch
#   backward: 3 launches, for the gradients of input, weight and bias
#   kept for backward: the input, 28 x 28 x 1; a byte an output (which pixel of the
#   window won), 14 x 14 x 6
#
#   What happens to a tile of sums before it is written: scale, bias and activation.
#
#   The sums of a convolution.
#
#   Images lie in memory as [batch, height, width, channels], weights as [filters,
#   kernel height, kernel width, channels of a group]. A tile's rows are filters and its
#   columns are pixels of the convolution; it is one matrix product over the terms
#   (kernel row, kernel column, channel) of the sum.
#
#   Pools over the sums of a convolution, in registers: values that lose are never
#   written.
#
#   Forward kernel: convolution, bias, activation and pool in one launch.
#
#   A program computes a tile of filters by pixels of the convolution. Only pooled
#   values are written.
#
#   The gradient before the pool and the activation, rebuilt wherever it is read.
#
#   Of a window's gradient, the pixel that won gets all, or each pixel of an average its
#   share, and a pixel that the activation blocks gets none.
#
#   Backward kernel of a convolution region: the gradient of the input.
#
#   Backward kernel of a convolution region: the gradient of the weight.
#
#   The sum is split over programs, and its parts are added in a fixed order, so that
#   the same input gives the same bits.
#
#   Backward kernel of a convolution region: the gradient of the bias, a sum over
#   windows.
#
#   It reads each value of the gradient once. So it also writes the gradient before the
#   activation, where more than the other kernels want it: it is a residual's, or what a
#   library multiplies. Split and added as the gradient of the weight is.


@triton.jit
def conv_few_relu_max2_activation(z):
    """Apply relu."""
    return tl.where(z <= 0, 0.0, z)


@triton.jit
def conv_few_relu_max2_each(vector_ptr, filter, filter_mask):
    """Read a value for each filter, to go with a tile of filters by pixels."""
    return tl.load(vector_ptr + filter, mask=filter_mask, other=0.0)[:, None]


@triton.jit
def conv_few_relu_max2_shifted(
    y,
    bias_ptr,
    filter,
    filter_mask,
):
    """Do all that comes between the pool, or the sum, and the activation."""
    y += conv_few_relu_max2_each(bias_ptr, filter, filter_mask).to(y.dtype)
    return y


@triton.jit
def conv_few_relu_max2_products(
    x_ptr,
    weight_ptr,
    image,
    row,
    column,
    pixel_mask,
    group,
    filter,
    filter_mask,
    height: tl.constexpr,
    width: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Multiply and add: a tile of filters (rows) by pixels (columns)."""
    ROWS: tl.constexpr = T.rows
    COLUMNS: tl.constexpr = T.columns
    GROUP_CHANNELS: tl.constexpr = C.channels // C.groups
    TERMS: tl.constexpr = C.kernel[0] * C.kernel[1] * GROUP_CHANNELS
    # Of a pixel: what `conv_rows` lays out has four.
    VALUES: tl.constexpr = 4 if C.taps == "rows" else C.channels
    total = full(tl.zeros((ROWS, COLUMNS), x_ptr.dtype.element_ty))
    # Where the receptive fields start: in the padding, maybe, so nothing is read there yet.
    row = row * C.stride[0]
    column = column * C.stride[1]
    row -= C.pad[0]
    column -= C.pad[1]
    x_ptr += ((image * height + row) * width + column) * VALUES
    x_ptr += group * GROUP_CHANNELS
    weight_ptr += filter * TERMS
    # Few channels: one step takes the terms of several taps, to fill the matrix unit.
    for step in range((TERMS + T.terms - 1) // T.terms):
        term = step * T.terms + tl.arange(0, T.terms)
        tap = term // GROUP_CHANNELS
        down = (tap // C.kernel[1] * C.dilation[0])[:, None]
        right = (tap % C.kernel[1] * C.dilation[1])[:, None]
        x_mask = pixel_mask[None, :] & (term < TERMS)[:, None]
        x_mask &= (row[None, :] + down >= 0) & (row[None, :] + down < height)
        x_mask &= (column[None, :] + right >= 0) & (column[None, :] + right < width)
        channel = (term % GROUP_CHANNELS)[:, None]
        offset = (down * width + right) * C.channels + channel
        x = tl.load(x_ptr[None, :] + offset, mask=x_mask, other=0.0)
        weight_mask = filter_mask[:, None] & (term < TERMS)[None, :]
        weight = tl.load(
            weight_ptr[:, None] + term[None, :],
            mask=weight_mask,
            other=0.0,
        )
        total = tl.dot(
            weight,
            x,
            total,
            input_precision=PRECISION,
            out_dtype=total.dtype,
        )
    return total


@triton.jit
def conv_few_relu_max2_sum(
    x_ptr,
    weight_ptr,
    image,
    row,
    column,
    pixel_mask,
    group,
    filter,
    filter_mask,
    height: tl.constexpr,
    width: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Convolve: a tile of filters (rows) by pixels (columns).

    Where that was done before, x is the convolution itself.
    """
    return conv_few_relu_max2_products(
        x_ptr=x_ptr,
        weight_ptr=weight_ptr,
        image=image,
        row=row,
        column=column,
        pixel_mask=pixel_mask,
        group=group,
        filter=filter,
        filter_mask=filter_mask,
        height=height,
        width=width,
        C=C,
        T=T,
        PRECISION=PRECISION,
    )


@triton.jit
def conv_few_relu_max2_corners(
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
def conv_few_relu_max2_quads(
    z,
    T: tl.constexpr,
):
    """Pool a tile over 2x2 windows, in registers; also say which pixel won, or which are alive."""
    ROWS: tl.constexpr = T.rows
    COLUMNS: tl.constexpr = T.columns
    code = tl.full((ROWS, COLUMNS // 4), 1, tl.int32)
    y, b, c, d = conv_few_relu_max2_corners(z, ROWS, COLUMNS)
    code = tl.where(is_better(b, y), 2, code)
    y = tl.where(is_better(b, y), b, y)
    code = tl.where(is_better(c, y), 3, code)
    y = tl.where(is_better(c, y), c, y)
    code = tl.where(is_better(d, y), 4, code)
    y = tl.where(is_better(d, y), d, y)
    return y, code


@triton.jit(do_not_specialize=COUNTS)
def conv_few_relu_max2_forward(
    x_ptr,  # [batch, height, width, C.channels]
    weight_ptr,  # [C.filters, *C.kernel, C.channels // C.groups]
    bias_ptr,  # [C.filters]
    y_ptr,  # [batch, out_height, out_width, C.filters]
    winner_ptr,  # like y: 0 = no gradient, 1 + position in the window of the pixel that won
    batch,
    height: tl.constexpr,
    width: tl.constexpr,
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
    pixel = tl.arange(0, COLUMNS)
    # The pixels of a window lie in columns that one thread of the matrix unit holds.
    window = tile * (COLUMNS // 4) + pixel % (COLUMNS // 2) // 2
    window_mask = window < batch * out_height * out_width
    image, row, column = pixel_place(window, out_height, out_width)
    row = row * 2 + pixel // (COLUMNS // 2)
    column = column * 2 + pixel % 2
    y = conv_few_relu_max2_sum(
        x_ptr=x_ptr,
        weight_ptr=weight_ptr,
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
    pooled = conv_few_relu_max2_quads(
        z=y,
        T=T,
    )
    y = pooled[0]
    window = tile * (COLUMNS // 4) + tl.arange(0, COLUMNS // 4)
    window_mask = window < batch * out_height * out_width
    offset = window.to(tl.int64)[None, :] * C.filters + filter[:, None]
    mask = filter_mask[:, None] & window_mask[None, :]
    # Bias and a rising activation change no order, so they wait until the best is known.
    y = conv_few_relu_max2_shifted(
        y=y,
        bias_ptr=bias_ptr,
        filter=filter,
        filter_mask=filter_mask,
    )
    code = pooled[1]
    code = tl.where(y <= 0, 0, code)
    tl.store(winner_ptr + offset, code.to(winner_ptr.dtype.element_ty), mask=mask)
    y = conv_few_relu_max2_activation(y)
    rounded = y.to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + offset, rounded, mask=mask)


def conv_few_relu_max2_forward_tile(
    geometry: ConvGeometry,
    x: Tensor,
    precision: str,
) -> Tile:
    """Choose filters x pixels, and terms a step, by what compiles without spills."""
    filters = geometry.filters // geometry.groups
    terms = geometry.channels // geometry.groups
    terms *= geometry.kernel[0] * geometry.kernel[1]
    if precision == "ieee" and x.element_size() >= 4:
        # No matrix unit multiplies so; each thread holds whole rows and columns of the operands.
        return Tile(
            block_size(filters, 32),
            32 if geometry.window == "loop" else 64,
            16,
            4,
            2,
        )
    if x.element_size() == 4:
        return Tile(block_size(filters, 64), 128, block_size(terms, 32), 4, 3)
    if terms <= 32:
        # Little to multiply: what counts is how much is read at a time.
        return Tile(block_size(filters, 64), 256, block_size(terms, 32), 4, 4)
    most = 64 if geometry.taps == "apart" and geometry.stride == (1, 1) else 32
    return Tile(block_size(filters, 64), 128, block_size(terms, most), 4, 3)


def conv_few_relu_max2_launch_windows(geometry: ConvGeometry, x: Tensor) -> int:
    """Say how many windows (pixels, where nothing is pooled) a program of forward computes."""
    tile = conv_few_relu_max2_forward_tile(geometry, x, conv_precision(x))
    return tile.columns // 4


def conv_few_relu_max2_launch_forward(
    geometry: ConvGeometry,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    _scale: Tensor | None,
    _residual: Tensor | None,
    outputs: ConvOutputs,
) -> None:
    """Launch the forward kernel, which fills y and all that is kept beside it."""
    sizes = conv_sizes(geometry, x.shape[2], x.shape[3])
    precision = conv_precision(x)
    tile = conv_few_relu_max2_forward_tile(geometry, x, precision)
    windows = x.shape[0] * sizes.out_height * sizes.out_width
    height, width = sizes.height, sizes.width
    groups = geometry.forward_groups
    blocks = groups * count_blocks(geometry.filters // groups, tile.rows)
    programs = blocks * count_blocks(
        windows,
        conv_few_relu_max2_launch_windows(geometry, x),
    )
    refuse_launch(x, programs, 4 * windows)
    launch(
        conv_few_relu_max2_forward,
        programs,
        x_ptr=channels_last(x),
        weight_ptr=channels_last(weight),
        bias_ptr=bias,
        y_ptr=outputs.y,
        winner_ptr=outputs.code,
        batch=x.shape[0],
        height=height,
        width=width,
        out_height=sizes.out_height,
        out_width=sizes.out_width,
        C=geometry,
        T=tile,
        PRECISION=precision,
        **tile.options,
    )


@triton.jit
def conv_few_relu_max2_rebuilt(
    gradient_ptr,
    winner_ptr,
    offset,
    mask,
    position,
):
    """Rebuild a tile of the gradient before the pool: what windows give to one position in each.

    An average gives a share of it: that division is left to the caller.
    """
    gradient = tl.load(gradient_ptr + offset, mask=mask, other=0.0)
    # Only now: the slope is that of the pixel that won. Where it is NaN, the others still get 0.
    winner = tl.load(winner_ptr + offset, mask=mask, other=0).to(tl.int32)
    gradient = tl.where(winner == position + 1, gradient, 0.0)
    return gradient.to(gradient_ptr.dtype.element_ty)


@triton.jit
def conv_few_relu_max2_first(
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
def conv_few_relu_max2_input_gradient(
    gradient_ptr,  # [batch, out_height, out_width, C.filters]
    winner_ptr,  # like the gradient, written by the forward kernel
    weight_ptr,  # [C.filters, *C.kernel, C.channels // C.groups]
    dx_ptr,  # [batch, height, width, C.channels]
    batch,
    height: tl.constexpr,
    width: tl.constexpr,
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
    first_down = conv_few_relu_max2_first(
        phase_row + C.pad[0],
        C.stride[0],
        C.tap_step[0],
        C.tap_inverse[0],
        C.kernel[0],
    )
    first_right = conv_few_relu_max2_first(
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
        # A window that holds it, and its place there.
        turn = step // FILTER_STEPS % WINDOWS
        place_row = conv_few_relu_max2_first(
            row + C.pool_pad[0] + MORE_DOWN,
            C.pool_stride[0],
            STEP[0],
            C.window_inverse[0],
            C.pool_size[0],
        )
        place_column = conv_few_relu_max2_first(
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
        row += C.pool_pad[0] - place_row * C.pool_dilation[0]
        row = row // C.pool_stride[0]
        column += C.pool_pad[1] - place_column * C.pool_dilation[1]
        column = column // C.pool_stride[1]
        row += cell_row
        column += cell_column
        mask &= (row >= 0) & (row < out_height) & (column >= 0) & (column < out_width)
        offset = ((image * out_height + row) * out_width + column) * C.filters
        gradient = conv_few_relu_max2_rebuilt(
            gradient_ptr=gradient_ptr,
            winner_ptr=winner_ptr,
            offset=offset[:, None] + filter[None, :],
            mask=mask[:, None] & filter_mask[None, :],
            position=place_row * C.pool_size[1] + place_column,
        )
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


def conv_few_relu_max2_input_gradient_tile(
    geometry: ConvGeometry,
    dx: Tensor,
    precision: str,
) -> Tile:
    """Choose pixels x channels, and filters a step, by what compiles without spills."""
    channels = geometry.channels // geometry.groups
    filters = geometry.filters // geometry.groups
    if precision == "ieee" and dx.element_size() >= 4:
        return Tile(32, block_size(channels, 64), 16, 4, 2)
    most = 64
    if dx.element_size() == 4:
        return Tile(64, block_size(channels, 32), block_size(filters, most // 2), 4, 3)
    return Tile(64, block_size(channels, 64), block_size(filters, most), 4, 3)


def conv_few_relu_max2_launch_input_gradient(
    geometry: ConvGeometry,
    gradient: Tensor,
    code: Tensor,
    _saved: Tensor | None,
    weight: Tensor,
    dx: Tensor,
) -> None:
    """Launch the kernel that fills dx; its programs are all phases of all tiles."""
    sizes = conv_sizes(geometry, dx.shape[2], dx.shape[3])
    precision = conv_precision(dx)
    tile = conv_few_relu_max2_input_gradient_tile(geometry, dx, precision)
    cell_height = geometry.stride[0] * geometry.pool_stride[0]
    cell_width = geometry.stride[1] * geometry.pool_stride[1]
    cells = dx.shape[0] * count_blocks(sizes.height, cell_height)
    cells *= count_blocks(sizes.width, cell_width)
    blocks = geometry.groups * count_blocks(
        geometry.channels // geometry.groups,
        tile.columns,
    )
    programs = count_blocks(cells, tile.rows) * cell_height * cell_width * blocks
    refuse_launch(dx, programs, dx.shape[0] * sizes.height * sizes.width)
    launch(
        conv_few_relu_max2_input_gradient,
        programs,
        gradient_ptr=gradient,
        winner_ptr=code,
        weight_ptr=channels_last(weight),
        dx_ptr=dx,
        batch=dx.shape[0],
        height=sizes.height,
        width=sizes.width,
        out_height=sizes.out_height,
        out_width=sizes.out_width,
        C=geometry,
        T=tile,
        PRECISION=precision,
        **tile.options,
    )


@triton.jit(do_not_specialize=COUNTS)
def conv_few_relu_max2_weight_gradient(
    gradient_ptr,  # [batch, out_height, out_width, C.filters]
    winner_ptr,  # like the gradient, written by the forward kernel
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
    # Few channels: a tile's columns are terms of several taps.
    TERM_BLOCKS: tl.constexpr = (TERMS + COLUMNS - 1) // COLUMNS
    term = tl.program_id(0) % TERM_BLOCKS * COLUMNS + tl.arange(0, COLUMNS)
    term_mask = term < TERMS
    tap = term // GROUP_CHANNELS
    channel = term % GROUP_CHANNELS
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
        offset = window.to(tl.int64)[None, :] * C.filters + filter[:, None]
        position = step % POSITIONS
        row = row * C.pool_stride[0] - C.pool_pad[0]
        row += position // C.pool_size[1] * C.pool_dilation[0]
        column = column * C.pool_stride[1] - C.pool_pad[1]
        column += position % C.pool_size[1] * C.pool_dilation[1]
        exists &= (row >= 0) & (row < conv_height)
        exists &= (column >= 0) & (column < conv_width)
        gradient = conv_few_relu_max2_rebuilt(
            gradient_ptr=gradient_ptr,
            winner_ptr=winner_ptr,
            offset=offset,
            mask=filter_mask[:, None] & exists[None, :],
            position=position,
        )
        row = row * C.stride[0] - C.pad[0]
        column = column * C.stride[1] - C.pad[1]
        start = ((image * height + row) * width + column) * C.channels
        start += group * GROUP_CHANNELS
        offset = (down * width + right) * C.channels + channel
        x_mask = exists[:, None] & term_mask[None, :]
        x_mask &= row[:, None] + down[None, :] >= 0
        x_mask &= row[:, None] + down[None, :] < height
        x_mask &= column[:, None] + right[None, :] >= 0
        x_mask &= column[:, None] + right[None, :] < width
        x = tl.load(x_ptr + start[:, None] + offset[None, :], mask=x_mask, other=0.0)
        dweight = tl.dot(
            gradient,
            x,
            dweight,
            input_precision=PRECISION,
            out_dtype=dweight.dtype,
        )
    row = split.to(tl.int64) * C.filters + filter
    tl.store(
        partial_ptr + row[:, None] * TERMS + term[None, :],
        dweight,
        mask=filter_mask[:, None] & term_mask[None, :],
    )


def conv_few_relu_max2_weight_gradient_tile(
    geometry: ConvGeometry,
    x: Tensor,
    precision: str,
) -> Tile:
    """Choose filters x terms, and windows a step, by what compiles without spills."""
    filters = geometry.filters // geometry.groups
    terms = geometry.channels // geometry.groups
    terms *= geometry.kernel[0] * geometry.kernel[1]
    most, windows = 64, 32
    if precision == "ieee" and x.element_size() >= 4:
        most, windows = 32, 16
    most_terms = 32 if x.element_size() == 8 else 64
    return Tile(block_size(filters, most), block_size(terms, most_terms), windows, 4, 2)


def conv_few_relu_max2_launch_weight_gradient(
    geometry: ConvGeometry,
    gradient: Tensor,
    code: Tensor,
    _saved: Tensor | None,
    x: Tensor,
) -> Tensor:
    """Launch the kernel of the weight's gradient: parts of its sum, in float32."""
    sizes = conv_sizes(geometry, x.shape[2], x.shape[3])
    precision = conv_precision(x)
    tile = conv_few_relu_max2_weight_gradient_tile(geometry, x, precision)
    channels = geometry.channels // geometry.groups
    taps = geometry.kernel[0] * geometry.kernel[1]
    height, width = sizes.height, sizes.width
    programs = count_blocks(taps * channels, tile.columns)
    programs *= geometry.groups * count_blocks(
        geometry.filters // geometry.groups,
        tile.rows,
    )
    windows = x.shape[0] * sizes.out_height * sizes.out_width
    splits = split_count(programs, count_blocks(windows, tile.terms))
    refuse_launch(
        x,
        programs * splits,
        windows * geometry.pool_size[0] * geometry.pool_size[1],
    )
    shape = (splits, geometry.filters, *geometry.kernel, channels)
    partial = allocated(x.new_empty(shape, dtype=full_dtype(x)))
    launch(
        conv_few_relu_max2_weight_gradient,
        programs * splits,
        gradient_ptr=gradient,
        winner_ptr=code,
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


@triton.jit(do_not_specialize=COUNTS)
def conv_few_relu_max2_bias_gradient(
    gradient_ptr,  # [batch, out_height, out_width, C.filters]
    winner_ptr,  # like the gradient, written by the forward kernel
    partial_ptr,  # [splits, C.filters]
    splits,
    batch,
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
        # Each window that is not dead gives all of its gradient to one pixel.
        winner = tl.load(winner_ptr + offset, mask=mask, other=0)
        gradient = tl.where(winner != 0, gradient, 0.0)
        total += gradient
    tl.store(
        partial_ptr + split.to(tl.int64) * C.filters + filter,
        tl.sum(total, axis=0),
        mask=filter_mask,
    )


def conv_few_relu_max2_launch_bias_gradient(
    geometry: ConvGeometry,
    gradient: Tensor,
    code: Tensor,
    _saved: Tensor | None,
    _dz: Tensor,
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
        conv_few_relu_max2_bias_gradient,
        programs * splits,
        gradient_ptr=gradient,
        winner_ptr=code,
        partial_ptr=partial,
        splits=splits,
        batch=gradient.shape[0],
        out_height=sizes.out_height,
        out_width=sizes.out_width,
        C=geometry,
        T=tile,
        num_warps=tile.warps,
    )
    return partial


conv_few_relu_max2_launches = ConvLaunches(
    forward=conv_few_relu_max2_launch_forward,
    input_gradient=conv_few_relu_max2_launch_input_gradient,
    weight_gradient=conv_few_relu_max2_launch_weight_gradient,
    bias_gradient=conv_few_relu_max2_launch_bias_gradient,
)


CONV1_RELU1_POOL1 = ConvGeometry(
    channels=1,
    filters=6,
    kernel=(5, 5),
    pad=(2, 2),
    activation="relu",
    pool="max",
    pool_size=(2, 2),
    pool_stride=(2, 2),
    window="quad",
)
conv1_relu1_pool1_op = conv_op(
    f"{NAMESPACE}::conv1_relu1_pool1",
    CONV1_RELU1_POOL1,
    conv_few_relu_max2_launches,
)


def conv1_relu1_pool1(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Run region 1: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = conv_weights(conv, CONV1_RELU1_POOL1)
        if weight is not None:
            return conv1_relu1_pool1_op(channels_last(x), weight, bias)
    x = in_layout_for(x, conv)
    x = conv(x)
    x = max_pool2(x)
    return F.relu(x)


# ── region 2: conv2 + relu2 + pool2 ───────────────────────────────────────────────────
#          reads 14 x 14 x 6
#   conv2  conv 16 5x5                              10 x 10 x 16
#          O = (W − K)/S + 1 = (14 − 5)/1 + 1 = 10
#   relu2  relu                                     10 x 10 x 16
#   pool2  pool max 2                               5 x 5 x 16
#          O = (W − K)/S + 1 = (10 − 2)/2 + 1 = 5
#   forward: 1 launch
#   backward: 3 launches, for the gradients of input, weight and bias
#   kept for backward: the input, 14 x 14 x 6; a byte an output (which pixel of the
#   window won), 5 x 5 x 16
#   Its kernels are those of region 1.


CONV2_RELU2_POOL2 = ConvGeometry(
    channels=6,
    filters=16,
    kernel=(5, 5),
    activation="relu",
    pool="max",
    pool_size=(2, 2),
    pool_stride=(2, 2),
    window="quad",
)
conv2_relu2_pool2_op = conv_op(
    f"{NAMESPACE}::conv2_relu2_pool2",
    CONV2_RELU2_POOL2,
    conv_few_relu_max2_launches,
)


def conv2_relu2_pool2(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Run region 2: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = conv_weights(conv, CONV2_RELU2_POOL2)
        if weight is not None:
            return conv2_relu2_pool2_op(x, weight, bias)
    x = in_layout_for(x, conv)
    x = conv(x)
    x = max_pool2(x)
    return F.relu(x)


# ── region 3: flatten1 + fc1 + relu3 ──────────────────────────────────────────────────
#             reads 5 x 5 x 16
#   flatten1  flatten               400
#             H·W·C = 5·5·16 = 400
#   fc1       fc 120                120
#   relu3     relu                  120
#   forward: 1 launch
#   backward: 3 launches, for the gradients of input, weight and bias
#   kept for backward: the input, 5 x 5 x 16; the output, 120
#
#   Kernels of a fully connected layer, forward: x · weightᵀ + bias and its activation.
#
#   Matrices lie in memory by rows: x [batch, features], weight [outputs, features].
#
#   Kernels of a fully connected layer, backward: the gradients of x, weight and bias.
#
#   Each is one tiled matrix product, or a sum; a gradient goes back through the
#   activation where it is read.


@triton.jit
def fc_activation(z):
    """Apply relu."""
    return tl.where(z <= 0, 0.0, z)


@triton.jit
def fc_places(feature, C: tl.constexpr):
    """Say where features of an image lie: in a row of x, and in a row of the weight.

    In x channels are innermost, in the weight pixels, as PyTorch flattens. Features are
    counted such that neighbours are near each other in both: C.group channels of a pixel,
    the same of the next pixel, and so on; behind the last pixel the next channels.
    """
    channel = feature // (C.group * C.pixels) * C.group + feature % C.group
    pixel = feature // C.group % C.pixels
    return pixel * (C.features // C.pixels) + channel, channel * C.pixels + pixel


@triton.jit(do_not_specialize=COUNTS)
def fc_forward(
    x_ptr,  # [batch, C.features]
    weight_ptr,  # [C.outputs, C.features]
    bias_ptr,  # [C.outputs]
    y_ptr,  # [batch, C.outputs]
    batch,
    C: tl.constexpr,
    T: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute y = activation(x · weightᵀ + bias): a tile of images by outputs."""
    ROWS: tl.constexpr = T.rows
    COLUMNS: tl.constexpr = T.columns
    OUTPUT_BLOCKS: tl.constexpr = (C.outputs + COLUMNS - 1) // COLUMNS
    image = tl.program_id(0) // OUTPUT_BLOCKS * ROWS + tl.arange(0, ROWS)
    output = tl.program_id(0) % OUTPUT_BLOCKS * COLUMNS + tl.arange(0, COLUMNS)
    image_mask = image < batch
    output_mask = output < C.outputs
    y = full(tl.zeros((ROWS, COLUMNS), y_ptr.dtype.element_ty))
    for step in range((C.features + T.terms - 1) // T.terms):
        feature = step * T.terms + tl.arange(0, T.terms)
        feature_mask = feature < C.features
        if C.pixels == 1:
            place = feature
        else:
            place, column = fc_places(feature, C)
        x = tl.load(
            x_ptr + image.to(tl.int64)[:, None] * C.features + place[None, :],
            mask=image_mask[:, None] & feature_mask[None, :],
            other=0.0,
        )
        if C.pixels == 1:
            weight = tl.load(
                weight_ptr + output[None, :] * C.features + feature[:, None],
                mask=output_mask[None, :] & feature_mask[:, None],
                other=0.0,
            )
        else:
            # Threads side by side read along the columns, where pixels are neighbours.
            weight = tl.load(
                weight_ptr + output[:, None] * C.features + column[None, :],
                mask=output_mask[:, None] & feature_mask[None, :],
                other=0.0,
            ).T
        y = tl.dot(x, weight, y, input_precision=PRECISION, out_dtype=y.dtype)
    offset = image.to(tl.int64)[:, None] * C.outputs + output[None, :]
    mask = image_mask[:, None] & output_mask[None, :]
    bias = tl.load(bias_ptr + output, mask=output_mask, other=0.0)
    y += bias.to(y.dtype)[None, :]
    if C.activation != "none":
        y = fc_activation(y)
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=mask)


def fc_tile(rows: int, columns: int, terms: int, x: Tensor, precision: str) -> Tile:
    """Choose the tile of a product: rows x columns, a sum over terms; by what does not spill."""
    if precision == "ieee" and x.element_size() >= 4:
        return Tile(block_size(rows, 32), block_size(columns, 32), 16, 4, 2)
    most = 32 if x.element_size() == 4 else 64
    # A sum of one step is no loop, in which registers would be used again.
    width = 32 if x.element_size() == 4 and terms <= most else 64
    return Tile(
        block_size(rows, 64),
        block_size(columns, width),
        block_size(terms, most),
        4,
        3,
    )


def fc_launch_forward(
    geometry: FcGeometry,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    _kept: Tensor,
) -> None:
    """Launch the forward kernel, which fills y."""
    precision = fc_precision(x)
    tile = fc_tile(64, geometry.outputs, geometry.features, x, precision)
    programs = count_blocks(x.shape[0], tile.rows) * count_blocks(
        geometry.outputs,
        tile.columns,
    )
    refuse_launch(x, programs, x.shape[0])
    launch(
        fc_forward,
        programs,
        x_ptr=x,
        weight_ptr=weight,
        bias_ptr=bias,
        y_ptr=y,
        batch=x.shape[0],
        C=geometry,
        T=tile,
        PRECISION=precision,
        **tile.options,
    )


@triton.jit
def fc_activation_gradient(saved, gradient):
    """Take a gradient back through relu."""
    return tl.where(saved <= 0, 0.0, gradient)


@triton.jit
def fc_unactivated(
    gradient_ptr,
    saved_ptr,
    offset,
    mask,
    C: tl.constexpr,
):
    """Read a tile of the gradient and take it back through the activation."""
    gradient = tl.load(gradient_ptr + offset, mask=mask, other=0.0)
    if C.activation != "none":
        saved = full(tl.load(saved_ptr + offset, mask=mask, other=0.0))
        gradient = fc_activation_gradient(saved, full(gradient))
    return gradient.to(gradient_ptr.dtype.element_ty)


@triton.jit(do_not_specialize=COUNTS)
def fc_input_gradient(
    gradient_ptr,  # [batch, C.outputs]
    saved_ptr,  # [batch, C.outputs]
    weight_ptr,  # [C.outputs, C.features]
    dx_ptr,  # [batch, C.features]
    batch,
    C: tl.constexpr,
    T: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the gradient of x, a sum over outputs: a tile of images by features."""
    ROWS: tl.constexpr = T.rows
    COLUMNS: tl.constexpr = T.columns
    FEATURE_BLOCKS: tl.constexpr = (C.features + COLUMNS - 1) // COLUMNS
    image = tl.program_id(0) // FEATURE_BLOCKS * ROWS + tl.arange(0, ROWS)
    feature = tl.program_id(0) % FEATURE_BLOCKS * COLUMNS + tl.arange(0, COLUMNS)
    image_mask = image < batch
    feature_mask = feature < C.features
    if C.pixels == 1:
        place = feature
        column = feature
    else:
        place, column = fc_places(feature, C)
    dx = full(tl.zeros((ROWS, COLUMNS), dx_ptr.dtype.element_ty))
    for step in range((C.outputs + T.terms - 1) // T.terms):
        output = step * T.terms + tl.arange(0, T.terms)
        output_mask = output < C.outputs
        gradient = fc_unactivated(
            gradient_ptr=gradient_ptr,
            saved_ptr=saved_ptr,
            offset=image.to(tl.int64)[:, None] * C.outputs + output[None, :],
            mask=image_mask[:, None] & output_mask[None, :],
            C=C,
        )
        weight = tl.load(
            weight_ptr + output[:, None] * C.features + column[None, :],
            mask=output_mask[:, None] & feature_mask[None, :],
            other=0.0,
        )
        dx = tl.dot(gradient, weight, dx, input_precision=PRECISION, out_dtype=dx.dtype)
    tl.store(
        dx_ptr + image.to(tl.int64)[:, None] * C.features + place[None, :],
        dx.to(dx_ptr.dtype.element_ty),
        mask=image_mask[:, None] & feature_mask[None, :],
    )


@triton.jit(do_not_specialize=COUNTS)
def fc_weight_gradient(
    gradient_ptr,  # [batch, C.outputs]
    saved_ptr,  # [batch, C.outputs]
    x_ptr,  # [batch, C.features]
    dweight_ptr,  # [C.outputs, C.features]
    batch,
    C: tl.constexpr,
    T: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the gradient of the weight, a sum over the batch: outputs by features."""
    ROWS: tl.constexpr = T.rows
    COLUMNS: tl.constexpr = T.columns
    FEATURE_BLOCKS: tl.constexpr = (C.features + COLUMNS - 1) // COLUMNS
    output = tl.program_id(0) // FEATURE_BLOCKS * ROWS + tl.arange(0, ROWS)
    feature = tl.program_id(0) % FEATURE_BLOCKS * COLUMNS + tl.arange(0, COLUMNS)
    output_mask = output < C.outputs
    feature_mask = feature < C.features
    if C.pixels == 1:
        place = feature
        column = feature
    else:
        place, column = fc_places(feature, C)
    dweight = tl.zeros((ROWS, COLUMNS), dweight_ptr.dtype.element_ty)
    dweight = full(dweight)
    for step in range(tl.cdiv(batch, T.terms)):
        image = step * T.terms + tl.arange(0, T.terms)
        image_mask = image < batch
        gradient = fc_unactivated(
            gradient_ptr=gradient_ptr,
            saved_ptr=saved_ptr,
            offset=image.to(tl.int64)[None, :] * C.outputs + output[:, None],
            mask=image_mask[None, :] & output_mask[:, None],
            C=C,
        )
        x = tl.load(
            x_ptr + image.to(tl.int64)[:, None] * C.features + place[None, :],
            mask=image_mask[:, None] & feature_mask[None, :],
            other=0.0,
        )
        dweight = tl.dot(
            gradient,
            x,
            dweight,
            input_precision=PRECISION,
            out_dtype=dweight.dtype,
        )
    tl.store(
        dweight_ptr + output[:, None] * C.features + column[None, :],
        dweight.to(dweight_ptr.dtype.element_ty),
        mask=output_mask[:, None] & feature_mask[None, :],
    )


@triton.jit(do_not_specialize=COUNTS)
def fc_bias_gradient(
    gradient_ptr,  # [batch, C.outputs]
    saved_ptr,  # [batch, C.outputs]
    dbias_ptr,  # [C.outputs]
    batch,
    C: tl.constexpr,
    T: tl.constexpr,
):
    """Compute the gradient of the bias, a sum over the batch."""
    ROWS: tl.constexpr = T.rows
    COLUMNS: tl.constexpr = T.columns
    output = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    output_mask = output < C.outputs
    total = full(tl.zeros((ROWS, COLUMNS), dbias_ptr.dtype.element_ty))
    for step in range(tl.cdiv(batch, ROWS)):
        image = step * ROWS + tl.arange(0, ROWS)
        gradient = fc_unactivated(
            gradient_ptr=gradient_ptr,
            saved_ptr=saved_ptr,
            offset=image.to(tl.int64)[:, None] * C.outputs + output[None, :],
            mask=(image < batch)[:, None] & output_mask[None, :],
            C=C,
        )
        total += full(gradient)
    dbias = tl.sum(total, axis=0)
    tl.store(dbias_ptr + output, dbias.to(dbias_ptr.dtype.element_ty), mask=output_mask)


def fc_launch_input_gradient(
    geometry: FcGeometry,
    gradient: Tensor,
    saved: Tensor | None,
    weight: Tensor,
    dx: Tensor,
) -> None:
    """Launch the kernel that fills dx."""
    precision = fc_precision(dx)
    tile = fc_tile(64, geometry.features, geometry.outputs, dx, precision)
    if geometry.pixels != 1:
        # Of the weight no two values are neighbours: in 16 bits it comes through registers.
        tile = tile._replace(terms=min(tile.terms, 32))
    programs = count_blocks(dx.shape[0], tile.rows) * count_blocks(
        geometry.features,
        tile.columns,
    )
    refuse_launch(dx, programs, dx.shape[0])
    launch(
        fc_input_gradient,
        programs,
        gradient_ptr=gradient,
        saved_ptr=saved,
        weight_ptr=weight,
        dx_ptr=dx,
        batch=dx.shape[0],
        C=geometry,
        T=tile,
        PRECISION=precision,
        **tile.options,
    )


def fc_launch_weight_gradient(
    geometry: FcGeometry,
    gradient: Tensor,
    saved: Tensor | None,
    x: Tensor,
    dweight: Tensor,
) -> None:
    """Launch the kernel that fills dweight."""
    precision = fc_precision(x)
    tile = fc_tile(geometry.outputs, geometry.features, 64, x, precision)
    if geometry.pixels != 1:
        # Each feature has two places, which take registers.
        tile = tile._replace(columns=min(tile.columns, 128 // x.element_size()))
    programs = count_blocks(geometry.outputs, tile.rows)
    programs *= count_blocks(geometry.features, tile.columns)
    refuse_launch(x, programs, x.shape[0])
    launch(
        fc_weight_gradient,
        programs,
        gradient_ptr=gradient,
        saved_ptr=saved,
        x_ptr=x,
        dweight_ptr=dweight,
        batch=x.shape[0],
        C=geometry,
        T=tile,
        PRECISION=precision,
        **tile.options,
    )


def fc_launch_bias_gradient(
    geometry: FcGeometry,
    gradient: Tensor,
    saved: Tensor | None,
    dbias: Tensor,
) -> None:
    """Launch the kernel that fills dbias."""
    # In float64, 64 rows spill on sm_80.
    rows = 32 if gradient.dtype == torch.float64 else 64
    tile = Tile(rows, block_size(geometry.outputs, 64), 1, 4, 3)
    programs = count_blocks(geometry.outputs, tile.columns)
    refuse_launch(gradient, programs, gradient.shape[0])
    launch(
        fc_bias_gradient,
        programs,
        gradient_ptr=gradient,
        saved_ptr=saved,
        dbias_ptr=dbias,
        batch=gradient.shape[0],
        C=geometry,
        T=tile,
        **tile.options,
    )


fc_launches = FcLaunches(
    forward=fc_launch_forward,
    input_gradient=fc_launch_input_gradient,
    weight_gradient=fc_launch_weight_gradient,
    bias_gradient=fc_launch_bias_gradient,
)


FLATTEN1_FC1_RELU3 = FcGeometry(
    features=400,
    outputs=120,
    activation="relu",
    size=(5, 5),
)
flatten1_fc1_relu3_op = fc_op(
    f"{NAMESPACE}::flatten1_fc1_relu3",
    FLATTEN1_FC1_RELU3,
    fc_launches,
)


def flatten1_fc1_relu3(x: Tensor, linear: nn.Linear) -> Tensor:
    """Run region 3: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = fc_weights(linear, FLATTEN1_FC1_RELU3)
        if weight is not None and x.shape[1:] == fc_shape(FLATTEN1_FC1_RELU3):
            return flatten1_fc1_relu3_op(x, weight, bias)
    x = torch.flatten(x, 1)
    x = linear(x)
    return F.relu(x)


# ── region 4: fc2 + relu4 ─────────────────────────────────────────────────────────────
#          reads 120
#   fc2    fc 84      84
#   relu4  relu       84
#   forward: 1 launch
#   backward: 3 launches, for the gradients of input, weight and bias
#   kept for backward: the input, 120; the output, 84
#   Its kernels are those of region 3.


FC2_RELU4 = FcGeometry(features=120, outputs=84, activation="relu")
fc2_relu4_op = fc_op(f"{NAMESPACE}::fc2_relu4", FC2_RELU4, fc_launches)


def fc2_relu4(x: Tensor, linear: nn.Linear) -> Tensor:
    """Run region 4: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = fc_weights(linear, FC2_RELU4)
        if weight is not None and x.shape[1:] == fc_shape(FC2_RELU4):
            return fc2_relu4_op(x, weight, bias)
    x = linear(x)
    return F.relu(x)


# ── region 5: fc3 ─────────────────────────────────────────────────────────────────────
#        reads 84
#   fc3  fc 10     10
#   forward: 1 launch
#   backward: 3 launches, for the gradients of input, weight and bias
#   kept for backward: the input, 84
#   Its kernels are those of region 3.


FC3 = FcGeometry(features=84, outputs=10)
fc3_op = fc_op(f"{NAMESPACE}::fc3", FC3, fc_launches)


def fc3(x: Tensor, linear: nn.Linear) -> Tensor:
    """Run region 5: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = fc_weights(linear, FC3)
        if weight is not None and x.shape[1:] == fc_shape(FC3):
            return fc3_op(x, weight, bias)
    return linear(x)
