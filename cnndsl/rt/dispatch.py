"""How regions get into PyTorch: through its own operators where something looks into them.

A plain eager call of a region is an autograd function, which costs a few microseconds of Python.
torch.compile sees a region as one operator of torch.library. Both run the same functions. All else
that looks into a network gets PyTorch's operators, so that it sees what it sees of a module that is
written by hand. This file knows nothing of what regions compute.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.utils._python_dispatch import is_in_torch_dispatch_mode
from torch.utils.flop_counter import flop_registry

# Of these operators in PyTorch. A file that stands alone has a namespace of its own for them.
NAMESPACE = "cnndsl_rt"
PLAIN_TYPES = (Tensor, nn.Parameter)


class Tools(threading.local):
    """What a tool, such as the tuner, puts in the place of a step, in its thread.

    `takes(x)` says whether kernels compute with x. `launches(kernel, arguments)` is told of each
    launch, and says whether it is done. `copies(tensor)` is told of each tensor that is copied to
    lie otherwise in memory. None leaves the step as it is. Where `is_blind`, a mode that looks on
    does not keep kernels from being called.
    """

    takes: Callable[[Tensor], bool] | None = None
    launches: Callable[[Any, dict[str, Any]], bool] | None = None
    copies: Callable[[Tensor], None] | None = None
    is_blind = False


tools = Tools()


class Direction(NamedTuple):
    """Forward or backward of a region.

    `compute` gives what the schema says, but may give None for a tensor that the region has no use
    for; `allocate` gives the same without values, for tracers. `flops` counts the multiplications
    and additions of its products, for torch.utils.flop_counter.
    """

    schema: str
    compute: Callable[..., tuple[Tensor | None, ...]]
    allocate: Callable[..., tuple[Tensor | None, ...]]
    flops: Callable[..., int] | None = None


def is_transformed(x: Tensor) -> bool:
    """Say whether torch.func transforms what is computed with x, or forward-mode AD follows it.

    Or whether it stands for several (`is_grads_batched`), which is an older vmap.
    """
    return (
        torch._C._are_functorch_transforms_active()
        or torch._C._functorch.is_legacy_batchedtensor(x)
        or torch.autograd.forward_ad._current_level >= 0
    )


def is_special(*given: Tensor | None) -> bool:
    """Say whether one of them is more or less than a tensor with values.

    It may be of another class, or a proxy of torch.fx; without memory (`meta`); or one that a
    transform has made, even if that has ended.
    """
    is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    for tensor in given:
        if tensor is not None and (
            type(tensor) not in PLAIN_TYPES or tensor.is_meta or is_wrapped(tensor)
        ):
            return True
    return False


def needs_operators(x: Tensor) -> bool:
    """Say whether PyTorch's own operators must compute with x, because something looks at each.

    That may be a transform, a mode such as FlopCounterMode, torch.jit.trace, torch.fx, or
    torch.export: what is saved of these runs where this module is not. torch.compile is none of
    them: to it, a region is one operator.
    """
    if tools.is_blind:
        return False
    if torch.compiler.is_compiling():
        is_exporting = torch.compiler._is_exporting_flag
        return is_exporting or torch._C._are_functorch_transforms_active()
    return (
        is_special(x)
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
        or is_in_torch_dispatch_mode()
        or torch._C._is_tracing()
    )


def is_watched(x: Tensor) -> bool:
    """Say whether more than autograd looks at what is computed with x."""
    return torch.compiler.is_compiling() or needs_operators(x)


def is_opaque(*given: Tensor | None) -> bool:
    """Say whether a region is called as one operator, though its kernels could be: by a compiler.

    Or for tools that look at launches, with tensors that have no memory.
    """
    return torch.compiler.is_compiling() or is_special(*given)


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
    if direction.flops is not None:
        flop_registry[operator._opoverload.overloadpacket] = direction.flops
    return operator


def as_inputs(given: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Give the same tensors, each with a gradient of its own, as inputs of a new computation."""
    return [t.view_as(t) if t is not None and t.requires_grad else t for t in given]


def stand_in(like: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Give zeros that take no memory, for an input whose values its gradient does not depend on."""
    zero = torch.zeros((), dtype=dtype, device=like.device)
    return zero.expand(shape).requires_grad_()


def curved(slope_from: str, launches: NamedTuple, z: Tensor, saved: Tensor) -> Tensor:
    """Apply PyTorch's activation to z, at the values that were kept.

    `saved` is what the activation was given, or its output (`slope_from`). z has the same values
    only if all that it was computed from was kept; its place among what depends on what is right.
    """
    saved = saved.to(z.dtype)
    before = saved
    if slope_from == "output" and launches.before is not None:
        before = launches.before(saved)
    return launches.activation(z + (before - z).detach())


def shape_and_type(tensor: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    """Give what is kept of a tensor of which the values are not."""
    return tensor.shape, tensor.dtype, tensor.device


def zeros_like_it(kept: tuple[torch.Size, torch.dtype, torch.device]) -> Tensor:
    """Give zeros in its place, which take no memory."""
    shape, dtype, device = kept
    return torch.zeros((), dtype=dtype, device=device).expand(shape)


def drop_values(node: FunctionCtx) -> None:
    """Let go of the values of the saved tensors `node.places`.

    What stays is from what they were computed, which gradients of gradients need.
    """
    if torch._C._autograd._top_saved_tensors_default_hooks(False) is not None:
        return  # saved_tensors_hooks keep them elsewhere
    for place in node.places:
        node._raw_saved_tensors[place].register_hooks(shape_and_type, zeros_like_it)


def by_operators(
    again: Callable[..., tuple[Tensor, Sequence[Tensor | None]]],
    ctx: FunctionCtx,
    gradient: Tensor,
) -> tuple[Tensor | None, ...]:
    """Give the gradients of a region by PyTorch's operators, which can be differentiated further.

    again(ctx, gradient) computes the first output once more, and gives it and its inputs.
    """
    needs = ctx.needs_input_grad
    is_wanted = torch.is_grad_enabled()
    with torch.enable_grad(), torch.autocast(gradient.device.type, enabled=False):
        y, inputs = again(ctx, gradient)
        wanted = [t for t, need in zip(inputs, needs, strict=False) if need]
        found = torch.autograd.grad(y, wanted, gradient, create_graph=is_wanted, allow_unused=True)
    rest = list(found)
    return tuple(rest.pop(0) if need else None for need in needs)


def differentiable(
    name: str,
    forward: Direction,
    backward: Direction,
    keep: Callable[..., None],
    differentiate: Callable[..., tuple[Tensor | None, ...]],
    again: Callable[..., tuple[Tensor, Sequence[Tensor | None]]],
    *,
    is_curved: bool = False,
) -> Callable[..., tuple[Tensor | None, ...]]:
    """Give the function that runs a region; behind it are the operators `name`, `name_backward`.

    keep(ctx, inputs, outputs) saves for backward. differentiate(run_backward, ctx, gradient) gives
    the gradients of all inputs from that of the first output, which is the only one that has one.
    again(ctx, gradient) computes this output once more, by PyTorch's operators from what was saved,
    for gradients of gradients; it gives the inputs, too. Where those depend on inputs whose values
    nothing reads (`is_curved`), these are saved, too, and `ctx.places` says which.
    """
    forward_op = new_operator(name, forward)
    backward_op = new_operator(f"{name}_backward", backward)

    def gradients(
        ctx: FunctionCtx, gradient: Tensor | None, *_others: None
    ) -> tuple[Tensor | None, ...]:
        if gradient is None:
            return (None,) * len(ctx.needs_input_grad)
        if torch.compiler.is_compiling():
            return differentiate(backward_op, ctx, gradient)
        if torch.is_grad_enabled() or is_transformed(gradient):
            return by_operators(again, ctx, gradient)
        is_seen = is_special(gradient) or is_in_torch_dispatch_mode()
        return differentiate(backward_op if is_seen else backward.compute, ctx, gradient)

    def refuse_second(ctx: FunctionCtx, *gradients: Tensor | None) -> None:
        raise RuntimeError(
            f"{name}: under torch.compile or a dispatch mode, a fused kernel's gradient has no "
            "gradient itself; call the module without them"
        )

    forward_op.register_autograd(gradients, setup_context=keep)
    backward_op.register_autograd(refuse_second)

    def run_now(ctx: FunctionCtx, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        found = forward.compute(*given)
        keep(ctx, given, found)
        return found

    # A class of this name, because profilers and `grad_fn` show it.
    methods = {"forward": staticmethod(run_now), "backward": staticmethod(gradients)}
    region = type(name.split("::")[-1], (torch.autograd.Function,), methods)
    # region.apply looks for transforms first, of which needs_operators has found none.
    apply = super(torch.autograd.Function, region).apply

    def run(*given: Tensor | None) -> tuple[Tensor | None, ...]:
        if is_opaque(*given):
            return forward_op(*given)
        if torch.is_grad_enabled():
            found = apply(*given)
            if is_curved and found[0].requires_grad:
                drop_values(found[0].grad_fn)
            return found
        return forward.compute(*given)

    # For tools that look at the launches, on tensors that have shapes but no memory.
    run.operators = {
        name: without_none(forward.compute),
        f"{name}_backward": without_none(backward.compute),
    }
    return run
