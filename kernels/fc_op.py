"""What all fused fully connected layers of a module share: sizes, checks, and autograd.

A region computes y = activation(x · weightᵀ + bias). How is for the kernels, which this file is
handed as functions.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import triton
from torch import Tensor
from torch.autograd.function import FunctionCtx

from .shared import cast_as_wished, packed, refuse_tensors


class FcGeometry(NamedTuple):
    """All that is fixed in a region."""

    features: int
    outputs: int
    bias: bool = True
    activation: str = "none"


class FcLaunches(NamedTuple):
    """The functions of a region that launch its kernels."""

    forward: Callable[..., None]
    input_gradient: Callable[..., None]
    weight_gradient: Callable[..., None]
    bias_gradient: Callable[..., None]


def fc_precision() -> str:
    """Multiply float32 as PyTorch's own products may: exactly, unless TF32 is allowed."""
    wished = torch.backends.cuda.matmul.fp32_precision
    return "tf32" if wished == "tf32" and not triton.knobs.runtime.interpret else "ieee"


def refuse_fc(geometry: FcGeometry, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Raise for tensors that do not fit together or do not fit the region."""
    shape = (geometry.outputs, geometry.features)
    refuse_tensors(x, weight, shape, [("bias", bias, geometry.bias)])
    if geometry.features * geometry.outputs >= 2**31:
        raise ValueError("a weight of 2³¹ values or more")
    if x.dim() != 2 or x.shape[1] != geometry.features:
        raise ValueError(f"x has shape {tuple(x.shape)}, not (N, {geometry.features})")


def fc_outputs(geometry: FcGeometry, x: Tensor) -> tuple[Tensor, Tensor]:
    """Allocate y, and the input of the activation where its slope follows from that."""
    y = x.new_empty((x.shape[0], geometry.outputs))
    if geometry.activation == "input":
        return y, torch.empty_like(y)
    return y, x.new_empty(0)


def fc_empty_gradients(
    geometry: FcGeometry, gradient: Tensor, needs: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Allocate the gradients of x, weight and bias; without elements where there is no need."""
    dx = gradient.new_empty((gradient.shape[0], geometry.features) if needs[0] else 0)
    dweight = gradient.new_empty((geometry.outputs, geometry.features) if needs[1] else 0)
    return dx, dweight, gradient.new_empty(geometry.outputs if needs[2] else 0)


def fc_gradients(
    geometry: FcGeometry,
    launches: FcLaunches,
    gradient: Tensor,
    saved: Tensor | None,
    x: Tensor | None,
    weight: Tensor | None,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of x, weight and bias that are needed; the others are empty."""
    dx, dweight, dbias = fc_empty_gradients(geometry, gradient, needs)
    if gradient.numel() == 0:
        return dx, dweight.zero_(), dbias.zero_()
    gradient, saved = packed(gradient), packed(saved)
    with torch.cuda.device_of(gradient):
        if needs[0]:
            launches.input_gradient(geometry, gradient, saved, weight.contiguous(), dx)
        if needs[1]:
            launches.weight_gradient(geometry, gradient, saved, x.contiguous(), dweight)
        if needs[2]:
            launches.bias_gradient(geometry, gradient, saved, dbias)
    return dx, dweight, dbias


def fc_keep(
    geometry: FcGeometry,
    ctx: FunctionCtx,
    inputs: tuple[Tensor | None, ...],
    output: tuple[Tensor, Tensor],
) -> None:
    """Save for backward what the needed gradients read, and no more."""
    x, weight, bias = inputs
    y, kept = output
    needs_x, needs_weight, _ = ctx.needs_input_grad[:3]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(kept)
    ctx.dtypes = (x.dtype, weight.dtype, None if bias is None else bias.dtype)
    saved = {"none": None, "input": kept}.get(geometry.activation, y)
    ctx.save_for_backward(saved, x if needs_weight else None, weight if needs_x else None)


def fc_op(name: str, geometry: FcGeometry, launches: FcLaunches) -> Callable[..., Tensor]:
    """Register a region with PyTorch; the function that is returned runs it.

    The operators `name` and `name_backward` are opaque to torch.compile, which sees their shapes
    only. A region may be registered again under the same name: the last one counts.
    """

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        refuse_fc(geometry, x, weight, bias)
        y, kept = fc_outputs(geometry, x)
        if y.numel() > 0:
            with torch.cuda.device_of(x):
                launches.forward(geometry, packed(x), packed(weight), packed(bias), y, kept)
        return y, kept

    def fake_forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        refuse_fc(geometry, x, weight, bias)
        return fc_outputs(geometry, x)

    def backward(
        gradient: Tensor,
        saved: Tensor | None,
        x: Tensor | None,
        weight: Tensor | None,
        needs: Sequence[bool],
    ) -> tuple[Tensor, Tensor, Tensor]:
        return fc_gradients(geometry, launches, gradient, saved, x, weight, needs)

    def fake_backward(
        gradient: Tensor,
        saved: Tensor | None,
        x: Tensor | None,
        weight: Tensor | None,
        needs: Sequence[bool],
    ) -> tuple[Tensor, Tensor, Tensor]:
        return fc_empty_gradients(geometry, gradient, needs)

    forward_op = torch.library.custom_op(name, forward, mutates_args=())
    backward_op = torch.library.custom_op(f"{name}_backward", backward, mutates_args=())

    def keep(
        ctx: FunctionCtx,
        inputs: tuple[Tensor | None, ...],
        output: tuple[Tensor, Tensor],
    ) -> None:
        fc_keep(geometry, ctx, inputs, output)

    def differentiate(
        ctx: FunctionCtx, gradient: Tensor | None, _kept: None
    ) -> tuple[Tensor | None, ...]:
        needs = list(ctx.needs_input_grad[:3])
        if gradient is None or not any(needs):
            return None, None, None
        found = backward_op(gradient, *ctx.saved_tensors, needs)
        dtypes = zip(found, needs, ctx.dtypes, strict=True)
        return tuple(d.to(dtype) if need else None for d, need, dtype in dtypes)

    def refuse_second(ctx: FunctionCtx, *gradients: Tensor | None) -> None:
        raise RuntimeError(f"{name}: the gradient of a gradient is not computed by fused kernels")

    forward_op.register_fake(fake_forward)
    forward_op.register_autograd(differentiate, setup_context=keep)
    backward_op.register_fake(fake_backward)
    backward_op.register_autograd(refuse_second)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        y, _ = forward_op(*cast_as_wished(x, weight), bias)
        return y

    # For tools that look at the launches, on tensors that have shapes but no memory.
    run.operators = {name: forward, f"{name}_backward": backward}
    return run
