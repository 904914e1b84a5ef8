"""Kernels of a fully connected layer: x · weightᵀ + bias and its activation, and the gradients.

Matrices lie in memory by rows: x [batch, features], weight [outputs, features]. Each kernel is one
tiled matrix product.
"""

import math

import triton
import triton.language as tl
from torch import Tensor

from .fc_op import FcGeometry, fc_precision
from .shared import (
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


@triton.jit
def fc_activation_gradient(saved, gradient):
    """Take a gradient back through ReLU, of which the output was saved; NaN is alive."""
    return tl.where(saved <= 0, 0.0, gradient)


# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


@triton.jit
def fc_places(feature, FEATURES: tl.constexpr, PIXELS: tl.constexpr, GROUP: tl.constexpr):
    """Say where features of an image lie: in a row of x, and in a row of the weight.

    In x channels are innermost, in the weight pixels, as PyTorch flattens. Features are
    counted such that neighbours are near each other in both: GROUP channels of a pixel,
    the same of the next pixel, and so on; behind the last pixel the next channels.
    """
    channel = feature // (GROUP * PIXELS) * GROUP + feature % GROUP
    pixel = feature // GROUP % PIXELS
    return pixel * (FEATURES // PIXELS) + channel, channel * PIXELS + pixel


@triton.jit
def fc_forward(
    x_ptr,  # [batch, FEATURES]
    weight_ptr,  # [OUTPUTS, FEATURES]
    bias_ptr,  # [OUTPUTS]
    y_ptr,  # [batch, OUTPUTS]
    input_ptr,  # like y: what the activation was given
    batch,
    FEATURES: tl.constexpr,
    OUTPUTS: tl.constexpr,
    PIXELS: tl.constexpr,
    GROUP: tl.constexpr,
    BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK_BATCH: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute y = activation(x · weightᵀ + bias)."""
    OUTPUT_BLOCKS: tl.constexpr = (OUTPUTS + BLOCK_OUTPUTS - 1) // BLOCK_OUTPUTS
    image = tl.program_id(0) // OUTPUT_BLOCKS * BLOCK_BATCH + tl.arange(0, BLOCK_BATCH)
    output = tl.program_id(0) % OUTPUT_BLOCKS * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    image_mask = image < batch
    output_mask = output < OUTPUTS
    y = full(tl.zeros((BLOCK_BATCH, BLOCK_OUTPUTS), y_ptr.dtype.element_ty))
    for step in range((FEATURES + BLOCK_FEATURES - 1) // BLOCK_FEATURES):
        feature = step * BLOCK_FEATURES + tl.arange(0, BLOCK_FEATURES)
        feature_mask = feature < FEATURES
        if PIXELS == 1:
            place = feature
        else:
            place, column = fc_places(feature, FEATURES, PIXELS, GROUP)
        x = tl.load(
            x_ptr + image.to(tl.int64)[:, None] * FEATURES + place[None, :],
            mask=image_mask[:, None] & feature_mask[None, :],
            other=0.0,
        )
        if PIXELS == 1:
            weight = tl.load(
                weight_ptr + output[None, :] * FEATURES + feature[:, None],
                mask=output_mask[None, :] & feature_mask[:, None],
                other=0.0,
            )
        else:
            # Threads side by side read along the columns, where pixels are neighbours.
            weight = tl.load(
                weight_ptr + output[:, None] * FEATURES + column[None, :],
                mask=output_mask[:, None] & feature_mask[None, :],
                other=0.0,
            ).T
        y = tl.dot(x, weight, y, input_precision=PRECISION, out_dtype=y.dtype)
    offset = image.to(tl.int64)[:, None] * OUTPUTS + output[None, :]
    mask = image_mask[:, None] & output_mask[None, :]
    if BIAS:
        bias = tl.load(bias_ptr + output, mask=output_mask, other=0.0)
        y += bias.to(y.dtype)[None, :]
    if ACTIVATION == "input":
        tl.store(input_ptr + offset, y.to(input_ptr.dtype.element_ty), mask=mask)
    if ACTIVATION != "none":
        y = fc_activation(y)
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def fc_unactivated(
    gradient_ptr,
    saved_ptr,
    offset,
    mask,
    ACTIVATION: tl.constexpr,
):
    """Read a tile of the gradient and take it back through the activation."""
    gradient = tl.load(gradient_ptr + offset, mask=mask, other=0.0)
    if ACTIVATION != "none":
        saved = full(tl.load(saved_ptr + offset, mask=mask, other=0.0))
        gradient = fc_activation_gradient(saved, full(gradient))
    return gradient.to(gradient_ptr.dtype.element_ty)


@triton.jit
def fc_input_gradient(
    gradient_ptr,  # [batch, OUTPUTS]
    saved_ptr,  # [batch, OUTPUTS]
    weight_ptr,  # [OUTPUTS, FEATURES]
    dx_ptr,  # [batch, FEATURES]
    batch,
    FEATURES: tl.constexpr,
    OUTPUTS: tl.constexpr,
    PIXELS: tl.constexpr,
    GROUP: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK_BATCH: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the gradient of x, a sum over outputs."""
    FEATURE_BLOCKS: tl.constexpr = (FEATURES + BLOCK_FEATURES - 1) // BLOCK_FEATURES
    image = tl.program_id(0) // FEATURE_BLOCKS * BLOCK_BATCH + tl.arange(0, BLOCK_BATCH)
    feature = tl.program_id(0) % FEATURE_BLOCKS * BLOCK_FEATURES + tl.arange(0, BLOCK_FEATURES)
    image_mask = image < batch
    feature_mask = feature < FEATURES
    if PIXELS == 1:
        place = feature
        column = feature
    else:
        place, column = fc_places(feature, FEATURES, PIXELS, GROUP)
    dx = full(tl.zeros((BLOCK_BATCH, BLOCK_FEATURES), dx_ptr.dtype.element_ty))
    for step in range((OUTPUTS + BLOCK_OUTPUTS - 1) // BLOCK_OUTPUTS):
        output = step * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
        output_mask = output < OUTPUTS
        gradient = fc_unactivated(
            gradient_ptr=gradient_ptr,
            saved_ptr=saved_ptr,
            offset=image.to(tl.int64)[:, None] * OUTPUTS + output[None, :],
            mask=image_mask[:, None] & output_mask[None, :],
            ACTIVATION=ACTIVATION,
        )
        weight = tl.load(
            weight_ptr + output[:, None] * FEATURES + column[None, :],
            mask=output_mask[:, None] & feature_mask[None, :],
            other=0.0,
        )
        dx = tl.dot(gradient, weight, dx, input_precision=PRECISION, out_dtype=dx.dtype)
    tl.store(
        dx_ptr + image.to(tl.int64)[:, None] * FEATURES + place[None, :],
        dx.to(dx_ptr.dtype.element_ty),
        mask=image_mask[:, None] & feature_mask[None, :],
    )


@triton.jit
def fc_weight_gradient(
    gradient_ptr,  # [batch, OUTPUTS]
    saved_ptr,  # [batch, OUTPUTS]
    x_ptr,  # [batch, FEATURES]
    dweight_ptr,  # [OUTPUTS, FEATURES]
    batch,
    FEATURES: tl.constexpr,
    OUTPUTS: tl.constexpr,
    PIXELS: tl.constexpr,
    GROUP: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
    BLOCK_BATCH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the gradient of the weight, a sum over the batch."""
    FEATURE_BLOCKS: tl.constexpr = (FEATURES + BLOCK_FEATURES - 1) // BLOCK_FEATURES
    output = tl.program_id(0) // FEATURE_BLOCKS * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    feature = tl.program_id(0) % FEATURE_BLOCKS * BLOCK_FEATURES + tl.arange(0, BLOCK_FEATURES)
    output_mask = output < OUTPUTS
    feature_mask = feature < FEATURES
    if PIXELS == 1:
        place = feature
        column = feature
    else:
        place, column = fc_places(feature, FEATURES, PIXELS, GROUP)
    dweight = tl.zeros((BLOCK_OUTPUTS, BLOCK_FEATURES), dweight_ptr.dtype.element_ty)
    dweight = full(dweight)
    for step in range(tl.cdiv(batch, BLOCK_BATCH)):
        image = step * BLOCK_BATCH + tl.arange(0, BLOCK_BATCH)
        image_mask = image < batch
        gradient = fc_unactivated(
            gradient_ptr=gradient_ptr,
            saved_ptr=saved_ptr,
            offset=image.to(tl.int64)[None, :] * OUTPUTS + output[:, None],
            mask=image_mask[None, :] & output_mask[:, None],
            ACTIVATION=ACTIVATION,
        )
        x = tl.load(
            x_ptr + image.to(tl.int64)[:, None] * FEATURES + place[None, :],
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
        dweight_ptr + output[:, None] * FEATURES + column[None, :],
        dweight.to(dweight_ptr.dtype.element_ty),
        mask=output_mask[:, None] & feature_mask[None, :],
    )


@triton.jit
def fc_bias_gradient(
    gradient_ptr,  # [batch, OUTPUTS]
    saved_ptr,  # [batch, OUTPUTS]
    dbias_ptr,  # [OUTPUTS]
    batch,
    OUTPUTS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_BATCH: tl.constexpr,
):
    """Compute the gradient of the bias, a sum over the batch."""
    output = tl.program_id(0) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    output_mask = output < OUTPUTS
    total = full(tl.zeros((BLOCK_BATCH, BLOCK_OUTPUTS), dbias_ptr.dtype.element_ty))
    for step in range(tl.cdiv(batch, BLOCK_BATCH)):
        image = step * BLOCK_BATCH + tl.arange(0, BLOCK_BATCH)
        gradient = fc_unactivated(
            gradient_ptr=gradient_ptr,
            saved_ptr=saved_ptr,
            offset=image.to(tl.int64)[:, None] * OUTPUTS + output[None, :],
            mask=(image < batch)[:, None] & output_mask[None, :],
            ACTIVATION=ACTIVATION,
        )
        total += full(gradient)
    dbias = tl.sum(total, axis=0)
    tl.store(dbias_ptr + output, dbias.to(dbias_ptr.dtype.element_ty), mask=output_mask)


@triton.jit
def fc_activate(
    z_ptr,  # [batch, OUTPUTS]: what a library multiplied
    y_ptr,  # [batch, OUTPUTS]
    values,
    BLOCK: tl.constexpr,
):
    """Compute y = activation(z)."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = place < values
    y = fc_activation(full(tl.load(z_ptr + place, mask=mask, other=0.0)))
    tl.store(y_ptr + place, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def fc_slope(
    gradient_ptr,  # [batch, OUTPUTS]
    saved_ptr,  # [batch, OUTPUTS]
    dz_ptr,  # [batch, OUTPUTS]
    values,
    ACTIVATION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute the gradient before the activation, for a library to multiply."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = place < values
    dz = fc_unactivated(
        gradient_ptr=gradient_ptr,
        saved_ptr=saved_ptr,
        offset=place,
        mask=mask,
        ACTIVATION=ACTIVATION,
    )
    tl.store(dz_ptr + place, dz, mask=mask)


# ── launches ────────────────────────────────────────────────────────────────────────────────────


def fc_group(geometry: FcGeometry) -> int:
    """Choose how many channels of a pixel stand together: 8 are 16 bytes, or more."""
    return math.gcd(geometry.features // geometry.pixels, 8)


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
        FEATURES=geometry.features,
        OUTPUTS=geometry.outputs,
        PIXELS=geometry.pixels,
        GROUP=fc_group(geometry),
        BIAS=geometry.bias,
        ACTIVATION=geometry.activation,
        BLOCK_BATCH=tile.rows,
        BLOCK_OUTPUTS=tile.columns,
        BLOCK_FEATURES=tile.terms,
        PRECISION=precision,
        num_warps=tile.warps,
        num_stages=tile.stages,
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
        values=z.numel(),
        BLOCK=FC_BLOCK,
        num_warps=4,
    )


def fc_launch_slope(
    geometry: FcGeometry,
    gradient: Tensor,
    saved: Tensor | None,
    dz: Tensor,
) -> None:
    """Launch the kernel that fills dz."""
    programs = count_blocks(dz.numel(), FC_BLOCK)
    refuse_launch(dz, programs, dz.shape[0])
    launch(
        fc_slope,
        programs,
        gradient_ptr=gradient,
        saved_ptr=saved,
        dz_ptr=dz,
        values=dz.numel(),
        ACTIVATION=geometry.activation,
        BLOCK=FC_BLOCK,
        num_warps=4,
    )


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
    if geometry.tiles:
        tile = measured_tile(geometry.tiles, "input_gradient", dx, precision) or tile
    programs = count_blocks(dx.shape[0], tile.rows) * count_blocks(geometry.features, tile.columns)
    refuse_launch(dx, programs, dx.shape[0])
    launch(
        fc_input_gradient,
        programs,
        gradient_ptr=gradient,
        saved_ptr=saved,
        weight_ptr=weight,
        dx_ptr=dx,
        batch=dx.shape[0],
        FEATURES=geometry.features,
        OUTPUTS=geometry.outputs,
        PIXELS=geometry.pixels,
        GROUP=fc_group(geometry),
        ACTIVATION=geometry.activation,
        BLOCK_BATCH=tile.rows,
        BLOCK_FEATURES=tile.columns,
        BLOCK_OUTPUTS=tile.terms,
        PRECISION=precision,
        num_warps=tile.warps,
        num_stages=tile.stages,
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
    if geometry.tiles:
        tile = measured_tile(geometry.tiles, "weight_gradient", x, precision) or tile
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
        FEATURES=geometry.features,
        OUTPUTS=geometry.outputs,
        PIXELS=geometry.pixels,
        GROUP=fc_group(geometry),
        ACTIVATION=geometry.activation,
        BLOCK_OUTPUTS=tile.rows,
        BLOCK_FEATURES=tile.columns,
        BLOCK_BATCH=tile.terms,
        PRECISION=precision,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


def fc_launch_bias_gradient(
    geometry: FcGeometry,
    gradient: Tensor,
    saved: Tensor | None,
    dbias: Tensor,
) -> None:
    """Launch the kernel that fills dbias."""
    block_outputs = block_size(geometry.outputs, 64)
    programs = count_blocks(geometry.outputs, block_outputs)
    refuse_launch(gradient, programs, gradient.shape[0])
    launch(
        fc_bias_gradient,
        programs,
        gradient_ptr=gradient,
        saved_ptr=saved,
        dbias_ptr=dbias,
        batch=gradient.shape[0],
        OUTPUTS=geometry.outputs,
        ACTIVATION=geometry.activation,
        BLOCK_OUTPUTS=block_outputs,
        BLOCK_BATCH=64,
        num_warps=4,
    )
