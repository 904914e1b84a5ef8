"""Mobile, a convolutional network: 32 x 32 x 3 to 10.

Made by cnndsl 0.1.0 from a source with this SHA-256; valid for this size of image only.
9ec450a29644a6e0d3df768782bb577264ffbf9650308322b6046aea49be42c7

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
    block_size,
    channels_last,
    conv_norm,
    conv_op,
    conv_precision,
    conv_product,
    conv_sizes,
    conv_weights,
    count_blocks,
    cross_entropy,
    done,
    fc_op,
    fc_precision,
    fc_shape,
    fc_weights,
    full,
    full_dtype,
    in_layout_for,
    is_better,
    is_norm,
    is_unseen,
    launch,
    max_pool2,
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
NAMESPACE = "cnndsl_mobile_8c2a0f4dd3bc"


class Mobile(nn.Module):
    """32 x 32 x 3 to 10."""

    # channels, height, width; None: any size that `refuse_input` lets pass
    input_shape = (3, 32, 32)
    classes = ()

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.batchnorm1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 1, bias=False)
        self.batchnorm2 = nn.BatchNorm2d(32)
        self.conv3 = nn.Conv2d(32, 32, 3, stride=2, padding=1, groups=32, bias=False)
        self.batchnorm3 = nn.BatchNorm2d(32)
        self.conv4 = nn.Conv2d(32, 24, 1, bias=False)
        self.batchnorm4 = nn.BatchNorm2d(24)
        self.conv5 = nn.Conv2d(24, 48, 1, bias=False)
        self.batchnorm5 = nn.BatchNorm2d(48)
        self.conv6 = nn.Conv2d(48, 48, 3, padding=1, groups=48, bias=False)
        self.batchnorm6 = nn.BatchNorm2d(48)
        self.conv7 = nn.Conv2d(48, 24, 1, bias=False)
        self.batchnorm7 = nn.BatchNorm2d(24)
        self.conv8 = nn.Conv2d(24, 64, 1, bias=False)
        self.batchnorm8 = nn.BatchNorm2d(64)
        self.fc1 = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Give what the last layer gives."""
        return self.logits(x)

    def logits(self, x: Tensor) -> Tensor:
        """Give what the last layer before a softmax gives."""
        refuse_input(x)
        x = with_gradient_by_rows(x)
        x = conv1_batchnorm1_relu61(x, self.conv1, self.batchnorm1)
        x = conv2_batchnorm2_relu62(x, self.conv2, self.batchnorm2)
        x = conv3_batchnorm3_relu63(x, self.conv3, self.batchnorm3)
        x = conv4_batchnorm4(x, self.conv4, self.batchnorm4)
        relu64 = conv5_batchnorm5_relu64(x, self.conv5, self.batchnorm5)
        relu65 = conv6_batchnorm6_relu65(relu64, self.conv6, self.batchnorm6)
        x = conv7_batchnorm7_add1(relu65, x, self.conv7, self.batchnorm7)
        x = conv8_pool1_batchnorm8_gelu1(x, self.conv8, self.batchnorm8)
        x = torch.movedim(x.movedim(1, 3).mean((1, 2), keepdim=True), 3, 1)
        x = torch.flatten(x, 1)
        return fc1(x, self.fc1)

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
    """Raise unless x is a batch of 32 x 32 x 3."""
    if not isinstance(x, Tensor):
        return  # torch.fx.symbolic_trace, which knows no sizes
    given = tuple(x.shape)
    if x.dim() != 4 or given[1:] != (3, 32, 32):
        raise ValueError(f"Mobile takes (N, 3, 32, 32), not {given} (cnn line 4)")


# ── region 1: conv1 + batchnorm1 + relu61 ─────────────────────────────────────────────
#               reads 32 x 32 x 3
#   conv1       conv 16 3x3 stride=2 pad=1 bias=no                      16 x 16 x 16
#               O = ⌊(W − K + 2P)/S⌋ + 1 = ⌊(32 − 3 + 2·1)/2⌋ + 1 = 16
#   batchnorm1  batchnorm                                               16 x 16 x 16
#   relu61      relu6                                                   16 x 16 x 16
#   forward in inference: 1 launch
#   forward in training: 3 launches, for the sums, their statistics and what follows
#   backward in training: 4 launches, for the gradients of batchnorm, sums, input and
#   weight
#   kept for backward in training: the input, 32 x 32 x 3; the sums, 16 x 16 x 16
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
#
#   Backward kernel of a convolution region with a pool: the gradient before it, written
#   once.
#
#   For the products of a library, which cannot rebuild it where they read it.
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
    """Apply relu6."""
    return tl.where(z <= 0, 0.0, tl.where(z >= 6, 6.0, z))


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
    if C.forward == "fused":
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
    else:
        place = ((image * height + row) * width + column) * C.filters
        mask = pixel_mask[None, :] & filter_mask[:, None]
        total = tl.load(x_ptr + place[None, :] + filter[:, None], mask=mask, other=0.0)
        total = full(total)
    if C.scale == "sum":
        total *= conv_each(scale_ptr, filter, filter_mask).to(total.dtype)
    return total


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
def conv_quads(
    z,
    bias_ptr,
    filter,
    filter_mask,
    C: tl.constexpr,
    T: tl.constexpr,
):
    """Pool a tile over 2x2 windows, in registers; also say which pixel won, or which are alive."""
    ROWS: tl.constexpr = T.rows
    COLUMNS: tl.constexpr = T.columns
    code = tl.full((ROWS, COLUMNS // 4), 1, tl.int32)
    if C.pool == "max":
        y, b, c, d = conv_corners(z, ROWS, COLUMNS)
        code = tl.where(is_better(b, y), 2, code)
        y = tl.where(is_better(b, y), b, y)
        code = tl.where(is_better(c, y), 3, code)
        y = tl.where(is_better(c, y), c, y)
        code = tl.where(is_better(d, y), 4, code)
        y = tl.where(is_better(d, y), d, y)
    else:
        if C.bias:
            z += conv_each(bias_ptr, filter, filter_mask).to(z.dtype)
        a, b, c, d = conv_corners(z, ROWS, COLUMNS)
        y = (a + b + c + d) / 4
    return y, code


@triton.jit(do_not_specialize=COUNTS)
def conv_forward(
    x_ptr,  # [batch, height, width, C.channels]
    weight_ptr,  # [C.filters, *C.kernel, C.channels // C.groups]
    bias_ptr,  # [C.filters]
    scale_ptr,  # [C.filters]
    y_ptr,  # [batch, out_height, out_width, C.filters]
    winner_ptr,  # like y: 0 = no gradient, 1 + position in the window of the pixel that won
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
    if C.pool == "max":
        code = pooled[1]
        tl.store(winner_ptr + offset, code.to(winner_ptr.dtype.element_ty), mask=mask)
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
    if geometry.forward != "fused":
        # Beside a residual, or the best so far, a tile of float32 is half as large.
        most_bytes = 2 if geometry.residual or geometry.window == "loop" else 4
        pixels = 64 if x.element_size() <= most_bytes else 32
        return Tile(block_size(geometry.filters, 64), pixels, 16, 4, 2)
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
    if geometry.forward != "fused":
        height, width = sizes.conv_height, sizes.conv_width
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
    """Take a gradient back through relu6."""
    return tl.where((saved <= 0) | (saved >= 6), 0.0, gradient)


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
def conv_rebuilt(
    gradient_ptr,
    winner_ptr,
    saved_ptr,
    offset,
    mask,
    position,
    C: tl.constexpr,
):
    """Rebuild a tile of the gradient before the pool: what windows give to one position in each.

    An average gives a share of it: that division is left to the caller.
    """
    gradient = tl.load(gradient_ptr + offset, mask=mask, other=0.0)
    if C.activation == "output":
        saved = full(tl.load(saved_ptr + offset, mask=mask, other=0.0))
        gradient = conv_activation_gradient(saved, full(gradient))
    # Only now: the slope is that of the pixel that won. Where it is NaN, the others still get 0.
    if C.pool == "max":
        winner = tl.load(winner_ptr + offset, mask=mask, other=0).to(tl.int32)
        gradient = tl.where(winner == position + 1, gradient, 0.0)
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
    winner_ptr,  # like the gradient, written by the forward kernel
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
                saved_ptr=saved_ptr,
                offset=offset[:, None] + filter[None, :],
                mask=mask[:, None] & filter_mask[None, :],
                position=place_row * C.pool_size[1] + place_column,
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
        winner_ptr=code,
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
    winner_ptr,  # like the gradient, written by the forward kernel
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
                saved_ptr=saved_ptr,
                offset=offset,
                mask=filter_mask[:, None] & exists[None, :],
                position=position,
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
        winner_ptr=code,
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


@triton.jit(do_not_specialize=COUNTS)
def conv_bias_gradient(
    gradient_ptr,  # [batch, out_height, out_width, C.filters]
    winner_ptr,  # like the gradient, written by the forward kernel
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
        if C.pool == "max":
            # Each window that is not dead gives all of its gradient to one pixel.
            winner = tl.load(winner_ptr + offset, mask=mask, other=0)
            gradient = tl.where(winner != 0, gradient, 0.0)
        if C.activation == "output":
            saved = full(tl.load(saved_ptr + offset, mask=mask, other=0.0))
            gradient = conv_activation_gradient(saved, gradient)
        if C.residual or C.backward == "library":
            if C.pool == "none" and C.activation != "none":
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
    code: Tensor,
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
        winner_ptr=code,
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


@triton.jit(do_not_specialize=COUNTS)
def conv_unpool(
    gradient_ptr,  # [batch, out_height, out_width, C.filters]
    winner_ptr,  # like the gradient, written by the forward kernel
    saved_ptr,
    dz_ptr,  # [batch, conv_height, conv_width, C.filters]
    partial_ptr,  # [splits, C.filters]
    splits,
    batch,
    conv_height: tl.constexpr,  # before the pool
    conv_width: tl.constexpr,
    out_height: tl.constexpr,  # after it
    out_width: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
):
    """Compute the gradient of some pixels, and its sum over them: a part of the bias's."""
    ROWS: tl.constexpr = T.rows
    COLUMNS: tl.constexpr = T.columns
    FILTER_BLOCKS: tl.constexpr = (C.filters + COLUMNS - 1) // COLUMNS
    filter = tl.program_id(0) % FILTER_BLOCKS * COLUMNS + tl.arange(0, COLUMNS)
    filter_mask = filter < C.filters
    split = tl.program_id(0) // FILTER_BLOCKS
    # The pixels of a tile have one phase: row and column, with the padding, modulo the strides. So
    # their positions in windows are scalars.
    PHASES: tl.constexpr = C.pool_stride[0] * C.pool_stride[1]
    STRIDE: tl.constexpr = C.pool_stride
    cell_rows = (conv_height + C.pool_pad[0] + STRIDE[0] - 1) // STRIDE[0]
    cell_columns = (conv_width + C.pool_pad[1] + STRIDE[1] - 1) // STRIDE[1]
    cells = batch * cell_rows * cell_columns
    blocks = tl.cdiv(cells, ROWS) * PHASES
    first = split * tl.cdiv(blocks, splits)
    last = tl.minimum(first + tl.cdiv(blocks, splits), blocks)
    total = tl.zeros((ROWS, COLUMNS), partial_ptr.dtype.element_ty)
    for step in range(first, last):
        phase_row = step % PHASES // C.pool_stride[1]
        phase_column = step % C.pool_stride[1]
        cell = step // PHASES * ROWS + tl.arange(0, ROWS)
        image, cell_row, cell_column = pixel_place(cell, cell_rows, cell_columns)
        row = cell_row * C.pool_stride[0] + phase_row - C.pool_pad[0]
        column = cell_column * C.pool_stride[1] + phase_column - C.pool_pad[1]
        pixel_mask = (cell < cells) & (row >= 0) & (row < conv_height)
        pixel_mask &= (column >= 0) & (column < conv_width)
        dz = tl.zeros((ROWS, COLUMNS), partial_ptr.dtype.element_ty)
        for turn in range(C.windows[0] * C.windows[1]):
            # A window that may hold the pixels, and how far into it they lie.
            window_row = cell_row - turn // C.windows[1]
            window_column = cell_column - turn % C.windows[1]
            down = phase_row + turn // C.windows[1] * C.pool_stride[0]
            right = phase_column + turn % C.windows[1] * C.pool_stride[1]
            fits = (down % C.pool_dilation[0] == 0) & (right % C.pool_dilation[1] == 0)
            down = down // C.pool_dilation[0]
            right = right // C.pool_dilation[1]
            if fits & (down < C.pool_size[0]) & (right < C.pool_size[1]):
                holds = pixel_mask & (window_row >= 0) & (window_row < out_height)
                holds &= (window_column >= 0) & (window_column < out_width)
                window = (image * out_height + window_row) * out_width + window_column
                gradient = conv_rebuilt(
                    gradient_ptr=gradient_ptr,
                    winner_ptr=winner_ptr,
                    saved_ptr=saved_ptr,
                    offset=(window * C.filters)[:, None] + filter[None, :],
                    mask=holds[:, None] & filter_mask[None, :],
                    position=down * C.pool_size[1] + right,
                    C=C,
                )
                gradient = full(gradient)
                dz += gradient
        pixel = (image * conv_height + row) * conv_width + column
        tl.store(
            dz_ptr + pixel[:, None] * C.filters + filter[None, :],
            dz.to(dz_ptr.dtype.element_ty),
            mask=pixel_mask[:, None] & filter_mask[None, :],
        )
        total += dz
    tl.store(
        partial_ptr + split.to(tl.int64) * C.filters + filter,
        tl.sum(total, axis=0),
        mask=filter_mask,
    )


def conv_launch_unpool(
    geometry: ConvGeometry,
    gradient: Tensor,
    code: Tensor,
    saved: Tensor | None,
    dz: Tensor,
) -> Tensor:
    """Launch the kernel that fills dz, and give parts of the bias's gradient, in float32."""
    pixels = dz.shape[0] * dz.shape[2] * dz.shape[3]
    # Where slopes are read, too: of float32, half as many.
    has_slopes = geometry.activation in ("output", "input")
    rows = 16 if has_slopes and dz.element_size() >= 4 else 32
    tile = Tile(rows, block_size(geometry.filters, 64), 1, 4, 3)
    programs = count_blocks(geometry.filters, tile.columns)
    splits = split_count(programs, count_blocks(pixels, tile.rows), 2048)
    refuse_launch(dz, programs * splits, pixels)
    partial = allocated(dz.new_empty((splits, geometry.filters), dtype=full_dtype(dz)))
    launch(
        conv_unpool,
        programs * splits,
        gradient_ptr=gradient,
        winner_ptr=code,
        saved_ptr=saved,
        dz_ptr=dz,
        partial_ptr=partial,
        splits=splits,
        batch=dz.shape[0],
        conv_height=dz.shape[2],
        conv_width=dz.shape[3],
        out_height=gradient.shape[2],
        out_width=gradient.shape[3],
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
    unpool=conv_launch_unpool,
    windows=conv_launch_windows,
    activation=F.relu6,
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
    """Apply relu6."""
    return tl.where(z <= 0, 0.0, tl.where(z >= 6, 6.0, z))


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
    """Take a gradient back through relu6."""
    return tl.where((saved <= 0) | (saved >= 6), 0.0, gradient)


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
    activation=F.relu6,
)


CONV1_BATCHNORM1_RELU61 = ConvGeometry(
    channels=3,
    filters=16,
    kernel=(3, 3),
    stride=(2, 2),
    pad=(1, 1),
    scale="sum",
    activation="output",
)
conv1_batchnorm1_relu61_op = conv_op(
    f"{NAMESPACE}::conv1_batchnorm1_relu61",
    CONV1_BATCHNORM1_RELU61,
    conv_launches,
)


CONV1_BATCHNORM1_RELU61_SUMS = ConvGeometry(
    channels=3,
    filters=16,
    kernel=(3, 3),
    stride=(2, 2),
    pad=(1, 1),
    bias=False,
    statistics=True,
)
conv1_batchnorm1_relu61_sums_op = conv_op(
    f"{NAMESPACE}::conv1_batchnorm1_relu61_sums",
    CONV1_BATCHNORM1_RELU61_SUMS,
    conv_launches,
)


CONV1_BATCHNORM1_RELU61_NORM = NormGeometry(channels=16, activation="output")
conv1_batchnorm1_relu61_norm_op = norm_op(
    f"{NAMESPACE}::conv1_batchnorm1_relu61_norm",
    CONV1_BATCHNORM1_RELU61_NORM,
    norm_launches,
)


def conv1_batchnorm1_relu61(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Run region 1: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = conv_weights(conv, CONV1_BATCHNORM1_RELU61_SUMS)
        if weight is not None and is_norm(norm, CONV1_BATCHNORM1_RELU61_NORM):
            if takes_batch(norm):
                z, sums = conv1_batchnorm1_relu61_sums_op(
                    channels_last(x),
                    weight,
                    bias,
                )
                return conv1_batchnorm1_relu61_norm_op(z, sums, norm)
            scale, shift = scale_and_shift(norm, bias)
            return conv1_batchnorm1_relu61_op(channels_last(x), weight, shift, scale)
    x = in_layout_for(x, conv, norm)
    is_free = is_unseen(x, conv, norm)
    x = conv_norm(x, conv, norm) if is_free else norm(conv(x))
    return F.relu6(x, inplace=is_free)


# ── region 2: conv2 + batchnorm2 + relu62 ─────────────────────────────────────────────
#               reads 16 x 16 x 16
#   conv2       conv 32 1x1 bias=no                      16 x 16 x 32
#               O = (W − K)/S + 1 = (16 − 1)/1 + 1 = 16
#   batchnorm2  batchnorm                                16 x 16 x 32
#   relu62      relu6                                    16 x 16 x 32
#   forward in inference: 1 launch
#   forward in training: 3 launches, for the sums, their statistics and what follows
#   backward in training: 2 launches, for the gradients of batchnorm and sums; PyTorch's
#   library multiplies for those of input and weight
#   kept for backward in training: the input, 16 x 16 x 16; the sums, 16 x 16 x 32
#   Its kernels are those of region 1.


CONV2_BATCHNORM2_RELU62 = ConvGeometry(
    channels=16,
    filters=32,
    kernel=(1, 1),
    scale="sum",
    activation="output",
    taps="apart",
    backward="library",
)
conv2_batchnorm2_relu62_op = conv_op(
    f"{NAMESPACE}::conv2_batchnorm2_relu62",
    CONV2_BATCHNORM2_RELU62,
    conv_launches,
)


CONV2_BATCHNORM2_RELU62_SUMS = ConvGeometry(
    channels=16,
    filters=32,
    kernel=(1, 1),
    bias=False,
    taps="apart",
    statistics=True,
    backward="library",
)
conv2_batchnorm2_relu62_sums_op = conv_op(
    f"{NAMESPACE}::conv2_batchnorm2_relu62_sums",
    CONV2_BATCHNORM2_RELU62_SUMS,
    conv_launches,
)


CONV2_BATCHNORM2_RELU62_NORM = NormGeometry(channels=32, activation="output")
conv2_batchnorm2_relu62_norm_op = norm_op(
    f"{NAMESPACE}::conv2_batchnorm2_relu62_norm",
    CONV2_BATCHNORM2_RELU62_NORM,
    norm_launches,
)


def conv2_batchnorm2_relu62(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Run region 2: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = conv_weights(conv, CONV2_BATCHNORM2_RELU62_SUMS)
        if weight is not None and is_norm(norm, CONV2_BATCHNORM2_RELU62_NORM):
            if takes_batch(norm):
                z, sums = conv2_batchnorm2_relu62_sums_op(x, weight, bias)
                return conv2_batchnorm2_relu62_norm_op(z, sums, norm)
            scale, shift = scale_and_shift(norm, bias)
            return conv2_batchnorm2_relu62_op(x, weight, shift, scale)
    x = in_layout_for(x, conv, norm)
    is_free = is_unseen(x, conv, norm)
    x = conv_norm(x, conv, norm) if is_free else norm(conv(x))
    return F.relu6(x, inplace=is_free)


# ── region 3: conv3 + batchnorm3 + relu63 ─────────────────────────────────────────────
#               reads 16 x 16 x 32
#   conv3       conv 32 3x3 stride=2 pad=1 groups=32 bias=no           8 x 8 x 32
#               O = ⌊(W − K + 2P)/S⌋ + 1 = ⌊(16 − 3 + 2·1)/2⌋ + 1 = 8
#   batchnorm3  batchnorm                                              8 x 8 x 32
#   relu63      relu6                                                  8 x 8 x 32
#   forward in inference: 1 launch, behind a product of PyTorch's library
#   forward in training: 3 launches, for the sums, their statistics and what follows,
#   behind a product of PyTorch's library
#   backward in training: 2 launches, for the gradients of batchnorm and sums; PyTorch's
#   library multiplies for those of input and weight
#   kept for backward in training: the input, 16 x 16 x 32; the sums, 8 x 8 x 32
#   Its kernels are those of region 1.


CONV3_BATCHNORM3_RELU63 = ConvGeometry(
    channels=32,
    filters=32,
    kernel=(3, 3),
    stride=(2, 2),
    pad=(1, 1),
    groups=32,
    scale="sum",
    activation="output",
    forward="library",
    backward="library",
)
conv3_batchnorm3_relu63_op = conv_op(
    f"{NAMESPACE}::conv3_batchnorm3_relu63",
    CONV3_BATCHNORM3_RELU63,
    conv_launches,
)


CONV3_BATCHNORM3_RELU63_SUMS = ConvGeometry(
    channels=32,
    filters=32,
    kernel=(3, 3),
    stride=(2, 2),
    pad=(1, 1),
    groups=32,
    bias=False,
    statistics=True,
    forward="library",
    backward="library",
)
conv3_batchnorm3_relu63_sums_op = conv_op(
    f"{NAMESPACE}::conv3_batchnorm3_relu63_sums",
    CONV3_BATCHNORM3_RELU63_SUMS,
    conv_launches,
)


CONV3_BATCHNORM3_RELU63_NORM = NormGeometry(channels=32, activation="output")
conv3_batchnorm3_relu63_norm_op = norm_op(
    f"{NAMESPACE}::conv3_batchnorm3_relu63_norm",
    CONV3_BATCHNORM3_RELU63_NORM,
    norm_launches,
)


def conv3_batchnorm3_relu63(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Run region 3: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = conv_weights(conv, CONV3_BATCHNORM3_RELU63_SUMS)
        if weight is not None and is_norm(norm, CONV3_BATCHNORM3_RELU63_NORM):
            if takes_batch(norm):
                z, sums = conv3_batchnorm3_relu63_sums_op(x, weight, bias)
                return conv3_batchnorm3_relu63_norm_op(z, sums, norm)
            scale, shift = scale_and_shift(norm, bias)
            return conv3_batchnorm3_relu63_op(x, weight, shift, scale)
    x = in_layout_for(x, conv, norm)
    is_free = is_unseen(x, conv, norm)
    x = conv_norm(x, conv, norm) if is_free else norm(conv(x))
    return F.relu6(x, inplace=is_free)


# ── region 4: conv4 + batchnorm4 ──────────────────────────────────────────────────────
#               reads 8 x 8 x 32
#   conv4       conv 24 1x1 bias=no                    8 x 8 x 24
#               O = (W − K)/S + 1 = (8 − 1)/1 + 1 = 8
#   batchnorm4  batchnorm                              8 x 8 x 24
#   forward in inference: 1 launch
#   forward in training: 3 launches, for the sums, their statistics and what follows
#   backward in training: 2 launches, for the gradients of batchnorm and sums; PyTorch's
#   library multiplies for those of input and weight
#   kept for backward in training: the input, 8 x 8 x 32; the sums, 8 x 8 x 24
#   Its kernels are those of region 1.


CONV4_BATCHNORM4 = ConvGeometry(
    channels=32,
    filters=24,
    kernel=(1, 1),
    scale="sum",
    taps="apart",
    backward="library",
)
conv4_batchnorm4_op = conv_op(
    f"{NAMESPACE}::conv4_batchnorm4",
    CONV4_BATCHNORM4,
    conv_launches,
)


CONV4_BATCHNORM4_SUMS = ConvGeometry(
    channels=32,
    filters=24,
    kernel=(1, 1),
    bias=False,
    taps="apart",
    statistics=True,
    backward="library",
)
conv4_batchnorm4_sums_op = conv_op(
    f"{NAMESPACE}::conv4_batchnorm4_sums",
    CONV4_BATCHNORM4_SUMS,
    conv_launches,
)


CONV4_BATCHNORM4_NORM = NormGeometry(channels=24)
conv4_batchnorm4_norm_op = norm_op(
    f"{NAMESPACE}::conv4_batchnorm4_norm",
    CONV4_BATCHNORM4_NORM,
    norm_launches,
)


def conv4_batchnorm4(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Run region 4: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = conv_weights(conv, CONV4_BATCHNORM4_SUMS)
        if weight is not None and is_norm(norm, CONV4_BATCHNORM4_NORM):
            if takes_batch(norm):
                z, sums = conv4_batchnorm4_sums_op(x, weight, bias)
                return conv4_batchnorm4_norm_op(z, sums, norm)
            scale, shift = scale_and_shift(norm, bias)
            return conv4_batchnorm4_op(x, weight, shift, scale)
    x = in_layout_for(x, conv, norm)
    is_free = is_unseen(x, conv, norm)
    return conv_norm(x, conv, norm) if is_free else norm(conv(x))


# ── region 5: conv5 + batchnorm5 + relu64 ─────────────────────────────────────────────
#               reads 8 x 8 x 24
#   conv5       conv 48 1x1 bias=no                    8 x 8 x 48
#               O = (W − K)/S + 1 = (8 − 1)/1 + 1 = 8
#   batchnorm5  batchnorm                              8 x 8 x 48
#   relu64      relu6                                  8 x 8 x 48
#   forward in inference: 1 launch
#   forward in training: 3 launches, for the sums, their statistics and what follows
#   backward in training: 2 launches, for the gradients of batchnorm and sums; PyTorch's
#   library multiplies for those of input and weight
#   kept for backward in training: the input, 8 x 8 x 24; the sums, 8 x 8 x 48
#   Its kernels are those of region 1.


CONV5_BATCHNORM5_RELU64 = ConvGeometry(
    channels=24,
    filters=48,
    kernel=(1, 1),
    scale="sum",
    activation="output",
    taps="apart",
    backward="library",
)
conv5_batchnorm5_relu64_op = conv_op(
    f"{NAMESPACE}::conv5_batchnorm5_relu64",
    CONV5_BATCHNORM5_RELU64,
    conv_launches,
)


CONV5_BATCHNORM5_RELU64_SUMS = ConvGeometry(
    channels=24,
    filters=48,
    kernel=(1, 1),
    bias=False,
    taps="apart",
    statistics=True,
    backward="library",
)
conv5_batchnorm5_relu64_sums_op = conv_op(
    f"{NAMESPACE}::conv5_batchnorm5_relu64_sums",
    CONV5_BATCHNORM5_RELU64_SUMS,
    conv_launches,
)


CONV5_BATCHNORM5_RELU64_NORM = NormGeometry(channels=48, activation="output")
conv5_batchnorm5_relu64_norm_op = norm_op(
    f"{NAMESPACE}::conv5_batchnorm5_relu64_norm",
    CONV5_BATCHNORM5_RELU64_NORM,
    norm_launches,
)


def conv5_batchnorm5_relu64(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Run region 5: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = conv_weights(conv, CONV5_BATCHNORM5_RELU64_SUMS)
        if weight is not None and is_norm(norm, CONV5_BATCHNORM5_RELU64_NORM):
            if takes_batch(norm):
                z, sums = conv5_batchnorm5_relu64_sums_op(x, weight, bias)
                return conv5_batchnorm5_relu64_norm_op(z, sums, norm)
            scale, shift = scale_and_shift(norm, bias)
            return conv5_batchnorm5_relu64_op(x, weight, shift, scale)
    x = in_layout_for(x, conv, norm)
    is_free = is_unseen(x, conv, norm)
    x = conv_norm(x, conv, norm) if is_free else norm(conv(x))
    return F.relu6(x, inplace=is_free)


# ── region 6: conv6 + batchnorm6 + relu65 ─────────────────────────────────────────────
#               reads 8 x 8 x 48
#   conv6       conv 48 3x3 pad=1 groups=48 bias=no               8 x 8 x 48
#               O = (W − K + 2P)/S + 1 = (8 − 3 + 2·1)/1 + 1 = 8
#   batchnorm6  batchnorm                                         8 x 8 x 48
#   relu65      relu6                                             8 x 8 x 48
#   forward in inference: 1 launch, behind a product of PyTorch's library
#   forward in training: 3 launches, for the sums, their statistics and what follows,
#   behind a product of PyTorch's library
#   backward in training: 2 launches, for the gradients of batchnorm and sums; PyTorch's
#   library multiplies for those of input and weight
#   kept for backward in training: the input, 8 x 8 x 48; the sums, 8 x 8 x 48
#   Its kernels are those of region 1.


CONV6_BATCHNORM6_RELU65 = ConvGeometry(
    channels=48,
    filters=48,
    kernel=(3, 3),
    pad=(1, 1),
    groups=48,
    scale="sum",
    activation="output",
    forward="library",
    backward="library",
)
conv6_batchnorm6_relu65_op = conv_op(
    f"{NAMESPACE}::conv6_batchnorm6_relu65",
    CONV6_BATCHNORM6_RELU65,
    conv_launches,
)


CONV6_BATCHNORM6_RELU65_SUMS = ConvGeometry(
    channels=48,
    filters=48,
    kernel=(3, 3),
    pad=(1, 1),
    groups=48,
    bias=False,
    statistics=True,
    forward="library",
    backward="library",
)
conv6_batchnorm6_relu65_sums_op = conv_op(
    f"{NAMESPACE}::conv6_batchnorm6_relu65_sums",
    CONV6_BATCHNORM6_RELU65_SUMS,
    conv_launches,
)


CONV6_BATCHNORM6_RELU65_NORM = NormGeometry(channels=48, activation="output")
conv6_batchnorm6_relu65_norm_op = norm_op(
    f"{NAMESPACE}::conv6_batchnorm6_relu65_norm",
    CONV6_BATCHNORM6_RELU65_NORM,
    norm_launches,
)


def conv6_batchnorm6_relu65(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Run region 6: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = conv_weights(conv, CONV6_BATCHNORM6_RELU65_SUMS)
        if weight is not None and is_norm(norm, CONV6_BATCHNORM6_RELU65_NORM):
            if takes_batch(norm):
                z, sums = conv6_batchnorm6_relu65_sums_op(x, weight, bias)
                return conv6_batchnorm6_relu65_norm_op(z, sums, norm)
            scale, shift = scale_and_shift(norm, bias)
            return conv6_batchnorm6_relu65_op(x, weight, shift, scale)
    x = in_layout_for(x, conv, norm)
    is_free = is_unseen(x, conv, norm)
    x = conv_norm(x, conv, norm) if is_free else norm(conv(x))
    return F.relu6(x, inplace=is_free)


# ── region 7: conv7 + batchnorm7 + add1 ───────────────────────────────────────────────
#               reads 8 x 8 x 48
#   conv7       conv 24 1x1 bias=no                    8 x 8 x 24
#               O = (W − K)/S + 1 = (8 − 1)/1 + 1 = 8
#   batchnorm7  batchnorm                              8 x 8 x 24
#   add1        add                                    8 x 8 x 24
#   forward in inference: 1 launch
#   forward in training: 3 launches, for the sums, their statistics and what follows
#   backward in training: 2 launches, for the gradients of batchnorm and sums; PyTorch's
#   library multiplies for those of input and weight
#   kept for backward in training: the input, 8 x 8 x 48; the sums, 8 x 8 x 24
#   Its kernels are those of region 1.


CONV7_BATCHNORM7_ADD1 = ConvGeometry(
    channels=48,
    filters=24,
    kernel=(1, 1),
    scale="sum",
    residual=True,
    taps="apart",
    backward="library",
)
conv7_batchnorm7_add1_op = conv_op(
    f"{NAMESPACE}::conv7_batchnorm7_add1",
    CONV7_BATCHNORM7_ADD1,
    conv_launches,
)


CONV7_BATCHNORM7_ADD1_SUMS = ConvGeometry(
    channels=48,
    filters=24,
    kernel=(1, 1),
    bias=False,
    taps="apart",
    statistics=True,
    backward="library",
)
conv7_batchnorm7_add1_sums_op = conv_op(
    f"{NAMESPACE}::conv7_batchnorm7_add1_sums",
    CONV7_BATCHNORM7_ADD1_SUMS,
    conv_launches,
)


CONV7_BATCHNORM7_ADD1_NORM = NormGeometry(channels=24, residual=True)
conv7_batchnorm7_add1_norm_op = norm_op(
    f"{NAMESPACE}::conv7_batchnorm7_add1_norm",
    CONV7_BATCHNORM7_ADD1_NORM,
    norm_launches,
)


def conv7_batchnorm7_add1(
    x: Tensor,
    residual: Tensor,
    conv: nn.Conv2d,
    norm: nn.BatchNorm2d,
) -> Tensor:
    """Run region 7: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = conv_weights(conv, CONV7_BATCHNORM7_ADD1_SUMS)
        if weight is not None and is_norm(norm, CONV7_BATCHNORM7_ADD1_NORM):
            if takes_batch(norm):
                z, sums = conv7_batchnorm7_add1_sums_op(x, weight, bias)
                return conv7_batchnorm7_add1_norm_op(z, sums, norm, residual)
            scale, shift = scale_and_shift(norm, bias)
            return conv7_batchnorm7_add1_op(x, weight, shift, scale, residual=residual)
    x = in_layout_for(x, conv, norm)
    is_free = is_unseen(x, conv, norm)
    x = conv_norm(x, conv, norm) if is_free else norm(conv(x))
    return x.add_(residual) if is_free else x + residual


# ── region 8: conv8 + pool1 + batchnorm8 + gelu1 ──────────────────────────────────────
#               reads 8 x 8 x 24
#   conv8       conv 64 1x1 bias=no                    8 x 8 x 64
#               O = (W − K)/S + 1 = (8 − 1)/1 + 1 = 8
#   pool1       pool max 2                             4 x 4 x 64
#               O = (W − K)/S + 1 = (8 − 2)/2 + 1 = 4
#   batchnorm8  batchnorm                              4 x 4 x 64
#   gelu1       gelu                                   4 x 4 x 64
#   forward in inference: 1 launch
#   forward in training: 3 launches, for the sums, their statistics and what follows
#   backward in training: 3 launches, for the gradients of batchnorm, sums and
#   convolution; PyTorch's library multiplies for those of input and weight
#   kept for backward in training: the input, 8 x 8 x 24; the sums, 4 x 4 x 64; a byte
#   an output (which pixel of the window won), 4 x 4 x 64
#   The rest of its kernels are those of region 1.


@triton.jit
def conv_max2_scale_gelu_activation(z):
    """Apply gelu."""
    return 0.5 * z * (1 + tl.erf(z * 0.7071067811865476))


@triton.jit
def conv_max2_scale_gelu_shifted(
    y,
    bias_ptr,
    scale_ptr,
    filter,
    filter_mask,
):
    """Do all that comes between the pool, or the sum, and the activation."""
    y *= conv_each(scale_ptr, filter, filter_mask).to(y.dtype)
    y += conv_each(bias_ptr, filter, filter_mask).to(y.dtype)
    return y


@triton.jit
def conv_max2_scale_gelu_products(
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
def conv_max2_scale_gelu_sum(
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
    return conv_max2_scale_gelu_products(
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
def conv_max2_scale_gelu_quads(
    z,
    T: tl.constexpr,
):
    """Pool a tile over 2x2 windows, in registers; also say which pixel won, or which are alive."""
    ROWS: tl.constexpr = T.rows
    COLUMNS: tl.constexpr = T.columns
    code = tl.full((ROWS, COLUMNS // 4), 1, tl.int32)
    y, b, c, d = conv_corners(z, ROWS, COLUMNS)
    code = tl.where(is_better(b, y), 2, code)
    y = tl.where(is_better(b, y), b, y)
    code = tl.where(is_better(c, y), 3, code)
    y = tl.where(is_better(c, y), c, y)
    code = tl.where(is_better(d, y), 4, code)
    y = tl.where(is_better(d, y), d, y)
    return y, code


@triton.jit(do_not_specialize=COUNTS)
def conv_max2_scale_gelu_forward(
    x_ptr,  # [batch, height, width, C.channels]
    weight_ptr,  # [C.filters, *C.kernel, C.channels // C.groups]
    bias_ptr,  # [C.filters]
    scale_ptr,  # [C.filters]
    y_ptr,  # [batch, out_height, out_width, C.filters]
    winner_ptr,  # like y: 0 = no gradient, 1 + position in the window of the pixel that won
    before_ptr,  # like y: what the activation was given
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
    y = conv_max2_scale_gelu_sum(
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
    pooled = conv_max2_scale_gelu_quads(
        z=y,
        T=T,
    )
    y = pooled[0]
    window = tile * (COLUMNS // 4) + tl.arange(0, COLUMNS // 4)
    window_mask = window < batch * out_height * out_width
    offset = window.to(tl.int64)[None, :] * C.filters + filter[:, None]
    mask = filter_mask[:, None] & window_mask[None, :]
    # Bias and a rising activation change no order, so they wait until the best is known.
    y = conv_max2_scale_gelu_shifted(
        y=y,
        bias_ptr=bias_ptr,
        scale_ptr=scale_ptr,
        filter=filter,
        filter_mask=filter_mask,
    )
    code = pooled[1]
    tl.store(winner_ptr + offset, code.to(winner_ptr.dtype.element_ty), mask=mask)
    tl.store(before_ptr + offset, y.to(before_ptr.dtype.element_ty), mask=mask)
    y = conv_max2_scale_gelu_activation(y)
    rounded = y.to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + offset, rounded, mask=mask)


def conv_max2_scale_gelu_forward_tile(
    geometry: ConvGeometry,
    x: Tensor,
    precision: str,
) -> Tile:
    """Choose filters x pixels, and terms a step, by what compiles without spills."""
    filters = geometry.filters // geometry.groups
    terms = geometry.channels // geometry.groups
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
    if filters > 64 and terms >= 64:
        return Tile(128, 128, 64, 8, 3)
    most = 64 if geometry.taps == "apart" and geometry.stride == (1, 1) else 32
    return Tile(block_size(filters, 64), 128, block_size(terms, most), 4, 3)


def conv_max2_scale_gelu_launch_windows(geometry: ConvGeometry, x: Tensor) -> int:
    """Say how many windows (pixels, where nothing is pooled) a program of forward computes."""
    tile = conv_max2_scale_gelu_forward_tile(geometry, x, conv_precision(x))
    return tile.columns // 4


def conv_max2_scale_gelu_launch_forward(
    geometry: ConvGeometry,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    _residual: Tensor | None,
    outputs: ConvOutputs,
) -> None:
    """Launch the forward kernel, which fills y and all that is kept beside it."""
    sizes = conv_sizes(geometry, x.shape[2], x.shape[3])
    precision = conv_precision(x)
    tile = conv_max2_scale_gelu_forward_tile(geometry, x, precision)
    windows = x.shape[0] * sizes.out_height * sizes.out_width
    height, width = sizes.height, sizes.width
    groups = geometry.forward_groups
    blocks = groups * count_blocks(geometry.filters // groups, tile.rows)
    programs = blocks * count_blocks(
        windows,
        conv_max2_scale_gelu_launch_windows(geometry, x),
    )
    refuse_launch(x, programs, 4 * windows)
    launch(
        conv_max2_scale_gelu_forward,
        programs,
        x_ptr=channels_last(x),
        weight_ptr=channels_last(weight),
        bias_ptr=bias,
        scale_ptr=scale,
        y_ptr=outputs.y,
        winner_ptr=outputs.code,
        before_ptr=outputs.before,
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
def conv_max2_scale_gelu_activation_gradient(saved, gradient):
    """Take a gradient back through gelu."""
    return tl.fma(
        gradient * saved * 0.3989422804014327,
        tl.exp(-0.5 * saved * saved),
        gradient * (0.5 + 0.5 * tl.erf(saved * 0.7071067811865476)),
    )


@triton.jit
def conv_max2_scale_gelu_rebuilt(
    gradient_ptr,
    winner_ptr,
    saved_ptr,
    offset,
    mask,
    position,
):
    """Rebuild a tile of the gradient before the pool: what windows give to one position in each.

    An average gives a share of it: that division is left to the caller.
    """
    gradient = tl.load(gradient_ptr + offset, mask=mask, other=0.0)
    saved = full(tl.load(saved_ptr + offset, mask=mask, other=0.0))
    gradient = conv_max2_scale_gelu_activation_gradient(saved, full(gradient))
    # Only now: the slope is that of the pixel that won. Where it is NaN, the others still get 0.
    winner = tl.load(winner_ptr + offset, mask=mask, other=0).to(tl.int32)
    gradient = tl.where(winner == position + 1, gradient, 0.0)
    return gradient.to(gradient_ptr.dtype.element_ty)


@triton.jit(do_not_specialize=COUNTS)
def conv_max2_scale_gelu_unpool(
    gradient_ptr,  # [batch, out_height, out_width, C.filters]
    winner_ptr,  # like the gradient, written by the forward kernel
    saved_ptr,
    dz_ptr,  # [batch, conv_height, conv_width, C.filters]
    partial_ptr,  # [splits, C.filters]
    splits,
    batch,
    conv_height: tl.constexpr,  # before the pool
    conv_width: tl.constexpr,
    out_height: tl.constexpr,  # after it
    out_width: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
):
    """Compute the gradient of some pixels, and its sum over them: a part of the bias's."""
    ROWS: tl.constexpr = T.rows
    COLUMNS: tl.constexpr = T.columns
    FILTER_BLOCKS: tl.constexpr = (C.filters + COLUMNS - 1) // COLUMNS
    filter = tl.program_id(0) % FILTER_BLOCKS * COLUMNS + tl.arange(0, COLUMNS)
    filter_mask = filter < C.filters
    split = tl.program_id(0) // FILTER_BLOCKS
    # The pixels of a tile have one phase: row and column, with the padding, modulo the strides. So
    # their positions in windows are scalars.
    PHASES: tl.constexpr = C.pool_stride[0] * C.pool_stride[1]
    STRIDE: tl.constexpr = C.pool_stride
    cell_rows = (conv_height + C.pool_pad[0] + STRIDE[0] - 1) // STRIDE[0]
    cell_columns = (conv_width + C.pool_pad[1] + STRIDE[1] - 1) // STRIDE[1]
    cells = batch * cell_rows * cell_columns
    blocks = tl.cdiv(cells, ROWS) * PHASES
    first = split * tl.cdiv(blocks, splits)
    last = tl.minimum(first + tl.cdiv(blocks, splits), blocks)
    total = tl.zeros((ROWS, COLUMNS), partial_ptr.dtype.element_ty)
    for step in range(first, last):
        phase_row = step % PHASES // C.pool_stride[1]
        phase_column = step % C.pool_stride[1]
        cell = step // PHASES * ROWS + tl.arange(0, ROWS)
        image, cell_row, cell_column = pixel_place(cell, cell_rows, cell_columns)
        row = cell_row * C.pool_stride[0] + phase_row - C.pool_pad[0]
        column = cell_column * C.pool_stride[1] + phase_column - C.pool_pad[1]
        pixel_mask = (cell < cells) & (row >= 0) & (row < conv_height)
        pixel_mask &= (column >= 0) & (column < conv_width)
        dz = tl.zeros((ROWS, COLUMNS), partial_ptr.dtype.element_ty)
        for turn in range(C.windows[0] * C.windows[1]):
            # A window that may hold the pixels, and how far into it they lie.
            window_row = cell_row - turn // C.windows[1]
            window_column = cell_column - turn % C.windows[1]
            down = phase_row + turn // C.windows[1] * C.pool_stride[0]
            right = phase_column + turn % C.windows[1] * C.pool_stride[1]
            fits = (down % C.pool_dilation[0] == 0) & (right % C.pool_dilation[1] == 0)
            down = down // C.pool_dilation[0]
            right = right // C.pool_dilation[1]
            if fits & (down < C.pool_size[0]) & (right < C.pool_size[1]):
                holds = pixel_mask & (window_row >= 0) & (window_row < out_height)
                holds &= (window_column >= 0) & (window_column < out_width)
                window = (image * out_height + window_row) * out_width + window_column
                gradient = conv_max2_scale_gelu_rebuilt(
                    gradient_ptr=gradient_ptr,
                    winner_ptr=winner_ptr,
                    saved_ptr=saved_ptr,
                    offset=(window * C.filters)[:, None] + filter[None, :],
                    mask=holds[:, None] & filter_mask[None, :],
                    position=down * C.pool_size[1] + right,
                )
                gradient = full(gradient)
                dz += gradient
        pixel = (image * conv_height + row) * conv_width + column
        tl.store(
            dz_ptr + pixel[:, None] * C.filters + filter[None, :],
            dz.to(dz_ptr.dtype.element_ty),
            mask=pixel_mask[:, None] & filter_mask[None, :],
        )
        total += dz
    tl.store(
        partial_ptr + split.to(tl.int64) * C.filters + filter,
        tl.sum(total, axis=0),
        mask=filter_mask,
    )


def conv_max2_scale_gelu_launch_unpool(
    geometry: ConvGeometry,
    gradient: Tensor,
    code: Tensor,
    saved: Tensor | None,
    dz: Tensor,
) -> Tensor:
    """Launch the kernel that fills dz, and give parts of the bias's gradient, in float32."""
    pixels = dz.shape[0] * dz.shape[2] * dz.shape[3]
    # Where slopes are read, too: of float32, half as many.
    has_slopes = geometry.activation in ("output", "input")
    rows = 16 if has_slopes and dz.element_size() >= 4 else 32
    tile = Tile(rows, block_size(geometry.filters, 64), 1, 4, 3)
    programs = count_blocks(geometry.filters, tile.columns)
    splits = split_count(programs, count_blocks(pixels, tile.rows), 2048)
    refuse_launch(dz, programs * splits, pixels)
    partial = allocated(dz.new_empty((splits, geometry.filters), dtype=full_dtype(dz)))
    launch(
        conv_max2_scale_gelu_unpool,
        programs * splits,
        gradient_ptr=gradient,
        winner_ptr=code,
        saved_ptr=saved,
        dz_ptr=dz,
        partial_ptr=partial,
        splits=splits,
        batch=dz.shape[0],
        conv_height=dz.shape[2],
        conv_width=dz.shape[3],
        out_height=gradient.shape[2],
        out_width=gradient.shape[3],
        C=geometry,
        T=tile,
        num_warps=tile.warps,
    )
    return partial


conv_max2_scale_gelu_launches = ConvLaunches(
    forward=conv_max2_scale_gelu_launch_forward,
    unpool=conv_max2_scale_gelu_launch_unpool,
    activation=F.gelu,
)


@triton.jit
def norm_gelu_activation(z):
    """Apply gelu."""
    return 0.5 * z * (1 + tl.erf(z * 0.7071067811865476))


@triton.jit(do_not_specialize=COUNTS)
def norm_gelu_forward(
    z_ptr,  # [batch, height, width, C.channels]
    mean_ptr,  # [C.channels]
    inverse_ptr,  # [C.channels]: 1 / √(variance + eps)
    weight_ptr,  # [C.channels]
    bias_ptr,  # [C.channels]
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
    y = norm_gelu_activation(y)
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=mask)


def norm_gelu_launch_forward(
    geometry: NormGeometry,
    z: Tensor,
    mean: Tensor,
    inverse: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    _residual: Tensor | None,
    y: Tensor,
    _winner: Tensor,
) -> None:
    """Launch the kernel that fills y and winner."""
    out_height, out_width = norm_sizes(geometry, z.shape[2], z.shape[3])
    windows = z.shape[0] * out_height * out_width
    rows = 16 if z.element_size() == 8 else 32
    tile = Tile(rows, block_size(geometry.channels, 64), 1, 4, 3)
    programs = count_blocks(windows, tile.rows)
    programs *= count_blocks(geometry.channels, tile.columns)
    refuse_launch(z, programs, z.shape[0] * z.shape[2] * z.shape[3])
    launch(
        norm_gelu_forward,
        programs,
        z_ptr=channels_last(z),
        mean_ptr=mean,
        inverse_ptr=inverse,
        weight_ptr=weight,
        bias_ptr=bias,
        y_ptr=y,
        batch=z.shape[0],
        out_height=out_height,
        out_width=out_width,
        C=geometry,
        T=tile,
        num_warps=tile.warps,
    )


@triton.jit
def norm_gelu_activation_gradient(saved, gradient):
    """Take a gradient back through gelu."""
    return tl.fma(
        gradient * saved * 0.3989422804014327,
        tl.exp(-0.5 * saved * saved),
        gradient * (0.5 + 0.5 * tl.erf(saved * 0.7071067811865476)),
    )


@triton.jit
def norm_gelu_blocked(
    gradient,
    normal,
    weight_ptr,
    bias_ptr,
    channel,
    channel_mask,
):
    """Take a gradient back through the activation, of which the input is computed anew."""
    saved = normal
    weight, bias = norm_affine(weight_ptr, bias_ptr, channel, channel_mask)
    saved = saved * weight + bias
    return norm_gelu_activation_gradient(saved, gradient)


@triton.jit(do_not_specialize=COUNTS)
def norm_gelu_gradient_sums(
    gradient_ptr,  # [batch, out_height, out_width, C.channels]
    z_ptr,  # [batch, height, width, C.channels]
    mean_ptr,  # [C.channels]
    inverse_ptr,  # [C.channels]
    weight_ptr,  # [C.channels]
    bias_ptr,  # [C.channels]
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
        gradient = norm_gelu_blocked(
            gradient=gradient,
            normal=normal,
            weight_ptr=weight_ptr,
            bias_ptr=bias_ptr,
            channel=channel,
            channel_mask=channel_mask,
        )
        # A masked lane holds no gradient, but its value need not be a number.
        dbias += tl.where(mask, gradient, 0.0)
        dweight += tl.where(mask, gradient * normal, 0.0)
    place = partial_ptr + split.to(tl.int64) * (2 * C.channels) + channel
    tl.store(place, tl.sum(dbias, axis=0), mask=channel_mask)
    tl.store(place + C.channels, tl.sum(dweight, axis=0), mask=channel_mask)


def norm_gelu_launch_gradient_sums(
    geometry: NormGeometry,
    gradient: Tensor,
    _winner: Tensor,
    z: Tensor,
    mean: Tensor,
    inverse: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    _residual: Tensor | None,
    _dresidual: Tensor,
) -> Tensor:
    """Launch the first pass: parts of the gradients of bias and weight, [parts, 2, channels].

    Where there is a residual and an activation, it fills `dresidual`.
    """
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
        norm_gelu_gradient_sums,
        programs * splits,
        gradient_ptr=gradient,
        z_ptr=channels_last(z),
        mean_ptr=mean,
        inverse_ptr=inverse,
        weight_ptr=weight,
        bias_ptr=bias,
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
def norm_gelu_input_gradient(
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
    gradient = norm_gelu_blocked(
        gradient=gradient,
        normal=normal,
        weight_ptr=weight_ptr,
        bias_ptr=bias_ptr,
        channel=channel,
        channel_mask=channel_mask,
    )
    values = batch * height * width
    dbias = tl.load(sums_ptr + channel, mask=channel_mask, other=0.0) / values
    sums_ptr += C.channels
    dweight = tl.load(sums_ptr + channel, mask=channel_mask, other=0.0) / values
    dz = (gradient - dbias[None, :] - normal * dweight[None, :]) * inverse
    weight, _ = norm_affine(weight_ptr, bias_ptr, channel, channel_mask)
    dz *= weight
    tl.store(dz_ptr + offset, dz.to(dz_ptr.dtype.element_ty), mask=mask)


def norm_gelu_launch_input_gradient(
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
        norm_gelu_input_gradient,
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


norm_gelu_launches = NormLaunches(
    statistics=norm_launch_statistics,
    forward=norm_gelu_launch_forward,
    gradient_sums=norm_gelu_launch_gradient_sums,
    input_gradient=norm_gelu_launch_input_gradient,
    activation=F.gelu,
)


CONV8_POOL1_BATCHNORM8_GELU1 = ConvGeometry(
    channels=24,
    filters=64,
    kernel=(1, 1),
    scale="pool",
    activation="input",
    pool="max",
    pool_size=(2, 2),
    pool_stride=(2, 2),
    window="quad",
    taps="apart",
    backward="library",
)
conv8_pool1_batchnorm8_gelu1_op = conv_op(
    f"{NAMESPACE}::conv8_pool1_batchnorm8_gelu1",
    CONV8_POOL1_BATCHNORM8_GELU1,
    conv_max2_scale_gelu_launches,
)


CONV8_POOL1_BATCHNORM8_GELU1_SUMS = ConvGeometry(
    channels=24,
    filters=64,
    kernel=(1, 1),
    bias=False,
    pool="max",
    pool_size=(2, 2),
    pool_stride=(2, 2),
    window="quad",
    taps="apart",
    statistics=True,
    backward="library",
)
conv8_pool1_batchnorm8_gelu1_sums_op = conv_op(
    f"{NAMESPACE}::conv8_pool1_batchnorm8_gelu1_sums",
    CONV8_POOL1_BATCHNORM8_GELU1_SUMS,
    conv_launches,
)


CONV8_POOL1_BATCHNORM8_GELU1_NORM = NormGeometry(channels=64, activation="input")
conv8_pool1_batchnorm8_gelu1_norm_op = norm_op(
    f"{NAMESPACE}::conv8_pool1_batchnorm8_gelu1_norm",
    CONV8_POOL1_BATCHNORM8_GELU1_NORM,
    norm_gelu_launches,
)


def conv8_pool1_batchnorm8_gelu1(
    x: Tensor,
    conv: nn.Conv2d,
    norm: nn.BatchNorm2d,
) -> Tensor:
    """Run region 8: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = conv_weights(conv, CONV8_POOL1_BATCHNORM8_GELU1_SUMS)
        if weight is not None and is_norm(norm, CONV8_POOL1_BATCHNORM8_GELU1_NORM):
            if takes_batch(norm):
                z, sums = conv8_pool1_batchnorm8_gelu1_sums_op(x, weight, bias)
                return conv8_pool1_batchnorm8_gelu1_norm_op(z, sums, norm)
            scale, shift = scale_and_shift(norm, bias)
            return conv8_pool1_batchnorm8_gelu1_op(x, weight, shift, scale)
    x = in_layout_for(x, conv, norm)
    x = conv(x)
    x = max_pool2(x)
    x = norm(x)
    return F.gelu(x)


# ── region 9: fc1 ─────────────────────────────────────────────────────────────────────
#        reads 64
#   fc1  fc 10     10
#   forward: 1 launch
#   backward: 3 launches, for the gradients of input, weight and bias
#   kept for backward: the input, 64
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


FC1 = FcGeometry(features=64, outputs=10)
fc1_op = fc_op(f"{NAMESPACE}::fc1", FC1, fc_launches)


def fc1(x: Tensor, linear: nn.Linear) -> Tensor:
    """Run region 9: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = fc_weights(linear, FC1)
        if weight is not None and x.shape[1:] == fc_shape(FC1):
            return fc1_op(x, weight, bias)
    return linear(x)
