"""Make the interpreter fast enough for tests, and hostile where a test asks for it.

With `CNNDSL_GPU=1` there is no interpreter: tensors, kernels and references are on the GPU.
"""

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from triton.runtime import interpreter
from triton.runtime.jit import JITFunction

from .hostile import HostileInterpreter

torch.set_num_threads(1)
# The overflow sanitizer makes integer arithmetic ten times slower. The hostile interpreter, in
# which a part of the shapes run, has it on.
interpreter.interpreter_builder.options = interpreter.InterpreterOptions(sanitize_overflow=False)
ON_GPU = os.environ.get("CNNDSL_GPU") == "1"
if ON_GPU:
    torch.set_default_device("cuda")


class NeverFull(dict[Any, Any]):
    """Forgets what it is given."""

    def __setitem__(self, key: object, value: object) -> None:
        """Keep nothing."""


@pytest.fixture(autouse=ON_GPU)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Multiply float32 in full on a GPU, as the interpreter does, where no test says otherwise."""
    monkeypatch.setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee")
    monkeypatch.setattr(torch.backends.cuda.matmul, "fp32_precision", "ieee")


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run kernels with checked addresses, poisoned lanes and outputs, races, and TF32 rounding.

    A GPU only counts the launches.
    """
    if not ON_GPU:
        with HostileInterpreter() as interpreter:
            yield interpreter
        return
    launches: list[str] = []
    run = JITFunction.run

    def noting(self: Any, *args: Any, **given: Any) -> Any:
        launches.append(self.fn.__name__)
        return run(self, *args, **given)

    monkeypatch.setattr(JITFunction, "run", noting)
    # Triton does not see launches that are remembered.
    monkeypatch.setattr("cnndsl.rt.shared.COMPILED", NeverFull())
    monkeypatch.setattr("cnndsl.rt.replay.REMEMBERS", False)
    yield SimpleNamespace(launches=launches)
