"""What the launches of all kernels share."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
from torch import Tensor


class Tile(NamedTuple):
    """The share of one program: a tile of a matrix product, terms a step; warps and stages."""

    rows: int
    columns: int
    terms: int
    warps: int
    stages: int


def block_size(size: int, most: int) -> int:
    """Give the least power of two that holds the size, from 16, the least a matrix unit takes."""
    return min(most, max(16, triton.next_power_of_2(size)))


def split_count(programs: int, blocks: int, most: int = 512) -> int:
    """Choose over how many programs to split a sum; by shapes alone, so that it never varies."""
    return max(1, min(blocks, most // programs))


def packed(tensor: Tensor | None) -> Tensor | None:
    """Give the tensor as kernels address it: without gaps, and images with channels innermost."""
    if tensor is not None and tensor.dim() == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    return None if tensor is None else tensor.contiguous()


def cast_as_wished(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Cast to the type of torch.autocast, where that is on, as PyTorch's own layers do."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        return x.to(dtype), weight.to(dtype)
    return x, weight


def refuse_launch(x: Tensor, programs: int, pixels: int) -> None:
    """Raise where no kernel can run, or where 32 bits are too few.

    Programs, pixels and the place of a value within its image are counted in 32 bits; an image
    starts at a 64-bit address. The margin is for tiles that are not full.
    """
    if x.device.type == "cpu" and not triton.knobs.runtime.interpret:
        raise RuntimeError(f"x is on {x.device}: Triton needs a GPU, or TRITON_INTERPRET=1")
    if max(programs, pixels, x[:1].numel()) >= 2**31 - 2**20:
        raise ValueError("this batch has 2³¹ pixels or more, or an image 2³¹ values: split it")


def refuse_tensors(
    x: Tensor,
    weight: Tensor,
    shape: Sequence[int],
    vectors: Sequence[tuple[str, Tensor | None, bool]],
) -> None:
    """Raise for tensors that do not fit together; vectors are (name, tensor, whether expected)."""
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise TypeError(f"x is {x.dtype}: the kernels take float32, float16 and bfloat16")
    if weight.dtype != x.dtype:
        raise TypeError(f"x is {x.dtype}, weight {weight.dtype}")
    if weight.device != x.device:
        raise ValueError(f"x is on {x.device}, weight on {weight.device}")
    if tuple(weight.shape) != tuple(shape):
        raise ValueError(f"weight has shape {tuple(weight.shape)}, not {tuple(shape)}")
    for name, vector, is_expected in vectors:
        if (vector is not None) != is_expected:
            raise ValueError(f"this region takes {'a' if is_expected else 'no'} {name}")
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
