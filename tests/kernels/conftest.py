"""Make the interpreter fast enough for tests, and hostile where a test asks for it."""

from collections.abc import Iterator

import pytest
import torch
from triton.runtime import interpreter

from .hostile import HostileInterpreter

torch.set_num_threads(1)
# The overflow sanitizer makes integer arithmetic ten times slower. The hostile interpreter, in
# which a part of the shapes run, has it on.
interpreter.interpreter_builder.options = interpreter.InterpreterOptions(sanitize_overflow=False)


@pytest.fixture
def hostile() -> Iterator[HostileInterpreter]:
    """Run kernels with checked addresses, poisoned lanes and outputs, races, and TF32 rounding."""
    with HostileInterpreter() as interpreter:
        yield interpreter
