"""Images of bytes: values in each layout and type, edges, and the operator."""

import pytest
import torch
from torch import Tensor

from cnndsl.rt.image import image_op

from .hostile import HostileInterpreter

scaled = image_op("tests::scaled")

# Around the tiles of 2048 values, of up to 64 channels; images and vectors.
SHAPES = [
    (1, 1, 1, 1),
    (2, 1, 28, 28),
    (3, 3, 7, 5),
    (2, 3, 32, 33),
    (1, 4, 1, 9),
    (2, 65, 3, 3),
    (5, 1),
    (70, 33),
    (3, 200),
]


def given(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(sum(shape))
    x = torch.randint(0, 256, shape, dtype=torch.uint8)
    return x, torch.rand(shape[1]).to(dtype), (torch.rand(shape[1]) + 0.1).to(dtype)


def check(x: Tensor, mean: Tensor, deviation: Tensor) -> None:
    rest = (1,) * (x.dim() - 2)
    double = (v.double().view(-1, *rest) for v in (mean, deviation))
    wanted = (x.double() / 255 - next(double)) / next(double)
    found = scaled(x, mean, deviation)
    assert found.dtype == mean.dtype
    layout = torch.channels_last if x.dim() == 4 else torch.contiguous_format
    assert found.is_contiguous(memory_format=layout)
    # Of float32, the difference x − 255·mean is rounded, and the quotient.
    step = {torch.float64: 2.0**-52, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
    close = step.get(mean.dtype, 2.0**-22)
    torch.testing.assert_close(found.double(), wanted, rtol=close, atol=close)


@pytest.mark.parametrize("shape", SHAPES)
def test_float32(shape: tuple[int, ...], hostile: HostileInterpreter) -> None:
    check(*given(*shape))
    assert hostile.launches == ["image_forward"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types(dtype: torch.dtype, hostile: HostileInterpreter) -> None:
    check(*given(3, 3, 7, 5, dtype=dtype))


def test_images_in_any_layout(hostile: HostileInterpreter) -> None:
    x, mean, deviation = given(2, 3, 6, 5)
    wanted = scaled(x, mean, deviation)
    for y in (x.to(memory_format=torch.channels_last), x.mT.contiguous().mT, x[::1, :, :, :]):
        assert torch.equal(scaled(y, mean, deviation), wanted)
    assert torch.equal(scaled(x[:, :, ::2], mean, deviation), wanted[:, :, ::2])
    check(x[:, 1:2], mean[1:2], deviation[1:2])


def test_autocast_says_the_type(hostile: HostileInterpreter) -> None:
    x, mean, deviation = given(2, 3, 6, 5)
    with torch.autocast(x.device.type, torch.bfloat16):
        found = scaled(x, mean, deviation)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, scaled(x, mean, deviation).bfloat16())


def test_no_images_give_none() -> None:
    x, mean, deviation = given(0, 3, 6, 5)
    assert scaled(x, mean, deviation).shape == (0, 3, 6, 5)


def test_what_does_not_fit_is_refused() -> None:
    x, mean, deviation = given(2, 3, 6, 5)
    with pytest.raises(TypeError, match=r"x is torch\.float32: bytes are torch\.uint8"):
        scaled(x.float(), mean, deviation)
    with pytest.raises(ValueError, match=r"deviation has shape \(2,\), not \(3,\)"):
        scaled(x, mean, deviation[:2])


def test_operator() -> None:
    x, mean, deviation = given(2, 3, 6, 5)
    operator = torch.ops.tests.scaled.default
    torch.library.opcheck(operator, (x, mean, deviation, torch.float32))
    compiled = torch.compile(scaled, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, mean, deviation), scaled(x, mean, deviation))
