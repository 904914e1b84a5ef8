"""opcheck of every operator of an emitted module, on tensors in every layout that may come.

A module is run, forward and backward, and each call of an operator of its own is noted; then
PyTorch's `opcheck` looks at the operator with the same values in other layouts. What a gradient may
be is for `test_operators`; this is about memory: nothing may be read or changed but by strides.
"""

import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import cnndsl

# Every kind of operator: convolutions with what follows them, batchnorm, fc, and the loss.
TEXT = """\
input 6 x 6 x 2
conv 4 3x3 pad=same; relu; pool max 2
conv 4 3x3 pad=same; batchnorm; relu
add { skip } { conv 4 1x1; batchnorm }
conv 4 3x3 pad=same; silu
pool avg 3 stride=1
flatten
fc 3; relu
fc 3
"""
UTILS = ("test_schema", "test_autograd_registration", "test_faketensor")


class Noting(TorchDispatchMode):
    """Notes the calls of operators of some namespaces."""

    def __init__(self, *spaces: str) -> None:
        super().__init__()
        self.spaces = spaces
        self.calls: dict[str, tuple[Any, tuple[Any, ...]]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace in self.spaces:
            copies = tuple(a.detach().clone() if isinstance(a, Tensor) else a for a in args)
            self.calls.setdefault(func.name(), (func, copies))
        return func(*args, **(kwargs or {}))


def calls(training: bool) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    torch.manual_seed(0)
    model = cnndsl.compile(source=TEXT).train(training)
    x = torch.randn(2, 2, 6, 6, requires_grad=True)
    emitted = sys.modules[type(model).__module__]
    noting = Noting(emitted.NAMESPACE, "cnndsl_rt")
    with pytest.MonkeyPatch.context() as patch, noting:
        # As under torch.compile. By itself, a module under a mode runs PyTorch's operators.
        patch.setattr("cnndsl.rt.dispatch.tools.is_blind", True)
        patch.setattr("cnndsl.rt.dispatch.is_opaque", lambda *_given: True)
        patch.setattr("cnndsl.rt.norm_operator.is_opaque", lambda *_given: True)
        model.loss(x, torch.tensor([0, 2])).backward()
    return noting.calls


def laid(tensor: Tensor, layout: str) -> Tensor:
    """The same values in another layout."""
    match layout:
        case "transposed" if tensor.dim() > 1:
            return tensor.transpose(0, -1).contiguous().transpose(0, -1)
        case "channels-last" if tensor.dim() == 4:
            return tensor.contiguous(memory_format=torch.channels_last)
        case "sliced" if tensor.dim():
            wide = tensor.new_zeros((*tensor.shape[:-1], 2 * tensor.shape[-1] + 1))
            wide[..., 1::2] = tensor
            return wide[..., 1::2]
        case _:
            return tensor.contiguous()


@pytest.mark.parametrize(
    ("training", "layout"),
    [
        (True, "contiguous"),
        (True, "transposed"),
        (True, "channels-last"),
        (True, "sliced"),
        (False, "transposed"),
        (False, "sliced"),
    ],
)
def test_opcheck_of_every_operator(training: bool, layout: str) -> None:
    found = calls(training)
    assert len(found) >= 10, sorted(found)
    for func, args in found.values():
        given = tuple(laid(a, layout) if isinstance(a, Tensor) else a for a in args)
        torch.library.opcheck(func, given, test_utils=UTILS)
        wanted = func(*(a.clone() if isinstance(a, Tensor) else a for a in args))
        for ours, plain in zip(_tensors(func(*given)), _tensors(wanted), strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_labels_may_be_a_column() -> None:
    """As of a table with labels for several tasks."""
    model = cnndsl.compile(source=TEXT)
    table = torch.tensor([[0, 7], [2, 7]])
    x = torch.randn(2, 2, 6, 6)
    model.eval()
    torch.testing.assert_close(model.loss(x, table[:, 0]), model.loss(x, table[:, 0].clone()))


def _tensors(results: Any) -> list[Tensor]:
    return [results] if isinstance(results, Tensor) else list(results)
