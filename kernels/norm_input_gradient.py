"""Batchnorm in training, backward, second pass: the gradient of what it was given.

It is inverse · weight · (g − Σ g/N − n · Σ g·n/N), with the sums of the first pass: each value
moves the mean and the variance too.
"""

import triton
import triton.language as tl
from torch import Tensor

from cnndsl.rt.norm_operator import NormGeometry, norm_sizes
from cnndsl.rt.shared import (
    COUNTS,
    Tile,
    block_size,
    channels_last,
    count_blocks,
    full,
    launch,
    refuse_launch,
)

from .norm import norm_affine, norm_channel, norm_normal
from .norm_rebuild import norm_blocked, norm_unpooled

# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


@triton.jit(do_not_specialize=COUNTS)
def norm_input_gradient(
    gradient_ptr,  # [batch, out_height, out_width, C.channels]
    winner_ptr,  # like the gradient, written by the forward kernel
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
    out_height: tl.constexpr,  # after the pool
    out_width: tl.constexpr,
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
    if C.affine:
        weight, _ = norm_affine(weight_ptr, bias_ptr, channel, channel_mask)
        dz *= weight
    tl.store(dz_ptr + offset, dz.to(dz_ptr.dtype.element_ty), mask=mask)


# ── launches ────────────────────────────────────────────────────────────────────────────────────


def norm_launch_input_gradient(
    geometry: NormGeometry,
    gradient: Tensor,
    winner: Tensor,
    z: Tensor,
    mean: Tensor,
    inverse: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    sums: Tensor,
    dz: Tensor,
) -> None:
    """Launch the second pass, which fills dz."""
    out_height, out_width = norm_sizes(geometry, z.shape[2], z.shape[3])
    pixels = z.shape[0] * z.shape[2] * z.shape[3]
    tile = Tile(32, block_size(geometry.channels, 64), 1, 4, 3)
    programs = count_blocks(pixels, tile.rows)
    programs *= count_blocks(geometry.channels, tile.columns)
    refuse_launch(z, programs, pixels)
    launch(
        norm_input_gradient,
        programs,
        gradient_ptr=gradient,
        winner_ptr=winner,
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
        out_height=out_height,
        out_width=out_width,
        C=geometry,
        T=tile,
        num_warps=tile.warps,
    )
