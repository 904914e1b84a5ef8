"""Counts what the blocks of `blocks.py` move, multiply and keep, without a GPU.

The launches are those of the emitted module, noted on shapes without memory; so are the products
and sums that it leaves to PyTorch. Each tensor that one of them is given counts once: that is what
it has to move at least, and all that it moves where nothing is read twice. The roof is the time for
that at the ceilings that were measured on an H200, one launch after the other; the times beside it
were measured there, as CUDA graphs.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

# Kernels that were made for the interpreter cannot be noted.
os.environ["TRITON_INTERPRET"] = "0"

import torch
import torch.nn.functional as F
from blocks import BLOCKS, Block
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import cnndsl
from cnndsl.runtime.target import recording, without_operators

RESULTS = Path(__file__).parent / "results" / "nvidia-h200.json"
DTYPE = torch.bfloat16
# They allocate, or do nothing themselves.
FREE = ("empty", "new_empty", "empty_like", "empty_strided", "detach", "to")


class Part(NamedTuple):
    """A launch, or an operator of PyTorch: the bytes of its tensors, and its products."""

    name: str
    bytes: int
    products: int


class Counts(NamedTuple):
    """What a block does in a step, and the bytes that it keeps for backward beside its input."""

    forward: list[Part]
    backward: list[Part]
    saved: int
    eager_saved: int
    least: int  # of forward: input, weight, output, and a byte a window
    flops: int  # of one product


def size(tensors: Iterable[object]) -> int:
    """Count the bytes of tensors, of each once."""
    found = {t.untyped_storage()._cdata: t for t in tensors if isinstance(t, Tensor)}
    return sum(t.numel() * t.element_size() for t in found.values())


class Noting(TorchDispatchMode):
    """Notes the operators of PyTorch that read and write memory."""

    def __init__(self, parts: list[Part]) -> None:
        super().__init__()
        self.parts = parts

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204 PyTorch's
        """Run one operator, and note it."""
        found = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        results = found if isinstance(found, tuple | list) else [found]
        given = [a for a in args if isinstance(a, Tensor)]
        memory = {t.untyped_storage()._cdata for t in given}
        made = [t for t in results if isinstance(t, Tensor)]
        is_view = all(t.untyped_storage()._cdata in memory for t in made)
        if name == "convolution_backward":
            gradient, x, weight, *_, needs = args
            if needs[0]:
                self.parts.append(Part("input gradient", size([gradient, weight, found[0]]), 1))
            if needs[1]:
                self.parts.append(Part("weight gradient", size([gradient, x, found[1]]), 1))
        elif name not in FREE and (func._schema.is_mutable or not is_view):
            self.parts.append(Part(name, size([*given, *made]), name == "convolution"))
        return found


@contextmanager
def noted(model: torch.nn.Module, parts: list[Part]) -> Iterator[None]:
    """Put the launches of a block into `parts`, and the operators of PyTorch between them."""
    with recording() as launches, Noting(parts), without_operators(model):
        yield
    for launch in launches:
        moved = size(launch.arguments.values())
        # A kernel of an emitted module has no parameter that it does not use.
        parts.append(Part(launch.kernel, moved, "PRECISION" in launch.arguments))


def kept(code: Callable[[], Tensor], beside: Iterable[Tensor]) -> tuple[Tensor, int]:
    """Run code, and count the bytes that autograd keeps beside some tensors."""
    known = {t.untyped_storage()._cdata for t in beside}
    found: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in known:
            found[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = code()
    return y, sum(t.untyped_storage().nbytes() for t in found.values())


def eager(block: Block, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute the block by PyTorch's own layers."""
    y = F.conv2d(x, weight, bias, block.stride, block.pad).relu()
    return F.max_pool2d(y, *block.pool) if block.pool else y


def count(block: Block) -> Counts:
    """Count what a block does in a step of training."""
    model = cnndsl.compile(source=block.source).to(
        device="meta", dtype=DTYPE, memory_format=torch.channels_last
    )
    # Strides of their own, for an image of one channel is contiguous in both layouts.
    x = torch.empty(
        (block.batch, block.channels, block.size, block.size),
        device="meta",
        dtype=DTYPE,
        memory_format=torch.channels_last,
    ).requires_grad_(not block.is_first)
    weight, bias = model.conv1.weight, model.conv1.bias
    forward: list[Part] = []
    backward: list[Part] = []
    with noted(model, forward):
        y, saved = kept(lambda: model(x), (x, weight, bias))
    gradient = torch.empty_like(y)
    with noted(model, backward):
        y.backward(gradient)
    _, eager_saved = kept(lambda: eager(block, x, weight, bias), (x, weight, bias))
    macs = cnndsl.check(source=block.source).totals.macs.constant
    least = size([x, weight, y]) + (y.numel() if block.pool else 0)
    return Counts(forward, backward, saved, eager_saved, least, 2 * macs * block.batch)


def ceilings() -> tuple[float, float]:
    """Give what an H200 was measured to move and to multiply in a second."""
    found = json.loads(RESULTS.read_text("utf-8"))
    return found["bytes_per_s"], found["operations_per_s"]


def roof(parts: list[Part], flops: int) -> float:
    """Give the least time in µs: each part at the nearer of the two ceilings."""
    moves, multiplies = ceilings()
    return 1e6 * sum(max(p.bytes / moves, p.products * flops / multiplies) for p in parts)


def measured(block: Block) -> tuple[str, str]:
    """Give the times of a block, as CUDA graphs, where they are in the results: forward, both."""
    rows = json.loads(RESULTS.read_text("utf-8"))["blocks"]
    row = next((row for row in rows if row["block"] == block.name), None)
    if row is None:
        return "–", "–"
    forward, both = (row[kind]["ours graphed"]["us"] for kind in ("forward", "both"))
    return f"{forward:.0f}", f"{both:.0f}"


def numbers(block: Block, found: Counts) -> dict[str, Any]:
    """Give a block's numbers by their names: bytes, operations, µs."""
    products = [sum(p.products for p in parts) for parts in (found.forward, found.backward)]
    first = roof(found.forward, found.flops)
    return {
        "block": block.name,
        "forward_bytes": sum(p.bytes for p in found.forward),
        "least_forward_bytes": found.least,
        "backward_bytes": sum(p.bytes for p in found.backward),
        "forward_flops": found.flops * products[0],
        "step_flops": found.flops * sum(products),
        "saved_bytes": found.saved,
        "eager_saved_bytes": found.eager_saved,
        "forward_roof_us": first,
        "step_roof_us": first + roof(found.backward, found.flops),
    }


def line(block: Block, found: dict[str, Any]) -> str:
    """The block's line of the table."""
    times = measured(block)
    cells = [
        block.name,
        *(f"{found[name] / 1e6:.1f}" for name in ("forward_bytes", "backward_bytes")),
        *(f"{found[name] / 1e9:.1f}" for name in ("forward_flops", "step_flops")),
        *(f"{found[name] / 1e6:.1f}" for name in ("saved_bytes", "eager_saved_bytes")),
        f"{found['forward_roof_us']:.1f}",
        times[0],
        f"{found['step_roof_us']:.1f}",
        times[1],
    ]
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| block | forward MB | backward MB | forward GFLOP | step GFLOP | kept MB | eager keeps MB "
    "| forward's roof µs | measured | step's roof µs | measured |"
)


def main() -> None:
    """Print the table, or the numbers as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--parts", action="store_true", help="also each launch and its bytes")
    parser.add_argument("--json", action="store_true", help="an object a block, in bytes and µs")
    parser.add_argument("--names", default="", help="blocks of these letters only, such as A,D")
    arguments = parser.parse_args()
    letters = [name for name in arguments.names.split(",") if name]
    blocks = [block for block in BLOCKS if not letters or block.name[0] in letters]
    counts = {block: count(block) for block in blocks}
    found = {block: numbers(block, counts[block]) for block in blocks}
    if arguments.json:
        for row in found.values():
            print(json.dumps(row))
        return
    moves, multiplies = ceilings()
    print(f"bfloat16; ceilings: {moves / 1e12:.2f} TB/s, {multiplies / 1e12:.0f} TFLOP/s\n")
    print(HEAD)
    print(f"|{' --- |' * (HEAD.count('|') - 1)}")
    for block in blocks:
        print(line(block, found[block]))
    saved = sum(row["saved_bytes"] for row in found.values())
    eager_saved = sum(row["eager_saved_bytes"] for row in found.values())
    print(f"\nKept for backward beside the input, over all: {saved / eager_saved:.3f} of eager's.")
    for block in blocks if arguments.parts else ():
        print(f"\n{block.name}")
        parts = [("forward", p) for p in counts[block].forward]
        parts += [("backward", p) for p in counts[block].backward]
        for when, part in parts:
            product = ", a product" * part.products
            print(f"  {when}: {part.name}, {part.bytes / 1e6:.2f} MB{product}")


if __name__ == "__main__":
    main()
