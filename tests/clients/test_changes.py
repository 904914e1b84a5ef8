"""A layer that was changed runs as PyTorch runs it, on each path and in each mode."""

import pytest

from tests.clients import sides
from tests.clients.changes import ROWS

# Every row in training and in inference is a minute of the interpreter: by turns, one of them.
MODES = [
    pytest.param(row, mode, id=f"{row.change.__name__}-{mode.__name__}")
    for number, row in enumerate(ROWS)
    for turn, mode in enumerate((sides.training, sides.inference))
    if sides.MANY or row.always or number % 2 == turn
]


@pytest.mark.parametrize(("row", "mode"), MODES)
def test_a_changed_layer_is_pytorchs(row, mode):
    found = {}
    for name in sides.SIDES:
        with sides.side(name) as (model, seen):
            changed = row.change(model)
            found[name] = mode(model if changed is None else changed)
            assert len(seen) == (row.regions if name == "kernels" else 0), seen
    sides.same(found["cpu"], found["plain"])
    sides.same(found["kernels"], found["plain"])


def frozen(number):
    """A change that freezes one of the combinations of layers, of which there are 16."""
    layers = [
        n for i, n in enumerate(("conv1", "body.0.conv", "body.0.norm", "head")) if number >> i & 1
    ]

    def freeze(model):
        for layer in layers:
            model.get_submodule(layer).requires_grad_(False)

    freeze.__name__ = "+".join(layers) or "none"
    return freeze


@pytest.mark.parametrize("number", range(16), ids=lambda number: frozen(number).__name__)
def test_layers_are_frozen_in_any_combination(number):
    found = {}
    on_kernels = sides.MANY or number in (6, 11)
    for name in sides.SIDES if on_kernels else sides.SIDES[:2]:
        with sides.side(name) as (model, seen):
            frozen(number)(model)
            found[name] = sides.training(model)
            assert len(seen) == (sides.REGIONS if name == "kernels" else 0)
    for name in found:
        sides.same(found[name], found["plain"])
