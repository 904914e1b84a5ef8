"""One network three times: written by hand, ours on a CPU, and ours on kernels.

A client changes each in the same way; then all must give the same values, gradients and statistics.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn
from triton.runtime import interpreter

import cnndsl

torch.set_num_threads(1)
# The overflow sanitizer makes integer arithmetic ten times slower; tests/kernels has it on.
interpreter.interpreter_builder.options = interpreter.InterpreterOptions(sanitize_overflow=False)

TEXT = """
model Small
input 6 x 4 x 2
conv 3 3x3 pad=1 as conv1; relu; pool max 2
repeat 1 as body { add { conv 3 3x3 pad=1 bias=no as conv; batchnorm as norm } { skip }; relu }
flatten
fc 4 as head
"""
REGIONS = 3  # those of `conv1`, `body.0` and `head`


class Block(nn.Module):
    """A residual block."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)) + x)


class Plain(nn.Module):
    """The network as somebody would write it."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 3, 3, padding=1)
        self.body = nn.ModuleDict({"0": Block()})
        self.head = nn.Linear(18, 4)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        return self.head(torch.flatten(self.body["0"](x), 1))

    def loss(self, x, y):
        return F.cross_entropy(self(x), y)


OURS = type(cnndsl.compile(source=TEXT))
MODULE = sys.modules[OURS.__module__]
MANY = os.environ.get("CNNDSL_MANY") == "1"
SIDES = ("plain", "cpu", "kernels")
X = torch.randn(3, 2, 6, 4, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([1, 0, 3])


@contextlib.contextmanager
def side(name: str) -> Iterator[tuple[nn.Module, set[str]]]:
    """The model of a side, and the set of regions whose kernels run, which fills with time."""
    seen: set[str] = set()
    with contextlib.ExitStack() as stack:
        set_to = stack.enter_context
        set_to(mock.patch("cnndsl.rt.module.INTERPRETED", name == "kernels"))
        # Everything on a CPU is worth a short cut.
        for limit in ("LEAST_TO_LOOK_FOR", "LEAST_TO_FOLD_FOR_A_WEIGHT"):
            set_to(mock.patch(f"cnndsl.rt.cpu.{limit}", 0))
        for operator, value in list(vars(MODULE).items()):
            if operator.endswith("_op") and hasattr(value, "operators"):
                set_to(mock.patch.object(MODULE, operator, _noting(value, operator, seen)))
        yield started(Plain() if name == "plain" else OURS()), seen


def _noting(function, name, seen):
    def run(*given, **named):
        for suffix in ("_sums_op", "_norm_op", "_op"):
            if name.endswith(suffix) and "cross_entropy" not in name:
                seen.add(name.removesuffix(suffix))
                break
        return function(*given, **named)

    return run


def started(model: nn.Module) -> nn.Module:
    """The same weights and statistics on each side."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / 2)
        if name.endswith("running_var"):
            tensor.abs_().add_(0.5)
    return model


def inference(model: nn.Module, x: torch.Tensor = X) -> dict[str, torch.Tensor]:
    """What evaluation gives."""
    with torch.inference_mode():
        return {"eval": model.eval()(x).clone()}


def training(model: nn.Module, x: torch.Tensor = X, y: torch.Tensor = Y) -> dict[str, torch.Tensor]:
    """What can be seen of a step of training."""
    x = x.clone().requires_grad_()
    model.train()
    model.zero_grad()
    logits = model(x)
    loss = F.cross_entropy(logits, y % logits.shape[1])
    if loss.requires_grad:
        loss.backward()
    found = {"train": logits.detach(), "x": x.grad}
    found |= {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return found | {name: b.clone() for name, b in model.named_buffers()}


def same(
    found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], rounding: float = 1e-5
) -> None:
    """Raise where they differ by more than rounding, or more than so much of a value of 1."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        message = f"{name}: {{}}".format
        torch.testing.assert_close(
            found[name], value, rtol=10 * rounding, atol=rounding, msg=message
        )
