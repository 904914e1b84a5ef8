"""Forward and all gradients of many regions, in the hostile interpreter, against float64."""

from typing import Any

import pytest
import torch

from .conftest import ON_GPU
from .hostile import HostileInterpreter
from .regions import Case, check, conv_geometry

RELU: dict[str, Any] = {"activation": "relu"}
POOL2: dict[str, Any] = {"activation": "relu", "pool_size": 2}
POOL3: dict[str, Any] = {"activation": "relu", "pool_size": 3, "pool_stride": 2, "pool_pad": 1}
AVERAGE2: dict[str, Any] = {"activation": "relu", "pool": "average", "pool_size": 2}
AVERAGE3: dict[str, Any] = {
    "activation": "relu",
    "pool": "average",
    "pool_size": 3,
    "pool_stride": 2,
    "pool_pad": 1,
}

# channels, filters, kernel, the rest of the geometry, (batch, height, width)
REGIONS: list[tuple[int, int, Any, dict[str, Any], tuple[int, int, int]]] = [
    # convolutions alone
    (1, 1, 1, {}, (1, 1, 1)),
    (1, 1, 1, RELU, (2, 1, 3)),
    (3, 5, 3, {}, (2, 7, 6)),
    (3, 5, 3, {"bias": False}, (2, 5, 5)),
    (3, 5, 3, {"pad": 1, **RELU}, (2, 5, 7)),
    (4, 6, (1, 5), {"pad": (0, 2), **RELU}, (1, 3, 9)),
    (4, 6, (5, 1), {"pad": (2, 0)}, (1, 9, 3)),
    (2, 7, 3, {"stride": 2, **RELU}, (2, 9, 8)),
    (2, 7, 3, {"stride": 2, "pad": 1}, (1, 8, 9)),
    (2, 4, 3, {"stride": 3, "pad": 1, **RELU}, (1, 11, 10)),
    (2, 4, 1, {"stride": 2, **RELU}, (1, 7, 7)),
    (2, 4, 2, {"stride": 3, **RELU}, (1, 8, 9)),
    (2, 4, (3, 2), {"stride": (3, 1), "pad": (1, 0)}, (1, 9, 5)),
    (3, 4, 3, {"dilation": 2, "pad": 2, **RELU}, (1, 8, 7)),
    (3, 4, 3, {"dilation": 2, "stride": 2}, (1, 10, 9)),
    (3, 4, 3, {"dilation": 3, "stride": 2, "pad": 3, **RELU}, (1, 9, 10)),
    (3, 4, 3, {"dilation": (2, 1), "stride": (4, 3), "pad": (2, 1)}, (1, 12, 9)),
    (4, 6, 3, {"groups": 2, "pad": 1, **RELU}, (2, 5, 5)),
    (6, 6, 3, {"groups": 6, "pad": 1, **RELU}, (1, 5, 6)),
    (4, 8, 3, {"groups": 4, "stride": 2, "pad": 1}, (2, 6, 7)),
    (32, 34, 1, {"groups": 2, **RELU}, (1, 3, 4)),
    # channels and filters about the sizes of blocks
    (15, 17, 1, RELU, (1, 4, 4)),
    (16, 16, 1, {}, (1, 4, 4)),
    (17, 15, 3, {"pad": 1, **RELU}, (1, 4, 5)),
    (31, 33, 1, {}, (1, 3, 3)),
    (33, 32, 1, RELU, (1, 3, 3)),
    (65, 64, 1, RELU, (1, 3, 3)),
    (63, 65, 1, {}, (1, 3, 3)),
    # images of B − 1, B, B + 1 and 2B + 1 pixels, for the blocks of 32 and 64
    (2, 3, 1, RELU, (1, 3, 21)),
    (2, 3, 1, RELU, (1, 8, 8)),
    (2, 3, 1, RELU, (1, 5, 13)),
    (2, 3, 1, {}, (3, 1, 43)),
    # maximum of 2x2, the form in registers
    (1, 6, 5, {"pad": 2, **POOL2}, (2, 6, 8)),
    (3, 4, 3, {"pad": 1, **POOL2}, (1, 7, 9)),
    (3, 4, 3, {"pool_size": 2}, (2, 6, 8)),
    (3, 4, 3, {"pool_size": 2, "bias": False}, (1, 8, 6)),
    (2, 5, 3, {"stride": 2, "pad": 1, **POOL2}, (1, 11, 10)),
    (2, 5, 3, {"dilation": 2, "pad": 2, **POOL2}, (1, 6, 7)),
    (4, 6, 3, {"groups": 2, "pad": 1, **POOL2}, (1, 6, 6)),
    (16, 18, 3, {"pad": 1, **POOL2}, (1, 4, 6)),
    (2, 3, 1, POOL2, (1, 8, 34)),
    (2, 3, 1, POOL2, (1, 6, 10)),
    # maximum over other windows
    (3, 4, 3, {"pad": 1, **POOL3}, (1, 7, 8)),
    (3, 8, 7, {"stride": 2, "pad": 3, **POOL3}, (1, 13, 12)),
    (3, 4, 3, {"pool_size": 3}, (1, 9, 11)),
    (3, 4, 3, {"pool_size": 3, "pool_stride": 1, "pool_pad": 1, **RELU}, (1, 6, 5)),
    (3, 4, 3, {"pool_size": 2, "pool_stride": 3, **RELU}, (1, 9, 10)),
    (3, 4, 3, {"pool_size": 2, "pool_pad": 1, **RELU}, (1, 7, 8)),
    (3, 4, 3, {"pool_size": (2, 3), "pool_stride": (1, 2), "pool_pad": (1, 0)}, (1, 7, 8)),
    (3, 4, 3, {"pool_size": 2, "pool_dilation": 2, **RELU}, (1, 8, 9)),
    (3, 4, 3, {"pool_size": 3, "pool_stride": 2, "pool_dilation": (2, 1)}, (1, 10, 8)),
    (3, 4, 3, {"pool_size": 3, "pool_stride": 4, "pool_dilation": 2, **RELU}, (1, 12, 11)),
    (3, 4, 3, {"ceil": True, **POOL2}, (1, 7, 9)),
    (3, 4, 3, {"ceil": True, "stride": 2, **POOL3}, (1, 12, 11)),
    (3, 4, 1, {"ceil": True, "pool_size": 2, "pool_stride": 2, "pool_pad": 1}, (1, 4, 5)),
    (4, 4, 3, {"stride": 2, "dilation": 2, "pad": 2, "groups": 2, **POOL3}, (1, 13, 14)),
    # averages
    (3, 4, 3, {"pad": 1, **AVERAGE2}, (1, 6, 7)),
    (3, 4, 3, {"pool": "average", "pool_size": 2}, (1, 6, 8)),
    (3, 4, 3, {"pool": "average", "pool_size": 2, "bias": False}, (1, 6, 8)),
    (3, 4, 3, {"pad": 1, **AVERAGE3}, (1, 7, 8)),
    (3, 4, 3, {"pad": 1, "count_pad": False, **AVERAGE3}, (1, 7, 8)),
    (3, 4, 3, {"ceil": True, **AVERAGE3}, (1, 8, 7)),
    (3, 4, 3, {"ceil": True, "count_pad": False, **AVERAGE3, "activation": "none"}, (1, 8, 7)),
    (3, 4, 3, {"ceil": True, "pool": "average", "pool_size": 2, "pool_stride": 3}, (1, 8, 10)),
    (3, 4, 1, {"pool": "average", "pool_size": (5, 6), **RELU}, (1, 5, 6)),
    # batchnorm in inference, whose scale may be negative
    (3, 5, 3, {"scale": True, **RELU}, (2, 5, 6)),
    (3, 5, 3, {"scale": True, "pad": 1, **POOL2}, (2, 6, 5)),
    (3, 5, 3, {"scale": True, "bias": False, **POOL3}, (1, 8, 7)),
    (3, 5, 3, {"scale": True, **AVERAGE3}, (1, 8, 7)),
    # batchnorm in inference behind the pool: the sign of its scale decides nothing before it
    (3, 5, 3, {"scale": "pool", "pad": 1, **POOL2}, (2, 6, 5)),
    (3, 5, 3, {"scale": "pool", "pool_size": 2, "activation": "input"}, (2, 7, 6)),
    (3, 5, 3, {"scale": "pool", **POOL3, "activation": "output"}, (1, 8, 7)),
    (16, 18, 3, {"scale": "pool", **POOL3, "activation": "input"}, (1, 8, 7)),
    (3, 5, 3, {"scale": "pool", "pool_size": 2, "bias": False}, (1, 6, 6)),
    # activations of which the slope follows from what they are given, or give
    (3, 5, 3, {"activation": "input"}, (2, 5, 6)),
    (3, 5, 3, {"pool_size": 2, "activation": "input"}, (2, 5, 6)),
    (3, 5, 3, {"activation": "output"}, (1, 5, 6)),
    # residuals
    (3, 5, 3, {"residual": True, "pad": 1, **RELU}, (2, 5, 6)),
    (3, 5, 3, {"residual": True, "pad": 1}, (2, 5, 6)),
    (3, 5, 3, {"residual": True, "bias": False, **RELU}, (1, 6, 6)),
    (16, 33, 1, {"residual": True, "scale": True, "activation": "input"}, (2, 5, 13)),
    (4, 6, 3, {"residual": True, "scale": True, "groups": 2, "activation": "output"}, (1, 6, 7)),
    (17, 15, 3, {"residual": True, "scale": True, "stride": 2, "pad": 1}, (1, 9, 8)),
    # what differs between height and width, with many channels
    (17, 16, (2, 3), {"stride": (1, 2), "dilation": (2, 1), "pad": (1, 0), **RELU}, (1, 6, 9)),
    # dilations that are not their own inverse, modulo the stride
    (3, 4, 3, {"stride": 3, "dilation": 2, "pad": 1, **RELU}, (1, 11, 10)),
    (3, 4, 3, {"stride": 5, "dilation": 3, "pad": 2}, (1, 12, 13)),
    (3, 4, 3, {"pool_size": 2, "pool_stride": 3, "pool_dilation": 2, **RELU}, (1, 10, 11)),
]


def region(index: int) -> Any:
    channels, filters, kernel, given, shape = REGIONS[index]
    return conv_geometry(channels, filters, kernel, **given), shape


@pytest.mark.parametrize("index", range(len(REGIONS)))
def test_float32(index: int, hostile: HostileInterpreter) -> None:
    check(Case(*region(index), seed=index))


@pytest.mark.parametrize("index", range(len(REGIONS)))
def test_a_librarys_products(index: int, hostile: HostileInterpreter) -> None:
    """The convolution and its gradients by PyTorch, and all the rest in one pass each way."""
    geometry, shape = region(index)
    geometry = geometry._replace(forward="library", backward="library")
    dtype = torch.bfloat16 if index % 6 == 0 and not ON_GPU else torch.float32
    check(Case(geometry, shape, dtype=dtype, seed=index))


@pytest.mark.parametrize("index", range(0, len(REGIONS), 2))
def test_a_convolution_launched_alone(index: int, hostile: HostileInterpreter) -> None:
    geometry, shape = region(index)
    if geometry.groups > 1:
        pytest.skip("of one group only")
    check(Case(geometry._replace(forward="staged"), shape, seed=index))


@pytest.mark.parametrize("index", range(len(REGIONS)))
def test_rows_of_filters(index: int, hostile: HostileInterpreter) -> None:
    """Of small filters too, for which the emitter chooses otherwise."""
    geometry, shape = region(index)
    if not (2 <= geometry.channels <= 4 and geometry.groups == 1 and geometry.dilation == (1, 1)):
        pytest.skip("not of so few channels")
    dtype = torch.bfloat16 if index % 5 == 0 else torch.float32
    check(Case(geometry._replace(taps="rows"), shape, dtype=dtype, seed=index))


@pytest.mark.parametrize("index", range(2, len(REGIONS), 5))
def test_bfloat16(index: int, hostile: HostileInterpreter) -> None:
    check(Case(*region(index), dtype=torch.bfloat16, seed=index))


@pytest.mark.parametrize("index", range(4, len(REGIONS), 7))
def test_float16(index: int, hostile: HostileInterpreter) -> None:
    check(Case(*region(index), dtype=torch.float16, seed=index))


@pytest.mark.parametrize("index", range(3, len(REGIONS), 9))
def test_tf32(index: int, hostile: HostileInterpreter, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in ("conv", "conv_input_gradient", "conv_weight_gradient"):
        monkeypatch.setattr(f"cnndsl.kernels.{file}.conv_precision", lambda _: "tf32")
    geometry, shape = region(index)
    if ON_GPU:
        # Values near zero may have another sign than in float64, and then another gradient.
        geometry = geometry._replace(activation="none")
    # The interpreter rounds to 11 bits, as the bound of 2⁻¹¹ wants it. An H200's matrix unit cuts
    # off: there up to 1.17 times that bound was seen, so it is held against the bound of cutting.
    check(Case(geometry, shape, seed=index), mma=2.0**-10 if ON_GPU else 2.0**-11)


@pytest.mark.parametrize("index", [7, 33, 42, 58])
def test_no_integer_overflows(index: int) -> None:
    with HostileInterpreter(overflow=True):
        check(Case(*region(index), seed=index))


@pytest.mark.parametrize("index", [5, 18, 33, 34, 44, 48, 54, 56])
def test_ties_go_where_pytorch_sends_them(index: int, hostile: HostileInterpreter) -> None:
    """Small whole numbers make sums exact and ties many; results must be the same bits."""
    geometry, shape = region(index)
    case = Case(geometry, shape, whole=True, seed=index)
    errors = check(case)
    assert errors["y"] == 0.0
    assert errors["dx"] == 0.0
    assert errors["dweight"] == 0.0
