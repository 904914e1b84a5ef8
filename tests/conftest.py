"""What every test process needs before torch and triton are imported."""

import os

import pytest
from hypothesis import settings

# Kernels run in Triton's interpreter: there may be no GPU. Offline compilation needs the real
# compiler, so the tests that use it start a process of their own without this variable. On a
# machine with a GPU, `CNNDSL_GPU=1` runs the tests of kernels on it (CONTRIBUTING.md).
if os.environ.get("CNNDSL_GPU") != "1":
    os.environ["TRITON_INTERPRET"] = "1"
# Numpy's and torch's threads only get in each other's way: pytest-xdist already uses all cores.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

# How long an example takes says more of the machine's load than of the code.
settings.register_profile("cnndsl", deadline=None)
settings.load_profile("cnndsl")


@pytest.fixture(autouse=True)
def _interpreter_as_before():
    """`cnndsl compile --stats` leaves the interpreter: called here, it must not for later tests."""
    before = os.environ.get("TRITON_INTERPRET")
    yield
    if before is not None:
        os.environ["TRITON_INTERPRET"] = before
