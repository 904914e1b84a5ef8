"""What all fused fully connected layers of a module share: sizes, checks, and autograd.

A region computes y = activation(x · weightᵀ + bias), where x is a vector an image, or an image
that is flattened. How is for the kernels, which this file is handed as functions.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from .dispatch import Direction, as_inputs, curved, differentiable, stand_in
from .module import INTERPRETED, is_unaltered, plain_weights, widened_on_cpu
from .replay import remembered
from .shared import Tile, allocated, cast_as_wished, done, new_image, packed, refuse_tensors

FC_FORWARD = "(Tensor x, Tensor weight, Tensor? bias) -> (Tensor y, Tensor kept)"
FC_BACKWARD = """(
    Tensor gradient, Tensor? saved, Tensor? x, Tensor? weight, bool[] needs
) -> (Tensor dx, Tensor dweight, Tensor dbias)"""


class FcGeometry(NamedTuple):
    """All that is fixed in a region."""

    features: int
    outputs: int
    bias: bool = True
    activation: str = "none"
    # (height, width) of the image that x is; if that is one pixel, x is a vector.
    size: tuple[int, int] = (1, 1)
    # Whose products are taken: "fused", in kernels that do all the rest, too, or "library",
    # PyTorch's own, beside one pass of ours for the activation.
    forward: str = "fused"
    backward: str = "fused"
    # Measured ones: kernel, type, images at most, tile; else the rule of `…_tile` chooses.
    tiles: tuple[tuple[str, str, int, Tile], ...] = ()

    @property
    def pixels(self) -> int:
        """Count those of the image that x is."""
        return self.size[0] * self.size[1]

    @property
    def group(self) -> int:
        """Count the channels of a pixel that kernels read together: 8 are 16 bytes, or more."""
        return math.gcd(self.features // self.pixels, 8)


class FcLaunches(NamedTuple):
    """The functions of a region that launch its kernels; those that it has no use for are absent.

    Where a library multiplies, `activate` and `slope` do the rest, if there is an activation.
    `activation` is PyTorch's function where it is not ReLU, and where backward reads its output,
    `before` gives an input for that if it is another one.
    """

    forward: Callable[..., None] | None = None
    activate: Callable[..., None] | None = None
    input_gradient: Callable[..., None] | None = None
    weight_gradient: Callable[..., None] | None = None
    bias_gradient: Callable[..., None] | None = None
    slope: Callable[..., None] | None = None
    activation: Callable[[Tensor], Tensor] | None = None
    before: Callable[[Tensor], Tensor] | None = None


def fc_weights(
    layer: nn.Module,
    geometry: FcGeometry,
) -> tuple[Tensor | None, Tensor | None]:
    """Give weight and bias of a layer; None for both unless it is the one that was compiled."""
    if not is_unaltered(layer, nn.Linear):
        return None, None
    return plain_weights(layer, (geometry.outputs, geometry.features), geometry.bias)


def fc_settings() -> str:
    """Give what else a launch looks at: how PyTorch's own products may multiply float32."""
    return torch.backends.cuda.matmul.fp32_precision


def fc_precision(x: Tensor) -> str:
    """Multiply float32 as PyTorch's own products may: exactly, unless TF32 is allowed."""
    is_free = x.dtype == torch.float32 and not INTERPRETED
    return "tf32" if fc_settings() == "tf32" and is_free else "ieee"


def fc_shape(geometry: FcGeometry) -> tuple[int, ...]:
    """Give the shape of one x: (features), or (channels, height, width)."""
    shape = (geometry.features,)
    if geometry.pixels != 1:
        shape = (geometry.features // geometry.pixels, *geometry.size)
    return shape


def refuse_fc(geometry: FcGeometry, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Raise for tensors that do not fit together or do not fit the region."""
    shape = (geometry.outputs, geometry.features)
    refuse_tensors(x, weight, shape, [("bias", bias, geometry.bias)])
    if geometry.features * geometry.outputs >= 2**31:
        raise ValueError("a weight of 2³¹ values or more")
    one = fc_shape(geometry)
    if tuple(x.shape[1:]) != one:
        wanted = ", ".join(str(size) for size in one)
        raise ValueError(f"x has shape {tuple(x.shape)}, not (N, {wanted})")


def fc_outputs(
    geometry: FcGeometry, x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Allocate y, and the input of the activation where its slope follows from that.

    Raise for tensors that do not fit the region.
    """
    refuse_fc(geometry, x, weight, bias)
    y = x.new_empty((x.shape[0], geometry.outputs))
    return y, torch.empty_like(y) if geometry.activation == "input" else None


def fc_values(
    geometry: FcGeometry,
    launches: FcLaunches,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Compute y, and what is kept beside it."""
    y, kept = fc_outputs(geometry, x, weight, bias)
    if y.numel() == 0:
        return y, kept
    with torch.cuda.device_of(x):
        if geometry.forward == "library":
            z = done(fc_product, x, weight, bias)
            if geometry.activation == "none":
                return z, None
            launches.activate(geometry, z, y)
            return y, z if geometry.activation == "input" else None
        launches.forward(geometry, packed(x), packed(weight), packed(bias), y, kept)
    return y, kept


def fc_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Give x · weightᵀ + bias by PyTorch's library; an image is flattened, which copies it."""
    z = F.linear(widened_on_cpu(x.flatten(1)), widened_on_cpu(weight), widened_on_cpu(bias))
    return z.to(x.dtype)


def fc_product_gradients(
    geometry: FcGeometry,
    dz: Tensor,
    x: Tensor | None,
    weight: Tensor | None,
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Give the gradients of x, weight and bias from that of the product; None for the others."""
    dx = dweight = dbias = None
    full = widened_on_cpu(dz)
    if needs[0]:
        dx = torch.mm(full, widened_on_cpu(weight)).to(dz.dtype)
        if geometry.pixels != 1:
            dx = dx.view(-1, *fc_shape(geometry)).contiguous(memory_format=torch.channels_last)
    if needs[1]:
        dweight = torch.mm(full.t(), widened_on_cpu(x.flatten(1))).to(dz.dtype)
    if needs[2]:
        dbias = full.sum(0).to(dz.dtype)
    return dx, dweight, dbias


def fc_empty_gradients(
    geometry: FcGeometry,
    gradient: Tensor,
    saved: Tensor | None,
    x: Tensor | None,
    weight: Tensor | None,
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Allocate the gradients of x, weight and bias that are needed."""
    dx, dweight, dbias = None, None, None
    if needs[0]:
        shape = (gradient.shape[0], *fc_shape(geometry))
        if geometry.pixels == 1:
            dx = gradient.new_empty(shape)
        else:
            dx = new_image(gradient, shape)
    if needs[1]:
        dweight = gradient.new_empty((geometry.outputs, geometry.features))
    if needs[2]:
        dbias = gradient.new_empty(geometry.outputs)
    return dx, dweight, dbias


def fc_gradients(
    geometry: FcGeometry,
    launches: FcLaunches,
    gradient: Tensor,
    saved: Tensor | None,
    x: Tensor | None,
    weight: Tensor | None,
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Compute the gradients of x, weight and bias that are needed."""
    if gradient.numel() == 0:
        empty = fc_empty_gradients(geometry, gradient, saved, x, weight, needs)
        return tuple(None if t is None else t.zero_() for t in empty)
    gradient, saved = packed(gradient), packed(saved)
    with torch.cuda.device_of(gradient):
        if geometry.backward == "library":
            dz = gradient
            if geometry.activation != "none":
                dz = allocated(torch.empty_like(gradient))
                launches.slope(geometry, gradient, saved, dz)
            return done(fc_product_gradients, geometry, dz, x, weight, needs)
        dx, dweight, dbias = fc_empty_gradients(geometry, gradient, saved, x, weight, needs)
        if needs[0]:
            launches.input_gradient(geometry, gradient, saved, packed(weight), dx)
        if needs[1]:
            launches.weight_gradient(geometry, gradient, saved, packed(x), dweight)
        if needs[2]:
            launches.bias_gradient(geometry, gradient, saved, dbias)
    return dx, dweight, dbias


def fc_keep(
    geometry: FcGeometry,
    ctx: FunctionCtx,
    inputs: tuple[Tensor | None, ...],
    output: tuple[Tensor, Tensor | None],
) -> None:
    """Save for backward what the needed gradients read, and no more."""
    x, weight, bias = inputs
    y, kept = output
    needs_x, needs_weight, _ = ctx.needs_input_grad[:3]
    ctx.set_materialize_grads(False)
    if kept is not None:
        ctx.mark_non_differentiable(kept)
    ctx.dtypes = (x.dtype, weight.dtype, None if bias is None else bias.dtype)
    saved = {"none": None, "input": kept}.get(geometry.activation, y)
    is_curved = geometry.activation in ("input", "output")
    if is_curved:
        unread = (1, not needs_weight), (2, not needs_x)
        ctx.places = tuple(place for place, is_unread in unread if is_unread)
    ctx.size = len(x)
    ctx.save_for_backward(
        saved,
        x if needs_weight or is_curved else None,
        weight if needs_x or is_curved else None,
        bias if is_curved else None,
    )


def fc_differentiate_again(
    geometry: FcGeometry, launches: FcLaunches, ctx: FunctionCtx, gradient: Tensor
) -> tuple[Tensor, list[Tensor | None]]:
    """Give y, computed by PyTorch's operators from x, weight and bias, and these.

    Where one of them was not kept, no gradient depends on its values.
    """
    g = geometry
    saved, x, weight, bias = ctx.saved_tensors
    given = as_inputs((x, weight, bias))
    shapes = (ctx.size, *fc_shape(g)), (g.outputs, g.features), (g.outputs,)
    for place, tensor in enumerate(given):
        if tensor is None and (place < 2 or ctx.needs_input_grad[place]):
            given[place] = stand_in(gradient, shapes[place], ctx.dtypes[place])
    x, weight, bias = given
    z = F.linear(x.flatten(1), weight)
    if bias is not None:
        z = z + bias
    if geometry.activation == "relu":
        z = torch.where(saved <= 0, 0, z)
    elif geometry.activation != "none":
        z = curved(geometry.activation, launches, z, saved)
    return z.to(gradient.dtype), given


def fc_differentiate(
    run_backward: Callable[..., tuple[Tensor | None, ...]],
    ctx: FunctionCtx,
    gradient: Tensor,
) -> tuple[Tensor | None, ...]:
    """Give the gradients of x, weight and bias, in the types of these."""
    needs = ctx.needs_input_grad[:3]
    saved, x, weight, _ = ctx.saved_tensors
    x, weight = x if needs[1] else None, weight if needs[0] else None
    found = run_backward(gradient, saved, x, weight, needs)
    dtypes = zip(found, needs, ctx.dtypes, strict=True)
    return tuple(d.to(dtype) if need else None for d, need, dtype in dtypes)


def fc_flops(geometry: FcGeometry, x: Tensor, *_others: object, **_named: object) -> int:
    """Count those of forward."""
    return 2 * x.shape[0] * geometry.features * geometry.outputs


def fc_gradient_flops(geometry: FcGeometry, *given: object, **_named: object) -> int:
    """Count those of backward: a product for the gradient of x, and one for that of weight."""
    gradient, needs = given[0], given[-1]
    return fc_flops(geometry, gradient) * (needs[0] + needs[1])


def fc_op(name: str, geometry: FcGeometry, launches: FcLaunches) -> Callable[..., Tensor]:
    """Register a region with PyTorch; the function that is returned runs it.

    The operators `name` and `name_backward` are opaque to torch.compile, which sees their shapes
    only. A region may be registered again under the same name: the last one counts.
    """
    region = differentiable(
        name,
        Direction(
            FC_FORWARD,
            compute=remembered(partial(fc_values, geometry, launches), fc_settings),
            allocate=partial(fc_outputs, geometry),
            flops=partial(fc_flops, geometry),
        ),
        Direction(
            FC_BACKWARD,
            compute=remembered(partial(fc_gradients, geometry, launches), fc_settings),
            allocate=partial(fc_empty_gradients, geometry),
            flops=partial(fc_gradient_flops, geometry),
        ),
        partial(fc_keep, geometry),
        fc_differentiate,
        partial(fc_differentiate_again, geometry, launches),
        is_curved=geometry.activation in ("input", "output"),
    )

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        y, _ = region(*cast_as_wished(x, weight), bias)
        return y

    run.operators = region.operators
    return run
