"""LeNet, a convolutional network: 28 x 28 x 1 to 10.

Made by cnndsl 0.1.0 from a source with this SHA-256; valid for this size of image only.
d5a4aac2f110a4376cba0bf55ba0f0dc417f521113f0af83e5d37bfa7d4431e3

It needs torch and triton. A region is a few layers in a row that one kernel computes
forward, and a few kernels backward. They run on CUDA, and in Triton's interpreter where
TRITON_INTERPRET=1 is set before the import; elsewhere the layers run as PyTorch's
operators. To see how, begin with the function at the end of a region.
"""

import math
import threading
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.utils._python_dispatch import is_in_torch_dispatch_mode
from torch.utils.flop_counter import flop_registry
from triton.compiler import CompiledKernel

# Of this module's operators in PyTorch, so that two modules never meet.
NAMESPACE = "cnndsl_lenet_4fd8abdbf260"


# ── what all regions share ────────────────────────────────────────────────────────────


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


def without_none(
    function: Callable[..., tuple[Tensor | None, ...]],
) -> Callable[..., object]:
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
    operator = torch.library.custom_op(
        name,
        compute,
        mutates_args=(),
        schema=direction.schema,
    )
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
        found = torch.autograd.grad(
            y,
            wanted,
            gradient,
            create_graph=is_wanted,
            allow_unused=True,
        )
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
        return differentiate(
            backward_op if is_seen else backward.compute,
            ctx,
            gradient,
        )

    def refuse_second(_ctx: FunctionCtx, *_gradients: Tensor | None) -> None:
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


# Triton decides this for each kernel when it is defined.
INTERPRETED = triton.knobs.runtime.interpret
GPU_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# Triton's interpreter gets bfloat16 wrong.
INTERPRETED_TYPES = (torch.float32, torch.float16, torch.float64)
TRACED_TYPES = (
    torch._subclasses.FakeTensor,
    torch._subclasses.functional_tensor.FunctionalTensor,
)
# What calls of PyTorch's layers run when this file is loaded: a class may be patched later.
METHODS = {
    nn.BatchNorm2d: (nn.BatchNorm2d.forward, None),
    nn.Conv2d: (nn.Conv2d.forward, nn.Conv2d._conv_forward),
    nn.Linear: (nn.Linear.forward, None),
}


def runs_kernels(x: Tensor) -> bool:
    """Say whether kernels compute with x: on a GPU, or in Triton's interpreter."""
    if tools.takes is not None:
        return tools.takes(x)
    if needs_operators(x):
        return False
    if x.is_cuda:
        return x.dtype in GPU_TYPES
    if not INTERPRETED:
        return False
    return x.dtype in INTERPRETED_TYPES and not torch.is_autocast_enabled("cpu")


def is_unaltered(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Say whether a call of a layer runs the code of this class and nothing else.

    Not so with a class of its own (parametrizations give it one), a `forward` of its own, hooks, or
    where the class was patched.
    """
    if type(layer) is not kind or is_patched(kind):
        return False
    own = vars(layer)
    return not (
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
        or "forward" in own
        or "_conv_forward" in own
        or nn.modules.module._has_any_global_hook()
    )


def is_patched(kind: type[nn.Module]) -> bool:
    """Say whether one of PyTorch's classes has got another method."""
    forward, inner = METHODS.get(kind, (kind.forward, None))
    if inner is not None and kind._conv_forward is not inner:
        return True
    return kind.forward is not forward


def plain_weights(
    layer: nn.Module,
    shape: Sequence[int],
    has_bias: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Give weight and bias as the layer would read them; None for both where kernels cannot.

    They can read a weight of this shape and a bias or none, if these are plain tensors.
    """
    own = vars(layer)
    parameters = own["_parameters"]
    weight = own.get("weight", parameters.get("weight"))
    bias = own.get("bias", parameters.get("bias"))
    if not is_plain_tensor(weight, shape):
        return None, None
    if bias is None:
        return (None, None) if has_bias else (weight, None)
    is_fine = has_bias and is_plain_tensor(bias, shape[:1])
    return (weight, bias) if is_fine else (None, None)


def is_plain_tensor(tensor: Tensor | None, shape: Sequence[int]) -> bool:
    """Say whether it has this shape, and no class of its own (a DTensor, torchao's).

    The classes with which PyTorch traces do not count.
    """
    if tensor is None or tensor.shape != shape:
        return False
    return type(tensor) in PLAIN_TYPES or isinstance(tensor, TRACED_TYPES)


def full_dtype(x: Tensor) -> torch.dtype:
    """Give the type in which values like these are added: of 32 bits for 16."""
    return torch.promote_types(x.dtype, torch.float32)


def widened(x: Tensor) -> Tensor:
    """Give the values in the type in which they are added."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


# What Triton compiled, by all that it compiles for. On AMD's GPUs it looks at more than we do.
COMPILED = {}
MOST_COMPILED = 4096
# Numbers that follow from the batch. Triton compiles a kernel again for a number that is 1, and for
# one that 16 divides; of these it is told not to, or the last batch of an epoch would wait.
COUNTS = ("batch", "splits", "rows", "tiles", "values")
REMEMBERS = not INTERPRETED and torch.version.hip is None


class Step(NamedTuple):
    """What a call did: it launched a kernel, or took tensors and gave another, by a function."""

    function: Any
    programs: int  # of a kernel; a function has none
    values: tuple[Any, ...]
    found: Any = None


class Notes(threading.local):
    """Where the steps of a thread are noted, while they are, and the memory that kernels fill."""

    steps: list[Step] | None = None
    allocated: list[Tensor] = ()


notes = Notes()


def done(function: Callable[..., Any], *values: object) -> object:
    """Give function(*values), which is a new tensor or several, and note how it came about."""
    steps, notes.steps = notes.steps, None
    try:
        found = function(*values)
    finally:
        notes.steps = steps
    if steps is not None:
        steps.append(Step(function, 0, values, found))
    return found


def allocated(tensor: Tensor) -> Tensor:
    """Note a new tensor that kernels are to fill."""
    if notes.steps is not None:
        notes.allocated.append(tensor)
    return tensor


def summed(parts: Tensor) -> Tensor:
    """Add up what programs left of a sum, in one order each time."""
    return parts.sum(0)


def laid_out(tensor: Tensor, layout: torch.memory_format) -> Tensor:
    """Give a copy in this layout."""
    return tensor.contiguous(memory_format=layout)


class Tile(NamedTuple):
    """The share of one program: a tile of a matrix product, terms a step; warps and stages."""

    rows: int
    columns: int
    terms: int
    warps: int
    stages: int


def power_of_two(size: int) -> int:
    """Give the least power of two that is no less."""
    return 1 << (size - 1).bit_length()


def count_blocks(size: int, block: int) -> int:
    """Count the blocks that cover the size."""
    return -(-size // block)


def block_size(size: int, most: int) -> int:
    """Give the least power of two that holds the size, from 16, the least a matrix unit takes."""
    return min(most, max(16, power_of_two(size)))


def split_count(programs: int, blocks: int, most: int = 512) -> int:
    """Choose over how many programs to split a sum; by shapes alone, so that it never varies."""
    return max(1, min(blocks, most // programs))


@triton.jit
def full(tile):
    """Give 16 bits as 32, in which values are added; 64 stay 64."""
    return tile if tile.dtype == tl.float64 else tile.to(tl.float32)


@cache
def launch_parameters(
    kernel: triton.JITFunction,
) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    """Name a kernel's parameters; say of those before the first constant which are `COUNTS`."""
    constants = [parameter.is_constexpr for parameter in kernel.params]
    first = (*constants, True).index(True)
    are_counts = tuple(p.do_not_specialize for p in kernel.params[:first])
    return tuple(kernel.arg_names), are_counts


def launch_kind(value: object, is_count: bool) -> object:
    """Give what Triton compiles for of an argument: type, alignment, whether a number is 1."""
    if isinstance(value, Tensor):
        return value.dtype, value.data_ptr() % 16 == 0
    if isinstance(value, int):
        if is_count:
            return value < 2**31
        return value if value == 1 else (value % 16 == 0, value < 2**31)
    return type(value)


def launch(kernel: triton.JITFunction, programs: int, **arguments: Any) -> None:
    """Do `kernel[(programs,)](**arguments)`: first what the kernel takes, in its order.

    Triton looks for what it compiled at each launch anew, which takes longer than many a kernel
    runs. Here that is remembered. Tools that record launches, or hook into them, see each.
    """
    if tools.launches is not None and not tools.launches(kernel, arguments):
        return
    if not REMEMBERS:
        kernel[(programs,)](**arguments)
        return
    names, are_counts = launch_parameters(kernel)
    if tuple(arguments)[: len(names)] != names:
        raise TypeError(f"a kernel takes {names} in this order, not {tuple(arguments)}")
    values = tuple(arguments.values())
    own = values[: len(are_counts)]
    pairs = zip(own, are_counts, strict=True)
    kinds = [launch_kind(value, is_count) for value, is_count in pairs]
    key = (kernel.fn, values[0].device, *kinds, values[len(are_counts) :])
    compiled = COMPILED.get(key)
    if compiled is not None:
        compiled[programs, 1, 1](*values[: len(names)])
    else:
        compiled = kernel[(programs,)](**arguments)
        # A tool that records launches gives something else, or nothing.
        if isinstance(compiled, CompiledKernel):
            if len(COMPILED) >= MOST_COMPILED:
                COMPILED.clear()
            COMPILED[key] = compiled
    if notes.steps is not None:
        notes.steps.append(Step(compiled, programs, values[: len(names)]))


def is_lazy(tensor: Tensor) -> bool:
    """Say whether its values are not what lies in memory: negated, or zeros without memory."""
    if torch.compiler.is_compiling():  # it cannot trace the question
        return False
    return tensor.is_neg() or tensor._is_zerotensor()


def packed(tensor: Tensor | None) -> Tensor | None:
    """Give the tensor as kernels address it: without gaps, and images with channels innermost."""
    if tensor is None:
        return None
    if is_lazy(tensor):
        tensor = done(torch.clone, tensor)
    layout = torch.channels_last if tensor.dim() == 4 else torch.contiguous_format
    if tensor.is_contiguous(memory_format=layout):
        return tensor
    if tools.copies is not None:
        tools.copies(tensor)
    return done(laid_out, tensor, layout)


def channels_last(tensor: Tensor) -> Tensor:
    """Give the tensor with channels innermost in memory: itself, if it already is so."""
    return packed(tensor)


def new_image(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Allocate an (N, C, H, W) tensor with channels innermost in memory."""
    return allocated(
        torch.empty(
            shape,
            dtype=like.dtype,
            device=like.device,
            memory_format=torch.channels_last,
        )
    )


def cast_as_wished(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Cast to the type of torch.autocast, where that is on, as PyTorch's own layers do.

    Which leaves float64 as it is.
    """
    device = tensors[0].device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(t if t.dtype == torch.float64 else t.to(dtype) for t in tensors)


def refuse_launch(x: Tensor, programs: int, pixels: int) -> None:
    """Raise where no kernel can run, or where 32 bits are too few.

    Programs, pixels and the place of a value within its image are counted in 32 bits; an image
    starts at a 64-bit address. The margin is for tiles that are not full.
    """
    if not INTERPRETED and x.device.type == "cpu" and tools.launches is None:
        raise RuntimeError(
            f"x is on {x.device}: Triton needs a GPU, or TRITON_INTERPRET=1",
        )
    if max(programs, pixels, math.prod(x.shape[1:])) >= 2**31 - 2**20:
        raise ValueError(
            "this batch has 2³¹ pixels or more, or an image 2³¹ values: split it",
        )


def refuse_tensors(
    x: Tensor,
    weight: Tensor,
    shape: Sequence[int],
    vectors: Sequence[tuple[str, Tensor | None, bool]],
) -> None:
    """Raise for tensors that do not fit together; vectors are (name, tensor, whether expected)."""
    for name, tensor in (("x", x), ("weight", weight)):
        if tensor.layout != torch.strided:
            raise TypeError(
                f"{name} is {tensor.layout}: the kernels take dense tensors",
            )
    if x.dtype not in GPU_TYPES:
        raise TypeError(
            f"x is {x.dtype}: the kernels take floats of 16, 32 and 64 bits",
        )
    if weight.dtype != x.dtype:
        raise TypeError(f"x is {x.dtype}, weight {weight.dtype}")
    if weight.device != x.device:
        raise ValueError(f"x is on {x.device}, weight on {weight.device}")
    if tuple(weight.shape) != tuple(shape):
        raise ValueError(f"weight has shape {tuple(weight.shape)}, not {tuple(shape)}")
    for name, vector, is_expected in vectors:
        if (vector is not None) != is_expected:
            raise ValueError(f"this region takes {'a' if is_expected else 'no'} {name}")
        if vector is not None and vector.dtype not in GPU_TYPES:
            raise TypeError(
                f"{name} is {vector.dtype}: the kernels take floats of 16 to 64 bits",
            )
        if vector is not None and vector.device != x.device:
            raise ValueError(f"x is on {x.device}, {name} on {vector.device}")
        if vector is not None and tuple(vector.shape) != (shape[0],):
            raise ValueError(
                f"{name} has shape {tuple(vector.shape)}, not ({shape[0]},)",
            )


MOST_PLANS = 256
PLAIN = (bool, int, float, str, torch.dtype, torch.device, torch.memory_format)


class Plan(NamedTuple):
    """What a call does; a place is an index into the values given, then the new tensors.

    new: size, stride and type of each tensor that kernels fill. steps: what to call, its values,
    for those that are tensors (index of the value, place), and whether what it gives is new: that
    has the next place behind those before. results: places, or None. is_elsewhere: whether there
    are several GPUs, of which another may be the current one.
    """

    new: list[tuple[Sequence[int], Sequence[int], torch.dtype]]
    steps: list[tuple[Callable[..., Any], list[Any], list[tuple[int, int]], bool]]
    results: list[int | None]
    is_single: bool
    is_elsewhere: bool


def likeness(given: Sequence[object], settings: object) -> tuple[object, ...]:
    """Give of values all that a plan may depend on, in a row: it is made in each call."""
    found = [settings]
    for value in given:
        if isinstance(value, Tensor):
            found += (value.shape, value.stride(), value.dtype, value.device)
            found += (value.data_ptr() % 16 == 0, is_lazy(value))
        elif isinstance(value, list):  # as an operator is given them
            found.append(tuple(value))
        else:
            found.append(value)
    return tuple(found)


def in_a_row(found: object) -> list[object]:
    """Give what a function gave as a list."""
    return list(found) if isinstance(found, tuple) else [found]


def is_plain(value: object) -> bool:
    """Say whether a value is the same in each call that is alike; others may hold tensors."""
    if isinstance(value, (tuple, list)):
        return not any(not is_plain(element) for element in value)
    return value is None or isinstance(value, PLAIN)


def is_changed(tensor: Tensor | None) -> bool:
    """Say whether PyTorch wrote to it, where that is told."""
    return tensor is not None and not tensor.is_inference() and tensor._version > 0


def new_plan(
    given: Sequence[object],
    noted: Sequence[Step],
    filled: Sequence[Tensor],
    found: object,
) -> Plan | None:
    """Make a plan of the steps that were noted; None where more was done than that."""
    made = [t for step in noted if not step.programs for t in in_a_row(step.found)]
    results = in_a_row(found)
    known = {id(t) for t in (*made, None)}
    fresh = {id(t): t for t in (*results, *filled) if id(t) not in known}
    places = {}
    for place, value in enumerate((*given, *fresh.values(), *made)):
        if isinstance(value, Tensor) and places.setdefault(id(value), place) != place:
            return None  # a step or a call gave what there was before: it is not new
    steps, written = [], set()
    for step in noted:
        plain, slots = [], []
        for index, value in enumerate(step.values):
            is_tensor = isinstance(value, Tensor)
            if not is_tensor and not is_plain(value):
                return None
            plain.append(None if is_tensor else value)
            if is_tensor:
                slots.append((index, places.get(id(value))))
        if None in [place for _, place in slots]:
            return None  # it works on something else
        run = step.function
        if step.programs:
            if not isinstance(run, CompiledKernel):
                return None  # a tool records launches
            written.update(place for _, place in slots)
            run = run[step.programs, 1, 1]
        steps.append((run, plain, slots, not step.programs))
    if any(is_changed(t) for t in (*fresh.values(), *made)):
        return None
    if not written.issuperset(places[key] for key in fresh):
        return None
    return Plan(
        [(t.shape, t.stride(), t.dtype) for t in fresh.values()],
        steps,
        [None if t is None else places[id(t)] for t in results],
        not isinstance(found, tuple),
        torch.cuda.device_count() > 1,
    )


def carry_out(plan: Plan, given: Sequence[object], device: torch.device) -> object:
    """Do again what was noted, with other tensors."""
    tensors = list(given)
    for size, stride, dtype in plan.new:
        tensors.append(torch.empty_strided(size, stride, dtype=dtype, device=device))
    for run, plain, slots, is_new in plan.steps:
        values = plain.copy()
        for index, place in slots:
            values[index] = tensors[place]
        found = run(*values)
        if is_new:
            tensors += found if isinstance(found, tuple) else (found,)
    results = [None if place is None else tensors[place] for place in plan.results]
    return results[0] if plan.is_single else tuple(results)


def remembered(
    function: Callable[..., Any] | None, settings: Callable[[], object] | None = None
) -> Callable[..., Any]:
    """Give a function that does the same: it looks again at the first of calls that are alike only.

    The function is given a tensor first. It launches kernels on what it is given, on what is
    `allocated`, on what is `done`, and on what it gives back, which is new; where it does more, it
    is called each time. `settings` gives what else it looks at, for float32.
    """
    if not REMEMBERS or function is None:
        return function
    plans = {}

    def run(*given: object) -> object:
        device = given[0].device
        is_set = settings is not None and given[0].dtype == torch.float32
        key = likeness(given, (device, settings() if is_set else None))
        plan = plans.get(key)
        if plan is not None:
            if plan.is_elsewhere:
                with torch.cuda.device_of(given[0]):
                    return carry_out(plan, given, device)
            return carry_out(plan, given, device)
        if key in plans:
            return function(*given)
        noted, filled = [], []
        notes.steps, notes.allocated = noted, filled
        try:
            found = function(*given)
        finally:
            notes.steps, notes.allocated = None, ()
        tensors = [id(t) for t in given if isinstance(t, Tensor)]
        if len(set(tensors)) == len(tensors):  # or it could not be told which is which
            if len(plans) >= MOST_PLANS:
                plans.clear()
            plans[key] = new_plan(given, noted, filled, found)
        return found

    return run


# With more weights than so many times the values of the images, laying them anew takes longer than
# what it saves. A gradient of theirs is laid anew as well.
MOST_WEIGHTS = 32
MOST_WEIGHTS_WITH_GRADIENT = 8


def in_layout_for(x: Tensor, *layers: nn.Module) -> Tensor:
    """Put channels innermost in memory, where a CPU computes in float32.

    A convolution then lays its weights so, too. Where they outweigh the images, these follow them.
    A layer that was altered gets its images as in a network written by hand: it may need them so.
    """
    if not torch.compiler.is_compiling() and is_special(x):
        return x
    if any(is_altered(layer) for layer in layers):
        return x.contiguous()
    if is_watched(x) or x.device.type != "cpu" or x.dtype != torch.float32:
        return x
    weight = layers[0].weight
    share = MOST_WEIGHTS_WITH_GRADIENT if torch.is_grad_enabled() else MOST_WEIGHTS
    if weight.numel() > share * x.numel() and not has_channels_innermost(weight):
        return x.contiguous()
    count, channels, height, width = x.shape
    if channels == 1:  # it is so already; but PyTorch takes it for the other layout
        return x.reshape(count, height, width, 1).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


def has_channels_innermost(tensor: Tensor) -> bool:
    """Say whether an image or a weight lies so in memory."""
    return tensor.is_contiguous(memory_format=torch.channels_last)


def is_altered(layer: nn.Module) -> bool:
    """Say whether a layer is not PyTorch's own, or computes or is watched in a way of its own."""
    kind = type(layer)
    if kind not in (nn.Conv2d, nn.BatchNorm2d) or not is_unaltered(layer, kind):
        return True
    return layer.weight is not None and type(layer.weight) not in PLAIN_TYPES


def max_pool2(x: Tensor) -> Tensor:
    """Give F.max_pool2d(x, 2); in inference on a CPU faster, by comparing slices."""
    if torch.is_grad_enabled() or is_watched(x) or x.device.type != "cpu":
        return F.max_pool2d(x, 2)
    height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    x = torch.maximum(x[:, :, 0:height:2], x[:, :, 1:height:2])
    return torch.maximum(x[:, :, :, 0:width:2], x[:, :, :, 1:width:2])


@triton.jit
def pixel_place(pixel, rows, columns):
    """Say in which image, row and column a pixel lies; the image in 64 bits, for addresses."""
    image = (pixel // (rows * columns)).to(tl.int64)
    return image, pixel // columns % rows, pixel % columns


@triton.jit
def is_better(z, best):
    """Say which values beat the best so far: the first of equals stays, the last NaN wins."""
    itself = z  # only NaN differs from itself
    return (z > best) | (z != itself)


class ConvGeometry(NamedTuple):
    """All that is fixed in a region; pairs are (height, width).

    `forward` and `backward` say whose products are taken: "fused", in the kernels that do all the
    rest too, or "library", in PyTorch's own, beside one pass of ours that does the rest. "staged"
    is such a pass behind a kernel of ours that only multiplies.
    """

    channels: int
    filters: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    bias: bool = True
    scale: str = "none"
    residual: bool = False
    activation: str = "none"
    pool: str = "none"
    pool_size: tuple[int, int] = (1, 1)
    pool_stride: tuple[int, int] = (1, 1)
    pool_pad: tuple[int, int] = (0, 0)
    pool_dilation: tuple[int, int] = (1, 1)
    ceil: bool = False
    count_pad: bool = True
    window: str = "one"
    taps: str = "packed"
    statistics: bool = False
    forward: str = "fused"
    backward: str = "fused"


class ConvOutputs(NamedTuple):
    """What forward computes; None for a part that a region has no use for.

    y: (N, filters, H, W). code, like y: the position that won, or a bit a live position. before,
    like y: what the activation was given. sums: [tiles, 3, filters], of a tile's values
    the count, the mean, and the sum of squared distances to it.
    """

    y: Tensor
    code: Tensor | None
    before: Tensor | None
    sums: Tensor | None


class ConvSizes(NamedTuple):
    """Heights and widths: of the input, of the convolution, and after the pool."""

    height: int
    width: int
    conv_height: int
    conv_width: int
    out_height: int
    out_width: int


def window_count(
    size: int,
    window: int,
    stride: int,
    pad: int,
    dilation: int,
    ceil: bool,
) -> int:
    """How many windows fit along an axis, as PyTorch counts them."""
    span = size + 2 * pad - dilation * (window - 1) - 1
    if not ceil:
        return span // stride + 1
    count = -(-span // stride) + 1
    # A window that would start in the padding behind the image is dropped.
    if (count - 1) * stride >= size + pad:
        count -= 1
    return count


def conv_sizes(geometry: ConvGeometry, height: int, width: int) -> ConvSizes:
    """O = ⌊(I + 2P − D(K−1) − 1)/S⌋ + 1, for the convolution and then for the pool."""
    conv, out = [], []
    for axis, size in enumerate((height, width)):
        conv.append(
            window_count(
                size,
                geometry.kernel[axis],
                geometry.stride[axis],
                geometry.pad[axis],
                geometry.dilation[axis],
                False,
            )
        )
        out.append(
            window_count(
                conv[axis],
                geometry.pool_size[axis],
                geometry.pool_stride[axis],
                geometry.pool_pad[axis],
                geometry.pool_dilation[axis],
                geometry.ceil,
            )
        )
    return ConvSizes(height, width, *conv, *out)


def conv_weights(
    layer: nn.Module,
    geometry: ConvGeometry,
) -> tuple[Tensor | None, Tensor | None]:
    """Give weight and bias of a layer; None for both unless it is the one that was compiled."""
    g = geometry
    if (
        is_unaltered(layer, nn.Conv2d)
        and layer.stride == g.stride
        and layer.padding == g.pad
        and layer.dilation == g.dilation
        and layer.groups == g.groups
        and layer.padding_mode == "zeros"
    ):
        return plain_weights(
            layer,
            (g.filters, g.channels // g.groups, *g.kernel),
            g.bias,
        )
    return None, None


def conv_code_dtype(_geometry: ConvGeometry) -> torch.dtype | None:
    """What a value of `ConvOutputs.code` is; None where a region needs none.

    A maximum keeps the position that won, in a byte. An average of ReLUs keeps a bit for each
    position that lives.
    """
    return torch.uint8


def conv_keeps_output(geometry: ConvGeometry) -> bool:
    """Tell whether backward reads y: the slope follows from it, and no byte says it."""
    unpooled_relu = geometry.activation == "relu" and geometry.pool == "none"
    return geometry.activation == "output" or unpooled_relu


def refuse_geometry(geometry: ConvGeometry) -> None:
    """Raise for a region that these kernels cannot compute, whatever its input."""
    positions = geometry.pool_size[0] * geometry.pool_size[1]
    if geometry.channels % geometry.groups or geometry.filters % geometry.groups:
        raise ValueError(
            f"{geometry.groups} groups divide neither channels nor filters evenly",
        )
    terms = geometry.kernel[0] * geometry.kernel[1] * geometry.channels
    if geometry.filters * terms >= 2**31:
        raise ValueError("a weight of 2³¹ values or more")
    if geometry.pool == "max" and positions > 255:
        raise ValueError(
            f"a byte cannot tell which of {positions} pixels of a window won",
        )


def refuse_conv(
    geometry: ConvGeometry,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    residual: Tensor | None,
) -> ConvSizes:
    """Give the sizes; raise for tensors that do not fit together or do not fit the region."""
    shape = (geometry.filters, geometry.channels // geometry.groups, *geometry.kernel)
    has_scale = geometry.scale != "none"
    vectors = [("bias", bias, geometry.bias), ("scale", scale, has_scale)]
    refuse_tensors(x, weight, shape, vectors)
    if x.dim() != 4 or x.shape[1] != geometry.channels:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, not (N, {geometry.channels}, H, W)",
        )
    sizes = conv_sizes(geometry, x.shape[2], x.shape[3])
    if min(sizes) < 1:
        raise ValueError(
            f"an input of {sizes.height} x {sizes.width} is too small for this region",
        )
    if (residual is not None) != geometry.residual:
        raise ValueError(
            f"this region takes {'a' if geometry.residual else 'no'} residual",
        )
    return sizes


def conv_settings() -> str:
    """Give what else a launch looks at: how PyTorch's own convolutions may multiply float32."""
    return torch.backends.cudnn.conv.fp32_precision


def conv_precision(x: Tensor) -> str:
    """Multiply float32 as PyTorch's own convolutions may: in TF32, unless that is forbidden."""
    is_free = x.dtype == torch.float32 and not INTERPRETED
    return "tf32" if conv_settings() == "tf32" and is_free else "ieee"


def conv_again(
    geometry: ConvGeometry,
    _launches: NamedTuple,
    code: Tensor | None,
    saved: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    _residual: Tensor | None,
) -> Tensor:
    """Give y."""
    g = geometry
    z = F.conv2d(x, weight, None, g.stride, g.pad, g.dilation, g.groups)
    z = conv_winners(geometry, z, code)
    z = widened(z)
    if scale is not None:
        z = z * scale[:, None, None]
    if bias is not None:
        z = z + bias[:, None, None]
    z = torch.where(conv_dead(geometry, code, saved, z.shape), 0, z)
    return z.to(x.dtype)


def conv_winners(geometry: ConvGeometry, z: Tensor, code: Tensor) -> Tensor:
    """Give of each window the pixel that won: its code is 1 + its position, or 0, if it is dead."""
    position = code.long() - 1
    height, width = code.shape[2:]
    pool_width = geometry.pool_size[1]
    (down, right), (below, beside) = geometry.pool_stride, geometry.pool_dilation
    rows = down * torch.arange(height, device=z.device)[:, None] - geometry.pool_pad[0]
    columns = right * torch.arange(width, device=z.device) - geometry.pool_pad[1]
    rows = rows + position // pool_width * below
    columns = columns + position % pool_width * beside
    place = torch.where(position < 0, 0, rows * z.shape[3] + columns)
    return z.flatten(2).gather(2, place.flatten(2)).view_as(place)


def conv_dead(
    _geometry: ConvGeometry,
    code: Tensor | None,
    _saved: Tensor | None,
    _shape: torch.Size,
) -> Tensor:
    """Say of each value whether ReLU lets nothing through."""
    return code == 0


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
    _launches: ConvLaunches,
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
    _code: Tensor | None,
    _saved: Tensor | None,
    _x: Tensor | None,
    _weight: Tensor | None,
    _scale: Tensor | None,
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
    if needs[2] or dresidual is not None:
        parts = launches.bias_gradient(
            geometry,
            gradient,
            code,
            saved,
            dresidual,
            size[1],
            size[2],
        )
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
    ctx.dtypes = (
        x.dtype,
        weight.dtype,
        *[None if v is None else v.dtype for v in (bias, scale)],
    )
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
    _geometry: ConvGeometry,
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
    *found, dresidual = run_backward(
        gradient,
        code,
        saved,
        x,
        weight,
        scale,
        ctx.size,
        needs[:4],
    )
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


def conv_flops(
    geometry: ConvGeometry,
    x: Tensor,
    *_others: object,
    **_named: object,
) -> int:
    """Count those of forward."""
    return conv_product_flops(geometry, (x.shape[0], *x.shape[2:]))


def conv_gradient_flops(
    geometry: ConvGeometry,
    *given: object,
    **_named: object,
) -> int:
    """Count those of backward: a product for the gradient of x, and one for that of weight."""
    size, needs = given[-2:]
    return conv_product_flops(geometry, size) * (needs[0] + (needs[1] or needs[3]))


def conv_op(
    name: str,
    geometry: ConvGeometry,
    launches: ConvLaunches,
) -> Callable[..., Tensor]:
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
            compute=remembered(
                partial(conv_gradients, geometry, launches),
                conv_settings,
            ),
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
        y, _, _, _ = region(x, weight, bias, scale, residual)
        return y

    run.operators = region.operators
    return run


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

    @property
    def pixels(self) -> int:
        """Count those of the image that x is."""
        return self.size[0] * self.size[1]


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


def refuse_fc(
    geometry: FcGeometry,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
) -> None:
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
        launches.forward(geometry, packed(x), packed(weight), packed(bias), y, kept)
    return y, kept


def fc_empty_gradients(
    geometry: FcGeometry,
    gradient: Tensor,
    _saved: Tensor | None,
    _x: Tensor | None,
    _weight: Tensor | None,
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
        dx, dweight, dbias = fc_empty_gradients(
            geometry,
            gradient,
            saved,
            x,
            weight,
            needs,
        )
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


def fc_flops(
    geometry: FcGeometry,
    x: Tensor,
    *_others: object,
    **_named: object,
) -> int:
    """Count those of forward."""
    return 2 * x.shape[0] * geometry.features * geometry.outputs


def fc_gradient_flops(geometry: FcGeometry, *given: object, **_named: object) -> int:
    """Count those of backward: a product for the gradient of x, and one for that of weight."""
    gradient, needs = given[0], given[-1]
    return fc_flops(geometry, gradient) * (needs[0] + needs[1])


def fc_op(
    name: str,
    geometry: FcGeometry,
    launches: FcLaunches,
) -> Callable[..., Tensor]:
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


# ── region 1: conv1 + relu1 + pool1 ───────────────────────────────────────────────────
#          reads 28 x 28 x 1
#   conv1  conv 6 5x5 pad=same                                 28 x 28 x 6
#          O = (W − K + 2P)/S + 1 = (28 − 5 + 2·2)/1 + 1 = 28
#   relu1  relu                                                28 x 28 x 6
#   pool1  pool max 2                                          14 x 14 x 6
#          O = (W − K)/S + 1 = (28 − 2)/2 + 1 = 14
#   forward: 1 launch
#   backward: 3 launches, for the gradients of input, weight and bias
#   kept for backward: the input, 28 x 28 x 1; a byte an output (which pixel of the
#   window won), 14 x 14 x 6
#
#   What happens to a tile of sums before it is written: scale, bias and activation.
#
#   The sums of a convolution.
#
#   Images lie in memory as [batch, height, width, channels], weights as [filters,
#   kernel height, kernel width, channels of a group]. A tile's rows are filters and its
#   columns are pixels of the convolution; it is one matrix product over the terms
#   (kernel row, kernel column, channel) of the sum.
#
#   Pools over the sums of a convolution, in registers: values that lose are never
#   written.
#
#   Forward kernel: convolution, bias, activation and pool in one launch.
#
#   A program computes a tile of filters by pixels of the convolution. Only pooled
#   values are written.
#
#   The gradient before the pool and the activation, rebuilt wherever it is read.
#
#   Of a window's gradient, the pixel that won gets all, or each pixel of an average its
#   share, and a pixel that the activation blocks gets none.
#
#   Backward kernel of a convolution region: the gradient of the input.
#
#   Backward kernel of a convolution region: the gradient of the weight.
#
#   The sum is split over programs, and its parts are added in a fixed order, so that
#   the same input gives the same bits.
#
#   Backward kernel of a convolution region: the gradient of the bias, a sum over
#   windows.
#
#   It reads each value of the gradient once. So it also writes the gradient before the
#   activation, where more than the other kernels want it: it is a residual's, or what a
#   library multiplies. Split and added as the gradient of the weight is.


@triton.jit
def conv_few_relu_max2_activation(z):
    """Apply relu."""
    return tl.where(z <= 0, 0.0, z)


@triton.jit
def conv_few_relu_max2_each(vector_ptr, filter, filter_mask):
    """Read a value for each filter, to go with a tile of filters by pixels."""
    return tl.load(vector_ptr + filter, mask=filter_mask, other=0.0)[:, None]


@triton.jit
def conv_few_relu_max2_shifted(
    y,
    bias_ptr,
    filter,
    filter_mask,
):
    """Do all that comes between the pool, or the sum, and the activation."""
    y += conv_few_relu_max2_each(bias_ptr, filter, filter_mask).to(y.dtype)
    return y


@triton.jit
def conv_few_relu_max2_products(
    x_ptr,
    weight_ptr,
    image,
    row,
    column,
    pixel_mask,
    group,
    filter,
    filter_mask,
    height: tl.constexpr,
    width: tl.constexpr,
    CHANNELS: tl.constexpr,
    GROUPS: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PAD: tl.constexpr,
    DILATION: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_FILTERS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_TERMS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Multiply and add: a tile of filters (rows) by pixels (columns)."""
    GROUP_CHANNELS: tl.constexpr = CHANNELS // GROUPS
    TERMS: tl.constexpr = KERNEL[0] * KERNEL[1] * GROUP_CHANNELS
    # Of a pixel: what `conv_rows` lays out has four.
    VALUES: tl.constexpr = 4 if TAPS == "rows" else CHANNELS
    total = full(tl.zeros((BLOCK_FILTERS, BLOCK_PIXELS), x_ptr.dtype.element_ty))
    # Where the receptive fields start: in the padding, maybe, so nothing is read there yet.
    row = row * STRIDE[0]
    column = column * STRIDE[1]
    row -= PAD[0]
    column -= PAD[1]
    x_ptr += ((image * height + row) * width + column) * VALUES
    x_ptr += group * GROUP_CHANNELS
    weight_ptr += filter * TERMS
    # Few channels: one step takes the terms of several taps, to fill the matrix unit.
    for step in range((TERMS + BLOCK_TERMS - 1) // BLOCK_TERMS):
        term = step * BLOCK_TERMS + tl.arange(0, BLOCK_TERMS)
        tap = term // GROUP_CHANNELS
        down = (tap // KERNEL[1] * DILATION[0])[:, None]
        right = (tap % KERNEL[1] * DILATION[1])[:, None]
        x_mask = pixel_mask[None, :] & (term < TERMS)[:, None]
        x_mask &= (row[None, :] + down >= 0) & (row[None, :] + down < height)
        x_mask &= (column[None, :] + right >= 0) & (column[None, :] + right < width)
        offset = (down * width + right) * CHANNELS + (term % GROUP_CHANNELS)[:, None]
        x = tl.load(x_ptr[None, :] + offset, mask=x_mask, other=0.0)
        weight_mask = filter_mask[:, None] & (term < TERMS)[None, :]
        weight = tl.load(
            weight_ptr[:, None] + term[None, :],
            mask=weight_mask,
            other=0.0,
        )
        total = tl.dot(
            weight,
            x,
            total,
            input_precision=PRECISION,
            out_dtype=total.dtype,
        )
    return total


@triton.jit
def conv_few_relu_max2_sum(
    x_ptr,
    weight_ptr,
    image,
    row,
    column,
    pixel_mask,
    group,
    filter,
    filter_mask,
    height: tl.constexpr,
    width: tl.constexpr,
    CHANNELS: tl.constexpr,
    GROUPS: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PAD: tl.constexpr,
    DILATION: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_FILTERS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_TERMS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Convolve: a tile of filters (rows) by pixels (columns).

    Where that was done before, x is the convolution itself, and CHANNELS are its filters.
    """
    return conv_few_relu_max2_products(
        x_ptr=x_ptr,
        weight_ptr=weight_ptr,
        image=image,
        row=row,
        column=column,
        pixel_mask=pixel_mask,
        group=group,
        filter=filter,
        filter_mask=filter_mask,
        height=height,
        width=width,
        CHANNELS=CHANNELS,
        GROUPS=GROUPS,
        KERNEL=KERNEL,
        STRIDE=STRIDE,
        PAD=PAD,
        DILATION=DILATION,
        TAPS=TAPS,
        BLOCK_FILTERS=BLOCK_FILTERS,
        BLOCK_PIXELS=BLOCK_PIXELS,
        BLOCK_TERMS=BLOCK_TERMS,
        PRECISION=PRECISION,
    )


@triton.jit
def conv_few_relu_max2_corners(
    tile,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Take a tile apart into the four pixels of its 2x2 windows."""
    windows = tl.permute(tl.reshape(tile, (ROWS, 2, COLUMNS // 4, 2)), (0, 2, 1, 3))
    left, right = tl.split(windows)
    top_left, bottom_left = tl.split(left)
    top_right, bottom_right = tl.split(right)
    return top_left, top_right, bottom_left, bottom_right


@triton.jit
def conv_few_relu_max2_quads(
    z,
    BLOCK_FILTERS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
):
    """Pool a tile over 2x2 windows, in registers; also say which pixel won, or which are alive."""
    code = tl.full((BLOCK_FILTERS, BLOCK_PIXELS // 4), 1, tl.int32)
    y, b, c, d = conv_few_relu_max2_corners(z, BLOCK_FILTERS, BLOCK_PIXELS)
    code = tl.where(is_better(b, y), 2, code)
    y = tl.where(is_better(b, y), b, y)
    code = tl.where(is_better(c, y), 3, code)
    y = tl.where(is_better(c, y), c, y)
    code = tl.where(is_better(d, y), 4, code)
    y = tl.where(is_better(d, y), d, y)
    return y, code


@triton.jit(do_not_specialize=COUNTS)
def conv_few_relu_max2_forward(
    x_ptr,  # [batch, height, width, CHANNELS]
    weight_ptr,  # [FILTERS, *KERNEL, CHANNELS // GROUPS]
    bias_ptr,  # [FILTERS]
    y_ptr,  # [batch, out_height, out_width, FILTERS]
    winner_ptr,  # like y: 0 = no gradient, 1 + position in the window of the pixel that won
    batch,
    height: tl.constexpr,
    width: tl.constexpr,
    out_height: tl.constexpr,  # after it
    out_width: tl.constexpr,
    CHANNELS: tl.constexpr,
    FILTERS: tl.constexpr,
    GROUPS: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PAD: tl.constexpr,
    DILATION: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_FILTERS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_TERMS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute y = pool(activation(conv(x, weight) · scale + bias)), and what backward needs.

    Where that was done before, x is conv(x, weight), of FILTERS channels and one group. A scale
    may also come behind the maximum, a residual may be added before the activation, and statistics
    of y may be written for a batchnorm that follows.
    """
    GROUP_FILTERS: tl.constexpr = FILTERS // GROUPS
    GROUP_BLOCKS: tl.constexpr = (GROUP_FILTERS + BLOCK_FILTERS - 1) // BLOCK_FILTERS
    # Programs that differ in their filters only run side by side: they share x in the cache.
    tile = tl.program_id(0) // (GROUP_BLOCKS * GROUPS)
    block = tl.program_id(0) % (GROUP_BLOCKS * GROUPS)
    group = block // GROUP_BLOCKS
    filter = block % GROUP_BLOCKS * BLOCK_FILTERS + tl.arange(0, BLOCK_FILTERS)
    filter_mask = filter < GROUP_FILTERS
    filter += group * GROUP_FILTERS
    pixel = tl.arange(0, BLOCK_PIXELS)
    # The pixels of a window lie in columns that one thread of the matrix unit holds.
    window = tile * (BLOCK_PIXELS // 4) + pixel % (BLOCK_PIXELS // 2) // 2
    window_mask = window < batch * out_height * out_width
    image, row, column = pixel_place(window, out_height, out_width)
    row = row * 2 + pixel // (BLOCK_PIXELS // 2)
    column = column * 2 + pixel % 2
    y = conv_few_relu_max2_sum(
        x_ptr=x_ptr,
        weight_ptr=weight_ptr,
        image=image,
        row=row,
        column=column,
        pixel_mask=window_mask,
        group=group,
        filter=filter,
        filter_mask=filter_mask,
        height=height,
        width=width,
        CHANNELS=CHANNELS,
        GROUPS=GROUPS,
        KERNEL=KERNEL,
        STRIDE=STRIDE,
        PAD=PAD,
        DILATION=DILATION,
        TAPS=TAPS,
        BLOCK_FILTERS=BLOCK_FILTERS,
        BLOCK_PIXELS=BLOCK_PIXELS,
        BLOCK_TERMS=BLOCK_TERMS,
        PRECISION=PRECISION,
    )
    pooled = conv_few_relu_max2_quads(
        z=y,
        BLOCK_FILTERS=BLOCK_FILTERS,
        BLOCK_PIXELS=BLOCK_PIXELS,
    )
    y = pooled[0]
    window = tile * (BLOCK_PIXELS // 4) + tl.arange(0, BLOCK_PIXELS // 4)
    window_mask = window < batch * out_height * out_width
    offset = window.to(tl.int64)[None, :] * FILTERS + filter[:, None]
    mask = filter_mask[:, None] & window_mask[None, :]
    # Bias and a rising activation change no order, so they wait until the best is known.
    y = conv_few_relu_max2_shifted(
        y=y,
        bias_ptr=bias_ptr,
        filter=filter,
        filter_mask=filter_mask,
    )
    code = pooled[1]
    code = tl.where(y <= 0, 0, code)
    tl.store(winner_ptr + offset, code.to(winner_ptr.dtype.element_ty), mask=mask)
    y = conv_few_relu_max2_activation(y)
    rounded = y.to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + offset, rounded, mask=mask)


def conv_few_relu_max2_forward_tile(
    geometry: ConvGeometry,
    x: Tensor,
    precision: str,
) -> Tile:
    """Choose filters x pixels, and terms a step, by what compiles without spills."""
    filters = geometry.filters // geometry.groups
    terms = geometry.channels // geometry.groups
    terms *= geometry.kernel[0] * geometry.kernel[1]
    if precision == "ieee" and x.element_size() >= 4:
        # No matrix unit multiplies so; each thread holds whole rows and columns of the operands.
        return Tile(
            block_size(filters, 32),
            32 if geometry.window == "loop" else 64,
            16,
            4,
            2,
        )
    if x.element_size() == 4:
        return Tile(block_size(filters, 64), 128, block_size(terms, 32), 4, 3)
    if terms <= 32:
        # Little to multiply: what counts is how much is read at a time.
        return Tile(block_size(filters, 64), 256, block_size(terms, 32), 4, 4)
    most = 64 if geometry.taps == "apart" and geometry.stride == (1, 1) else 32
    return Tile(block_size(filters, 64), 128, block_size(terms, most), 4, 3)


def conv_few_relu_max2_launch_windows(geometry: ConvGeometry, x: Tensor) -> int:
    """Say how many windows (pixels, where nothing is pooled) a program of forward computes."""
    tile = conv_few_relu_max2_forward_tile(geometry, x, conv_precision(x))
    return tile.columns // 4


def conv_few_relu_max2_launch_forward(
    geometry: ConvGeometry,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    _scale: Tensor | None,
    _residual: Tensor | None,
    outputs: ConvOutputs,
) -> None:
    """Launch the forward kernel, which fills y and all that is kept beside it."""
    sizes = conv_sizes(geometry, x.shape[2], x.shape[3])
    precision = conv_precision(x)
    tile = conv_few_relu_max2_forward_tile(geometry, x, precision)
    windows = x.shape[0] * sizes.out_height * sizes.out_width
    height, width = sizes.height, sizes.width
    channels, groups = geometry.channels, geometry.groups
    blocks = groups * count_blocks(geometry.filters // groups, tile.rows)
    programs = blocks * count_blocks(
        windows,
        conv_few_relu_max2_launch_windows(geometry, x),
    )
    refuse_launch(x, programs, 4 * windows)
    launch(
        conv_few_relu_max2_forward,
        programs,
        x_ptr=channels_last(x),
        weight_ptr=channels_last(weight),
        bias_ptr=bias,
        y_ptr=outputs.y,
        winner_ptr=outputs.code,
        batch=x.shape[0],
        height=height,
        width=width,
        out_height=sizes.out_height,
        out_width=sizes.out_width,
        CHANNELS=channels,
        FILTERS=geometry.filters,
        GROUPS=groups,
        KERNEL=geometry.kernel,
        STRIDE=geometry.stride,
        PAD=geometry.pad,
        DILATION=geometry.dilation,
        TAPS=geometry.taps,
        BLOCK_FILTERS=tile.rows,
        BLOCK_PIXELS=tile.columns,
        BLOCK_TERMS=tile.terms,
        PRECISION=precision,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


@triton.jit
def conv_few_relu_max2_rebuilt(
    gradient_ptr,
    winner_ptr,
    offset,
    mask,
    position,
):
    """Rebuild a tile of the gradient before the pool: what windows give to one position in each.

    An average gives a share of it: that division is left to the caller.
    """
    gradient = tl.load(gradient_ptr + offset, mask=mask, other=0.0)
    # Only now: the slope is that of the pixel that won. Where it is NaN, the others still get 0.
    winner = tl.load(winner_ptr + offset, mask=mask, other=0).to(tl.int32)
    gradient = tl.where(winner == position + 1, gradient, 0.0)
    return gradient.to(gradient_ptr.dtype.element_ty)


@triton.jit
def conv_few_relu_max2_first(
    place,
    STRIDE: tl.constexpr,
    STEP: tl.constexpr,
    INVERSE: tl.constexpr,
    NONE: tl.constexpr,
):
    """Solve k · dilation ≡ place (modulo STRIDE) for the first k; every STEP further is another.

    STEP is STRIDE / gcd(STRIDE, dilation), and INVERSE that of dilation / gcd, modulo STEP.
    """
    COMMON: tl.constexpr = STRIDE // STEP
    return tl.where(place % COMMON == 0, place // COMMON * INVERSE % STEP, NONE)


@triton.jit(do_not_specialize=COUNTS)
def conv_few_relu_max2_input_gradient(
    gradient_ptr,  # [batch, out_height, out_width, FILTERS]
    winner_ptr,  # like the gradient, written by the forward kernel
    weight_ptr,  # [FILTERS, *KERNEL, CHANNELS // GROUPS]
    dx_ptr,  # [batch, height, width, CHANNELS]
    batch,
    height: tl.constexpr,
    width: tl.constexpr,
    out_height: tl.constexpr,  # after it
    out_width: tl.constexpr,
    CHANNELS: tl.constexpr,
    FILTERS: tl.constexpr,
    GROUPS: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PAD: tl.constexpr,
    DILATION: tl.constexpr,
    TAP_STEP: tl.constexpr,
    TAP_INVERSE: tl.constexpr,
    POOL_SIZE: tl.constexpr,
    POOL_STRIDE: tl.constexpr,
    POOL_PAD: tl.constexpr,
    POOL_DILATION: tl.constexpr,
    WINDOW_STEP: tl.constexpr,
    WINDOW_INVERSE: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_FILTERS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the gradient of x: for each pixel, a sum over taps, windows and filters.

    All pixels of a program have the same phase: row and column modulo the strides of convolution
    and pool together. They share the taps that reach them and the positions in the windows, so
    these are scalars, and only taps that exist are visited. Pixel = cell · CELL + phase.
    """
    GROUP_CHANNELS: tl.constexpr = CHANNELS // GROUPS
    GROUP_FILTERS: tl.constexpr = FILTERS // GROUPS
    GROUP_BLOCKS: tl.constexpr = (GROUP_CHANNELS + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS
    CELL_HEIGHT: tl.constexpr = STRIDE[0] * POOL_STRIDE[0]
    CELL_WIDTH: tl.constexpr = STRIDE[1] * POOL_STRIDE[1]
    cell_rows = (height + CELL_HEIGHT - 1) // CELL_HEIGHT
    cell_columns = (width + CELL_WIDTH - 1) // CELL_WIDTH

    block = tl.program_id(0) % (GROUP_BLOCKS * GROUPS)
    tile = tl.program_id(0) // (GROUP_BLOCKS * GROUPS)
    phase = tile % (CELL_HEIGHT * CELL_WIDTH)
    phase_row = phase // CELL_WIDTH
    phase_column = phase % CELL_WIDTH
    cell = tile // (CELL_HEIGHT * CELL_WIDTH) * BLOCK_PIXELS + tl.arange(
        0,
        BLOCK_PIXELS,
    )
    cells = batch * cell_rows * cell_columns
    image, cell_row, cell_column = pixel_place(cell, cell_rows, cell_columns)
    group = block // GROUP_BLOCKS
    channel = block % GROUP_BLOCKS * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    channel_mask = channel < GROUP_CHANNELS

    # The taps of the right remainder; the next one is TAP_STEP further.
    first_down = conv_few_relu_max2_first(
        phase_row + PAD[0],
        STRIDE[0],
        TAP_STEP[0],
        TAP_INVERSE[0],
        KERNEL[0],
    )
    first_right = conv_few_relu_max2_first(
        phase_column + PAD[1],
        STRIDE[1],
        TAP_STEP[1],
        TAP_INVERSE[1],
        KERNEL[1],
    )
    taps_down = (KERNEL[0] - first_down + TAP_STEP[0] - 1) // TAP_STEP[0]
    taps_right = (KERNEL[1] - first_right + TAP_STEP[1] - 1) // TAP_STEP[1]
    # At most so many windows hold one pixel of the convolution, along each axis.
    WINDOWS_DOWN: tl.constexpr = (POOL_SIZE[0] + WINDOW_STEP[0] - 1) // WINDOW_STEP[0]
    WINDOWS_RIGHT: tl.constexpr = (POOL_SIZE[1] + WINDOW_STEP[1] - 1) // WINDOW_STEP[1]
    WINDOWS: tl.constexpr = WINDOWS_DOWN * WINDOWS_RIGHT
    FILTER_STEPS: tl.constexpr = (GROUP_FILTERS + BLOCK_FILTERS - 1) // BLOCK_FILTERS
    dx = full(tl.zeros((BLOCK_PIXELS, BLOCK_CHANNELS), dx_ptr.dtype.element_ty))
    for step in range(taps_down * taps_right * (WINDOWS * FILTER_STEPS)):
        filter = step % FILTER_STEPS * BLOCK_FILTERS + tl.arange(0, BLOCK_FILTERS)
        filter_mask = filter < GROUP_FILTERS
        filter += group * GROUP_FILTERS
        tap = step // (WINDOWS * FILTER_STEPS)
        down = first_down + tap // taps_right * TAP_STEP[0]
        right = first_right + tap % taps_right * TAP_STEP[1]
        # The pixel of the convolution that this tap feeds; the division leaves no remainder.
        row = (phase_row + PAD[0] - down * DILATION[0]) // STRIDE[0]
        column = (phase_column + PAD[1] - right * DILATION[1]) // STRIDE[1]
        mask = cell < cells
        # A window that holds it, and its place there; the multiple keeps remainders positive.
        turn = step // FILTER_STEPS % WINDOWS
        place_row = conv_few_relu_max2_first(
            row + POOL_PAD[0] + POOL_STRIDE[0] * (KERNEL[0] * DILATION[0]),
            POOL_STRIDE[0],
            WINDOW_STEP[0],
            WINDOW_INVERSE[0],
            POOL_SIZE[0],
        )
        place_column = conv_few_relu_max2_first(
            column + POOL_PAD[1] + POOL_STRIDE[1] * (KERNEL[1] * DILATION[1]),
            POOL_STRIDE[1],
            WINDOW_STEP[1],
            WINDOW_INVERSE[1],
            POOL_SIZE[1],
        )
        place_row += turn // WINDOWS_RIGHT * WINDOW_STEP[0]
        place_column += turn % WINDOWS_RIGHT * WINDOW_STEP[1]
        fits = (place_row < POOL_SIZE[0]) & (place_column < POOL_SIZE[1])
        mask &= cell < tl.where(fits, cells, 0)
        row += POOL_PAD[0] - place_row * POOL_DILATION[0]
        row = row // POOL_STRIDE[0]
        column += POOL_PAD[1] - place_column * POOL_DILATION[1]
        column = column // POOL_STRIDE[1]
        row += cell_row
        column += cell_column
        mask &= (row >= 0) & (row < out_height) & (column >= 0) & (column < out_width)
        offset = ((image * out_height + row) * out_width + column) * FILTERS
        gradient = conv_few_relu_max2_rebuilt(
            gradient_ptr=gradient_ptr,
            winner_ptr=winner_ptr,
            offset=offset[:, None] + filter[None, :],
            mask=mask[:, None] & filter_mask[None, :],
            position=place_row * POOL_SIZE[1] + place_column,
        )
        term = (down * KERNEL[1] + right) * GROUP_CHANNELS + channel
        terms = filter * (KERNEL[0] * KERNEL[1] * GROUP_CHANNELS)
        weight = tl.load(
            weight_ptr + terms[:, None] + term[None, :],
            mask=filter_mask[:, None] & channel_mask[None, :],
            other=0.0,
        )
        dx = tl.dot(gradient, weight, dx, input_precision=PRECISION, out_dtype=dx.dtype)
    row = cell_row * CELL_HEIGHT + phase_row
    column = cell_column * CELL_WIDTH + phase_column
    mask = (cell < cells) & (row < height) & (column < width)
    offset = ((image * height + row) * width + column) * CHANNELS
    offset += group * GROUP_CHANNELS
    tl.store(
        dx_ptr + offset[:, None] + channel[None, :],
        dx.to(dx_ptr.dtype.element_ty),
        mask=mask[:, None] & channel_mask[None, :],
    )


def conv_few_relu_max2_steps(
    strides: tuple[int, int],
    dilations: tuple[int, int],
) -> tuple[tuple[int, int], ...]:
    """Give STEP and INVERSE of `conv_few_relu_max2_first`, a pair each."""
    steps = [s // math.gcd(s, d) for s, d in zip(strides, dilations, strict=True)]
    divided = [d // math.gcd(s, d) for s, d in zip(strides, dilations, strict=True)]
    inverses = [pow(d, -1, step) for d, step in zip(divided, steps, strict=True)]
    return (steps[0], steps[1]), (inverses[0], inverses[1])


def conv_few_relu_max2_input_gradient_tile(
    geometry: ConvGeometry,
    dx: Tensor,
    precision: str,
) -> Tile:
    """Choose pixels x channels, and filters a step, by what compiles without spills."""
    channels = geometry.channels // geometry.groups
    filters = geometry.filters // geometry.groups
    if precision == "ieee" and dx.element_size() >= 4:
        return Tile(32, block_size(channels, 64), 16, 4, 2)
    most = 64
    if dx.element_size() == 4:
        return Tile(64, block_size(channels, 32), block_size(filters, most // 2), 4, 3)
    return Tile(64, block_size(channels, 64), block_size(filters, most), 4, 3)


def conv_few_relu_max2_launch_input_gradient(
    geometry: ConvGeometry,
    gradient: Tensor,
    code: Tensor,
    _saved: Tensor | None,
    weight: Tensor,
    dx: Tensor,
) -> None:
    """Launch the kernel that fills dx; its programs are all phases of all tiles."""
    sizes = conv_sizes(geometry, dx.shape[2], dx.shape[3])
    precision = conv_precision(dx)
    tile = conv_few_relu_max2_input_gradient_tile(geometry, dx, precision)
    cell_height = geometry.stride[0] * geometry.pool_stride[0]
    cell_width = geometry.stride[1] * geometry.pool_stride[1]
    cells = dx.shape[0] * count_blocks(sizes.height, cell_height)
    cells *= count_blocks(sizes.width, cell_width)
    blocks = geometry.groups * count_blocks(
        geometry.channels // geometry.groups,
        tile.columns,
    )
    programs = count_blocks(cells, tile.rows) * cell_height * cell_width * blocks
    refuse_launch(dx, programs, dx.shape[0] * sizes.height * sizes.width)
    tap_step, tap_inverse = conv_few_relu_max2_steps(geometry.stride, geometry.dilation)
    window_step, window_inverse = conv_few_relu_max2_steps(
        geometry.pool_stride,
        geometry.pool_dilation,
    )
    launch(
        conv_few_relu_max2_input_gradient,
        programs,
        gradient_ptr=gradient,
        winner_ptr=code,
        weight_ptr=channels_last(weight),
        dx_ptr=dx,
        batch=dx.shape[0],
        height=sizes.height,
        width=sizes.width,
        out_height=sizes.out_height,
        out_width=sizes.out_width,
        CHANNELS=geometry.channels,
        FILTERS=geometry.filters,
        GROUPS=geometry.groups,
        KERNEL=geometry.kernel,
        STRIDE=geometry.stride,
        PAD=geometry.pad,
        DILATION=geometry.dilation,
        TAP_STEP=tap_step,
        TAP_INVERSE=tap_inverse,
        POOL_SIZE=geometry.pool_size,
        POOL_STRIDE=geometry.pool_stride,
        POOL_PAD=geometry.pool_pad,
        POOL_DILATION=geometry.pool_dilation,
        WINDOW_STEP=window_step,
        WINDOW_INVERSE=window_inverse,
        BLOCK_PIXELS=tile.rows,
        BLOCK_CHANNELS=tile.columns,
        BLOCK_FILTERS=tile.terms,
        PRECISION=precision,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


@triton.jit(do_not_specialize=COUNTS)
def conv_few_relu_max2_weight_gradient(
    gradient_ptr,  # [batch, out_height, out_width, FILTERS]
    winner_ptr,  # like the gradient, written by the forward kernel
    x_ptr,  # [batch, height, width, CHANNELS]
    partial_ptr,  # [splits, FILTERS, *KERNEL, CHANNELS // GROUPS]
    splits,
    batch,
    height: tl.constexpr,
    width: tl.constexpr,
    conv_height: tl.constexpr,  # before the pool
    conv_width: tl.constexpr,
    out_height: tl.constexpr,  # after it
    out_width: tl.constexpr,
    CHANNELS: tl.constexpr,
    FILTERS: tl.constexpr,
    GROUPS: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PAD: tl.constexpr,
    DILATION: tl.constexpr,
    POOL_SIZE: tl.constexpr,
    POOL_STRIDE: tl.constexpr,
    POOL_PAD: tl.constexpr,
    POOL_DILATION: tl.constexpr,
    BLOCK_FILTERS: tl.constexpr,
    BLOCK_TERMS: tl.constexpr,
    BLOCK_WINDOWS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute a part of the weight's gradient: a sum over some windows and their positions."""
    GROUP_CHANNELS: tl.constexpr = CHANNELS // GROUPS
    GROUP_FILTERS: tl.constexpr = FILTERS // GROUPS
    TERMS: tl.constexpr = KERNEL[0] * KERNEL[1] * GROUP_CHANNELS
    POSITIONS: tl.constexpr = POOL_SIZE[0] * POOL_SIZE[1]
    GROUP_BLOCKS: tl.constexpr = (GROUP_FILTERS + BLOCK_FILTERS - 1) // BLOCK_FILTERS
    # Few channels: a tile's columns are terms of several taps.
    TERM_BLOCKS: tl.constexpr = (TERMS + BLOCK_TERMS - 1) // BLOCK_TERMS
    term = tl.program_id(0) % TERM_BLOCKS * BLOCK_TERMS + tl.arange(0, BLOCK_TERMS)
    term_mask = term < TERMS
    tap = term // GROUP_CHANNELS
    channel = term % GROUP_CHANNELS
    down = tap // KERNEL[1] * DILATION[0]
    right = tap % KERNEL[1] * DILATION[1]
    block = tl.program_id(0) // TERM_BLOCKS % (GROUP_BLOCKS * GROUPS)
    group = block // GROUP_BLOCKS
    filter = block % GROUP_BLOCKS * BLOCK_FILTERS + tl.arange(0, BLOCK_FILTERS)
    filter_mask = filter < GROUP_FILTERS
    filter += group * GROUP_FILTERS
    split = tl.program_id(0) // (TERM_BLOCKS * GROUP_BLOCKS * GROUPS)
    window_blocks = tl.cdiv(batch * out_height * out_width, BLOCK_WINDOWS)
    first = split * tl.cdiv(window_blocks, splits)
    last = tl.minimum(first + tl.cdiv(window_blocks, splits), window_blocks)

    dweight = tl.zeros((BLOCK_FILTERS, BLOCK_TERMS), partial_ptr.dtype.element_ty)
    for step in range(first * POSITIONS, last * POSITIONS):
        window = step // POSITIONS * BLOCK_WINDOWS + tl.arange(0, BLOCK_WINDOWS)
        exists = window < batch * out_height * out_width
        image, row, column = pixel_place(window, out_height, out_width)
        offset = window.to(tl.int64)[None, :] * FILTERS + filter[:, None]
        position = step % POSITIONS
        row = row * POOL_STRIDE[0] - POOL_PAD[0]
        row += position // POOL_SIZE[1] * POOL_DILATION[0]
        column = column * POOL_STRIDE[1] - POOL_PAD[1]
        column += position % POOL_SIZE[1] * POOL_DILATION[1]
        exists &= (row >= 0) & (row < conv_height)
        exists &= (column >= 0) & (column < conv_width)
        gradient = conv_few_relu_max2_rebuilt(
            gradient_ptr=gradient_ptr,
            winner_ptr=winner_ptr,
            offset=offset,
            mask=filter_mask[:, None] & exists[None, :],
            position=position,
        )
        row = row * STRIDE[0] - PAD[0]
        column = column * STRIDE[1] - PAD[1]
        start = ((image * height + row) * width + column) * CHANNELS
        start += group * GROUP_CHANNELS
        offset = (down * width + right) * CHANNELS + channel
        x_mask = exists[:, None] & term_mask[None, :]
        x_mask &= row[:, None] + down[None, :] >= 0
        x_mask &= row[:, None] + down[None, :] < height
        x_mask &= column[:, None] + right[None, :] >= 0
        x_mask &= column[:, None] + right[None, :] < width
        x = tl.load(x_ptr + start[:, None] + offset[None, :], mask=x_mask, other=0.0)
        dweight = tl.dot(
            gradient,
            x,
            dweight,
            input_precision=PRECISION,
            out_dtype=dweight.dtype,
        )
    row = split.to(tl.int64) * FILTERS + filter
    tl.store(
        partial_ptr + row[:, None] * TERMS + term[None, :],
        dweight,
        mask=filter_mask[:, None] & term_mask[None, :],
    )


def conv_few_relu_max2_weight_gradient_tile(
    geometry: ConvGeometry,
    x: Tensor,
    precision: str,
) -> Tile:
    """Choose filters x terms, and windows a step, by what compiles without spills."""
    filters = geometry.filters // geometry.groups
    terms = geometry.channels // geometry.groups
    terms *= geometry.kernel[0] * geometry.kernel[1]
    most, windows = 64, 32
    if precision == "ieee" and x.element_size() >= 4:
        most, windows = 32, 16
    most_terms = 32 if x.element_size() == 8 else 64
    return Tile(block_size(filters, most), block_size(terms, most_terms), windows, 4, 2)


def conv_few_relu_max2_launch_weight_gradient(
    geometry: ConvGeometry,
    gradient: Tensor,
    code: Tensor,
    _saved: Tensor | None,
    x: Tensor,
) -> Tensor:
    """Launch the kernel of the weight's gradient: parts of its sum, in float32."""
    sizes = conv_sizes(geometry, x.shape[2], x.shape[3])
    precision = conv_precision(x)
    tile = conv_few_relu_max2_weight_gradient_tile(geometry, x, precision)
    channels = geometry.channels // geometry.groups
    taps = geometry.kernel[0] * geometry.kernel[1]
    height, width = sizes.height, sizes.width
    programs = count_blocks(taps * channels, tile.columns)
    programs *= geometry.groups * count_blocks(
        geometry.filters // geometry.groups,
        tile.rows,
    )
    windows = x.shape[0] * sizes.out_height * sizes.out_width
    splits = split_count(programs, count_blocks(windows, tile.terms))
    refuse_launch(
        x,
        programs * splits,
        windows * geometry.pool_size[0] * geometry.pool_size[1],
    )
    shape = (splits, geometry.filters, *geometry.kernel, channels)
    partial = allocated(x.new_empty(shape, dtype=full_dtype(x)))
    launch(
        conv_few_relu_max2_weight_gradient,
        programs * splits,
        gradient_ptr=gradient,
        winner_ptr=code,
        x_ptr=channels_last(x),
        partial_ptr=partial,
        splits=splits,
        batch=x.shape[0],
        height=height,
        width=width,
        conv_height=sizes.conv_height,
        conv_width=sizes.conv_width,
        out_height=sizes.out_height,
        out_width=sizes.out_width,
        CHANNELS=geometry.channels,
        FILTERS=geometry.filters,
        GROUPS=geometry.groups,
        KERNEL=geometry.kernel,
        STRIDE=geometry.stride,
        PAD=geometry.pad,
        DILATION=geometry.dilation,
        POOL_SIZE=geometry.pool_size,
        POOL_STRIDE=geometry.pool_stride,
        POOL_PAD=geometry.pool_pad,
        POOL_DILATION=geometry.pool_dilation,
        BLOCK_FILTERS=tile.rows,
        BLOCK_TERMS=tile.columns,
        BLOCK_WINDOWS=tile.terms,
        PRECISION=precision,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return partial


@triton.jit(do_not_specialize=COUNTS)
def conv_few_relu_max2_bias_gradient(
    gradient_ptr,  # [batch, out_height, out_width, FILTERS]
    winner_ptr,  # like the gradient, written by the forward kernel
    partial_ptr,  # [splits, FILTERS]
    splits,
    batch,
    out_height: tl.constexpr,  # after it
    out_width: tl.constexpr,
    FILTERS: tl.constexpr,
    BLOCK_WINDOWS: tl.constexpr,
    BLOCK_FILTERS: tl.constexpr,
):
    """Compute a part of the bias's gradient: a sum over some windows."""
    FILTER_BLOCKS: tl.constexpr = (FILTERS + BLOCK_FILTERS - 1) // BLOCK_FILTERS
    filter = tl.program_id(0) % FILTER_BLOCKS * BLOCK_FILTERS + tl.arange(
        0,
        BLOCK_FILTERS,
    )
    filter_mask = filter < FILTERS
    split = tl.program_id(0) // FILTER_BLOCKS
    window_blocks = tl.cdiv(batch * out_height * out_width, BLOCK_WINDOWS)
    first = split * tl.cdiv(window_blocks, splits)
    last = tl.minimum(first + tl.cdiv(window_blocks, splits), window_blocks)
    total = tl.zeros((BLOCK_WINDOWS, BLOCK_FILTERS), partial_ptr.dtype.element_ty)
    for step in range(first, last):
        window = step * BLOCK_WINDOWS + tl.arange(0, BLOCK_WINDOWS)
        window_mask = window < batch * out_height * out_width
        offset = window.to(tl.int64)[:, None] * FILTERS + filter[None, :]
        mask = window_mask[:, None] & filter_mask[None, :]
        gradient = full(tl.load(gradient_ptr + offset, mask=mask, other=0.0))
        # Each window that is not dead gives all of its gradient to one pixel.
        winner = tl.load(winner_ptr + offset, mask=mask, other=0)
        gradient = tl.where(winner != 0, gradient, 0.0)
        total += gradient
    tl.store(
        partial_ptr + split.to(tl.int64) * FILTERS + filter,
        tl.sum(total, axis=0),
        mask=filter_mask,
    )


def conv_few_relu_max2_launch_bias_gradient(
    geometry: ConvGeometry,
    gradient: Tensor,
    code: Tensor,
    _saved: Tensor | None,
    _dz: Tensor,
    height: int,
    width: int,
) -> Tensor:
    """Launch the kernel of the bias's gradient: parts of its sum.

    It fills dz with the gradient before the activation, where dz is wanted and is not that itself.
    """
    sizes = conv_sizes(geometry, height, width)
    windows = gradient.shape[0] * sizes.out_height * sizes.out_width
    block_windows = 32
    block_filters = block_size(
        geometry.filters,
        16 if gradient.element_size() == 8 else 64,
    )
    programs = count_blocks(geometry.filters, block_filters)
    splits = split_count(programs, count_blocks(windows, block_windows))
    refuse_launch(gradient, programs * splits, windows)
    shape = (splits, geometry.filters)
    partial = allocated(gradient.new_empty(shape, dtype=full_dtype(gradient)))
    launch(
        conv_few_relu_max2_bias_gradient,
        programs * splits,
        gradient_ptr=gradient,
        winner_ptr=code,
        partial_ptr=partial,
        splits=splits,
        batch=gradient.shape[0],
        out_height=sizes.out_height,
        out_width=sizes.out_width,
        FILTERS=geometry.filters,
        BLOCK_WINDOWS=block_windows,
        BLOCK_FILTERS=block_filters,
        num_warps=4,
    )
    return partial


conv_few_relu_max2_launches = ConvLaunches(
    forward=conv_few_relu_max2_launch_forward,
    input_gradient=conv_few_relu_max2_launch_input_gradient,
    weight_gradient=conv_few_relu_max2_launch_weight_gradient,
    bias_gradient=conv_few_relu_max2_launch_bias_gradient,
)


CONV1_RELU1_POOL1 = ConvGeometry(
    channels=1,
    filters=6,
    kernel=(5, 5),
    pad=(2, 2),
    activation="relu",
    pool="max",
    pool_size=(2, 2),
    pool_stride=(2, 2),
    window="quad",
)
conv1_relu1_pool1_op = conv_op(
    f"{NAMESPACE}::conv1_relu1_pool1",
    CONV1_RELU1_POOL1,
    conv_few_relu_max2_launches,
)


def conv1_relu1_pool1(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Run region 1: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = conv_weights(conv, CONV1_RELU1_POOL1)
        if weight is not None:
            return conv1_relu1_pool1_op(channels_last(x), weight, bias)
    x = in_layout_for(x, conv)
    x = conv(x)
    x = max_pool2(x)
    return F.relu(x)


# ── region 2: conv2 + relu2 + pool2 ───────────────────────────────────────────────────
#          reads 14 x 14 x 6
#   conv2  conv 16 5x5                              10 x 10 x 16
#          O = (W − K)/S + 1 = (14 − 5)/1 + 1 = 10
#   relu2  relu                                     10 x 10 x 16
#   pool2  pool max 2                               5 x 5 x 16
#          O = (W − K)/S + 1 = (10 − 2)/2 + 1 = 5
#   forward: 1 launch
#   backward: 3 launches, for the gradients of input, weight and bias
#   kept for backward: the input, 14 x 14 x 6; a byte an output (which pixel of the
#   window won), 5 x 5 x 16
#   Its kernels are those of region 1.


CONV2_RELU2_POOL2 = ConvGeometry(
    channels=6,
    filters=16,
    kernel=(5, 5),
    activation="relu",
    pool="max",
    pool_size=(2, 2),
    pool_stride=(2, 2),
    window="quad",
)
conv2_relu2_pool2_op = conv_op(
    f"{NAMESPACE}::conv2_relu2_pool2",
    CONV2_RELU2_POOL2,
    conv_few_relu_max2_launches,
)


def conv2_relu2_pool2(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Run region 2: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = conv_weights(conv, CONV2_RELU2_POOL2)
        if weight is not None:
            return conv2_relu2_pool2_op(x, weight, bias)
    x = in_layout_for(x, conv)
    x = conv(x)
    x = max_pool2(x)
    return F.relu(x)


# ── region 3: flatten1 + fc1 + relu3 ──────────────────────────────────────────────────
#             reads 5 x 5 x 16
#   flatten1  flatten               400
#             H·W·C = 5·5·16 = 400
#   fc1       fc 120                120
#   relu3     relu                  120
#   forward: 1 launch
#   backward: 3 launches, for the gradients of input, weight and bias
#   kept for backward: the input, 5 x 5 x 16; the output, 120
#
#   Kernels of a fully connected layer, forward: x · weightᵀ + bias and its activation.
#
#   Matrices lie in memory by rows: x [batch, features], weight [outputs, features].
#
#   Kernels of a fully connected layer, backward: the gradients of x, weight and bias.
#
#   Each is one tiled matrix product, or a sum; a gradient goes back through the
#   activation where it is read.


@triton.jit
def fc_flat_relu_activation(z):
    """Apply relu."""
    return tl.where(z <= 0, 0.0, z)


@triton.jit
def fc_flat_relu_places(
    feature,
    FEATURES: tl.constexpr,
    PIXELS: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Say where features of an image lie: in a row of x, and in a row of the weight.

    In x channels are innermost, in the weight pixels, as PyTorch flattens. Features are
    counted such that neighbours are near each other in both: GROUP channels of a pixel,
    the same of the next pixel, and so on; behind the last pixel the next channels.
    """
    channel = feature // (GROUP * PIXELS) * GROUP + feature % GROUP
    pixel = feature // GROUP % PIXELS
    return pixel * (FEATURES // PIXELS) + channel, channel * PIXELS + pixel


@triton.jit(do_not_specialize=COUNTS)
def fc_flat_relu_forward(
    x_ptr,  # [batch, FEATURES]
    weight_ptr,  # [OUTPUTS, FEATURES]
    bias_ptr,  # [OUTPUTS]
    y_ptr,  # [batch, OUTPUTS]
    batch,
    FEATURES: tl.constexpr,
    OUTPUTS: tl.constexpr,
    PIXELS: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_BATCH: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute y = activation(x · weightᵀ + bias)."""
    OUTPUT_BLOCKS: tl.constexpr = (OUTPUTS + BLOCK_OUTPUTS - 1) // BLOCK_OUTPUTS
    image = tl.program_id(0) // OUTPUT_BLOCKS * BLOCK_BATCH + tl.arange(0, BLOCK_BATCH)
    output = tl.program_id(0) % OUTPUT_BLOCKS * BLOCK_OUTPUTS + tl.arange(
        0,
        BLOCK_OUTPUTS,
    )
    image_mask = image < batch
    output_mask = output < OUTPUTS
    y = full(tl.zeros((BLOCK_BATCH, BLOCK_OUTPUTS), y_ptr.dtype.element_ty))
    for step in range((FEATURES + BLOCK_FEATURES - 1) // BLOCK_FEATURES):
        feature = step * BLOCK_FEATURES + tl.arange(0, BLOCK_FEATURES)
        feature_mask = feature < FEATURES
        place, column = fc_flat_relu_places(feature, FEATURES, PIXELS, GROUP)
        x = tl.load(
            x_ptr + image.to(tl.int64)[:, None] * FEATURES + place[None, :],
            mask=image_mask[:, None] & feature_mask[None, :],
            other=0.0,
        )
        # Threads side by side read along the columns, where pixels are neighbours.
        weight = tl.load(
            weight_ptr + output[:, None] * FEATURES + column[None, :],
            mask=output_mask[:, None] & feature_mask[None, :],
            other=0.0,
        ).T
        y = tl.dot(x, weight, y, input_precision=PRECISION, out_dtype=y.dtype)
    offset = image.to(tl.int64)[:, None] * OUTPUTS + output[None, :]
    mask = image_mask[:, None] & output_mask[None, :]
    bias = tl.load(bias_ptr + output, mask=output_mask, other=0.0)
    y += bias.to(y.dtype)[None, :]
    y = fc_flat_relu_activation(y)
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=mask)


def fc_flat_relu_group(geometry: FcGeometry) -> int:
    """Choose how many channels of a pixel stand together: 8 are 16 bytes, or more."""
    return math.gcd(geometry.features // geometry.pixels, 8)


def fc_flat_relu_tile(
    rows: int,
    columns: int,
    terms: int,
    x: Tensor,
    precision: str,
) -> Tile:
    """Choose the tile of a product: rows x columns, a sum over terms; by what does not spill."""
    if precision == "ieee" and x.element_size() >= 4:
        return Tile(block_size(rows, 32), block_size(columns, 32), 16, 4, 2)
    most = 32 if x.element_size() == 4 else 64
    # A sum of one step is no loop, in which registers would be used again.
    width = 32 if x.element_size() == 4 and terms <= most else 64
    return Tile(
        block_size(rows, 64),
        block_size(columns, width),
        block_size(terms, most),
        4,
        3,
    )


def fc_flat_relu_launch_forward(
    geometry: FcGeometry,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    _kept: Tensor,
) -> None:
    """Launch the forward kernel, which fills y."""
    precision = fc_precision(x)
    tile = fc_flat_relu_tile(64, geometry.outputs, geometry.features, x, precision)
    programs = count_blocks(x.shape[0], tile.rows) * count_blocks(
        geometry.outputs,
        tile.columns,
    )
    refuse_launch(x, programs, x.shape[0])
    launch(
        fc_flat_relu_forward,
        programs,
        x_ptr=x,
        weight_ptr=weight,
        bias_ptr=bias,
        y_ptr=y,
        batch=x.shape[0],
        FEATURES=geometry.features,
        OUTPUTS=geometry.outputs,
        PIXELS=geometry.pixels,
        GROUP=fc_flat_relu_group(geometry),
        BLOCK_BATCH=tile.rows,
        BLOCK_OUTPUTS=tile.columns,
        BLOCK_FEATURES=tile.terms,
        PRECISION=precision,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


@triton.jit
def fc_flat_relu_activation_gradient(saved, gradient):
    """Take a gradient back through relu."""
    return tl.where(saved <= 0, 0.0, gradient)


@triton.jit
def fc_flat_relu_unactivated(
    gradient_ptr,
    saved_ptr,
    offset,
    mask,
):
    """Read a tile of the gradient and take it back through the activation."""
    gradient = tl.load(gradient_ptr + offset, mask=mask, other=0.0)
    saved = full(tl.load(saved_ptr + offset, mask=mask, other=0.0))
    gradient = fc_flat_relu_activation_gradient(saved, full(gradient))
    return gradient.to(gradient_ptr.dtype.element_ty)


@triton.jit(do_not_specialize=COUNTS)
def fc_flat_relu_input_gradient(
    gradient_ptr,  # [batch, OUTPUTS]
    saved_ptr,  # [batch, OUTPUTS]
    weight_ptr,  # [OUTPUTS, FEATURES]
    dx_ptr,  # [batch, FEATURES]
    batch,
    FEATURES: tl.constexpr,
    OUTPUTS: tl.constexpr,
    PIXELS: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_BATCH: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the gradient of x, a sum over outputs."""
    FEATURE_BLOCKS: tl.constexpr = (FEATURES + BLOCK_FEATURES - 1) // BLOCK_FEATURES
    image = tl.program_id(0) // FEATURE_BLOCKS * BLOCK_BATCH + tl.arange(0, BLOCK_BATCH)
    feature = tl.program_id(0) % FEATURE_BLOCKS * BLOCK_FEATURES + tl.arange(
        0,
        BLOCK_FEATURES,
    )
    image_mask = image < batch
    feature_mask = feature < FEATURES
    place, column = fc_flat_relu_places(feature, FEATURES, PIXELS, GROUP)
    dx = full(tl.zeros((BLOCK_BATCH, BLOCK_FEATURES), dx_ptr.dtype.element_ty))
    for step in range((OUTPUTS + BLOCK_OUTPUTS - 1) // BLOCK_OUTPUTS):
        output = step * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
        output_mask = output < OUTPUTS
        gradient = fc_flat_relu_unactivated(
            gradient_ptr=gradient_ptr,
            saved_ptr=saved_ptr,
            offset=image.to(tl.int64)[:, None] * OUTPUTS + output[None, :],
            mask=image_mask[:, None] & output_mask[None, :],
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


@triton.jit(do_not_specialize=COUNTS)
def fc_flat_relu_weight_gradient(
    gradient_ptr,  # [batch, OUTPUTS]
    saved_ptr,  # [batch, OUTPUTS]
    x_ptr,  # [batch, FEATURES]
    dweight_ptr,  # [OUTPUTS, FEATURES]
    batch,
    FEATURES: tl.constexpr,
    OUTPUTS: tl.constexpr,
    PIXELS: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
    BLOCK_BATCH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the gradient of the weight, a sum over the batch."""
    FEATURE_BLOCKS: tl.constexpr = (FEATURES + BLOCK_FEATURES - 1) // BLOCK_FEATURES
    output = tl.program_id(0) // FEATURE_BLOCKS * BLOCK_OUTPUTS + tl.arange(
        0,
        BLOCK_OUTPUTS,
    )
    feature = tl.program_id(0) % FEATURE_BLOCKS * BLOCK_FEATURES + tl.arange(
        0,
        BLOCK_FEATURES,
    )
    output_mask = output < OUTPUTS
    feature_mask = feature < FEATURES
    place, column = fc_flat_relu_places(feature, FEATURES, PIXELS, GROUP)
    dweight = tl.zeros((BLOCK_OUTPUTS, BLOCK_FEATURES), dweight_ptr.dtype.element_ty)
    dweight = full(dweight)
    for step in range(tl.cdiv(batch, BLOCK_BATCH)):
        image = step * BLOCK_BATCH + tl.arange(0, BLOCK_BATCH)
        image_mask = image < batch
        gradient = fc_flat_relu_unactivated(
            gradient_ptr=gradient_ptr,
            saved_ptr=saved_ptr,
            offset=image.to(tl.int64)[None, :] * OUTPUTS + output[:, None],
            mask=image_mask[None, :] & output_mask[:, None],
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


@triton.jit(do_not_specialize=COUNTS)
def fc_flat_relu_bias_gradient(
    gradient_ptr,  # [batch, OUTPUTS]
    saved_ptr,  # [batch, OUTPUTS]
    dbias_ptr,  # [OUTPUTS]
    batch,
    OUTPUTS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_BATCH: tl.constexpr,
):
    """Compute the gradient of the bias, a sum over the batch."""
    output = tl.program_id(0) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    output_mask = output < OUTPUTS
    total = full(tl.zeros((BLOCK_BATCH, BLOCK_OUTPUTS), dbias_ptr.dtype.element_ty))
    for step in range(tl.cdiv(batch, BLOCK_BATCH)):
        image = step * BLOCK_BATCH + tl.arange(0, BLOCK_BATCH)
        gradient = fc_flat_relu_unactivated(
            gradient_ptr=gradient_ptr,
            saved_ptr=saved_ptr,
            offset=image.to(tl.int64)[:, None] * OUTPUTS + output[None, :],
            mask=(image < batch)[:, None] & output_mask[None, :],
        )
        total += full(gradient)
    dbias = tl.sum(total, axis=0)
    tl.store(dbias_ptr + output, dbias.to(dbias_ptr.dtype.element_ty), mask=output_mask)


def fc_flat_relu_launch_input_gradient(
    geometry: FcGeometry,
    gradient: Tensor,
    saved: Tensor | None,
    weight: Tensor,
    dx: Tensor,
) -> None:
    """Launch the kernel that fills dx."""
    precision = fc_precision(dx)
    tile = fc_flat_relu_tile(64, geometry.features, geometry.outputs, dx, precision)
    # Of the weight no two values are neighbours: in 16 bits it comes through registers.
    tile = tile._replace(terms=min(tile.terms, 32))
    programs = count_blocks(dx.shape[0], tile.rows) * count_blocks(
        geometry.features,
        tile.columns,
    )
    refuse_launch(dx, programs, dx.shape[0])
    launch(
        fc_flat_relu_input_gradient,
        programs,
        gradient_ptr=gradient,
        saved_ptr=saved,
        weight_ptr=weight,
        dx_ptr=dx,
        batch=dx.shape[0],
        FEATURES=geometry.features,
        OUTPUTS=geometry.outputs,
        PIXELS=geometry.pixels,
        GROUP=fc_flat_relu_group(geometry),
        BLOCK_BATCH=tile.rows,
        BLOCK_FEATURES=tile.columns,
        BLOCK_OUTPUTS=tile.terms,
        PRECISION=precision,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


def fc_flat_relu_launch_weight_gradient(
    geometry: FcGeometry,
    gradient: Tensor,
    saved: Tensor | None,
    x: Tensor,
    dweight: Tensor,
) -> None:
    """Launch the kernel that fills dweight."""
    precision = fc_precision(x)
    tile = fc_flat_relu_tile(geometry.outputs, geometry.features, 64, x, precision)
    # Each feature has two places, which take registers.
    tile = tile._replace(columns=min(tile.columns, 128 // x.element_size()))
    programs = count_blocks(geometry.outputs, tile.rows)
    programs *= count_blocks(geometry.features, tile.columns)
    refuse_launch(x, programs, x.shape[0])
    launch(
        fc_flat_relu_weight_gradient,
        programs,
        gradient_ptr=gradient,
        saved_ptr=saved,
        x_ptr=x,
        dweight_ptr=dweight,
        batch=x.shape[0],
        FEATURES=geometry.features,
        OUTPUTS=geometry.outputs,
        PIXELS=geometry.pixels,
        GROUP=fc_flat_relu_group(geometry),
        BLOCK_OUTPUTS=tile.rows,
        BLOCK_FEATURES=tile.columns,
        BLOCK_BATCH=tile.terms,
        PRECISION=precision,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


def fc_flat_relu_launch_bias_gradient(
    geometry: FcGeometry,
    gradient: Tensor,
    saved: Tensor | None,
    dbias: Tensor,
) -> None:
    """Launch the kernel that fills dbias."""
    block_outputs = block_size(geometry.outputs, 64)
    # In float64, 64 rows spill on sm_80.
    block_batch = 32 if gradient.dtype == torch.float64 else 64
    programs = count_blocks(geometry.outputs, block_outputs)
    refuse_launch(gradient, programs, gradient.shape[0])
    launch(
        fc_flat_relu_bias_gradient,
        programs,
        gradient_ptr=gradient,
        saved_ptr=saved,
        dbias_ptr=dbias,
        batch=gradient.shape[0],
        OUTPUTS=geometry.outputs,
        BLOCK_OUTPUTS=block_outputs,
        BLOCK_BATCH=block_batch,
        num_warps=4,
    )


fc_flat_relu_launches = FcLaunches(
    forward=fc_flat_relu_launch_forward,
    input_gradient=fc_flat_relu_launch_input_gradient,
    weight_gradient=fc_flat_relu_launch_weight_gradient,
    bias_gradient=fc_flat_relu_launch_bias_gradient,
)


FLATTEN1_FC1_RELU3 = FcGeometry(
    features=400,
    outputs=120,
    activation="relu",
    size=(5, 5),
)
flatten1_fc1_relu3_op = fc_op(
    f"{NAMESPACE}::flatten1_fc1_relu3",
    FLATTEN1_FC1_RELU3,
    fc_flat_relu_launches,
)


def flatten1_fc1_relu3(x: Tensor, linear: nn.Linear) -> Tensor:
    """Run region 3: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = fc_weights(linear, FLATTEN1_FC1_RELU3)
        if weight is not None and x.shape[1:] == fc_shape(FLATTEN1_FC1_RELU3):
            return flatten1_fc1_relu3_op(x, weight, bias)
    x = torch.flatten(x, 1)
    x = linear(x)
    return F.relu(x)


# ── region 4: fc2 + relu4 ─────────────────────────────────────────────────────────────
#          reads 120
#   fc2    fc 84      84
#   relu4  relu       84
#   forward: 1 launch
#   backward: 3 launches, for the gradients of input, weight and bias
#   kept for backward: the input, 120; the output, 84
#   The rest of its kernels are those of region 3.


@triton.jit(do_not_specialize=COUNTS)
def fc_relu_forward(
    x_ptr,  # [batch, FEATURES]
    weight_ptr,  # [OUTPUTS, FEATURES]
    bias_ptr,  # [OUTPUTS]
    y_ptr,  # [batch, OUTPUTS]
    batch,
    FEATURES: tl.constexpr,
    OUTPUTS: tl.constexpr,
    BLOCK_BATCH: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute y = activation(x · weightᵀ + bias)."""
    OUTPUT_BLOCKS: tl.constexpr = (OUTPUTS + BLOCK_OUTPUTS - 1) // BLOCK_OUTPUTS
    image = tl.program_id(0) // OUTPUT_BLOCKS * BLOCK_BATCH + tl.arange(0, BLOCK_BATCH)
    output = tl.program_id(0) % OUTPUT_BLOCKS * BLOCK_OUTPUTS + tl.arange(
        0,
        BLOCK_OUTPUTS,
    )
    image_mask = image < batch
    output_mask = output < OUTPUTS
    y = full(tl.zeros((BLOCK_BATCH, BLOCK_OUTPUTS), y_ptr.dtype.element_ty))
    for step in range((FEATURES + BLOCK_FEATURES - 1) // BLOCK_FEATURES):
        feature = step * BLOCK_FEATURES + tl.arange(0, BLOCK_FEATURES)
        feature_mask = feature < FEATURES
        x = tl.load(
            x_ptr + image.to(tl.int64)[:, None] * FEATURES + feature[None, :],
            mask=image_mask[:, None] & feature_mask[None, :],
            other=0.0,
        )
        weight = tl.load(
            weight_ptr + output[None, :] * FEATURES + feature[:, None],
            mask=output_mask[None, :] & feature_mask[:, None],
            other=0.0,
        )
        y = tl.dot(x, weight, y, input_precision=PRECISION, out_dtype=y.dtype)
    offset = image.to(tl.int64)[:, None] * OUTPUTS + output[None, :]
    mask = image_mask[:, None] & output_mask[None, :]
    bias = tl.load(bias_ptr + output, mask=output_mask, other=0.0)
    y += bias.to(y.dtype)[None, :]
    y = fc_flat_relu_activation(y)
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=mask)


def fc_relu_launch_forward(
    geometry: FcGeometry,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    _kept: Tensor,
) -> None:
    """Launch the forward kernel, which fills y."""
    precision = fc_precision(x)
    tile = fc_flat_relu_tile(64, geometry.outputs, geometry.features, x, precision)
    programs = count_blocks(x.shape[0], tile.rows) * count_blocks(
        geometry.outputs,
        tile.columns,
    )
    refuse_launch(x, programs, x.shape[0])
    launch(
        fc_relu_forward,
        programs,
        x_ptr=x,
        weight_ptr=weight,
        bias_ptr=bias,
        y_ptr=y,
        batch=x.shape[0],
        FEATURES=geometry.features,
        OUTPUTS=geometry.outputs,
        BLOCK_BATCH=tile.rows,
        BLOCK_OUTPUTS=tile.columns,
        BLOCK_FEATURES=tile.terms,
        PRECISION=precision,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


@triton.jit(do_not_specialize=COUNTS)
def fc_relu_input_gradient(
    gradient_ptr,  # [batch, OUTPUTS]
    saved_ptr,  # [batch, OUTPUTS]
    weight_ptr,  # [OUTPUTS, FEATURES]
    dx_ptr,  # [batch, FEATURES]
    batch,
    FEATURES: tl.constexpr,
    OUTPUTS: tl.constexpr,
    BLOCK_BATCH: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the gradient of x, a sum over outputs."""
    FEATURE_BLOCKS: tl.constexpr = (FEATURES + BLOCK_FEATURES - 1) // BLOCK_FEATURES
    image = tl.program_id(0) // FEATURE_BLOCKS * BLOCK_BATCH + tl.arange(0, BLOCK_BATCH)
    feature = tl.program_id(0) % FEATURE_BLOCKS * BLOCK_FEATURES + tl.arange(
        0,
        BLOCK_FEATURES,
    )
    image_mask = image < batch
    feature_mask = feature < FEATURES
    dx = full(tl.zeros((BLOCK_BATCH, BLOCK_FEATURES), dx_ptr.dtype.element_ty))
    for step in range((OUTPUTS + BLOCK_OUTPUTS - 1) // BLOCK_OUTPUTS):
        output = step * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
        output_mask = output < OUTPUTS
        gradient = fc_flat_relu_unactivated(
            gradient_ptr=gradient_ptr,
            saved_ptr=saved_ptr,
            offset=image.to(tl.int64)[:, None] * OUTPUTS + output[None, :],
            mask=image_mask[:, None] & output_mask[None, :],
        )
        weight = tl.load(
            weight_ptr + output[:, None] * FEATURES + feature[None, :],
            mask=output_mask[:, None] & feature_mask[None, :],
            other=0.0,
        )
        dx = tl.dot(gradient, weight, dx, input_precision=PRECISION, out_dtype=dx.dtype)
    tl.store(
        dx_ptr + image.to(tl.int64)[:, None] * FEATURES + feature[None, :],
        dx.to(dx_ptr.dtype.element_ty),
        mask=image_mask[:, None] & feature_mask[None, :],
    )


@triton.jit(do_not_specialize=COUNTS)
def fc_relu_weight_gradient(
    gradient_ptr,  # [batch, OUTPUTS]
    saved_ptr,  # [batch, OUTPUTS]
    x_ptr,  # [batch, FEATURES]
    dweight_ptr,  # [OUTPUTS, FEATURES]
    batch,
    FEATURES: tl.constexpr,
    OUTPUTS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
    BLOCK_BATCH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the gradient of the weight, a sum over the batch."""
    FEATURE_BLOCKS: tl.constexpr = (FEATURES + BLOCK_FEATURES - 1) // BLOCK_FEATURES
    output = tl.program_id(0) // FEATURE_BLOCKS * BLOCK_OUTPUTS + tl.arange(
        0,
        BLOCK_OUTPUTS,
    )
    feature = tl.program_id(0) % FEATURE_BLOCKS * BLOCK_FEATURES + tl.arange(
        0,
        BLOCK_FEATURES,
    )
    output_mask = output < OUTPUTS
    feature_mask = feature < FEATURES
    dweight = tl.zeros((BLOCK_OUTPUTS, BLOCK_FEATURES), dweight_ptr.dtype.element_ty)
    dweight = full(dweight)
    for step in range(tl.cdiv(batch, BLOCK_BATCH)):
        image = step * BLOCK_BATCH + tl.arange(0, BLOCK_BATCH)
        image_mask = image < batch
        gradient = fc_flat_relu_unactivated(
            gradient_ptr=gradient_ptr,
            saved_ptr=saved_ptr,
            offset=image.to(tl.int64)[None, :] * OUTPUTS + output[:, None],
            mask=image_mask[None, :] & output_mask[:, None],
        )
        x = tl.load(
            x_ptr + image.to(tl.int64)[:, None] * FEATURES + feature[None, :],
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
        dweight_ptr + output[:, None] * FEATURES + feature[None, :],
        dweight.to(dweight_ptr.dtype.element_ty),
        mask=output_mask[:, None] & feature_mask[None, :],
    )


def fc_relu_launch_input_gradient(
    geometry: FcGeometry,
    gradient: Tensor,
    saved: Tensor | None,
    weight: Tensor,
    dx: Tensor,
) -> None:
    """Launch the kernel that fills dx."""
    precision = fc_precision(dx)
    tile = fc_flat_relu_tile(64, geometry.features, geometry.outputs, dx, precision)
    programs = count_blocks(dx.shape[0], tile.rows) * count_blocks(
        geometry.features,
        tile.columns,
    )
    refuse_launch(dx, programs, dx.shape[0])
    launch(
        fc_relu_input_gradient,
        programs,
        gradient_ptr=gradient,
        saved_ptr=saved,
        weight_ptr=weight,
        dx_ptr=dx,
        batch=dx.shape[0],
        FEATURES=geometry.features,
        OUTPUTS=geometry.outputs,
        BLOCK_BATCH=tile.rows,
        BLOCK_FEATURES=tile.columns,
        BLOCK_OUTPUTS=tile.terms,
        PRECISION=precision,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


def fc_relu_launch_weight_gradient(
    geometry: FcGeometry,
    gradient: Tensor,
    saved: Tensor | None,
    x: Tensor,
    dweight: Tensor,
) -> None:
    """Launch the kernel that fills dweight."""
    precision = fc_precision(x)
    tile = fc_flat_relu_tile(geometry.outputs, geometry.features, 64, x, precision)
    programs = count_blocks(geometry.outputs, tile.rows)
    programs *= count_blocks(geometry.features, tile.columns)
    refuse_launch(x, programs, x.shape[0])
    launch(
        fc_relu_weight_gradient,
        programs,
        gradient_ptr=gradient,
        saved_ptr=saved,
        x_ptr=x,
        dweight_ptr=dweight,
        batch=x.shape[0],
        FEATURES=geometry.features,
        OUTPUTS=geometry.outputs,
        BLOCK_OUTPUTS=tile.rows,
        BLOCK_FEATURES=tile.columns,
        BLOCK_BATCH=tile.terms,
        PRECISION=precision,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


fc_relu_launches = FcLaunches(
    forward=fc_relu_launch_forward,
    input_gradient=fc_relu_launch_input_gradient,
    weight_gradient=fc_relu_launch_weight_gradient,
    bias_gradient=fc_flat_relu_launch_bias_gradient,
)


FC2_RELU4 = FcGeometry(features=120, outputs=84, activation="relu")
fc2_relu4_op = fc_op(f"{NAMESPACE}::fc2_relu4", FC2_RELU4, fc_relu_launches)


def fc2_relu4(x: Tensor, linear: nn.Linear) -> Tensor:
    """Run region 4: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = fc_weights(linear, FC2_RELU4)
        if weight is not None and x.shape[1:] == fc_shape(FC2_RELU4):
            return fc2_relu4_op(x, weight, bias)
    x = linear(x)
    return F.relu(x)


# ── region 5: fc3 ─────────────────────────────────────────────────────────────────────
#        reads 84
#   fc3  fc 10     10
#   forward: 1 launch
#   backward: 3 launches, for the gradients of input, weight and bias
#   kept for backward: the input, 84
#   The rest of its kernels are those of region 3.


@triton.jit(do_not_specialize=COUNTS)
def fc_forward(
    x_ptr,  # [batch, FEATURES]
    weight_ptr,  # [OUTPUTS, FEATURES]
    bias_ptr,  # [OUTPUTS]
    y_ptr,  # [batch, OUTPUTS]
    batch,
    FEATURES: tl.constexpr,
    OUTPUTS: tl.constexpr,
    BLOCK_BATCH: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute y = activation(x · weightᵀ + bias)."""
    OUTPUT_BLOCKS: tl.constexpr = (OUTPUTS + BLOCK_OUTPUTS - 1) // BLOCK_OUTPUTS
    image = tl.program_id(0) // OUTPUT_BLOCKS * BLOCK_BATCH + tl.arange(0, BLOCK_BATCH)
    output = tl.program_id(0) % OUTPUT_BLOCKS * BLOCK_OUTPUTS + tl.arange(
        0,
        BLOCK_OUTPUTS,
    )
    image_mask = image < batch
    output_mask = output < OUTPUTS
    y = full(tl.zeros((BLOCK_BATCH, BLOCK_OUTPUTS), y_ptr.dtype.element_ty))
    for step in range((FEATURES + BLOCK_FEATURES - 1) // BLOCK_FEATURES):
        feature = step * BLOCK_FEATURES + tl.arange(0, BLOCK_FEATURES)
        feature_mask = feature < FEATURES
        x = tl.load(
            x_ptr + image.to(tl.int64)[:, None] * FEATURES + feature[None, :],
            mask=image_mask[:, None] & feature_mask[None, :],
            other=0.0,
        )
        weight = tl.load(
            weight_ptr + output[None, :] * FEATURES + feature[:, None],
            mask=output_mask[None, :] & feature_mask[:, None],
            other=0.0,
        )
        y = tl.dot(x, weight, y, input_precision=PRECISION, out_dtype=y.dtype)
    offset = image.to(tl.int64)[:, None] * OUTPUTS + output[None, :]
    mask = image_mask[:, None] & output_mask[None, :]
    bias = tl.load(bias_ptr + output, mask=output_mask, other=0.0)
    y += bias.to(y.dtype)[None, :]
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=mask)


def fc_launch_forward(
    geometry: FcGeometry,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    _kept: Tensor,
) -> None:
    """Launch the forward kernel, which fills y."""
    precision = fc_precision(x)
    tile = fc_flat_relu_tile(64, geometry.outputs, geometry.features, x, precision)
    programs = count_blocks(x.shape[0], tile.rows) * count_blocks(
        geometry.outputs,
        tile.columns,
    )
    refuse_launch(x, programs, x.shape[0])
    launch(
        fc_forward,
        programs,
        x_ptr=x,
        weight_ptr=weight,
        bias_ptr=bias,
        y_ptr=y,
        batch=x.shape[0],
        FEATURES=geometry.features,
        OUTPUTS=geometry.outputs,
        BLOCK_BATCH=tile.rows,
        BLOCK_OUTPUTS=tile.columns,
        BLOCK_FEATURES=tile.terms,
        PRECISION=precision,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


@triton.jit
def fc_unactivated(
    gradient_ptr,
    offset,
    mask,
):
    """Read a tile of the gradient and take it back through the activation."""
    gradient = tl.load(gradient_ptr + offset, mask=mask, other=0.0)
    return gradient.to(gradient_ptr.dtype.element_ty)


@triton.jit(do_not_specialize=COUNTS)
def fc_input_gradient(
    gradient_ptr,  # [batch, OUTPUTS]
    weight_ptr,  # [OUTPUTS, FEATURES]
    dx_ptr,  # [batch, FEATURES]
    batch,
    FEATURES: tl.constexpr,
    OUTPUTS: tl.constexpr,
    BLOCK_BATCH: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the gradient of x, a sum over outputs."""
    FEATURE_BLOCKS: tl.constexpr = (FEATURES + BLOCK_FEATURES - 1) // BLOCK_FEATURES
    image = tl.program_id(0) // FEATURE_BLOCKS * BLOCK_BATCH + tl.arange(0, BLOCK_BATCH)
    feature = tl.program_id(0) % FEATURE_BLOCKS * BLOCK_FEATURES + tl.arange(
        0,
        BLOCK_FEATURES,
    )
    image_mask = image < batch
    feature_mask = feature < FEATURES
    dx = full(tl.zeros((BLOCK_BATCH, BLOCK_FEATURES), dx_ptr.dtype.element_ty))
    for step in range((OUTPUTS + BLOCK_OUTPUTS - 1) // BLOCK_OUTPUTS):
        output = step * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
        output_mask = output < OUTPUTS
        gradient = fc_unactivated(
            gradient_ptr=gradient_ptr,
            offset=image.to(tl.int64)[:, None] * OUTPUTS + output[None, :],
            mask=image_mask[:, None] & output_mask[None, :],
        )
        weight = tl.load(
            weight_ptr + output[:, None] * FEATURES + feature[None, :],
            mask=output_mask[:, None] & feature_mask[None, :],
            other=0.0,
        )
        dx = tl.dot(gradient, weight, dx, input_precision=PRECISION, out_dtype=dx.dtype)
    tl.store(
        dx_ptr + image.to(tl.int64)[:, None] * FEATURES + feature[None, :],
        dx.to(dx_ptr.dtype.element_ty),
        mask=image_mask[:, None] & feature_mask[None, :],
    )


@triton.jit(do_not_specialize=COUNTS)
def fc_weight_gradient(
    gradient_ptr,  # [batch, OUTPUTS]
    x_ptr,  # [batch, FEATURES]
    dweight_ptr,  # [OUTPUTS, FEATURES]
    batch,
    FEATURES: tl.constexpr,
    OUTPUTS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
    BLOCK_BATCH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the gradient of the weight, a sum over the batch."""
    FEATURE_BLOCKS: tl.constexpr = (FEATURES + BLOCK_FEATURES - 1) // BLOCK_FEATURES
    output = tl.program_id(0) // FEATURE_BLOCKS * BLOCK_OUTPUTS + tl.arange(
        0,
        BLOCK_OUTPUTS,
    )
    feature = tl.program_id(0) % FEATURE_BLOCKS * BLOCK_FEATURES + tl.arange(
        0,
        BLOCK_FEATURES,
    )
    output_mask = output < OUTPUTS
    feature_mask = feature < FEATURES
    dweight = tl.zeros((BLOCK_OUTPUTS, BLOCK_FEATURES), dweight_ptr.dtype.element_ty)
    dweight = full(dweight)
    for step in range(tl.cdiv(batch, BLOCK_BATCH)):
        image = step * BLOCK_BATCH + tl.arange(0, BLOCK_BATCH)
        image_mask = image < batch
        gradient = fc_unactivated(
            gradient_ptr=gradient_ptr,
            offset=image.to(tl.int64)[None, :] * OUTPUTS + output[:, None],
            mask=image_mask[None, :] & output_mask[:, None],
        )
        x = tl.load(
            x_ptr + image.to(tl.int64)[:, None] * FEATURES + feature[None, :],
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
        dweight_ptr + output[:, None] * FEATURES + feature[None, :],
        dweight.to(dweight_ptr.dtype.element_ty),
        mask=output_mask[:, None] & feature_mask[None, :],
    )


@triton.jit(do_not_specialize=COUNTS)
def fc_bias_gradient(
    gradient_ptr,  # [batch, OUTPUTS]
    dbias_ptr,  # [OUTPUTS]
    batch,
    OUTPUTS: tl.constexpr,
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
            offset=image.to(tl.int64)[:, None] * OUTPUTS + output[None, :],
            mask=(image < batch)[:, None] & output_mask[None, :],
        )
        total += full(gradient)
    dbias = tl.sum(total, axis=0)
    tl.store(dbias_ptr + output, dbias.to(dbias_ptr.dtype.element_ty), mask=output_mask)


def fc_launch_input_gradient(
    geometry: FcGeometry,
    gradient: Tensor,
    _saved: Tensor | None,
    weight: Tensor,
    dx: Tensor,
) -> None:
    """Launch the kernel that fills dx."""
    precision = fc_precision(dx)
    tile = fc_flat_relu_tile(64, geometry.features, geometry.outputs, dx, precision)
    programs = count_blocks(dx.shape[0], tile.rows) * count_blocks(
        geometry.features,
        tile.columns,
    )
    refuse_launch(dx, programs, dx.shape[0])
    launch(
        fc_input_gradient,
        programs,
        gradient_ptr=gradient,
        weight_ptr=weight,
        dx_ptr=dx,
        batch=dx.shape[0],
        FEATURES=geometry.features,
        OUTPUTS=geometry.outputs,
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
    _saved: Tensor | None,
    x: Tensor,
    dweight: Tensor,
) -> None:
    """Launch the kernel that fills dweight."""
    precision = fc_precision(x)
    tile = fc_flat_relu_tile(geometry.outputs, geometry.features, 64, x, precision)
    programs = count_blocks(geometry.outputs, tile.rows)
    programs *= count_blocks(geometry.features, tile.columns)
    refuse_launch(x, programs, x.shape[0])
    launch(
        fc_weight_gradient,
        programs,
        gradient_ptr=gradient,
        x_ptr=x,
        dweight_ptr=dweight,
        batch=x.shape[0],
        FEATURES=geometry.features,
        OUTPUTS=geometry.outputs,
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
    _saved: Tensor | None,
    dbias: Tensor,
) -> None:
    """Launch the kernel that fills dbias."""
    block_outputs = block_size(geometry.outputs, 64)
    # In float64, 64 rows spill on sm_80.
    block_batch = 32 if gradient.dtype == torch.float64 else 64
    programs = count_blocks(geometry.outputs, block_outputs)
    refuse_launch(gradient, programs, gradient.shape[0])
    launch(
        fc_bias_gradient,
        programs,
        gradient_ptr=gradient,
        dbias_ptr=dbias,
        batch=gradient.shape[0],
        OUTPUTS=geometry.outputs,
        BLOCK_OUTPUTS=block_outputs,
        BLOCK_BATCH=block_batch,
        num_warps=4,
    )


fc_launches = FcLaunches(
    forward=fc_launch_forward,
    input_gradient=fc_launch_input_gradient,
    weight_gradient=fc_launch_weight_gradient,
    bias_gradient=fc_launch_bias_gradient,
)


FC3 = FcGeometry(features=84, outputs=10)
fc3_op = fc_op(f"{NAMESPACE}::fc3", FC3, fc_launches)


def fc3(x: Tensor, linear: nn.Linear) -> Tensor:
    """Run region 5: its kernels on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(x):
        weight, bias = fc_weights(linear, FC3)
        if weight is not None and x.shape[1:] == fc_shape(FC3):
            return fc3_op(x, weight, bias)
    return linear(x)


# ── the loss ──────────────────────────────────────────────────────────────────────────
#   Softmax and cross-entropy in one kernel forward and one backward: the loss of a
#   classifier.
#
#   Logits lie in memory as [rows, classes]: a row is an image, or a pixel of one.
#   Forward reads them once, with the running maximum and sum of Milakov and Gimelshein,
#   Online normalizer calculation for softmax (2018), and keeps one float a row; the
#   probabilities are never stored.


LOSS_FORWARD = """(
    Tensor logits, Tensor target
) -> (Tensor loss, Tensor count, Tensor spread)"""
LOSS_BACKWARD = """(
    Tensor gradient, Tensor logits, Tensor target, Tensor spread, Tensor count
) -> Tensor"""
LOSS_IGNORED = -100  # the class that counts as none, as in PyTorch
LOSS_TILE = 4096  # logits at a time
LOSS_CLASSES = 1024  # of them at most so many of one row
LOSS_TILES_OF_ONE = 8  # so few are one program's, which needs no second stage
LOSS_PROGRAMS = 1024


@triton.jit(do_not_specialize=COUNTS)
def loss_forward(
    logits_ptr,  # [rows, CLASSES]
    target_ptr,  # [rows] int64: the class of each row, or IGNORED
    loss_ptr,  # [1]: the mean; of several programs, [programs]: sums
    count_ptr,  # [programs]: how many rows are not ignored
    spread_ptr,  # [rows]: log Σ exp(logits)
    rows,
    tiles,  # that each program takes
    CLASSES: tl.constexpr,
    IGNORED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CLASSES: tl.constexpr,
):
    """Compute the mean of log Σ exp(logits) − logit of the target, or its part of the sum."""
    kind = spread_ptr.dtype.element_ty
    total = tl.zeros((BLOCK_ROWS,), kind)
    count = tl.zeros((BLOCK_ROWS,), kind)
    for tile in range(tiles):
        row = (tl.program_id(0) * tiles + tile) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        row_mask = row < rows
        target = tl.load(target_ptr + row, mask=row_mask, other=IGNORED)
        start = row.to(tl.int64)[:, None] * CLASSES
        highest = tl.full((BLOCK_ROWS,), float("-inf"), kind)
        mass = tl.zeros((BLOCK_ROWS,), kind)
        own = tl.zeros((BLOCK_ROWS,), kind)
        for step in range((CLASSES + BLOCK_CLASSES - 1) // BLOCK_CLASSES):
            label = step * BLOCK_CLASSES + tl.arange(0, BLOCK_CLASSES)
            mask = row_mask[:, None] & (label < CLASSES)[None, :]
            logits = tl.load(
                logits_ptr + start + label[None, :],
                mask=mask,
                other=float("-inf"),
            )
            logits = logits.to(kind)
            higher = tl.maximum(highest, tl.max(logits, 1))
            # While all are −inf, nothing is subtracted: −inf − (−inf) would be NaN.
            base = tl.where(higher == float("-inf"), 0.0, higher)
            mass = mass * tl.exp(highest - base) + tl.sum(
                tl.exp(logits - base[:, None]),
                1,
            )
            own += tl.sum(tl.where(label[None, :] == target[:, None], logits, 0.0), 1)
            highest = higher
        mass = tl.where(row_mask, mass, 1.0)
        spread = tl.log(mass) + tl.where(highest == float("-inf"), 0.0, highest)
        tl.store(spread_ptr + row, spread, mask=row_mask)
        # A class that does not exist makes the loss NaN, which nobody overlooks.
        exists = (target >= 0) & (target < CLASSES)
        loss = tl.where(exists, spread - own, float("nan"))
        counts = row_mask & (target != IGNORED)
        total += tl.where(counts, loss, 0.0)
        count += tl.where(counts, 1.0, 0.0)
    loss = tl.sum(total, 0)
    number = tl.sum(count, 0)
    loss = tl.where(tl.num_programs(0) == 1, loss / number, loss)
    tl.store(loss_ptr + tl.program_id(0), loss)
    tl.store(count_ptr + tl.program_id(0), number)


@triton.jit(do_not_specialize=COUNTS)
def loss_backward(
    logits_ptr,  # [rows, CLASSES]
    target_ptr,  # [rows] int64
    gradient_ptr,  # [1]: that of the mean
    spread_ptr,  # [rows], written by the forward kernel
    count_ptr,  # [1]
    dlogits_ptr,  # [rows, CLASSES]
    rows,
    CLASSES: tl.constexpr,
    IGNORED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CLASSES: tl.constexpr,
):
    """Compute the gradient of the logits: (softmax − one at the target) / count."""
    CLASS_BLOCKS: tl.constexpr = (CLASSES + BLOCK_CLASSES - 1) // BLOCK_CLASSES
    row = tl.program_id(0) // CLASS_BLOCKS * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    row_mask = row < rows
    label = tl.program_id(0) % CLASS_BLOCKS * BLOCK_CLASSES + tl.arange(
        0,
        BLOCK_CLASSES,
    )
    target = tl.load(target_ptr + row, mask=row_mask, other=IGNORED)
    spread = tl.load(spread_ptr + row, mask=row_mask, other=0.0)
    mask = row_mask[:, None] & (label < CLASSES)[None, :]
    offset = row.to(tl.int64)[:, None] * CLASSES + label[None, :]
    logits = full(tl.load(logits_ptr + offset, mask=mask, other=float("-inf")))
    softmax = tl.exp(logits - spread[:, None])
    wrong = softmax - tl.where(label[None, :] == target[:, None], 1.0, 0.0)
    # Of a class that does not exist the gradient is NaN, as the loss is: no training goes on.
    exists = (target >= 0) & (target < CLASSES)
    wrong = tl.where(exists[:, None], wrong, float("nan"))
    share = tl.load(gradient_ptr) / tl.load(count_ptr)
    dlogits = tl.where((target != IGNORED)[:, None], wrong * share, 0.0)
    tl.store(dlogits_ptr + offset, dlogits.to(dlogits_ptr.dtype.element_ty), mask=mask)


def loss_blocks(classes: int) -> tuple[int, int]:
    """Choose rows x classes of a tile."""
    block_classes = min(LOSS_CLASSES, power_of_two(classes))
    return max(1, min(64, LOSS_TILE // block_classes)), block_classes


def loss_launch_forward(
    logits: Tensor,
    target: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Give the mean loss, how many rows it is of, and log Σ exp of each row's logits."""
    rows, classes = logits.shape
    block_rows, block_classes = loss_blocks(classes)
    all_tiles = count_blocks(rows, block_rows)
    programs = 1 if all_tiles <= LOSS_TILES_OF_ONE else min(all_tiles, LOSS_PROGRAMS)
    refuse_launch(logits, programs, rows)
    loss = logits.new_empty(programs, dtype=full_dtype(logits))
    count = torch.empty_like(loss)
    spread = logits.new_empty(rows, dtype=full_dtype(logits))
    launch(
        loss_forward,
        programs,
        logits_ptr=logits,
        target_ptr=target,
        loss_ptr=loss,
        count_ptr=count,
        spread_ptr=spread,
        rows=rows,
        tiles=count_blocks(all_tiles, programs),
        CLASSES=classes,
        IGNORED=LOSS_IGNORED,
        BLOCK_ROWS=block_rows,
        BLOCK_CLASSES=block_classes,
        num_warps=4,
    )
    if programs > 1:
        count = count.sum(0, keepdim=True)
        loss = loss.sum(0, keepdim=True) / count
    return loss, count, spread


def loss_launch_backward(
    gradient: Tensor, logits: Tensor, target: Tensor, spread: Tensor, count: Tensor
) -> Tensor:
    """Give the gradient of the logits."""
    rows, classes = logits.shape
    block_rows, block_classes = loss_blocks(classes)
    programs = count_blocks(rows, block_rows) * count_blocks(classes, block_classes)
    refuse_launch(logits, programs, rows)
    dlogits = torch.empty_like(logits)
    launch(
        loss_backward,
        programs,
        logits_ptr=logits,
        target_ptr=target,
        gradient_ptr=gradient,
        spread_ptr=spread,
        count_ptr=count,
        dlogits_ptr=dlogits,
        rows=rows,
        CLASSES=classes,
        IGNORED=LOSS_IGNORED,
        BLOCK_ROWS=block_rows,
        BLOCK_CLASSES=block_classes,
        num_warps=4,
    )
    return dlogits


def loss_rows(logits: Tensor) -> Tensor:
    """Put logits (N, C) or (N, C, …) as they lie in memory with channels last: (rows, C)."""
    return logits.movedim(1, -1).reshape(-1, logits.shape[1]).contiguous()


def has_classes(logits: Tensor, target: Tensor) -> bool:
    """Say whether the target has a class for each row, in a type that PyTorch takes for that."""
    wanted = (logits.shape[0], *logits.shape[2:])
    types = (torch.int64, torch.uint8) if logits.dim() == 2 else (torch.int64,)
    return tuple(target.shape) == wanted and target.dtype in types


def loss_values(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the mean loss, how many rows it is of, and log Σ exp of each row's logits."""
    with torch.cuda.device_of(logits):
        return loss_launch_forward(packed(logits), packed(target))


def loss_outputs(logits: Tensor, _target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Allocate what loss_values gives."""
    one = logits.new_empty(1, dtype=full_dtype(logits))
    spread = logits.new_empty(logits.shape[0], dtype=full_dtype(logits))
    return one, torch.empty_like(one), spread


def loss_gradient(
    gradient: Tensor, logits: Tensor, target: Tensor, spread: Tensor, count: Tensor
) -> tuple[Tensor]:
    """Compute the gradient of the logits."""
    with torch.cuda.device_of(logits):
        rows, classes = packed(logits), packed(target)
        return (
            loss_launch_backward(
                packed(gradient),
                rows,
                classes,
                packed(spread),
                count,
            ),
        )


def loss_empty_gradient(
    _gradient: Tensor, logits: Tensor, _target: Tensor, _spread: Tensor, _count: Tensor
) -> tuple[Tensor]:
    """Allocate what loss_gradient gives."""
    return (logits.new_empty(logits.shape),)


def loss_keep(
    ctx: FunctionCtx,
    inputs: tuple[Tensor, Tensor],
    output: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Save for backward."""
    _, count, spread = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(count, spread)
    ctx.save_for_backward(*inputs, spread, count)


def loss_differentiate(
    run_backward: Callable[..., object], ctx: FunctionCtx, gradient: Tensor
) -> tuple[Tensor, None]:
    """Give the gradient of the logits; a target has none."""
    found = run_backward(gradient, *ctx.saved_tensors)
    return found if isinstance(found, Tensor) else found[0], None


def loss_differentiate_again(
    ctx: FunctionCtx, gradient: Tensor
) -> tuple[Tensor, list[Tensor | None]]:
    """Give the loss by PyTorch's operators, and what it is of."""
    logits, target, _, _ = ctx.saved_tensors
    given = as_inputs((logits, target))
    rows = given[0].to(gradient.dtype)
    return F.cross_entropy(rows, target, ignore_index=LOSS_IGNORED).reshape(1), given


def loss_op(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Register the loss with PyTorch; the function that is returned computes it.

    It takes logits (N, C) or (N, C, H, W) and classes (N) or (N, H, W), numbers from 0 or −100 for
    what is left out, and gives their mean cross-entropy as `F.cross_entropy` does: in float32, or
    in float64 of such logits. Other targets go to `F.cross_entropy`, which takes probabilities and
    raises for the rest. A class that does not exist makes the loss and its gradient NaN.
    """
    region = differentiable(
        name,
        Direction(LOSS_FORWARD, compute=remembered(loss_values), allocate=loss_outputs),
        Direction(
            LOSS_BACKWARD,
            compute=remembered(loss_gradient),
            allocate=loss_empty_gradient,
        ),
        loss_keep,
        loss_differentiate,
        loss_differentiate_again,
    )

    def run(logits: Tensor, target: Tensor) -> Tensor:
        if target.device != logits.device:
            raise ValueError(f"the logits are on {logits.device}, y on {target.device}")
        if logits.numel() == 0 or not has_classes(logits, target):
            return F.cross_entropy(logits.to(full_dtype(logits)), target)
        loss, _, _ = region(loss_rows(logits), target.reshape(-1).long())
        return loss.reshape(())

    run.operators = region.operators
    return run


cross_entropy_op = loss_op(f"{NAMESPACE}::cross_entropy")


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy: one kernel each way on a GPU, PyTorch's operators elsewhere."""
    if runs_kernels(logits) and not target.is_floating_point():
        return cross_entropy_op(logits, target)
    return F.cross_entropy(logits, target)


# ── the network ───────────────────────────────────────────────────────────────────────


def refuse_input(x: Tensor) -> None:
    """Raise unless x is a batch of 28 x 28 x 1."""
    if not isinstance(x, Tensor):
        return  # torch.fx.symbolic_trace, which knows no sizes
    given = tuple(x.shape)
    if x.dim() != 4 or given[1:] != (1, 28, 28):
        raise ValueError(f"LeNet takes (N, 1, 28, 28), not {given} (cnn line 5)")


class LeNet(nn.Module):
    """28 x 28 x 1 to 10."""

    # channels, height, width; None: any size that `refuse_input` lets pass
    input_shape = (1, 28, 28)
    classes = ()

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Give the probabilities of the classes; a loss takes the logits, as `loss` does."""
        return F.softmax(self.logits(x), 1)

    def logits(self, x: Tensor) -> Tensor:
        """Give what the last layer before a softmax gives."""
        refuse_input(x)
        x = conv1_relu1_pool1(x, self.conv1)
        x = conv2_relu2_pool2(x, self.conv2)
        x = flatten1_fc1_relu3(x, self.fc1)
        x = fc2_relu4(x, self.fc2)
        return fc3(x, self.fc3)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy of the logits with the classes y, numbers from 0."""
        return cross_entropy(self.logits(x), y)

    def __prepare_scriptable__(self) -> torch.fx.GraphModule:
        """Give what `torch.jit.script` reads: PyTorch's operators, in the present mode."""
        return torch.fx.symbolic_trace(self)

    def dynamic_shapes(self) -> dict[str, dict[int, torch.export.Dim]]:
        """Give the sizes that are free, for `torch.export.export`."""
        return {"x": {0: torch.export.Dim("batch")}}
