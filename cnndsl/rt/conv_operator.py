"""The way of all fused convolutions of a module into PyTorch: operators, memory and autograd.

This file does not know how anything is computed: that is for the kernels, which it is handed as
functions.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from .conv_geometry import (
    ConvGeometry,
    ConvOutputs,
    conv_code_dtype,
    conv_keeps_output,
    conv_settings,
    conv_sizes,
    refuse_conv,
    refuse_geometry,
)
from .conv_library import conv_product_gradients
from .conv_second import conv_again
from .dispatch import Direction, as_inputs, differentiable, stand_in
from .module import full_dtype, widened
from .replay import remembered
from .shared import cast_as_wished, channels_last, done, new_image, packed, summed

CONV_FORWARD = """(
    Tensor x, Tensor weight, Tensor? bias, Tensor? scale, Tensor? residual
) -> (Tensor y, Tensor code, Tensor before, Tensor sums)"""
CONV_BACKWARD = """(
    Tensor gradient, Tensor? code, Tensor? saved, Tensor? x, Tensor? weight, Tensor? scale,
    SymInt[] size, bool[] needs
) -> (Tensor dx, Tensor dweight, Tensor dbias, Tensor dscale, Tensor dresidual)"""


class ConvLaunches(NamedTuple):
    """The functions of a region that launch its kernels; those that it has no use for are absent.

    The gradients of input and weight are launched where they are fused. `unpool` is where there is
    a pool and they are the library's. `activation` is PyTorch's function where it is not ReLU, and
    where backward reads its output, `before` gives an input for that if it is another one.
    """

    forward: Callable[..., None]
    bias_gradient: Callable[..., Tensor] | None = None
    input_gradient: Callable[..., None] | None = None
    weight_gradient: Callable[..., Tensor] | None = None
    unpool: Callable[..., Tensor] | None = None
    windows: Callable[..., int] | None = None
    activation: Callable[[Tensor], Tensor] | None = None
    before: Callable[[Tensor], Tensor] | None = None


def conv_outputs(
    geometry: ConvGeometry,
    launches: ConvLaunches,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    residual: Tensor | None,
) -> ConvOutputs:
    """Allocate what forward fills; raise for tensors that do not fit the region."""
    sizes = refuse_conv(geometry, x, weight, bias, scale, residual)
    shape = (x.shape[0], geometry.filters, sizes.out_height, sizes.out_width)
    y = new_image(x, shape)
    code, before, sums = None, None, None
    dtype = conv_code_dtype(geometry)
    if dtype is not None:
        # Triton cannot multiply float64 where bytes select it.
        if x.dtype == torch.float64:
            dtype = torch.int32
        code = torch.empty_like(y, dtype=dtype)
    if geometry.activation == "input":
        before = torch.empty_like(y)
    if geometry.statistics:
        windows = shape[0] * shape[2] * shape[3]
        tiles = -(-windows // launches.windows(geometry, x))
        sums = x.new_empty((tiles, 3, geometry.filters), dtype=full_dtype(x))
    return ConvOutputs(y, code, before, sums)


def conv_values(
    geometry: ConvGeometry,
    launches: ConvLaunches,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    residual: Tensor | None,
) -> ConvOutputs:
    """Compute y, and what is kept beside it."""
    outputs = conv_outputs(geometry, launches, x, weight, bias, scale, residual)
    if outputs.y.numel() > 0:
        bias, scale = packed(bias), packed(scale)
        with torch.cuda.device_of(x):
            launches.forward(geometry, x, weight, bias, scale, residual, outputs)
    return outputs


def conv_empty_gradients(
    geometry: ConvGeometry,
    gradient: Tensor,
    size: Sequence[int],
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Allocate the gradients of x, weight, bias, scale and residual, those that are computed."""
    g = geometry
    dx, dweight, dbias, dscale, dresidual = None, None, None, None, None
    if needs[0]:
        dx = new_image(gradient, (size[0], g.channels, size[1], size[2]))
    if needs[1]:
        dweight = new_image(gradient, (g.filters, g.channels // g.groups, *g.kernel))
    if needs[2]:
        dbias = gradient.new_empty(g.filters, dtype=full_dtype(gradient))
    if needs[3]:
        dscale = gradient.new_empty(g.filters, dtype=full_dtype(gradient))
    if g.residual and g.activation != "none":
        dresidual = new_image(gradient, gradient.shape)
    return dx, dweight, dbias, dscale, dresidual


def conv_allocate_gradients(
    geometry: ConvGeometry,
    gradient: Tensor,
    code: Tensor | None,
    saved: Tensor | None,
    x: Tensor | None,
    weight: Tensor | None,
    scale: Tensor | None,
    size: Sequence[int],
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Allocate what conv_gradients gives for the same."""
    return conv_empty_gradients(geometry, gradient, size, needs)


def scaled_filters(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Multiply each filter by its scale."""
    return (widened(weight) * widened(scale)[:, None, None, None]).to(dtype)


def scale_gradient(raw: Tensor, weight: Tensor) -> Tensor:
    """Sum over each filter what its unscaled gradient is times itself."""
    return (widened(raw) * widened(weight)).sum((1, 2, 3))


def filters_summed(parts: Tensor) -> Tensor:
    """Add up parts [parts, filters, height, width, channels] of a weight's gradient."""
    return parts.sum(0).permute(0, 3, 1, 2)


def conv_gradients(
    geometry: ConvGeometry,
    launches: ConvLaunches,
    gradient: Tensor,
    code: Tensor | None,
    saved: Tensor | None,
    x: Tensor | None,
    weight: Tensor | None,
    scale: Tensor | None,
    size: Sequence[int],
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Compute the gradients of x, weight, bias, scale and residual that are needed.

    With z = conv(x, weight) · scale + bias and dz its gradient:
    dx = dconv(dz, weight · scale), dweight = raw · scale and dscale = Σ raw · weight, where raw is
    an unscaled weight's gradient. The residual's is dz itself.
    """
    if gradient.numel() == 0:
        empty = conv_empty_gradients(geometry, gradient, size, needs)
        return tuple(None if t is None else t.zero_() for t in empty)
    gradient, code, saved = channels_last(gradient), packed(code), packed(saved)
    factor = weight
    if scale is not None and needs[0]:
        factor = done(scaled_filters, weight, scale, weight.dtype)
    if geometry.backward == "library":
        gradients = conv_library_gradients
    else:
        gradients = conv_fused_gradients
    with torch.cuda.device_of(gradient):
        dx, raw, dbias, dresidual = gradients(
            geometry, launches, gradient, code, saved, x, factor, size, needs
        )
        dweight = dscale = None
        if needs[3]:
            dscale = done(scale_gradient, raw, weight)
        if needs[1]:
            dweight = raw
            if scale is not None:
                dweight = done(scaled_filters, raw, scale, gradient.dtype)
            elif raw.dtype != gradient.dtype:
                dweight = done(Tensor.to, raw, gradient.dtype)
            dweight = channels_last(dweight)
    return dx, dweight, dbias if needs[2] else None, dscale, dresidual


def conv_fused_gradients(
    geometry: ConvGeometry,
    launches: ConvLaunches,
    gradient: Tensor,
    code: Tensor,
    saved: Tensor | None,
    x: Tensor | None,
    weight: Tensor | None,
    size: Sequence[int],
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Give dx, raw, dbias and dresidual, each by a kernel that rebuilds dz where it reads it."""
    dx = raw = dbias = dresidual = None
    if geometry.residual and geometry.activation != "none":
        dresidual = new_image(gradient, gradient.shape)
    if needs[2] or dresidual is not None:
        parts = launches.bias_gradient(geometry, gradient, code, saved, dresidual, size[1], size[2])
        dbias = done(summed, parts)
    if dresidual is not None:
        gradient = dresidual
    if needs[0]:
        dx = new_image(gradient, (size[0], geometry.channels, size[1], size[2]))
        launches.input_gradient(geometry, gradient, code, saved, weight, dx)
    if needs[1] or needs[3]:
        parts = launches.weight_gradient(geometry, gradient, code, saved, x)
        raw = done(filters_summed, parts)
    return dx, raw, dbias, dresidual


def conv_library_gradients(
    geometry: ConvGeometry,
    launches: ConvLaunches,
    gradient: Tensor,
    code: Tensor,
    saved: Tensor | None,
    x: Tensor | None,
    weight: Tensor | None,
    size: Sequence[int],
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Give the same: one pass writes dz, and a library multiplies it."""
    dz, dbias = gradient, None
    if geometry.pool != "none":
        sizes = conv_sizes(geometry, size[1], size[2])
        shape = (size[0], geometry.filters, sizes.conv_height, sizes.conv_width)
        dz = new_image(gradient, shape)
        dbias = done(summed, launches.unpool(geometry, gradient, code, saved, dz))
    elif needs[2] or geometry.activation != "none":
        if geometry.activation != "none":
            dz = new_image(gradient, gradient.shape)
        parts = launches.bias_gradient(geometry, gradient, code, saved, dz, size[1], size[2])
        dbias = done(summed, parts)
    wanted = needs[0], needs[1] or needs[3]
    dx, raw = done(conv_product_gradients, geometry, dz, x, weight, size, wanted)
    has_residual = geometry.residual and geometry.activation != "none"
    return dx, raw, dbias, dz if has_residual else None


def conv_keep(
    geometry: ConvGeometry,
    ctx: FunctionCtx,
    inputs: tuple[Tensor | None, ...],
    output: tuple[Tensor, ...],
) -> None:
    """Save for backward what the needed gradients read, and no more.

    The slope of a curved activation depends on all inputs, which matters to gradients of gradients.
    """
    x, weight, bias, scale, residual = inputs
    y, code, before, sums = output
    needs_x, needs_weight, _, needs_scale = ctx.needs_input_grad[:4]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*[t for t in (code, before, sums) if t is not None])
    count, _, height, width = x.shape
    ctx.size = (count, height, width)
    ctx.dtypes = (x.dtype, weight.dtype, *[None if v is None else v.dtype for v in (bias, scale)])
    saved = before if geometry.activation == "input" else None
    if conv_keeps_output(geometry):
        saved = y
    is_curved = geometry.activation in ("input", "output")
    reads_x, reads_weight = needs_weight or needs_scale, needs_x or needs_scale
    if is_curved:
        unread = (2, not reads_x), (3, not reads_weight), (6, residual is not None)
        ctx.places = tuple(place for place, is_unread in unread if is_unread)
    ctx.save_for_backward(
        code,
        saved,
        x if reads_x or is_curved else None,
        weight if reads_weight or is_curved else None,
        scale,
        bias if is_curved else None,
        residual if is_curved else None,
    )


def conv_differentiate(
    geometry: ConvGeometry,
    run_backward: Callable[..., tuple[Tensor | None, ...]],
    ctx: FunctionCtx,
    gradient: Tensor,
) -> tuple[Tensor | None, ...]:
    """Give the gradients of x, weight, bias, scale and residual, in the types of these."""
    needs = ctx.needs_input_grad[:5]
    code, saved, x, weight, scale, _, _ = ctx.saved_tensors
    if not (needs[1] or needs[3]):
        x = None
    if not (needs[0] or needs[3]):
        weight = None
    *found, dresidual = run_backward(gradient, code, saved, x, weight, scale, ctx.size, needs[:4])
    if geometry.activation == "none":
        dresidual = gradient  # an operator may not return what it was given
    dtypes = zip(found, needs, ctx.dtypes, strict=False)
    found = [d.to(dtype) if need else None for d, need, dtype in dtypes]
    return *found, dresidual if needs[4] else None


def conv_differentiate_again(
    geometry: ConvGeometry, launches: ConvLaunches, ctx: FunctionCtx, gradient: Tensor
) -> tuple[Tensor, list[Tensor | None]]:
    """Give y, computed by PyTorch's operators from x, weight, bias, scale and residual, and these.

    Where one of them was not kept, no gradient depends on its values.
    """
    g, needs = geometry, ctx.needs_input_grad
    code, saved, x, weight, scale, bias, residual = ctx.saved_tensors
    given = as_inputs((x, weight, bias, scale, residual))
    count, height, width = ctx.size
    shapes = (
        (count, g.channels, height, width),
        (g.filters, g.channels // g.groups, *g.kernel),
        (g.filters,),
        (g.filters,),
        gradient.shape,
    )
    types = (*ctx.dtypes, gradient.dtype)
    for place, tensor in enumerate(given):
        if tensor is None and (place < 2 or needs[place]):
            given[place] = stand_in(gradient, shapes[place], types[place])
    return conv_again(geometry, launches, code, saved, *given), given


def conv_product_flops(geometry: ConvGeometry, size: Sequence[int]) -> int:
    """Count those of a product; size: (N, H, W) of the input."""
    g, sizes = geometry, conv_sizes(geometry, size[1], size[2])
    terms = g.channels // g.groups * g.kernel[0] * g.kernel[1]
    return 2 * size[0] * sizes.conv_height * sizes.conv_width * g.filters * terms


def conv_flops(geometry: ConvGeometry, x: Tensor, *_others: object, **_named: object) -> int:
    """Count those of forward."""
    return conv_product_flops(geometry, (x.shape[0], *x.shape[2:]))


def conv_gradient_flops(geometry: ConvGeometry, *given: object, **_named: object) -> int:
    """Count those of backward: a product for the gradient of x, and one for that of weight."""
    size, needs = given[-2:]
    return conv_product_flops(geometry, size) * (needs[0] + (needs[1] or needs[3]))


def conv_op(name: str, geometry: ConvGeometry, launches: ConvLaunches) -> Callable[..., Tensor]:
    """Register a region with PyTorch; the function that is returned runs it.

    It gives y, and with statistics the pair (y, sums). The operators `name` and `name_backward`
    are opaque to torch.compile, which sees their shapes only. A region may be registered again
    under the same name: the last one counts.
    """
    refuse_geometry(geometry)
    region = differentiable(
        name,
        Direction(
            CONV_FORWARD,
            compute=remembered(partial(conv_values, geometry, launches), conv_settings),
            allocate=partial(conv_outputs, geometry, launches),
            flops=partial(conv_flops, geometry),
        ),
        Direction(
            CONV_BACKWARD,
            compute=remembered(partial(conv_gradients, geometry, launches), conv_settings),
            allocate=partial(conv_allocate_gradients, geometry),
            flops=partial(conv_gradient_flops, geometry),
        ),
        partial(conv_keep, geometry),
        partial(conv_differentiate, geometry),
        partial(conv_differentiate_again, geometry, launches),
        is_curved=geometry.activation in ("input", "output"),
    )

    def run(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        scale: Tensor | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        x, weight = cast_as_wished(x, weight)
        if residual is not None:
            (residual,) = cast_as_wished(residual)
        y, _, _, sums = region(x, weight, bias, scale, residual)
        if geometry.statistics:
            return y, sums
        return y

    run.operators = region.operators
    return run
