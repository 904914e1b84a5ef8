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
