"""What is remembered of calls, done again: the same values, to the bit, as when all is done anew.

Nothing is remembered where kernels are interpreted. So a network is made to, with kernels that the
interpreter runs in the place of compiled ones; only the numbers and tensors of a launch are new.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from triton.compiler import CompiledKernel

import cnndsl
from cnndsl.runtime.load import text_of

from .launches import TEXT

# Products of the library each way, a batchnorm in training, images of bytes.
OTHER = """\
input 9 x 8 x 16 u8
conv 16 3x3 groups=16; batchnorm; relu6
conv 20 3x3 pad=same; relu; pool max 3 stride=2
conv 6 1x1 bias=no; batchnorm
flatten
fc 7; tanh
fc 3
"""


class Interpreted(CompiledKernel):
    """What the interpreter runs, in the place of what was compiled."""

    def __init__(self, kernel: Any, names: list[str]) -> None:
        self.kernel, self.names = kernel, names

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *values: self.kernel[grid](**dict(zip(self.names, values, strict=True)))


def remembering(model: nn.Module) -> tuple[nn.Module, list[object], list[object]]:
    """Give a network with the same weights that remembers, its repeated calls, and its new ones."""
    text = text_of(model) or ""
    text = text.replace("REMEMBERS = not INTERPRETED and", "REMEMBERS = INTERPRETED and")
    text = text.replace('NAMESPACE = "', 'NAMESPACE = "remembering_')
    space: dict[str, Any] = {"__name__": "remembering"}
    exec(compile(text, "remembering.py", "exec"), space)
    assert space["REMEMBERS"]

    def launch(kernel: Any, programs: int, **arguments: Any) -> None:
        compiled = Interpreted(kernel, list(arguments))
        values = tuple(arguments.values())
        compiled[programs, 1, 1](*values)
        if space["notes"].steps is not None:
            space["notes"].steps.append(space["Step"](compiled, programs, values))

    repeated, new = [], []

    def noting(name: str, calls: list[object]) -> Callable[..., object]:
        function = space[name]

        def run(*given: object) -> object:
            calls.append(given)
            return function(*given)

        return run

    space["launch"] = launch
    space["carry_out"] = noting("carry_out", repeated)
    space["new_plan"] = noting("new_plan", new)
    other = space[type(model).__name__]()
    other.load_state_dict(model.state_dict())
    return other, repeated, new


def inputs(model: nn.Module, count: int) -> Tensor:
    shape = (count, *model.input_shape)
    if getattr(model, "input_dtype", None) == torch.uint8:
        return torch.randint(0, 256, shape, dtype=torch.uint8)
    return torch.randn(shape)


@pytest.mark.parametrize("text", [TEXT, OTHER], ids=["mixed", "library and bytes"])
def test_what_is_done_again_is_what_would_be_done_anew(text: str) -> None:
    torch.manual_seed(0)
    plain = cnndsl.compile(source=text)
    other, repeated, new = remembering(plain)
    for _ in range(2):
        new.clear()
        for count in (3, 2):
            x, y = inputs(plain, count), torch.randint(0, 3, (count,))
            found = []
            for model in (plain, other):
                model.train().zero_grad()
                loss = model.loss(x, y)
                loss.backward()
                with torch.no_grad():
                    out = model.eval()(x)
                with torch.inference_mode():
                    again = model(x)
                for parameter in model.parameters():
                    parameter.data -= 0.01 * parameter.grad
                found.append([loss, out, again, *model.state_dict().values()])
            for one, two in zip(*found, strict=True):
                assert torch.equal(one, two)
    assert new == []  # in the second round, all was known
    assert len(repeated) > 60
