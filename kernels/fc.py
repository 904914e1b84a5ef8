"""Kernels of a fully connected layer, forward: x · weightᵀ + bias and its activation.

Matrices lie in memory by rows: x [batch, features], weight [outputs, features].
"""

import triton
import triton.language as tl
from torch import Tensor

from cnndsl.rt.fc_operator import FcGeometry, fc_precision
from cnndsl.rt.shared import (
    COUNTS,
    Tile,
    block_size,
    count_blocks,
    full,
    launch,
    measured_tile,
    refuse_launch,
)

# ── holes: the emitter puts the region's own functions here ─────────────────────────────────────


@triton.jit
def fc_activation(z):
    """Apply ReLU; NaN passes."""
    return tl.where(z <= 0, 0.0, z)


# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


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
    input_ptr,  # like y: what the activation was given
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
    if C.bias:
        bias = tl.load(bias_ptr + output, mask=output_mask, other=0.0)
        y += bias.to(y.dtype)[None, :]
    if C.activation == "input":
        tl.store(input_ptr + offset, y.to(input_ptr.dtype.element_ty), mask=mask)
    if C.activation != "none":
        y = fc_activation(y)
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=COUNTS)
def fc_activate(
    z_ptr,  # [batch, C.outputs]: what a library multiplied
    y_ptr,  # [batch, C.outputs]
    batch,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute y = activation(z)."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = place < batch.to(tl.int64) * C.outputs
    y = fc_activation(full(tl.load(z_ptr + place, mask=mask, other=0.0)))
    tl.store(y_ptr + place, y.to(y_ptr.dtype.element_ty), mask=mask)


# ── launches ────────────────────────────────────────────────────────────────────────────────────


def fc_tile(rows: int, columns: int, terms: int, x: Tensor, precision: str) -> Tile:
    """Choose the tile of a product: rows x columns, a sum over terms; by what does not spill."""
    if precision == "ieee" and x.element_size() >= 4:
        return Tile(block_size(rows, 32), block_size(columns, 32), 16, 4, 2)
    most = 32 if x.element_size() == 4 else 64
    # A sum of one step is no loop, in which registers would be used again.
    width = 32 if x.element_size() == 4 and terms <= most else 64
    return Tile(block_size(rows, 64), block_size(columns, width), block_size(terms, most), 4, 3)


def fc_launch_forward(
    geometry: FcGeometry,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    kept: Tensor,
) -> None:
    """Launch the forward kernel, which fills y."""
    precision = fc_precision(x)
    tile = fc_tile(64, geometry.outputs, geometry.features, x, precision)
    if geometry.tiles:
        tile = measured_tile(geometry.tiles, "forward", x, precision) or tile
    programs = count_blocks(x.shape[0], tile.rows) * count_blocks(geometry.outputs, tile.columns)
    refuse_launch(x, programs, x.shape[0])
    launch(
        fc_forward,
        programs,
        x_ptr=x,
        weight_ptr=weight,
        bias_ptr=bias,
        y_ptr=y,
        input_ptr=kept,
        batch=x.shape[0],
        C=geometry,
        T=tile,
        PRECISION=precision,
        **tile.options,
    )


FC_BLOCK = 1024  # values of a program that does not multiply


def fc_launch_activate(geometry: FcGeometry, z: Tensor, y: Tensor) -> None:
    """Launch the kernel that fills y."""
    programs = count_blocks(z.numel(), FC_BLOCK)
    refuse_launch(z, programs, z.shape[0])
    launch(
        fc_activate,
        programs,
        z_ptr=z,
        y_ptr=y,
        batch=z.shape[0],
        C=geometry,
        BLOCK=FC_BLOCK,
        num_warps=4,
    )
