"""Batchnorm in training, backward, first pass: the gradients of bias and weight.

With n = (z − mean) · inverse and g the gradient of n · weight + bias, over the N values of a
channel: the bias has Σ g, the weight Σ g·n. Sums are split over programs and added in a fixed
order.
"""

import triton
import triton.language as tl
from torch import Tensor

from cnndsl.rt.module import full_dtype
from cnndsl.rt.norm_operator import NormGeometry, norm_sizes
from cnndsl.rt.shared import (
    COUNTS,
    Tile,
    allocated,
    block_size,
    channels_last,
    count_blocks,
    full,
    launch,
    refuse_launch,
    split_count,
)

from .norm import norm_channel, norm_normal
from .norm_rebuild import norm_blocked, norm_unpooled

# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


@triton.jit(do_not_specialize=COUNTS)
def norm_gradient_sums(
    gradient_ptr,  # [batch, out_height, out_width, C.channels]
    winner_ptr,  # like the gradient, written by the forward kernel
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
    out_height: tl.constexpr,  # after the pool
    out_width: tl.constexpr,
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
        if C.pool == "none":
            gradient = full(tl.load(gradient_ptr + offset, mask=mask, other=0.0))
        else:
            gradient = norm_unpooled(
                gradient_ptr=gradient_ptr,
                winner_ptr=winner_ptr,
                pixel=pixel,
                pixel_mask=pixel_mask,
                channel=channel,
                channel_mask=channel_mask,
                height=height,
                width=width,
                out_height=out_height,
                out_width=out_width,
                C=C,
                T=T,
            )
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


# ── launches ────────────────────────────────────────────────────────────────────────────────────


def norm_launch_gradient_sums(
    geometry: NormGeometry,
    gradient: Tensor,
    winner: Tensor,
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
    out_height, out_width = norm_sizes(geometry, z.shape[2], z.shape[3])
    pixels = z.shape[0] * z.shape[2] * z.shape[3]
    rows = 16 if z.element_size() == 8 else 32
    tile = Tile(rows, block_size(geometry.channels, 64), 1, 4, 3)
    programs = count_blocks(geometry.channels, tile.columns)
    splits = split_count(programs, count_blocks(pixels, tile.rows))
    refuse_launch(z, programs * splits, pixels)
    partial = allocated(z.new_empty((splits, 2, geometry.channels), dtype=full_dtype(z)))
    launch(
        norm_gradient_sums,
        programs * splits,
        gradient_ptr=gradient,
        winner_ptr=winner,
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
        out_height=out_height,
        out_width=out_width,
        C=geometry,
        T=tile,
        num_warps=tile.warps,
    )
    return partial
