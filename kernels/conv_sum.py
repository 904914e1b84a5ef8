"""The sums of a convolution.

Images lie in memory as [batch, height, width, channels], weights as [filters, kernel height, kernel
width, channels of a group]. A tile's rows are filters and its columns are pixels of the
convolution; it is one matrix product over the terms (kernel row, kernel column, channel) of the
sum.
"""

import triton
import triton.language as tl

from cnndsl.rt.shared import full

from .conv_epilogue import conv_each


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
    if C.taps != "rows":
        row -= C.pad[0]
        column -= C.pad[1]
    x_ptr += ((image * height + row) * width + column) * VALUES
    x_ptr += group * GROUP_CHANNELS
    weight_ptr += filter * TERMS
    if C.taps == "rows":
        # One step takes a row of the filter: a run of memory, in which no value is out of bounds.
        place = tl.arange(0, T.terms)
        right = place // 4
        channel = place % 4
        x_mask = pixel_mask[None, :] & (right < C.kernel[1])[:, None]
        weight_mask = filter_mask[:, None] & (right < C.kernel[1])[None, :]
        weight_mask &= (channel < C.channels)[None, :]
        for down in range(C.kernel[0]):
            offset = down * (width * 4) + place
            x = tl.load(x_ptr[None, :] + offset[:, None], mask=x_mask, other=0.0)
            term = (down * C.kernel[1] + right) * C.channels + channel
            weight = tl.load(weight_ptr[:, None] + term[None, :], mask=weight_mask, other=0.0)
            total = tl.dot(
                weight,
                x,
                total,
                input_precision=PRECISION,
                out_dtype=total.dtype,
            )
    elif C.taps == "packed":
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
            weight = tl.load(weight_ptr[:, None] + term[None, :], mask=weight_mask, other=0.0)
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
            weight = tl.load(weight_ptr[:, None] + term[None, :], mask=weight_mask, other=0.0)
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
