"""The loss: values against float64, edges, and the operators."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import cnndsl
from cnndsl.rt import loss as kernels
from cnndsl.rt.loss import loss_op

from .hostile import HostileInterpreter

cross_entropy = loss_op("tests::cross_entropy")

# rows, classes: around the tiles of 64 rows and 1024 classes, one and several programs
SHAPES = [
    (1, 1),
    (1, 2),
    (7, 10),
    (63, 3),
    (64, 64),
    (65, 65),
    (5, 1023),
    (4, 1024),
    (9, 1025),
    (3, 2049),
    (600, 10),
    (40, 1025),
]


def given(rows: int, classes: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    torch.manual_seed(rows + classes)
    return torch.randn(rows, classes).mul(3).to(dtype), torch.randint(0, classes, (rows,))


def check(logits: Tensor, target: Tensor) -> None:
    ours, double = logits.clone().requires_grad_(), logits.double().requires_grad_()
    found, wanted = cross_entropy(ours, target), F.cross_entropy(double, target)
    found.backward(torch.tensor(0.7))
    wanted.backward(torch.tensor(0.7, dtype=torch.float64))
    assert found.dtype == torch.float32
    assert found.shape == ()
    torch.testing.assert_close(found.double(), wanted, rtol=4e-6, atol=1e-6, equal_nan=True)
    assert ours.grad is not None
    assert double.grad is not None
    assert ours.grad.dtype == logits.dtype
    step = {torch.float32: 2.0**-22, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
    bound = {"rtol": step[logits.dtype], "atol": 4e-7 / logits.shape[0] + 2.0**-25}
    torch.testing.assert_close(ours.grad.double(), double.grad, **bound, equal_nan=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_float32(shape: tuple[int, int], hostile: HostileInterpreter) -> None:
    check(*given(*shape))
    assert hostile.launches == ["loss_forward", "loss_backward"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits(dtype: torch.dtype, hostile: HostileInterpreter) -> None:
    check(*given(65, 100, dtype))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of nothing divided by nothing
def test_rows_that_are_left_out_do_not_count(hostile: HostileInterpreter) -> None:
    logits, target = given(600, 10)
    target[::3] = -100
    check(logits, target)
    logits[0] = float("nan")  # nobody reads it, so nobody is harmed
    assert torch.isfinite(cross_entropy(logits, target))
    check(logits[4:8], torch.full((4,), -100))  # the mean of nothing: NaN, as in PyTorch


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of infinities
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("classes", [3, 1030])
def test_special_values_do_as_in_pytorch(
    value: float, classes: int, hostile: HostileInterpreter
) -> None:
    logits, target = given(5, classes)
    target[:3] = torch.tensor([0, 1, 2])
    logits[0, 0] = logits[1, 2] = value
    logits[2] = value
    for row in range(5):
        check(logits[row : row + 1], target[row : row + 1])
    logits[4, :1026] = value
    check(logits[4:], target[4:])


@pytest.mark.parametrize("classes", [10, 1030])
def test_a_class_that_does_not_exist_makes_loss_and_gradient_nan(
    classes: int, hostile: HostileInterpreter
) -> None:
    for wrong in (-1, -101, classes, 255 + classes, 2**40):
        logits, target = given(3, classes)
        target[1], target[2] = wrong, -100
        loss = cross_entropy(logits.requires_grad_(), target)
        loss.backward()
        assert loss.isnan()
        assert logits.grad[1].isnan().all()
        assert logits.grad[0].isfinite().all()
        assert logits.grad[2].eq(0).all()


def test_a_wrong_class_stops_a_compiled_network() -> None:
    """Loss and weights become NaN; on a CPU without kernels the class is an error."""
    source = "input 2 x 2 x 3\nconv 4 1x1"
    model = cnndsl.compile(source=source)
    y = torch.zeros(1, 2, 2, dtype=torch.int64)
    y[0, 1, 1] = 255
    loss = model.loss(torch.randn(1, 3, 2, 2), y)
    loss.backward()
    assert loss.isnan()
    assert all(parameter.grad.isnan().all() for parameter in model.parameters())


def test_images_with_a_class_a_pixel(hostile: HostileInterpreter) -> None:
    torch.manual_seed(0)
    for layout in (torch.contiguous_format, torch.channels_last):
        logits = torch.randn(2, 5, 3, 4).contiguous(memory_format=layout).requires_grad_()
        target = torch.randint(0, 5, (2, 3, 4))
        double = logits.detach().double().requires_grad_()
        cross_entropy(logits, target).backward()
        F.cross_entropy(double, target).backward()
        torch.testing.assert_close(logits.grad.double(), double.grad, rtol=1e-6, atol=1e-8)


def test_no_rows_are_as_in_pytorch() -> None:
    logits, target = torch.empty(0, 4, requires_grad=True), torch.empty(0, dtype=torch.int64)
    assert cross_entropy(logits, target).isnan()


TARGETS = [
    ((4, 3), (4,)),
    ((2, 3, 2, 2), (2, 2, 2)),
    ((0, 3), (0,)),
    ((4, 3), (4, 3)),
    ((4, 3), (4, 1)),
    ((4, 3), (5,)),
    ((4, 3), ()),
    ((2, 3, 2, 2), (2, 2)),
]
TYPES = [torch.int64, torch.int32, torch.int16, torch.uint8, torch.bool, torch.float32]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_targets_are_taken_and_refused_as_by_pytorch(dtype: torch.dtype) -> None:
    """Types, shapes, and probabilities of classes."""
    for shape, of_target in TARGETS:
        logits, target = torch.randn(shape), torch.ones(of_target).to(dtype)
        try:
            wanted = F.cross_entropy(logits, target)
        except (RuntimeError, ValueError) as error:
            raised = error
        else:
            found = cross_entropy(logits, target)
            torch.testing.assert_close(found, wanted, equal_nan=True)
            continue
        with pytest.raises(type(raised), match=re.escape(str(raised))):
            cross_entropy(logits, target)


def test_two_runs_give_the_same_bits() -> None:
    logits, target = given(600, 10)
    assert torch.equal(cross_entropy(logits, target), cross_entropy(logits, target))


def test_operators() -> None:
    logits, target = given(6, 5)
    torch.library.opcheck(torch.ops.tests.cross_entropy.default, (logits.requires_grad_(), target))
    compiled = torch.compile(cross_entropy, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(logits, target), cross_entropy(logits, target))


def test_the_second_derivative_is_pytorchs() -> None:
    def second(loss) -> torch.Tensor:
        logits, target = given(4, 3)
        leaf = logits.requires_grad_()
        (first,) = torch.autograd.grad(loss(leaf, target), leaf, create_graph=True)
        return torch.autograd.grad(first.square().sum(), leaf)[0]

    torch.testing.assert_close(second(cross_entropy), second(F.cross_entropy))


def test_the_constant_is_pytorchs() -> None:
    assert torch.nn.CrossEntropyLoss().ignore_index == kernels.LOSS_IGNORED
