"""What the launches of all kernels share."""

import math
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.compiler import CompiledKernel

from .dispatch import tools
from .module import GPU_TYPES, INTERPRETED

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

    @property
    def options(self) -> dict[str, int]:
        """Give what Triton takes beside a kernel's arguments."""
        return {"num_warps": self.warps, "num_stages": self.stages}


def measured_tile(
    tiles: Sequence[tuple[str, str, int, Tile]], kernel: str, x: Tensor, precision: str
) -> Tile | None:
    """Give the tile that was measured for a kernel and the type of x; None where none was.

    Of several, that for the least number of images that is not less than those of x; where x has
    more than all, that for the most. `tiles` are in the order of these numbers.
    """
    kinds = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
    kind = kinds.get(x.dtype)
    if kind == "fp32" and precision == "tf32":
        kind = precision
    found = None
    for name, dtype, images, tile in tiles:
        if (name, dtype) == (kernel, kind):
            found = tile
            if x.shape[0] <= images:
                return found
    return found


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
def launch_parameters(kernel: triton.JITFunction) -> tuple[tuple[str, ...], tuple[bool, ...]]:
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
        raise RuntimeError(f"x is on {x.device}: Triton needs a GPU, or TRITON_INTERPRET=1")
    if max(programs, pixels, math.prod(x.shape[1:])) >= 2**31 - 2**20:
        raise ValueError("this batch has 2³¹ pixels or more, or an image 2³¹ values: split it")


def refuse_tensors(
    x: Tensor,
    weight: Tensor,
    shape: Sequence[int],
    vectors: Sequence[tuple[str, Tensor | None, bool]],
) -> None:
    """Raise for tensors that do not fit together; vectors are (name, tensor, whether expected)."""
    for name, tensor in (("x", x), ("weight", weight)):
        if tensor.layout != torch.strided:
            raise TypeError(f"{name} is {tensor.layout}: the kernels take dense tensors")
    if x.dtype not in GPU_TYPES:
        raise TypeError(f"x is {x.dtype}: the kernels take floats of 16, 32 and 64 bits")
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
            raise TypeError(f"{name} is {vector.dtype}: the kernels take floats of 16 to 64 bits")
        if vector is not None and vector.device != x.device:
            raise ValueError(f"x is on {x.device}, {name} on {vector.device}")
        if vector is not None and tuple(vector.shape) != (shape[0],):
            raise ValueError(f"{name} has shape {tuple(vector.shape)}, not ({shape[0]},)")


def refuse_residual(x: Tensor, residual: Tensor, shape: Sequence[int]) -> None:
    """Raise for a residual that cannot be added to what has this shape."""
    if residual.device != x.device:
        raise ValueError(f"x is on {x.device}, residual on {residual.device}")
    if residual.dtype != x.dtype:
        raise TypeError(f"x is {x.dtype}, residual {residual.dtype}")
    if tuple(residual.shape) != tuple(shape):
        raise ValueError(f"residual has shape {tuple(residual.shape)}, not {tuple(shape)}")
