"""The same input gives the same bits: in two runs, and under tiles that add in the same order."""

from typing import Any

import numpy as np
import pytest
import torch
from triton.runtime import interpreter

from cnndsl.rt.conv_geometry import ConvGeometry
from cnndsl.rt.shared import Tile

from .conftest import ON_GPU
from .hostile import HostileInterpreter
from .regions import Case, conv_geometry, ours

POOL2: dict[str, Any] = {"activation": "relu", "pool_size": 2}
REGIONS = [
    (conv_geometry(3, 20, 3, pad=1, **POOL2), (1, 6, 7)),
    (conv_geometry(33, 17, 1, scale=True, activation="input"), (1, 5, 7)),
]


class InOrder(HostileInterpreter):
    """Adds the terms of a product one after the other, whatever the tile's size.

    NumPy chooses an order by the shapes of the operands. A matrix unit's is its own, and the same
    for all elements of a tile.
    """

    def dot(self, a: Any, b: Any, sum_so_far: Any, precision: Any, *rest: Any) -> Any:
        total = np.array(sum_so_far.data)
        for term in range(a.data.shape[1]):
            total += a.data[:, term : term + 1] * b.data[term : term + 1]
        return interpreter.TensorHandle(total, sum_so_far.dtype.scalar)


def run(geometry: ConvGeometry, shape: tuple[int, int, int], *sizes: tuple[int, int]) -> Any:
    """Compute forward and all gradients under tiles of these rows and columns, 16 terms a step."""
    kernels = ("forward", "input_gradient", "weight_gradient")
    tiles = tuple(
        (kernel, "fp32", 1, Tile(*size, 16, 4, 2))
        for kernel, size in zip(kernels, sizes, strict=False)
    )
    with InOrder() as interpreter:
        found = ours(Case(geometry._replace(tiles=tiles), shape))
    assert len(interpreter.launches) == 4
    return found


@pytest.mark.skipif(ON_GPU, reason="of the interpreter")
@pytest.mark.parametrize(("geometry", "shape"), REGIONS)
def test_two_runs_and_two_tiles(geometry: ConvGeometry, shape: tuple[int, int, int]) -> None:
    first = run(geometry, shape, (16, 64), (64, 16), (16, 32))
    again = run(geometry, shape, (16, 64), (64, 16), (16, 32))
    other = run(geometry, shape, (32, 32), (16, 32), (32, 16))
    for name, a, b, c in zip(first._fields, first, again, other, strict=True):
        assert (a is None) == (b is None) == (c is None)
        if a is not None:
            assert torch.equal(a, b), name
            assert torch.equal(a, c), name
