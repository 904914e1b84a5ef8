"""Residual, a convolutional network: 32 x 32 x 3 to 10.

Made by cnndsl 0.1.0 from a source with this SHA-256; valid for this size of image only.
19028784f38c1a6f198c91204aeb063989ec852aac5ba4a9b25408a31a2aef37

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
    NormGeometry,
    NormLaunches,
    Tile,
    allocated,
    are_seen_by_rows,
    block_size,
    channels_last,
    conv_norm,
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
    is_norm,
    is_unseen,
    launch,
    norm_op,
    norm_sizes,
    pixel_place,
    refuse_launch,
    requires,
    runs_kernels,
    scale_and_shift,
    split_count,
    takes_batch,
    with_gradient_by_rows,
)
from torch import Tensor, nn

requires(2)  # the version of cnndsl.rt

# Of this module's operators in PyTorch, so that two modules never meet.
NAMESPACE = "cnndsl_residual_a1b74e06c4d6"


class Residual(nn.Module):
    """32 x 32 x 3 to 10."""

    # channels, height, width; None: any size that `refuse_input` lets pass
    input_shape = (3, 32, 32)
    classes = ()

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = Layer1()
        self.layer2 = Layer2()
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Give what the last layer gives."""
        return self.logits(x)

    def logits(self, x: Tensor) -> Tensor:
        """Give what the last layer before a softmax gives."""
        refuse_input(x)
        x = with_gradient_by_rows(x)
        x = conv1_bn1_relu1(x, self.conv1, self.bn1)
        x = self.layer1(x)
        x = self.layer2(x)
        x = torch.movedim(x.movedim(1, 3).mean((1, 2), keepdim=True), 3, 1)
        x = torch.flatten(x, 1)
        return fc(x, self.fc)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy of the logits with the classes y, numbers from 0."""
        return cross_entropy(self.logits(x), y)

    def __prepare_scriptable__(self) -> torch.fx.GraphModule:
        """Give what `torch.jit.script` reads: PyTorch's operators, in the present mode."""
        return torch.fx.symbolic_trace(self)

    def dynamic_shapes(self) -> dict[str, dict[int, torch.export.Dim]]:
        """Give the sizes that are free, for `torch.export.export`."""
        return {"x": {0: torch.export.Dim("batch")}}


# layer1: 32 x 32 x 16 to 32 x 32 x 16
class Layer1(nn.ModuleDict):
    """The layers under one label."""

    def __init__(self) -> None:
        super().__init__(
            {
                "conv1": nn.Conv2d(16, 16, 3, padding=1, bias=False),
                "bn1": nn.BatchNorm2d(16),
                "conv2": nn.Conv2d(16, 16, 3, padding=1, bias=False),
                "bn2": nn.BatchNorm2d(16),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        by_rows = are_seen_by_rows(x, self)
        relu1 = layer1_conv1_bn1_relu1(x, self["conv1"], self["bn1"])
        x = layer1_conv2_bn2_add1_relu2(relu1, x, self["conv2"], self["bn2"])
        return x.contiguous() if by_rows else x


# layer2: 32 x 32 x 16 to 16 x 16 x 32
class Layer2(nn.ModuleDict):
    """The layers under one label."""

    def __init__(self) -> None:
        super().__init__(
            {
                "conv1": nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
                "bn1": nn.BatchNorm2d(32),
                "conv2": nn.Conv2d(32, 32, 3, padding=1, bias=False),
                "bn2": nn.BatchNorm2d(32),
                "downsample": nn.ModuleDict(
                    {
                        "0": nn.Conv2d(16, 32, 1, stride=2, bias=False),
                        "1": nn.BatchNorm2d(32),
                    }
                ),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        by_rows = are_seen_by_rows(x, self)
        relu1 = layer2_conv1_bn1_relu1(x, self["conv1"], self["bn1"])
        bn2 = layer2_conv2_bn2(relu1, self["conv2"], self["bn2"])
        x = layer2_downsample_0_downsample_1_add1_relu2(
            x,
            bn2,
            self["downsample"]["0"],
            self["downsample"]["1"],
        )
        return x.contiguous() if by_rows else x


def refuse_input(x: Tensor) -> None:
    """Raise unless x is a batch of 32 x 32 x 3."""
    if not isinstance(x, Tensor):
        return  # torch.fx.symbolic_trace, which knows no sizes
    given = tuple(x.shape)
    if x.dim() != 4 or given[1:] != (3, 32, 32):
        raise ValueError(f"Residual takes (N, 3, 32, 32), not {given} (cnn line 4)")


# ── region 1: conv1 + bn1 + relu1 ─────────────────────────────────────────────────────
#          reads 32 x 32 x 3
#   conv1  conv 16 3x3 pad=1 bias=no                           32 x 32 x 16
#          O = (W − K + 2P)/S + 1 = (32 − 3 + 2·1)/1 + 1 = 32
#   bn1    batchnorm                                           32 x 32 x 16
#   relu1  relu                                                32 x 32 x 16
#   forward in inference: 1 launch
#   forward in training: 3 launches, for the sums, their statistics and what follows
#   backward in training: 4 launches, for the gradients of batchnorm, sums, input and
#   weight
#   kept for backward in training: the input, 32 x 32 x 3; the sums, 32 x 32 x 16
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
#
#   Batchnorm in training: a mean and a variance for each channel, from those of tiles.
#
#   The kernel before has written what its tiles hold. Means and squared distances are
#   merged as Chan, Golub and LeVeque have it (1983), which loses nothing where the mean
#   is large, in a fixed order, so that the same input gives the same bits.
#
#   Batchnorm in training, with what follows it: residual, activation and pool, in one
#   pass.
#
#   Images lie in memory as [batch, height, width, channels]. A program computes a tile
#   of windows (pixels, where nothing is pooled) by channels. Backward reads what the
#   batchnorm was given and computes the rest anew: nothing else is kept but a byte a
#   window.
#
#   Batchnorm in training, backward: the gradient before pool and activation, rebuilt.
#
#   Windows give theirs to the pixel that won, or to each its share. What the activation
#   was given is computed anew, from what the batchnorm was given.
#
#   Batchnorm in training, backward, first pass: the gradients of bias and weight.
#
#   With n = (z − mean) · inverse and g the gradient of n · weight + bias, over the N
#   values of a channel: the bias has Σ g, the weight Σ g·n. Sums are split over
#   programs and added in a fixed order.
#
#   Batchnorm in training, backward, second pass: the gradient of what it was given.
#
#   It is inverse · weight · (g − Σ g/N − n · Σ g·n/N), with the sums of the first pass:
#   each value moves the mean and the variance too.


@triton.jit
def conv_activation(z):
    """Apply relu."""
    return tl.where(z <= 0, 0.0, z)


@triton.jit
def conv_each(vector_ptr, filter, filter_mask):
    """Read a value for each filter, to go with a tile of filters by pixels."""
    return tl.load(vector_ptr + filter, mask=filter_mask, other=0.0)[:, None]


@triton.jit
def conv_shifted(
    y,
    bias_ptr,
    residual_ptr,
    offset,
    mask,
    filter,
    filter_mask,
    C: tl.constexpr,
):
    """Do all that comes between the pool, or the sum, and the activation."""
    if C.bias:
        y += conv_each(bias_ptr, filter, filter_mask).to(y.dtype)
    if C.residual:
        y += tl.load(residual_ptr + offset, mask=mask, other=0.0)
    return y


@triton.jit
def conv_statistics(
    sums_ptr,
    y,
    mask,
    window_mask,
    tile,
    filter,
    filter_mask,
    C: tl.constexpr,
):
    """Write the count of a tile's values, their mean, and the sum of squared distances to it.

    Sums of squares themselves would cancel where the mean is large.
    """
    count = tl.sum(tl.where(window_mask, 1.0, 0.0), axis=0)
    mean = tl.sum(tl.where(mask, y, 0.0), axis=1) / count
    distance = tl.where(mask, y - mean[:, None], 0.0)
    place = sums_ptr + tile.to(tl.int64) * (3 * C.filters) + filter
    tl.store(place, tl.where(filter_mask, count, 0.0), mask=filter_mask)
    tl.store(place + C.filters, mean, mask=filter_mask)
    tl.store(
        place + 2 * C.filters,
        tl.sum(distance * distance, axis=1),
        mask=filter_mask,
    )


@triton.jit
def conv_products(
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
    if C.taps == "packed":
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
    else:
        # One step takes channels of one tap: whole cache lines, and one bounds check a pixel.
        CHANNEL_BLOCKS: tl.constexpr = (GROUP_CHANNELS + T.terms - 1) // T.terms
        for step in range(C.kernel[0] * C.kernel[1] * CHANNEL_BLOCKS):
            tap = step // CHANNEL_BLOCKS
            channel = step % CHANNEL_BLOCKS * T.terms + tl.arange(0, T.terms)
            channel_mask = channel < GROUP_CHANNELS
            down = tap // C.kernel[1] * C.dilation[0]
            right = tap % C.kernel[1] * C.dilation[1]
            inside = pixel_mask & (row + down >= 0) & (row + down < height)
            inside &= (column + right >= 0) & (column + right < width)
            offset = (down * width + right) * C.channels + channel
            x_mask = inside[None, :] & channel_mask[:, None]
            x = tl.load(x_ptr[None, :] + offset[:, None], mask=x_mask, other=0.0)
            term = tap * GROUP_CHANNELS + channel
            weight_mask = filter_mask[:, None] & channel_mask[None, :]
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
    C: tl.constexpr,
    T: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Convolve: a tile of filters (rows) by pixels (columns).

    Where that was done before, x is the convolution itself.
    """
    total = conv_products(
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
    if C.scale == "sum":
        total *= conv_each(scale_ptr, filter, filter_mask).to(total.dtype)
    return total


@triton.jit(do_not_specialize=COUNTS)
def conv_forward(
    x_ptr,  # [batch, height, width, C.channels]
    weight_ptr,  # [C.filters, *C.kernel, C.channels // C.groups]
    bias_ptr,  # [C.filters]
    scale_ptr,  # [C.filters]
    y_ptr,  # [batch, out_height, out_width, C.filters]
    residual_ptr,  # like y: added before the activation
    sums_ptr,  # [tiles, 3, C.filters]: of a tile's values count, mean, squared distances
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
    window = tile * COLUMNS + pixel
    window_mask = window < batch * out_height * out_width
    image, row, column = pixel_place(window, out_height, out_width)
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
    offset = window.to(tl.int64)[None, :] * C.filters + filter[:, None]
    mask = filter_mask[:, None] & window_mask[None, :]
    # Bias and a rising activation change no order, so they wait until the best is known.
    y = conv_shifted(
        y=y,
        bias_ptr=bias_ptr,
        residual_ptr=residual_ptr,
        offset=offset,
        mask=mask,
        filter=filter,
        filter_mask=filter_mask,
        C=C,
    )
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


def conv_forward_tile(geometry: ConvGeometry, x: Tensor, precision: str) -> Tile:
    """Choose filters x pixels, and terms a step, by what compiles without spills."""
    filters = geometry.filters // geometry.groups
    terms = geometry.channels // geometry.groups
    if geometry.taps == "packed":
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
    if filters > 64 and terms >= 64 and geometry.taps == "apart":
        return Tile(128, 128, 64, 8, 3)
    most = 64 if geometry.taps == "apart" and geometry.stride == (1, 1) else 32
    return Tile(block_size(filters, 64), 128, block_size(terms, most), 4, 3)


def conv_launch_windows(geometry: ConvGeometry, x: Tensor) -> int:
    """Say how many windows (pixels, where nothing is pooled) a program of forward computes."""
    tile = conv_forward_tile(geometry, x, conv_precision(x))
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
        residual_ptr=residual,
        sums_ptr=outputs.sums,
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
def conv_activation_gradient(saved, gradient):
    """Take a gradient back through relu."""
    return tl.where(saved <= 0, 0.0, gradient)


@triton.jit
def conv_unpooled(
    gradient_ptr,
    saved_ptr,
    offset,
    mask,
    C: tl.constexpr,
):
    """Read a tile of the gradient and take it back through the activation.

    Where there is a residual, of which this is the gradient too, that has been done before.
    """
    gradient = tl.load(gradient_ptr + offset, mask=mask, other=0.0)
    if C.activation != "none" and not C.residual:
        saved = full(tl.load(saved_ptr + offset, mask=mask, other=0.0))
        gradient = conv_activation_gradient(saved, full(gradient))
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


@triton.jit(do_not_specialize=COUNTS)
def conv_input_gradient(
    gradient_ptr,  # [batch, out_height, out_width, C.filters]
    saved_ptr,
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
        row += cell_row
        column += cell_column
        mask &= (row >= 0) & (row < out_height) & (column >= 0) & (column < out_width)
        offset = ((image * out_height + row) * out_width + column) * C.filters
        gradient = conv_unpooled(
            gradient_ptr=gradient_ptr,
            saved_ptr=saved_ptr,
            offset=offset[:, None] + filter[None, :],
            mask=mask[:, None] & filter_mask[None, :],
            C=C,
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


def conv_input_gradient_tile(
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


def conv_launch_input_gradient(
    geometry: ConvGeometry,
    gradient: Tensor,
    _code: Tensor,
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
    blocks = geometry.groups * count_blocks(
        geometry.channels // geometry.groups,
        tile.columns,
    )
    programs = count_blocks(cells, tile.rows) * cell_height * cell_width * blocks
    refuse_launch(dx, programs, dx.shape[0] * sizes.height * sizes.width)
    launch(
        conv_input_gradient,
        programs,
        gradient_ptr=gradient,
        saved_ptr=saved,
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
def conv_weight_gradient(
    gradient_ptr,  # [batch, out_height, out_width, C.filters]
    saved_ptr,
    x_ptr,  # [batch, height, width, C.channels]
    partial_ptr,  # [splits, C.filters, *C.kernel, C.channels // C.groups]
    splits,
    batch,
    height: tl.constexpr,
    width: tl.constexpr,
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
    if C.taps == "packed":
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
        gradient = conv_unpooled(
            gradient_ptr=gradient_ptr,
            saved_ptr=saved_ptr,
            offset=offset,
            mask=filter_mask[:, None] & exists[None, :],
            C=C,
        )
        row = row * C.stride[0] - C.pad[0]
        column = column * C.stride[1] - C.pad[1]
        start = ((image * height + row) * width + column) * C.channels
        start += group * GROUP_CHANNELS
        offset = (down * width + right) * C.channels + channel
        if C.taps == "packed":
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
    tl.store(
        partial_ptr + row[:, None] * TERMS + term[None, :],
        dweight,
        mask=filter_mask[:, None] & term_mask[None, :],
    )


def conv_weight_gradient_tile(
    geometry: ConvGeometry,
    x: Tensor,
    precision: str,
) -> Tile:
    """Choose filters x terms, and windows a step, by what compiles without spills."""
    filters = geometry.filters // geometry.groups
    terms = geometry.channels // geometry.groups
    if geometry.taps == "packed":
        terms *= geometry.kernel[0] * geometry.kernel[1]
    most, windows = 64, 32
    if precision == "ieee" and x.element_size() >= 4:
        most, windows = 32, 16
    most_terms = 32 if x.element_size() == 8 else 64
    return Tile(block_size(filters, most), block_size(terms, most_terms), windows, 4, 2)


def conv_launch_weight_gradient(
    geometry: ConvGeometry,
    gradient: Tensor,
    _code: Tensor,
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
    if geometry.taps == "packed":
        programs = count_blocks(taps * channels, tile.columns)
    else:
        programs = taps * count_blocks(channels, tile.columns)
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
        conv_weight_gradient,
        programs * splits,
        gradient_ptr=gradient,
        saved_ptr=saved,
        x_ptr=channels_last(x),
        partial_ptr=partial,
        splits=splits,
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
    return partial


@triton.jit(do_not_specialize=COUNTS)
def conv_bias_gradient(
    gradient_ptr,  # [batch, out_height, out_width, C.filters]
    saved_ptr,
    dz_ptr,  # like the gradient
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
        if C.activation == "relu":
            saved = full(tl.load(saved_ptr + offset, mask=mask, other=0.0))
            gradient = conv_activation_gradient(saved, gradient)
        if C.residual or C.backward == "library":
            if C.activation != "none":
                tl.store(
                    dz_ptr + offset,
                    gradient.to(dz_ptr.dtype.element_ty),
                    mask=mask,
                )
        total += gradient
    tl.store(
        partial_ptr + split.to(tl.int64) * C.filters + filter,
        tl.sum(total, axis=0),
        mask=filter_mask,
    )


def conv_launch_bias_gradient(
    geometry: ConvGeometry,
    gradient: Tensor,
    _code: Tensor,
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
    columns = block_size(geometry.filters, 16 if gradient.element_size() == 8 else 64)
    tile = Tile(32, columns, 1, 4, 3)
    programs = count_blocks(geometry.filters, tile.columns)
    splits = split_count(programs, count_blocks(windows, tile.rows))
    refuse_launch(gradient, programs * splits, windows)
    shape = (splits, geometry.filters)
    partial = allocated(gradient.new_empty(shape, dtype=full_dtype(gradient)))
    launch(
        conv_bias_gradient,
        programs * splits,
        gradient_ptr=gradient,
        saved_ptr=saved,
        dz_ptr=dz,
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


conv_launches = ConvLaunches(
    forward=conv_launch_forward,
    input_gradient=conv_launch_input_gradient,
    weight_gradient=conv_launch_weight_gradient,
    bias_gradient=conv_launch_bias_gradient,
    windows=conv_launch_windows,
)


@triton.jit(do_not_specialize=COUNTS)
def norm_statistics(
    sums_ptr,  # [tiles, 3, CHANNELS]: of a tile's values count, mean, squared distances
    mean_ptr,  # [CHANNELS]
    inverse_ptr,  # [CHANNELS]: 1 / √(variance + eps)
    running_mean_ptr,  # [CHANNELS], followed with `momentum`
    running_var_ptr,
    tiles,
    values,  # of a channel
    momentum,
    CHANNELS: tl.constexpr,
    EPS: tl.constexpr,  # a number as exact as the type
    BLOCK_TILES: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Merge the tiles: first each lane those that it meets, then all lanes."""
    channel = tl.program_id(0) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    channel_mask = channel < CHANNELS
    kind = sums_ptr.dtype.element_ty
    count = tl.zeros((BLOCK_TILES, BLOCK_CHANNELS), kind)
    mean = tl.zeros((BLOCK_TILES, BLOCK_CHANNELS), kind)
    squares = tl.zeros((BLOCK_TILES, BLOCK_CHANNELS), kind)
    for step in range((tiles + BLOCK_TILES - 1) // BLOCK_TILES):
        tile = step * BLOCK_TILES + tl.arange(0, BLOCK_TILES)
        mask = (tile < tiles)[:, None] & channel_mask[None, :]
        row = tile.to(tl.int64) * (3 * CHANNELS)
        place = sums_ptr + row[:, None] + channel[None, :]
        more = tl.load(place, mask=mask, other=0.0)
        distance = tl.load(place + CHANNELS, mask=mask, other=0.0) - mean
        spread = tl.load(place + 2 * CHANNELS, mask=mask, other=0.0)
        share = more / tl.where(count + more == 0, 1.0, count + more)
        # A lane without a tile keeps what it has, whatever that is.
        mean += tl.where(mask, distance * share, 0.0)
        squares += tl.where(mask, spread + distance * distance * count * share, 0.0)
        count += more
    center = tl.sum(mean * count, axis=0) / values
    distance = tl.where(count > 0, mean - center[None, :], 0.0)
    variance = tl.sum(squares + distance * distance * count, axis=0) / values
    tl.store(mean_ptr + channel, center, mask=channel_mask)
    if kind == tl.float64:
        inverse = 1.0 / tl.sqrt(variance + EPS)
    else:
        inverse = tl.div_rn(1.0, tl.sqrt_rn(variance + EPS))
    tl.store(inverse_ptr + channel, inverse, mask=channel_mask)
    # What is followed is the variance without bias.
    variance *= values / tl.maximum(values - 1, 1).to(kind)
    running = full(tl.load(running_mean_ptr + channel, mask=channel_mask, other=0.0))
    running = (1 - momentum) * running + momentum * center
    kind = running_mean_ptr.dtype.element_ty
    tl.store(running_mean_ptr + channel, running.to(kind), mask=channel_mask)
    running = full(tl.load(running_var_ptr + channel, mask=channel_mask, other=0.0))
    running = (1 - momentum) * running + momentum * variance
    kind = running_var_ptr.dtype.element_ty
    tl.store(running_var_ptr + channel, running.to(kind), mask=channel_mask)


def norm_launch_statistics(
    sums: Tensor,
    mean: Tensor,
    inverse: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    values: int,
    eps: float,
) -> None:
    """Launch the kernel that merges the tiles, which fills mean and inverse."""
    channels = sums.shape[2]
    launch(
        norm_statistics,
        count_blocks(channels, 8),
        sums_ptr=sums,
        mean_ptr=mean,
        inverse_ptr=inverse,
        running_mean_ptr=running_mean,
        running_var_ptr=running_var,
        tiles=sums.shape[0],
        values=values,
        momentum=momentum,
        CHANNELS=channels,
        EPS=eps,
        BLOCK_TILES=64,
        BLOCK_CHANNELS=8,
        num_warps=4,
    )


@triton.jit
def norm_activation(z):
    """Apply relu."""
    return tl.where(z <= 0, 0.0, z)


@triton.jit
def norm_channel(mean_ptr, inverse_ptr, channel, channel_mask):
    """Read the statistics of some channels."""
    mean = tl.load(mean_ptr + channel, mask=channel_mask, other=0.0)
    inverse = tl.load(inverse_ptr + channel, mask=channel_mask, other=0.0)
    return mean[None, :], inverse[None, :]


@triton.jit
def norm_affine(weight_ptr, bias_ptr, channel, channel_mask):
    """Read the weights and biases of some channels."""
    weight = tl.load(weight_ptr + channel, mask=channel_mask, other=0.0)
    bias = tl.load(bias_ptr + channel, mask=channel_mask, other=0.0)
    return full(weight)[None, :], full(bias)[None, :]


@triton.jit
def norm_normal(z_ptr, offset, mask, mean, inverse):
    """Read a tile, of mean 0 and variance 1 then."""
    z = full(tl.load(z_ptr + offset, mask=mask, other=0.0))
    return (z - mean) * inverse


@triton.jit(do_not_specialize=COUNTS)
def norm_forward(
    z_ptr,  # [batch, height, width, C.channels]
    mean_ptr,  # [C.channels]
    inverse_ptr,  # [C.channels]: 1 / √(variance + eps)
    weight_ptr,  # [C.channels]
    bias_ptr,  # [C.channels]
    residual_ptr,  # like z: added before the activation
    y_ptr,  # [batch, out_height, out_width, C.channels]
    batch,
    out_height: tl.constexpr,  # after the pool
    out_width: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
):
    """Compute y = pool(activation((z − mean) · inverse · weight + bias + residual))."""
    ROWS: tl.constexpr = T.rows
    COLUMNS: tl.constexpr = T.columns
    CHANNEL_BLOCKS: tl.constexpr = (C.channels + COLUMNS - 1) // COLUMNS
    tile = tl.program_id(0) // CHANNEL_BLOCKS
    channel = tl.program_id(0) % CHANNEL_BLOCKS * COLUMNS + tl.arange(0, COLUMNS)
    channel_mask = channel < C.channels
    mean, inverse = norm_channel(mean_ptr, inverse_ptr, channel, channel_mask)
    weight, bias = norm_affine(weight_ptr, bias_ptr, channel, channel_mask)
    window = tile * ROWS + tl.arange(0, ROWS)
    window_mask = window < batch * out_height * out_width
    offset = window.to(tl.int64)[:, None] * C.channels + channel[None, :]
    mask = window_mask[:, None] & channel_mask[None, :]
    y = norm_normal(z_ptr, offset, mask, mean, inverse)
    y = y * weight + bias
    if C.residual:
        y += tl.load(residual_ptr + offset, mask=mask, other=0.0)
    if C.activation != "none":
        y = norm_activation(y)
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=mask)


def norm_launch_forward(
    geometry: NormGeometry,
    z: Tensor,
    mean: Tensor,
    inverse: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    y: Tensor,
    _winner: Tensor,
) -> None:
    """Launch the kernel that fills y and winner."""
    if geometry.residual:
        residual = channels_last(residual)
    out_height, out_width = norm_sizes(geometry, z.shape[2], z.shape[3])
    windows = z.shape[0] * out_height * out_width
    rows = 16 if z.element_size() == 8 else 32
    tile = Tile(rows, block_size(geometry.channels, 64), 1, 4, 3)
    programs = count_blocks(windows, tile.rows)
    programs *= count_blocks(geometry.channels, tile.columns)
    refuse_launch(z, programs, z.shape[0] * z.shape[2] * z.shape[3])
    launch(
        norm_forward,
        programs,
        z_ptr=channels_last(z),
        mean_ptr=mean,
        inverse_ptr=inverse,
        weight_ptr=weight,
        bias_ptr=bias,
        residual_ptr=residual,
        y_ptr=y,
        batch=z.shape[0],
        out_height=out_height,
        out_width=out_width,
        C=geometry,
        T=tile,
        num_warps=tile.warps,
    )


@triton.jit
def norm_activation_gradient(saved, gradient):
    """Take a gradient back through relu."""
    return tl.where(saved <= 0, 0.0, gradient)


@triton.jit
def norm_blocked(
    gradient,
    normal,
    residual_ptr,
    weight_ptr,
    bias_ptr,
    offset,
    mask,
    channel,
    channel_mask,
    C: tl.constexpr,
):
    """Take a gradient back through the activation, of which the input is computed anew."""
    saved = normal
    weight, bias = norm_affine(weight_ptr, bias_ptr, channel, channel_mask)
    saved = saved * weight + bias
    if C.residual:
        saved += tl.load(residual_ptr + offset, mask=mask, other=0.0)
    saved = norm_activation(saved)
    return norm_activation_gradient(saved, gradient)


@triton.jit(do_not_specialize=COUNTS)
def norm_gradient_sums(
    gradient_ptr,  # [batch, out_height, out_width, C.channels]
    z_ptr,  # [batch, height, width, C.channels]
    mean_ptr,  # [C.channels]
    inverse_ptr,  # [C.channels]
    weight_ptr,  # [C.channels]
    bias_ptr,  # [C.channels]
    residual_ptr,  # like z
    dresidual_ptr,  # like z: the gradient before the activation
    partial_ptr,  # [splits, 2, C.channels]
    splits,
    batch,
    height: tl.constexpr,
    width: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
):
    """Compute a part of the gradients of bias and weight: sums over some pixels."""
    ROWS: tl.constexpr = T.rows
    COLUMNS: tl.constexpr = T.columns
    CHANNEL_BLOCKS: tl.constexpr = (C.channels + COLUMNS - 1) // COLUMNS
    channel = tl.program_id(0) % CHANNEL_BLOCKS * COLUMNS + tl.arange(0, COLUMNS)
    channel_mask = channel < C.channels
    mean, inverse = norm_channel(mean_ptr, inverse_ptr, channel, channel_mask)
    split = tl.program_id(0) // CHANNEL_BLOCKS
    blocks = tl.cdiv(batch * height * width, ROWS)
    first = split * tl.cdiv(blocks, splits)
    last = tl.minimum(first + tl.cdiv(blocks, splits), blocks)
    dbias = tl.zeros((ROWS, COLUMNS), partial_ptr.dtype.element_ty)
    dweight = tl.zeros((ROWS, COLUMNS), partial_ptr.dtype.element_ty)
    for step in range(first, last):
        pixel = step * ROWS + tl.arange(0, ROWS)
        pixel_mask = pixel < batch * height * width
        offset = pixel.to(tl.int64)[:, None] * C.channels + channel[None, :]
        mask = pixel_mask[:, None] & channel_mask[None, :]
        normal = norm_normal(z_ptr, offset, mask, mean, inverse)
        gradient = full(tl.load(gradient_ptr + offset, mask=mask, other=0.0))
        if C.activation != "none":
            gradient = norm_blocked(
                gradient=gradient,
                normal=normal,
                residual_ptr=residual_ptr,
                weight_ptr=weight_ptr,
                bias_ptr=bias_ptr,
                offset=offset,
                mask=mask,
                channel=channel,
                channel_mask=channel_mask,
                C=C,
            )
            if C.residual:
                # Before the activation all gradients are the residual's: the next pass reads this.
                rounded = gradient.to(dresidual_ptr.dtype.element_ty)
                tl.store(dresidual_ptr + offset, rounded, mask=mask)
                gradient = full(rounded)
        # A masked lane holds no gradient, but its value need not be a number.
        dbias += tl.where(mask, gradient, 0.0)
        dweight += tl.where(mask, gradient * normal, 0.0)
    place = partial_ptr + split.to(tl.int64) * (2 * C.channels) + channel
    tl.store(place, tl.sum(dbias, axis=0), mask=channel_mask)
    tl.store(place + C.channels, tl.sum(dweight, axis=0), mask=channel_mask)


def norm_launch_gradient_sums(
    geometry: NormGeometry,
    gradient: Tensor,
    _winner: Tensor,
    z: Tensor,
    mean: Tensor,
    inverse: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    dresidual: Tensor,
) -> Tensor:
    """Launch the first pass: parts of the gradients of bias and weight, [parts, 2, channels].

    Where there is a residual and an activation, it fills `dresidual`.
    """
    if geometry.residual and geometry.activation != "none":
        residual = channels_last(residual)
    pixels = z.shape[0] * z.shape[2] * z.shape[3]
    rows = 16 if z.element_size() == 8 else 32
    tile = Tile(rows, block_size(geometry.channels, 64), 1, 4, 3)
    programs = count_blocks(geometry.channels, tile.columns)
    splits = split_count(programs, count_blocks(pixels, tile.rows))
    refuse_launch(z, programs * splits, pixels)
    partial = allocated(
        z.new_empty((splits, 2, geometry.channels), dtype=full_dtype(z)),
    )
    launch(
        norm_gradient_sums,
        programs * splits,
        gradient_ptr=gradient,
        z_ptr=channels_last(z),
        mean_ptr=mean,
        inverse_ptr=inverse,
        weight_ptr=weight,
        bias_ptr=bias,
        residual_ptr=residual,
        dresidual_ptr=dresidual,
        partial_ptr=partial,
        splits=splits,
        batch=z.shape[0],
        height=z.shape[2],
        width=z.shape[3],
        C=geometry,
        T=tile,
        num_warps=tile.warps,
    )
    return partial


@triton.jit(do_not_specialize=COUNTS)
def norm_input_gradient(
    gradient_ptr,  # [batch, out_height, out_width, C.channels]
    z_ptr,  # [batch, height, width, C.channels]
    mean_ptr,  # [C.channels]
    inverse_ptr,  # [C.channels]
    weight_ptr,  # [C.channels]
    bias_ptr,  # [C.channels]
    sums_ptr,  # [2, C.channels]: the gradients of bias and weight
    dz_ptr,  # like z
    batch,
    height: tl.constexpr,
    width: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
):
    """Compute the gradient of z."""
    ROWS: tl.constexpr = T.rows
    COLUMNS: tl.constexpr = T.columns
    CHANNEL_BLOCKS: tl.constexpr = (C.channels + COLUMNS - 1) // COLUMNS
    channel = tl.program_id(0) % CHANNEL_BLOCKS * COLUMNS + tl.arange(0, COLUMNS)
    channel_mask = channel < C.channels
    mean, inverse = norm_channel(mean_ptr, inverse_ptr, channel, channel_mask)
    pixel = tl.program_id(0) // CHANNEL_BLOCKS * ROWS + tl.arange(0, ROWS)
    pixel_mask = pixel < batch * height * width
    offset = pixel.to(tl.int64)[:, None] * C.channels + channel[None, :]
    mask = pixel_mask[:, None] & channel_mask[None, :]
    normal = norm_normal(z_ptr, offset, mask, mean, inverse)
    gradient = full(tl.load(gradient_ptr + offset, mask=mask, other=0.0))
    # Where there is a residual, of which this is the gradient too, that has been done before.
    if C.activation != "none" and not C.residual:
        gradient = norm_blocked(
            gradient=gradient,
            normal=normal,
            residual_ptr=z_ptr,  # there is none
            weight_ptr=weight_ptr,
            bias_ptr=bias_ptr,
            offset=offset,
            mask=mask,
            channel=channel,
            channel_mask=channel_mask,
            C=C,
        )
    values = batch * height * width
    dbias = tl.load(sums_ptr + channel, mask=channel_mask, other=0.0) / values
    sums_ptr += C.channels
    dweight = tl.load(sums_ptr + channel, mask=channel_mask, other=0.0) / values
    dz = (gradient - dbias[None, :] - normal * dweight[None, :]) * inverse
    weight, _ = norm_affine(weight_ptr, bias_ptr, channel, channel_mask)
    dz *= weight
    tl.store(dz_ptr + offset, dz.to(dz_ptr.dtype.element_ty), mask=mask)


def norm_launch_input_gradient(
    geometry: NormGeometry,
    gradient: Tensor,
    _winner: Tensor,
    z: Tensor,
    mean: Tensor,
    inverse: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    sums: Tensor,
    dz: Tensor,
) -> None:
    """Launch the second pass, which fills dz."""
    pixels = z.shape[0] * z.shape[2] * z.shape[3]
    tile = Tile(32, block_size(geometry.channels, 64), 1, 4, 3)
    programs = count_blocks(pixels, tile.rows)
    programs *= count_blocks(geometry.channels, tile.columns)
    refuse_launch(z, programs, pixels)
    launch(
        norm_input_gradient,
        programs,
        gradient_ptr=gradient,
        z_ptr=channels_last(z),
        mean_ptr=mean,
        inverse_ptr=inverse,
        weight_ptr=weight,
        bias_ptr=bias,
        sums_ptr=sums,
        dz_ptr=dz,
        batch=z.shape[0],
        height=z.shape[2],
        width=z.shape[3],
        C=geometry,
        T=tile,
        num_warps=tile.warps,
    )


norm_launches = NormLaunches(
    statistics=norm_launch_statistics,
    forward=norm_launch_forward,
    gradient_sums=norm_launch_gradient_sums,
    input_gradient=norm_launch_input_gradient,
)


CONV1_BN1_RELU1 = ConvGeometry(
    channels=3,
    filters=16,
    kernel=(3, 3),
    pad=(1, 1),
    scale="sum",
    activation="relu",
)
conv1_bn1_relu1_op = conv_op(
    f"{NAMESPACE}::conv1_bn1_relu1",
    CONV1_BN1_RELU1,
    conv_launches,
)


CONV1_BN1_RELU1_SUMS = ConvGeometry(
    channels=3,
    filters=16,
    kernel=(3, 3),
    pad=(1, 1),
    bias=False,
    statistics=True,
)
conv1_bn1_relu1_sums_op = conv_op(
    f"{NAMESPACE}::conv1_bn1_relu1_sums",
    CONV1_BN1_RELU1_SUMS,
    conv_launches,
)


CONV1_BN1_RELU1_NORM = NormGeometry(channels=16, activation="relu")
conv1_bn1_relu1_norm_op = norm_op(
    f"{NAMESPACE}::conv1_bn1_relu1_norm",
    CONV1_BN1_RELU1_NORM,
    norm_launches,
)


def conv1_bn1_relu1(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Run region 1: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = conv_weights(conv, CONV1_BN1_RELU1_SUMS)
        if weight is not None and is_norm(norm, CONV1_BN1_RELU1_NORM):
            if takes_batch(norm):
                z, sums = conv1_bn1_relu1_sums_op(channels_last(x), weight, bias)
                return conv1_bn1_relu1_norm_op(z, sums, norm)
            scale, shift = scale_and_shift(norm, bias)
            return conv1_bn1_relu1_op(channels_last(x), weight, shift, scale)
    x = in_layout_for(x, conv, norm)
    is_free = is_unseen(x, conv, norm)
    x = conv_norm(x, conv, norm) if is_free else norm(conv(x))
    return F.relu(x, inplace=is_free)


# ── region 2: layer1.conv1 + layer1.bn1 + layer1.relu1 ────────────────────────────────
#                 reads 32 x 32 x 16
#   layer1.conv1  conv 16 3x3 pad=1 bias=no                           32 x 32 x 16
#                 O = (W − K + 2P)/S + 1 = (32 − 3 + 2·1)/1 + 1 = 32
#   layer1.bn1    batchnorm                                           32 x 32 x 16
#   layer1.relu1  relu                                                32 x 32 x 16
#   forward in inference: 1 launch
#   forward in training: 3 launches, for the sums, their statistics and what follows
#   backward in training: 2 launches, for the gradients of batchnorm and sums; PyTorch's
#   library multiplies for those of input and weight
#   kept for backward in training: the input, 32 x 32 x 16; the sums, 32 x 32 x 16
#   Its kernels are those of region 1.


LAYER1_CONV1_BN1_RELU1 = ConvGeometry(
    channels=16,
    filters=16,
    kernel=(3, 3),
    pad=(1, 1),
    scale="sum",
    activation="relu",
    taps="apart",
    backward="library",
)
layer1_conv1_bn1_relu1_op = conv_op(
    f"{NAMESPACE}::layer1_conv1_bn1_relu1",
    LAYER1_CONV1_BN1_RELU1,
    conv_launches,
)


LAYER1_CONV1_BN1_RELU1_SUMS = ConvGeometry(
    channels=16,
    filters=16,
    kernel=(3, 3),
    pad=(1, 1),
    bias=False,
    taps="apart",
    statistics=True,
    backward="library",
)
layer1_conv1_bn1_relu1_sums_op = conv_op(
    f"{NAMESPACE}::layer1_conv1_bn1_relu1_sums",
    LAYER1_CONV1_BN1_RELU1_SUMS,
    conv_launches,
)


LAYER1_CONV1_BN1_RELU1_NORM = NormGeometry(channels=16, activation="relu")
layer1_conv1_bn1_relu1_norm_op = norm_op(
    f"{NAMESPACE}::layer1_conv1_bn1_relu1_norm",
    LAYER1_CONV1_BN1_RELU1_NORM,
    norm_launches,
)


def layer1_conv1_bn1_relu1(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Run region 2: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = conv_weights(conv, LAYER1_CONV1_BN1_RELU1_SUMS)
        if weight is not None and is_norm(norm, LAYER1_CONV1_BN1_RELU1_NORM):
            if takes_batch(norm):
                z, sums = layer1_conv1_bn1_relu1_sums_op(x, weight, bias)
                return layer1_conv1_bn1_relu1_norm_op(z, sums, norm)
            scale, shift = scale_and_shift(norm, bias)
            return layer1_conv1_bn1_relu1_op(x, weight, shift, scale)
    x = in_layout_for(x, conv, norm)
    is_free = is_unseen(x, conv, norm)
    x = conv_norm(x, conv, norm) if is_free else norm(conv(x))
    return F.relu(x, inplace=is_free)


# ── region 3: layer1.conv2 + layer1.bn2 + layer1.add1 + layer1.relu2 ──────────────────
#                 reads 32 x 32 x 16
#   layer1.conv2  conv 16 3x3 pad=1 bias=no                           32 x 32 x 16
#                 O = (W − K + 2P)/S + 1 = (32 − 3 + 2·1)/1 + 1 = 32
#   layer1.bn2    batchnorm                                           32 x 32 x 16
#   layer1.add1   add                                                 32 x 32 x 16
#   layer1.relu2  relu                                                32 x 32 x 16
#   forward in inference: 1 launch
#   forward in training: 3 launches, for the sums, their statistics and what follows
#   backward in training: 2 launches, for the gradients of batchnorm with residual and
#   sums; PyTorch's library multiplies for those of input and weight
#   kept for backward in training: the input, 32 x 32 x 16; the sums, 32 x 32 x 16; the
#   residual, 32 x 32 x 16
#   Its kernels are those of region 1.


LAYER1_CONV2_BN2_ADD1_RELU2 = ConvGeometry(
    channels=16,
    filters=16,
    kernel=(3, 3),
    pad=(1, 1),
    scale="sum",
    residual=True,
    activation="relu",
    taps="apart",
    backward="library",
)
layer1_conv2_bn2_add1_relu2_op = conv_op(
    f"{NAMESPACE}::layer1_conv2_bn2_add1_relu2",
    LAYER1_CONV2_BN2_ADD1_RELU2,
    conv_launches,
)


LAYER1_CONV2_BN2_ADD1_RELU2_SUMS = ConvGeometry(
    channels=16,
    filters=16,
    kernel=(3, 3),
    pad=(1, 1),
    bias=False,
    taps="apart",
    statistics=True,
    backward="library",
)
layer1_conv2_bn2_add1_relu2_sums_op = conv_op(
    f"{NAMESPACE}::layer1_conv2_bn2_add1_relu2_sums",
    LAYER1_CONV2_BN2_ADD1_RELU2_SUMS,
    conv_launches,
)


LAYER1_CONV2_BN2_ADD1_RELU2_NORM = NormGeometry(
    channels=16,
    residual=True,
    activation="relu",
)
layer1_conv2_bn2_add1_relu2_norm_op = norm_op(
    f"{NAMESPACE}::layer1_conv2_bn2_add1_relu2_norm",
    LAYER1_CONV2_BN2_ADD1_RELU2_NORM,
    norm_launches,
)


def layer1_conv2_bn2_add1_relu2(
    x: Tensor,
    residual: Tensor,
    conv: nn.Conv2d,
    norm: nn.BatchNorm2d,
) -> Tensor:
    """Run region 3: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = conv_weights(conv, LAYER1_CONV2_BN2_ADD1_RELU2_SUMS)
        if weight is not None and is_norm(norm, LAYER1_CONV2_BN2_ADD1_RELU2_NORM):
            if takes_batch(norm):
                z, sums = layer1_conv2_bn2_add1_relu2_sums_op(x, weight, bias)
                return layer1_conv2_bn2_add1_relu2_norm_op(z, sums, norm, residual)
            scale, shift = scale_and_shift(norm, bias)
            return layer1_conv2_bn2_add1_relu2_op(
                x,
                weight,
                shift,
                scale,
                residual=residual,
            )
    x = in_layout_for(x, conv, norm)
    is_free = is_unseen(x, conv, norm)
    x = conv_norm(x, conv, norm) if is_free else norm(conv(x))
    x = x.add_(residual) if is_free else x + residual
    return F.relu(x, inplace=is_free)


# ── region 4: layer2.conv1 + layer2.bn1 + layer2.relu1 ────────────────────────────────
#                 reads 32 x 32 x 16
#   layer2.conv1  conv 32 3x3 stride=2 pad=1 bias=no                      16 x 16 x 32
#                 O = ⌊(W − K + 2P)/S⌋ + 1 = ⌊(32 − 3 + 2·1)/2⌋ + 1 = 16
#   layer2.bn1    batchnorm                                               16 x 16 x 32
#   layer2.relu1  relu                                                    16 x 16 x 32
#   forward in inference: 1 launch
#   forward in training: 3 launches, for the sums, their statistics and what follows
#   backward in training: 2 launches, for the gradients of batchnorm and sums; PyTorch's
#   library multiplies for those of input and weight
#   kept for backward in training: the input, 32 x 32 x 16; the sums, 16 x 16 x 32
#   Its kernels are those of region 1.


LAYER2_CONV1_BN1_RELU1 = ConvGeometry(
    channels=16,
    filters=32,
    kernel=(3, 3),
    stride=(2, 2),
    pad=(1, 1),
    scale="sum",
    activation="relu",
    taps="apart",
    backward="library",
)
layer2_conv1_bn1_relu1_op = conv_op(
    f"{NAMESPACE}::layer2_conv1_bn1_relu1",
    LAYER2_CONV1_BN1_RELU1,
    conv_launches,
)


LAYER2_CONV1_BN1_RELU1_SUMS = ConvGeometry(
    channels=16,
    filters=32,
    kernel=(3, 3),
    stride=(2, 2),
    pad=(1, 1),
    bias=False,
    taps="apart",
    statistics=True,
    backward="library",
)
layer2_conv1_bn1_relu1_sums_op = conv_op(
    f"{NAMESPACE}::layer2_conv1_bn1_relu1_sums",
    LAYER2_CONV1_BN1_RELU1_SUMS,
    conv_launches,
)


LAYER2_CONV1_BN1_RELU1_NORM = NormGeometry(channels=32, activation="relu")
layer2_conv1_bn1_relu1_norm_op = norm_op(
    f"{NAMESPACE}::layer2_conv1_bn1_relu1_norm",
    LAYER2_CONV1_BN1_RELU1_NORM,
    norm_launches,
)


def layer2_conv1_bn1_relu1(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Run region 4: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = conv_weights(conv, LAYER2_CONV1_BN1_RELU1_SUMS)
        if weight is not None and is_norm(norm, LAYER2_CONV1_BN1_RELU1_NORM):
            if takes_batch(norm):
                z, sums = layer2_conv1_bn1_relu1_sums_op(x, weight, bias)
                return layer2_conv1_bn1_relu1_norm_op(z, sums, norm)
            scale, shift = scale_and_shift(norm, bias)
            return layer2_conv1_bn1_relu1_op(x, weight, shift, scale)
    x = in_layout_for(x, conv, norm)
    is_free = is_unseen(x, conv, norm)
    x = conv_norm(x, conv, norm) if is_free else norm(conv(x))
    return F.relu(x, inplace=is_free)


# ── region 5: layer2.conv2 + layer2.bn2 ───────────────────────────────────────────────
#                 reads 16 x 16 x 32
#   layer2.conv2  conv 32 3x3 pad=1 bias=no                           16 x 16 x 32
#                 O = (W − K + 2P)/S + 1 = (16 − 3 + 2·1)/1 + 1 = 16
#   layer2.bn2    batchnorm                                           16 x 16 x 32
#   forward in inference: 1 launch
#   forward in training: 3 launches, for the sums, their statistics and what follows
#   backward in training: 2 launches, for the gradients of batchnorm and sums; PyTorch's
#   library multiplies for those of input and weight
#   kept for backward in training: the input, 16 x 16 x 32; the sums, 16 x 16 x 32
#   Its kernels are those of region 1.


LAYER2_CONV2_BN2 = ConvGeometry(
    channels=32,
    filters=32,
    kernel=(3, 3),
    pad=(1, 1),
    scale="sum",
    taps="apart",
    backward="library",
)
layer2_conv2_bn2_op = conv_op(
    f"{NAMESPACE}::layer2_conv2_bn2",
    LAYER2_CONV2_BN2,
    conv_launches,
)


LAYER2_CONV2_BN2_SUMS = ConvGeometry(
    channels=32,
    filters=32,
    kernel=(3, 3),
    pad=(1, 1),
    bias=False,
    taps="apart",
    statistics=True,
    backward="library",
)
layer2_conv2_bn2_sums_op = conv_op(
    f"{NAMESPACE}::layer2_conv2_bn2_sums",
    LAYER2_CONV2_BN2_SUMS,
    conv_launches,
)


LAYER2_CONV2_BN2_NORM = NormGeometry(channels=32)
layer2_conv2_bn2_norm_op = norm_op(
    f"{NAMESPACE}::layer2_conv2_bn2_norm",
    LAYER2_CONV2_BN2_NORM,
    norm_launches,
)


def layer2_conv2_bn2(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Run region 5: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = conv_weights(conv, LAYER2_CONV2_BN2_SUMS)
        if weight is not None and is_norm(norm, LAYER2_CONV2_BN2_NORM):
            if takes_batch(norm):
                z, sums = layer2_conv2_bn2_sums_op(x, weight, bias)
                return layer2_conv2_bn2_norm_op(z, sums, norm)
            scale, shift = scale_and_shift(norm, bias)
            return layer2_conv2_bn2_op(x, weight, shift, scale)
    x = in_layout_for(x, conv, norm)
    is_free = is_unseen(x, conv, norm)
    return conv_norm(x, conv, norm) if is_free else norm(conv(x))


# ── region 6: layer2.downsample.0 + layer2.downsample.1 + layer2.add1 + layer2.relu2 ──
#                        reads 32 x 32 x 16
#   layer2.downsample.0  conv 32 1x1 stride=2 bias=no                 16 x 16 x 32
#                        O = ⌊(W − K)/S⌋ + 1 = ⌊(32 − 1)/2⌋ + 1 = 16
#   layer2.downsample.1  batchnorm                                    16 x 16 x 32
#   layer2.add1          add                                          16 x 16 x 32
#   layer2.relu2         relu                                         16 x 16 x 32
#   forward in inference: 1 launch
#   forward in training: 3 launches, for the sums, their statistics and what follows
#   backward in training: 2 launches, for the gradients of batchnorm with residual and
#   sums; PyTorch's library multiplies for those of input and weight
#   kept for backward in training: the input, 32 x 32 x 16; the sums, 16 x 16 x 32; the
#   residual, 16 x 16 x 32
#   Its kernels are those of region 1.


LAYER2_DOWNSAMPLE_0_DOWNSAMPLE_1_ADD1_RELU2 = ConvGeometry(
    channels=16,
    filters=32,
    kernel=(1, 1),
    stride=(2, 2),
    scale="sum",
    residual=True,
    activation="relu",
    taps="apart",
    backward="library",
)
layer2_downsample_0_downsample_1_add1_relu2_op = conv_op(
    f"{NAMESPACE}::layer2_downsample_0_downsample_1_add1_relu2",
    LAYER2_DOWNSAMPLE_0_DOWNSAMPLE_1_ADD1_RELU2,
    conv_launches,
)


LAYER2_DOWNSAMPLE_0_DOWNSAMPLE_1_ADD1_RELU2_SUMS = ConvGeometry(
    channels=16,
    filters=32,
    kernel=(1, 1),
    stride=(2, 2),
    bias=False,
    taps="apart",
    statistics=True,
    backward="library",
)
layer2_downsample_0_downsample_1_add1_relu2_sums_op = conv_op(
    f"{NAMESPACE}::layer2_downsample_0_downsample_1_add1_relu2_sums",
    LAYER2_DOWNSAMPLE_0_DOWNSAMPLE_1_ADD1_RELU2_SUMS,
    conv_launches,
)


LAYER2_DOWNSAMPLE_0_DOWNSAMPLE_1_ADD1_RELU2_NORM = NormGeometry(
    channels=32,
    residual=True,
    activation="relu",
)
layer2_downsample_0_downsample_1_add1_relu2_norm_op = norm_op(
    f"{NAMESPACE}::layer2_downsample_0_downsample_1_add1_relu2_norm",
    LAYER2_DOWNSAMPLE_0_DOWNSAMPLE_1_ADD1_RELU2_NORM,
    norm_launches,
)


def layer2_downsample_0_downsample_1_add1_relu2(
    x: Tensor,
    residual: Tensor,
    conv: nn.Conv2d,
    norm: nn.BatchNorm2d,
) -> Tensor:
    """Run region 6: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = conv_weights(
            conv,
            LAYER2_DOWNSAMPLE_0_DOWNSAMPLE_1_ADD1_RELU2_SUMS,
        )
        if weight is not None and is_norm(
            norm,
            LAYER2_DOWNSAMPLE_0_DOWNSAMPLE_1_ADD1_RELU2_NORM,
        ):
            if takes_batch(norm):
                z, sums = layer2_downsample_0_downsample_1_add1_relu2_sums_op(
                    x,
                    weight,
                    bias,
                )
                return layer2_downsample_0_downsample_1_add1_relu2_norm_op(
                    z,
                    sums,
                    norm,
                    residual,
                )
            scale, shift = scale_and_shift(norm, bias)
            return layer2_downsample_0_downsample_1_add1_relu2_op(
                x,
                weight,
                shift,
                scale,
                residual=residual,
            )
    x = in_layout_for(x, conv, norm)
    is_free = is_unseen(x, conv, norm)
    x = conv_norm(x, conv, norm) if is_free else norm(conv(x))
    x = x.add_(residual) if is_free else residual + x
    return F.relu(x, inplace=is_free)


# ── region 7: fc ──────────────────────────────────────────────────────────────────────
#       reads 32
#   fc  fc 10     10
#   forward: 1 launch
#   backward: 3 launches, for the gradients of input, weight and bias
#   kept for backward: the input, 32
#
#   Kernels of a fully connected layer, forward: x · weightᵀ + bias and its activation.
#
#   Matrices lie in memory by rows: x [batch, features], weight [outputs, features].
#
#   Kernels of a fully connected layer, backward: the gradients of x, weight and bias.
#
#   Each is one tiled matrix product, or a sum; a gradient goes back through the
#   activation where it is read.


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
        x = tl.load(
            x_ptr + image.to(tl.int64)[:, None] * C.features + feature[None, :],
            mask=image_mask[:, None] & feature_mask[None, :],
            other=0.0,
        )
        weight = tl.load(
            weight_ptr + output[None, :] * C.features + feature[:, None],
            mask=output_mask[None, :] & feature_mask[:, None],
            other=0.0,
        )
        y = tl.dot(x, weight, y, input_precision=PRECISION, out_dtype=y.dtype)
    offset = image.to(tl.int64)[:, None] * C.outputs + output[None, :]
    mask = image_mask[:, None] & output_mask[None, :]
    bias = tl.load(bias_ptr + output, mask=output_mask, other=0.0)
    y += bias.to(y.dtype)[None, :]
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
def fc_unactivated(
    gradient_ptr,
    offset,
    mask,
):
    """Read a tile of the gradient and take it back through the activation."""
    gradient = tl.load(gradient_ptr + offset, mask=mask, other=0.0)
    return gradient.to(gradient_ptr.dtype.element_ty)


@triton.jit(do_not_specialize=COUNTS)
def fc_input_gradient(
    gradient_ptr,  # [batch, C.outputs]
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
    dx = full(tl.zeros((ROWS, COLUMNS), dx_ptr.dtype.element_ty))
    for step in range((C.outputs + T.terms - 1) // T.terms):
        output = step * T.terms + tl.arange(0, T.terms)
        output_mask = output < C.outputs
        gradient = fc_unactivated(
            gradient_ptr=gradient_ptr,
            offset=image.to(tl.int64)[:, None] * C.outputs + output[None, :],
            mask=image_mask[:, None] & output_mask[None, :],
        )
        weight = tl.load(
            weight_ptr + output[:, None] * C.features + feature[None, :],
            mask=output_mask[:, None] & feature_mask[None, :],
            other=0.0,
        )
        dx = tl.dot(gradient, weight, dx, input_precision=PRECISION, out_dtype=dx.dtype)
    tl.store(
        dx_ptr + image.to(tl.int64)[:, None] * C.features + feature[None, :],
        dx.to(dx_ptr.dtype.element_ty),
        mask=image_mask[:, None] & feature_mask[None, :],
    )


@triton.jit(do_not_specialize=COUNTS)
def fc_weight_gradient(
    gradient_ptr,  # [batch, C.outputs]
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
    dweight = tl.zeros((ROWS, COLUMNS), dweight_ptr.dtype.element_ty)
    dweight = full(dweight)
    for step in range(tl.cdiv(batch, T.terms)):
        image = step * T.terms + tl.arange(0, T.terms)
        image_mask = image < batch
        gradient = fc_unactivated(
            gradient_ptr=gradient_ptr,
            offset=image.to(tl.int64)[None, :] * C.outputs + output[:, None],
            mask=image_mask[None, :] & output_mask[:, None],
        )
        x = tl.load(
            x_ptr + image.to(tl.int64)[:, None] * C.features + feature[None, :],
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
        dweight_ptr + output[:, None] * C.features + feature[None, :],
        dweight.to(dweight_ptr.dtype.element_ty),
        mask=output_mask[:, None] & feature_mask[None, :],
    )


@triton.jit(do_not_specialize=COUNTS)
def fc_bias_gradient(
    gradient_ptr,  # [batch, C.outputs]
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
            offset=image.to(tl.int64)[:, None] * C.outputs + output[None, :],
            mask=(image < batch)[:, None] & output_mask[None, :],
        )
        total += full(gradient)
    dbias = tl.sum(total, axis=0)
    tl.store(dbias_ptr + output, dbias.to(dbias_ptr.dtype.element_ty), mask=output_mask)


def fc_launch_input_gradient(
    geometry: FcGeometry,
    gradient: Tensor,
    _saved: Tensor | None,
    weight: Tensor,
    dx: Tensor,
) -> None:
    """Launch the kernel that fills dx."""
    precision = fc_precision(dx)
    tile = fc_tile(64, geometry.features, geometry.outputs, dx, precision)
    programs = count_blocks(dx.shape[0], tile.rows) * count_blocks(
        geometry.features,
        tile.columns,
    )
    refuse_launch(dx, programs, dx.shape[0])
    launch(
        fc_input_gradient,
        programs,
        gradient_ptr=gradient,
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
    _saved: Tensor | None,
    x: Tensor,
    dweight: Tensor,
) -> None:
    """Launch the kernel that fills dweight."""
    precision = fc_precision(x)
    tile = fc_tile(geometry.outputs, geometry.features, 64, x, precision)
    programs = count_blocks(geometry.outputs, tile.rows)
    programs *= count_blocks(geometry.features, tile.columns)
    refuse_launch(x, programs, x.shape[0])
    launch(
        fc_weight_gradient,
        programs,
        gradient_ptr=gradient,
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
    _saved: Tensor | None,
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


FC = FcGeometry(features=32, outputs=10)
fc_op_ = fc_op(f"{NAMESPACE}::fc", FC, fc_launches)


def fc(x: Tensor, linear: nn.Linear) -> Tensor:
    """Run region 7: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = fc_weights(linear, FC)
        if weight is not None and x.shape[1:] == fc_shape(FC):
            return fc_op_(x, weight, bias)
    return linear(x)
