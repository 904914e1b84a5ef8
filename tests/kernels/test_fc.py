"""Fully connected regions: values against float64, edges, and the operators."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cnndsl.kernels.fc_op import FcGeometry, fc_op
from torch import Tensor

from .hostile import HostileInterpreter
from .regions import FC_LAUNCHES as LAUNCHES
from .regions import UNIT, worst

# batch, features, outputs
SHAPES = [
    (1, 1, 1),
    (2, 5, 3),
    (15, 31, 33),
    (16, 32, 32),
    (17, 33, 31),
    (31, 15, 65),
    (33, 17, 63),
    (65, 16, 10),
    (4, 400, 12),
]


def tensors(batch: int, features: int, outputs: int, dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(batch)
    shapes = (batch, features), (outputs, features), (outputs,), (batch, outputs)
    return [torch.randn(shape).to(dtype) for shape in shapes]


def check(geometry: FcGeometry, given: list[Tensor], mma: float = 0.0) -> None:
    *inputs, gradient = given
    inputs = inputs[: 3 if geometry.bias else 2]
    run = fc_op("tests::fc", geometry, LAUNCHES)
    leaves = [t.clone().requires_grad_() for t in inputs]
    y = run(*leaves)
    y.backward(gradient)
    doubles = [t.double().requires_grad_() for t in inputs]
    z = F.linear(*doubles)
    z.retain_grad()
    wanted = z.relu() if geometry.activation == "relu" else z
    wanted.backward(gradient.double())
    assert z.grad is not None
    x, weight, dz = (t.detach().double().abs() for t in (*inputs[:2], z.grad))
    magnitudes = [x @ weight.T + 3, dz @ weight, dz.T @ x, dz.sum(0)]
    terms = [geometry.features, geometry.outputs, len(x), len(x)]
    founds = [y, *(leaf.grad for leaf in leaves)]
    wants = [wanted, *(leaf.grad for leaf in doubles)]
    for found, want, sums, count in zip(founds, wants, magnitudes, terms, strict=False):
        assert found is not None
        assert want is not None
        bound = (4 * 2.0**-24 * (count + 1) ** 0.5 + 2.5 * mma) * sums
        assert worst(found.detach(), want.detach(), bound) <= 1


@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize("shape", SHAPES)
def test_float32(shape: Any, activation: str, hostile: HostileInterpreter) -> None:
    check(FcGeometry(*shape[1:], activation=activation), tensors(*shape, torch.float32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES[1::2])
def test_16_bits(shape: Any, dtype: torch.dtype, hostile: HostileInterpreter) -> None:
    assert dtype in UNIT
    check(FcGeometry(*shape[1:], activation="relu"), tensors(*shape, dtype))


@pytest.mark.parametrize("shape", SHAPES[3:6])
def test_tf32(shape: Any, hostile: HostileInterpreter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnndsl.kernels.fc.fc_precision", lambda _: "tf32")
    check(FcGeometry(*shape[1:]), tensors(*shape, torch.float32), mma=2.0**-11)


def test_zeros_have_no_gradient(hostile: HostileInterpreter) -> None:
    x, weight, bias, gradient = tensors(4, 6, 3, torch.float32)
    x[1] = 0.0
    check(FcGeometry(6, 3, activation="relu"), [x, weight, bias * 0.0, gradient])


def test_no_bias(hostile: HostileInterpreter) -> None:
    check(FcGeometry(5, 3, bias=False), tensors(2, 5, 3, torch.float32))


def test_no_images() -> None:
    given = tensors(0, 5, 3, torch.float32)
    leaves = [t.requires_grad_() for t in given[:3]]
    y = fc_op("tests::fc", FcGeometry(5, 3), LAUNCHES)(*leaves)
    y.sum().backward()
    assert y.shape == (0, 3)
    assert all(leaf.grad is not None and leaf.grad.eq(0).all() for leaf in leaves)


def test_nan_goes_through() -> None:
    x, weight, bias, _ = tensors(2, 5, 3, torch.float32)
    x[0, 0] = float("nan")
    y = fc_op("tests::fc", FcGeometry(5, 3, activation="relu"), LAUNCHES)(x, weight, bias)
    assert torch.isnan(y[0]).all()
    assert torch.isfinite(y[1]).all()


def test_any_strides_and_only_what_is_needed(hostile: HostileInterpreter) -> None:
    x, weight, bias, _ = tensors(4, 6, 3, torch.float32)
    run = fc_op("tests::fc", FcGeometry(6, 3, activation="relu"), LAUNCHES)
    leaf = x.T.contiguous().T.requires_grad_()
    y = run(leaf, weight, bias)
    y.sum().backward()
    wanted = x.clone().requires_grad_()
    F.linear(wanted, weight, bias).relu().sum().backward()
    torch.testing.assert_close(leaf.grad, wanted.grad)
    assert hostile.launches == ["fc_forward", "fc_input_gradient"]


def test_opcheck() -> None:
    given = tensors(2, 5, 3, torch.float32)
    fc_op("tests::fc_checked", FcGeometry(5, 3, activation="relu"), LAUNCHES)
    leaves = tuple(t.requires_grad_() for t in given[:3])
    torch.library.opcheck(torch.ops.tests.fc_checked.default, leaves)


def test_errors() -> None:
    x, weight, bias, _ = tensors(2, 5, 3, torch.float32)
    run = fc_op("tests::fc", FcGeometry(5, 3, activation="relu"), LAUNCHES)
    with pytest.raises(TypeError, match="float16"):
        run(x.half(), weight, bias)
    with pytest.raises(ValueError, match=r"not \(N, 5\)"):
        run(x[:, :4], weight, bias)
    leaf = x.requires_grad_()
    (gradient,) = torch.autograd.grad(run(leaf, weight, bias).sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="gradient of a gradient"):
        gradient.sum().backward()
