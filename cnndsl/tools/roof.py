"""How little time a region could take: bytes that must move, products that must be made.

And how much of either a machine does in a second. Knows shapes; knows no kernels.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from cnndsl.fuse.pins import Role
from cnndsl.fuse.regions import Region
from cnndsl.fuse.ways import pool_of
from cnndsl.layers.types import TensorType, elements
from cnndsl.record import Record
from cnndsl.sizes.dim import Dim
from cnndsl.tune.subject import DTYPES
from cnndsl.tune.task import DIRECTIONS, Direction

_COPIED, _SIDE = 2**28, 8192


class Work(Record):
    """What a direction of a region must at least do."""

    bytes: int
    products: int


class Roof(Record):
    """What a machine does in a second: bytes that a copy reads and writes, products."""

    bytes: float
    products: float

    def microseconds(self, work: Work) -> float:
        """The least time for some work."""
        return 1e6 * max(work.bytes / self.bytes, work.products / self.products)


def work(
    region: Region, role: Role, images: int, sizes: Mapping[str, int], dtype: str
) -> dict[Direction, Work]:
    """Each tensor is read or written once, each product made once; nothing else is counted.

    Forward reads x and the weights, and writes y and what backward keeps; backward reads these and
    the gradient, and writes those of x and the weights. `sizes` are the values of free sizes.
    """
    one = DTYPES[dtype].itemsize

    def count(dim: Dim) -> int:
        return dim.evaluate(sizes)

    def values(type_: TensorType) -> int:
        return count(elements(type_)) * images

    anchor, pool = region.anchor, pool_of(region, role)
    leaves = region.nodes[-1] if role == "whole" else (pool or anchor)
    weights = sum(count(w.count) for w in anchor.layer.weights(anchor.arrives))
    x, y = values(region.arrives) * one, values(leaves.output) * one
    code = values(leaves.output) if pool is not None else 0
    residual = y if region.merge is not None and role == "whole" else 0
    products = count(anchor.layer.macs(anchor.arrives)) * images
    is_first = region.inputs[0] == "input"
    forward = Work(x + weights * one + y + code + residual, products)
    read = x + 2 * weights * one + y + code + residual
    back = Work(read + (0 if is_first else x), products * (1 if is_first else 2))
    return dict(zip(DIRECTIONS, (forward, back), strict=True))


def measured(device: torch.device, dtype: str) -> Roof:
    """Copy and multiply on a GPU, and see how much it does; products are of float32 as allowed."""
    kind = DTYPES[dtype]
    a, b = (torch.randn(_SIDE, _SIDE, device=device, dtype=kind) for _ in range(2))
    source = torch.randn(_COPIED, device=device, dtype=torch.float32)
    target = torch.empty_like(source)
    copied = _seconds(lambda: target.copy_(source))
    multiplied = _seconds(lambda: a @ b)
    return Roof(2 * 4 * _COPIED / copied, _SIDE**3 / multiplied)


def _seconds(call: Callable[[], Tensor]) -> float:
    cuda: Any = torch.cuda
    times: list[float] = []
    for _ in range(9):
        cuda.synchronize()
        start = time.perf_counter()
        call()
        cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])
