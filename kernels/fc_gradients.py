"""Kernels of a fully connected layer, backward: the gradients of x, weight and bias.

Each is one tiled matrix product, or a sum; a gradient goes back through the activation where it is
read.
"""

import torch
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

from .fc import FC_BLOCK, fc_places, fc_tile

# ── holes: the emitter puts the region's own functions here ─────────────────────────────────────


@triton.jit
def fc_activation_gradient(saved, gradient):
    """Take a gradient back through ReLU, of which the output was saved; NaN is alive."""
    return tl.where(saved <= 0, 0.0, gradient)


# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


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


@triton.jit(do_not_specialize=COUNTS)
def fc_slope(
    gradient_ptr,  # [batch, C.outputs]
    saved_ptr,  # [batch, C.outputs]
    dz_ptr,  # [batch, C.outputs]
    batch,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute the gradient before the activation, for a library to multiply."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = place < batch.to(tl.int64) * C.outputs
    dz = fc_unactivated(
        gradient_ptr=gradient_ptr,
        saved_ptr=saved_ptr,
        offset=place,
        mask=mask,
        C=C,
    )
    tl.store(dz_ptr + place, dz, mask=mask)


# ── launches ────────────────────────────────────────────────────────────────────────────────────


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
        batch=dz.shape[0],
        C=geometry,
        BLOCK=FC_BLOCK,
        num_warps=4,
    )
