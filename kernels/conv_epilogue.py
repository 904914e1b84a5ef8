"""What happens to a tile of sums before it is written: scale, bias and activation."""

import triton
import triton.language as tl

# ── holes: the emitter puts the region's own functions here ─────────────────────────────────────


@triton.jit
def conv_activation(z):
    """Apply ReLU; NaN passes."""
    return tl.where(z <= 0, 0.0, z)


# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


@triton.jit
def conv_each(vector_ptr, filter, filter_mask):
    """Read a value for each filter, to go with a tile of filters by pixels."""
    return tl.load(vector_ptr + filter, mask=filter_mask, other=0.0)[:, None]


@triton.jit
def conv_shifted(
    y,
    bias_ptr,
    scale_ptr,
    residual_ptr,
    offset,
    mask,
    filter,
    filter_mask,
    C: tl.constexpr,
):
    """Do all that comes between the pool, or the sum, and the activation."""
    if C.scale == "pool":
        y *= conv_each(scale_ptr, filter, filter_mask).to(y.dtype)
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
    tl.store(place + 2 * C.filters, tl.sum(distance * distance, axis=1), mask=filter_mask)
