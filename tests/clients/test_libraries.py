"""What client libraries find of a network is what they find of one written by hand."""

import importlib.util

import pytest

from tests.clients import sides, transforms  # noqa: F401 (its rows are in USES)
from tests.clients.libraries import USES

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own


@pytest.mark.parametrize("use", USES, ids=lambda use: use.run.__name__)
def test_a_library_finds_the_same(use):
    if importlib.util.find_spec(use.module) is None:
        pytest.skip(f"needs {use.client}: pip install --group clients")
    found = {}
    for name in sides.SIDES:
        with sides.side(name) as (model, _):
            found[name] = use.run(model)
    sides.same(found["cpu"], found["plain"], use.rounding)
    sides.same(found["kernels"], found["plain"], use.rounding)
