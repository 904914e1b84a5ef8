"""Fully connected regions: values against float64, edges, and the operators."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cnndsl.rt.fc_operator import FcGeometry, fc_op

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
# batch, channels, (height, width), outputs; of the channels 8, 4, 2 or 1 stand together
IMAGES = [
    (2, 3, (2, 1), 4),
    (5, 6, (3, 5), 33),
    (17, 16, (5, 5), 31),
    (9, 20, (1, 7), 10),
    (33, 24, (2, 3), 65),
    (1, 35, (2, 2), 1),
]


def tensors(batch: int, features: int, outputs: int, dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(batch)
    shapes = (batch, features), (outputs, features), (outputs,), (batch, outputs)
    return [torch.randn(shape).to(dtype) for shape in shapes]


def images(
    batch: int, channels: int, size: tuple[int, int], outputs: int, dtype: torch.dtype
) -> tuple[FcGeometry, list[Tensor]]:
    """A region that flattens, and its tensors; the images have their channels innermost."""
    features = channels * size[0] * size[1]
    x, *others = tensors(batch, features, outputs, dtype)
    x = x.view(batch, channels, *size).contiguous(memory_format=torch.channels_last)
    return FcGeometry(features, outputs, activation="relu", size=size), [x, *others]


def check(geometry: FcGeometry, given: list[Tensor], mma: float = 0.0) -> None:
    *inputs, gradient = given
    inputs = inputs[: 3 if geometry.bias else 2]
    run = fc_op("tests::fc", geometry, LAUNCHES)
    leaves = [t.clone().requires_grad_() for t in inputs]
    y = run(*leaves)
    y.backward(gradient)
    doubles = [t.double().requires_grad_() for t in inputs]
    z = F.linear(doubles[0].flatten(1), *doubles[1:])
    z.retain_grad()
    wanted = z.relu() if geometry.activation == "relu" else z
    wanted.backward(gradient.double())
    assert z.grad is not None
    x, weight, dz = (t.detach().double().abs() for t in (inputs[0].flatten(1), inputs[1], z.grad))
    dx = (dz @ weight).view(inputs[0].shape)
    magnitudes = [x @ weight.T + 3, dx, dz.T @ x, dz.sum(0)]
    terms = [geometry.features, geometry.outputs, len(x), len(x)]
    founds = [y, *(leaf.grad for leaf in leaves)]
    wants = [wanted, *(leaf.grad for leaf in doubles)]
    for found, want, sums, count in zip(founds, wants, magnitudes, terms, strict=False):
        assert found is not None
        assert want is not None
        unit = UNIT[torch.float32] if found.dtype != torch.float64 else 2 * UNIT[torch.float64]
        bound = (4 * unit * (count + 1) ** 0.5 + 2.5 * mma) * sums
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


@pytest.mark.parametrize("shape", IMAGES)
def test_images_are_flattened_where_they_lie(shape: Any, hostile: HostileInterpreter) -> None:
    geometry, given = images(*shape, torch.float32)
    check(geometry, given)
    check(geometry, [given[0].contiguous(), *given[1:]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", IMAGES[1:4])
def test_images_in_other_types(shape: Any, dtype: torch.dtype, hostile: HostileInterpreter) -> None:
    check(*images(*shape, dtype))


@pytest.mark.parametrize("needs", [(True, False), (False, True)])
def test_gradients_of_images_lie_as_they_do(needs: Any, hostile: HostileInterpreter) -> None:
    """Also where the weight is frozen, and backward is given no image."""
    geometry, (x, weight, bias, gradient) = images(*IMAGES[1], torch.float32)
    found = [t.clone().requires_grad_(need) for t, need in zip((x, weight), needs, strict=True)]
    wanted = [t.detach().clone().requires_grad_(t.requires_grad) for t in found]
    fc_op("tests::fc", geometry, LAUNCHES)(*found, bias).backward(gradient)
    F.linear(wanted[0].flatten(1), wanted[1], bias).relu().backward(gradient)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-5)
    if needs[0]:
        assert found[0].grad is not None
        assert found[0].grad.is_contiguous(memory_format=torch.channels_last)
    assert len(hostile.launches) == 2


LIBRARY = {"forward": "library", "backward": "library"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize("shape", SHAPES[2::3])
def test_a_library_multiplies(
    shape: Any, activation: str, dtype: torch.dtype, hostile: HostileInterpreter
) -> None:
    geometry = FcGeometry(*shape[1:], activation=activation, **LIBRARY)
    check(geometry, tensors(*shape, dtype))
    assert hostile.launches == ["fc_activate", "fc_slope"] * (activation == "relu")
    hostile.launches.clear()
    check(geometry._replace(forward="fused"), tensors(*shape, dtype))
    check(geometry._replace(backward="fused"), tensors(*shape, dtype))


@pytest.mark.parametrize("shape", IMAGES[:3])
def test_a_library_multiplies_images(shape: Any, hostile: HostileInterpreter) -> None:
    geometry, given = images(*shape, torch.float32)
    check(geometry._replace(**LIBRARY), given)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_library_multiplies_16_bits(dtype: torch.dtype, hostile: HostileInterpreter) -> None:
    """What it multiplied is rounded before the activation; whole numbers are exact."""
    x, weight, bias, gradient = (t.round() for t in tensors(17, 33, 31, torch.float32))
    given = [t.to(dtype) for t in (x, weight, bias, gradient)]
    check(FcGeometry(33, 31, activation="relu", **LIBRARY), given)


@pytest.mark.parametrize("way", ["fused", "library"])
def test_what_an_activation_was_given_is_kept(way: str, hostile: HostileInterpreter) -> None:
    """As of GELU; the hole has ReLU, whose slope follows from that as well."""
    x, weight, bias, gradient = tensors(5, 6, 7, torch.float32)
    geometry = FcGeometry(6, 7, activation="input", forward=way, backward=way)
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    fc_op("tests::fc", geometry, LAUNCHES)(*leaves).backward(gradient)
    wanted = [t.clone().requires_grad_() for t in (x, weight, bias)]
    F.linear(*wanted).relu().backward(gradient)
    for one, other in zip(leaves, wanted, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES[3:6])
def test_tf32(shape: Any, hostile: HostileInterpreter, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in ("fc", "fc_gradients"):
        monkeypatch.setattr(f"cnndsl.kernels.{file}.fc_precision", lambda _: "tf32")
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


@pytest.mark.parametrize("way", ["fused", "library"])
@pytest.mark.parametrize("flattens", [False, True])
def test_opcheck(flattens: bool, way: str) -> None:
    geometry, given = FcGeometry(5, 3, activation="relu"), tensors(2, 5, 3, torch.float32)
    if flattens:
        geometry, given = images(*IMAGES[0], torch.float32)
    geometry = geometry._replace(forward=way, backward=way)
    fc_op("tests::fc_checked", geometry, LAUNCHES)
    leaves = tuple(t.requires_grad_() for t in given[:3])
    torch.library.opcheck(torch.ops.tests.fc_checked.default, leaves)


def test_errors() -> None:
    x, weight, bias, _ = tensors(2, 5, 3, torch.float32)
    run = fc_op("tests::fc", FcGeometry(5, 3, activation="relu"), LAUNCHES)
    with pytest.raises(TypeError, match="float16"):
        run(x.half(), weight, bias)
    with pytest.raises(ValueError, match=r"not \(N, 5\)"):
        run(x[:, :4], weight, bias)
    geometry, (image, *others) = images(*IMAGES[1], torch.float32)
    with pytest.raises(ValueError, match=r"\(5, 90\), not \(N, 6, 3, 5\)"):
        fc_op("tests::fc_image", geometry, LAUNCHES)(image.flatten(1), *others[:2])
