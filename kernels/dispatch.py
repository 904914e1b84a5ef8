"""How regions get into PyTorch: as operators where something looks on, and by a short way else.

An operator of torch.library is what torch.compile, torch.export, modes and transforms can see; a
call of one costs much Python. In plain eager mode a region is an autograd function, which costs a
few microseconds. Both ways run the same functions. This file knows nothing of what they compute.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from .module import PLAIN_TYPES


class Direction(NamedTuple):
    """Forward or backward of a region.

    `compute` gives what the schema says, but may give None for a tensor that the region has no use
    for; `allocate` gives the same without values, for tracers.
    """

    schema: str
    compute: Callable[..., tuple[Tensor | None, ...]]
    allocate: Callable[..., tuple[Tensor | None, ...]]


def is_watched(*given: Tensor | None) -> bool:
    """Say whether more than autograd looks on: a tracer, a mode, a transform, a tensor's class.

    Or whether there is nothing to compute: tensors that are shapes alone.
    """
    if torch.compiler.is_compiling():
        return True
    # By a transform, also by one that has ended.
    is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    for tensor in given:
        if tensor is not None and (
            type(tensor) not in PLAIN_TYPES or tensor.is_meta or is_wrapped(tensor)
        ):
            return True
    return (
        is_in_torch_dispatch_mode()
        or torch._C._are_functorch_transforms_active()
        or torch.jit.is_tracing()
    )


def without_none(function: Callable[..., tuple[Tensor | None, ...]]) -> Callable[..., object]:
    """Give empty tensors for None: an operator must return a tensor for each."""

    def run(*given: object) -> object:
        found = function(*given)
        if len(found) == 1:
            return found[0]
        return tuple(given[0].new_empty(0) if t is None else t for t in found)

    return run


def new_operator(name: str, direction: Direction) -> Callable[..., object]:
    """Register an operator with PyTorch, in place of an earlier one of this name."""
    compute = without_none(direction.compute)
    operator = torch.library.custom_op(name, compute, mutates_args=(), schema=direction.schema)
    operator.register_fake(without_none(direction.allocate))
    return operator


def differentiable(
    name: str,
    forward: Direction,
    backward: Direction,
    keep: Callable[..., None],
    differentiate: Callable[..., tuple[Tensor | None, ...]],
) -> Callable[..., tuple[Tensor | None, ...]]:
    """Give the function that runs a region; behind it are the operators `name`, `name_backward`.

    keep(ctx, inputs, outputs) saves for backward. differentiate(run_backward, ctx, gradient) gives
    the gradients of all inputs from that of the first output, which is the only one that has one.
    """
    forward_op = new_operator(name, forward)
    backward_op = new_operator(f"{name}_backward", backward)

    def gradients(
        ctx: FunctionCtx, gradient: Tensor | None, *_others: None
    ) -> tuple[Tensor | None, ...]:
        if gradient is None:
            return (None,) * len(ctx.needs_input_grad)
        # With gradients enabled, that of a gradient is wanted: the operator refuses that.
        is_seen = torch.is_grad_enabled() or is_watched(gradient)
        return differentiate(backward_op if is_seen else backward.compute, ctx, gradient)

    def refuse_second(ctx: FunctionCtx, *gradients: Tensor | None) -> None:
        raise RuntimeError(f"{name}: the gradient of a gradient is not computed by fused kernels")

    forward_op.register_autograd(gradients, setup_context=keep)
    backward_op.register_autograd(refuse_second)

    class Region(torch.autograd.Function):
        """The short way."""

        @staticmethod
        def forward(ctx: FunctionCtx, *given: Tensor | None) -> tuple[Tensor | None, ...]:
            found = forward.compute(*given)
            keep(ctx, given, found)
            return found

        backward = staticmethod(gradients)

    # Region.apply looks for transforms first, of which is_watched has found none.
    apply = super(torch.autograd.Function, Region).apply

    def run(*given: Tensor | None) -> tuple[Tensor | None, ...]:
        if is_watched(*given):
            return forward_op(*given)
        if torch.is_grad_enabled():
            return apply(*given)
        return forward.compute(*given)

    # For tools that look at the launches, on tensors that have shapes but no memory.
    run.operators = {
        name: without_none(forward.compute),
        f"{name}_backward": without_none(backward.compute),
    }
    return run
