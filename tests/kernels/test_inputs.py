"""What a region is given: lazy and foreign tensors, types that do not fit; what is remembered."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cnndsl
from cnndsl.rt import replay, shared
from cnndsl.rt.conv_operator import conv_op
from cnndsl.rt.fc_operator import FcGeometry, fc_op
from cnndsl.rt.norm_operator import norm_op

from .norms import NORM_LAUNCHES, norm_geometry
from .regions import FC_LAUNCHES, LAUNCHES, Case, conv_geometry

NETWORK = """\
input 4 x 4 x 2
conv 3 3x3 pad=same as c; relu; pool max 2
conv 16 1x1; batchnorm
conv 2 1x1
flatten
fc 3
"""


def eager(model: nn.Module, x: Tensor) -> Tensor:
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    (norm,) = (m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    (linear,) = (m for m in model.modules() if isinstance(m, nn.Linear))
    x = F.max_pool2d(F.relu(convs[0](x)), 2)
    return linear(convs[2](norm(convs[1](x))).flatten(1))


def negated(tensor: Tensor) -> Tensor:
    return torch._neg_view(-tensor)


def zeros(tensor: Tensor) -> Tensor:
    return torch._efficientzerotensor(tensor.shape, dtype=tensor.dtype)


def imaginary(tensor: Tensor) -> Tensor:
    """A view with gaps and the other sign."""
    return torch.complex(tensor, -tensor).conj().imag


def overlapping(tensor: Tensor) -> Tensor:
    return tensor[:, :, :1].expand(tensor.shape)


@pytest.mark.parametrize("make", [negated, zeros, imaginary, overlapping])
def test_lazy_tensors_are_what_they_stand_for(make) -> None:
    """As images, and as the gradient that arrives."""
    torch.manual_seed(0)
    model = cnndsl.compile(source=NETWORK).eval()
    x = make(torch.randn(2, 2, 4, 4))
    torch.testing.assert_close(model(x), eager(model, x))
    leaf = torch.randn(2, 2, 4, 4, requires_grad=True)
    gradient = torch.randn(2, 3)
    gradient = make(gradient) if make is not overlapping else gradient[:1].expand(2, 3)
    (found,) = torch.autograd.grad(model(leaf), leaf, gradient)
    (wanted,) = torch.autograd.grad(eager(model, leaf), leaf, gradient)
    torch.testing.assert_close(found, wanted)


def test_weights_may_be_lazy() -> None:
    case = Case(conv_geometry(2, 3, 3, bias=True), (1, 4, 4))
    run = conv_op("tests::lazy", case.geometry, LAUNCHES)
    wanted = run(case.x, case.weight, case.bias)
    assert torch.equal(run(case.x, negated(case.weight), negated(case.bias)), wanted)


@pytest.mark.parametrize("make", [Tensor.to_sparse, Tensor.to_mkldnn], ids=["sparse", "mkldnn"])
def test_tensors_without_strides_are_refused(make) -> None:
    run = fc_op("tests::dense", FcGeometry(3, 2), FC_LAUNCHES)
    x, weight, bias = torch.randn(4, 3), torch.randn(2, 3), torch.randn(2)
    with pytest.raises(TypeError, match="dense"):
        run(make(x), weight, bias)
    with pytest.raises(TypeError, match="dense"):
        run(x, make(weight), bias)


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64])
def test_vectors_that_are_no_floats_are_refused(dtype: torch.dtype) -> None:
    case = Case(conv_geometry(2, 3, 1), (1, 2, 2))
    run = conv_op("tests::vectors", case.geometry, LAUNCHES)
    with pytest.raises(TypeError, match="bias is"):
        run(case.x, case.weight, torch.ones(3, dtype=dtype))


def test_a_residual_of_another_type_is_refused() -> None:
    """It was rounded without a word."""
    case = Case(conv_geometry(2, 3, 1, residual=True), (1, 2, 2))
    assert case.residual is not None
    run = conv_op("tests::residual", case.geometry, LAUNCHES)
    with pytest.raises(TypeError, match=r"x is torch.float32, residual torch.float64"):
        run(case.x, case.weight, case.bias, residual=case.residual.double())
    norm = norm_op("tests::residual_norm", norm_geometry(2, residual=True), NORM_LAUNCHES)
    z = torch.randn(2, 2, 2, 2)
    sums = torch.ones(1, 3, 2)
    with pytest.raises(TypeError, match=r"residual torch.float64"):
        norm(z, sums, nn.BatchNorm2d(2), z.double())


def test_autocast_leaves_float64_alone() -> None:
    x, weight = torch.randn(1, 2, 3, 3), torch.randn(2, 2, 1, 1)
    for first, second in ((x, weight), (x.double(), weight.double()), (x.double(), weight)):
        with torch.autocast("cpu", torch.bfloat16):
            found = shared.cast_as_wished(first, second)
            for mine, given in zip(found, (first, second), strict=True):
                theirs = torch.bfloat16 if given.dtype == torch.float32 else given.dtype
                assert mine.dtype == theirs
    with torch.autocast("cpu", torch.bfloat16):
        assert F.conv2d(x.double(), weight.double()).dtype == torch.float64


class Descriptor:
    """Holds a tensor, as a tensor descriptor does."""

    def __init__(self, base: Tensor) -> None:
        self.base = base


@pytest.fixture
def remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "REMEMBERS", True)


@pytest.mark.usefixtures("remembers")
def test_another_device_is_another_call() -> None:
    def refusing(x: Tensor, weight: Tensor) -> Tensor:
        if x.device != weight.device:
            raise ValueError("two devices")
        return shared.done(torch.mul, x, weight)

    run = replay.remembered(refusing)
    x, weight = torch.ones(16), torch.full((16,), 2.0)
    for _ in range(3):
        assert torch.equal(run(x, weight), x * 2)
    with pytest.raises(ValueError, match="two devices"):
        run(x, weight.to("meta"))


@pytest.mark.usefixtures("remembers")
@pytest.mark.parametrize("make", [negated, zeros])
def test_a_lazy_tensor_is_another_call(make) -> None:
    run = replay.remembered(lambda x, y: shared.done(torch.add, shared.packed(x), y))
    x, y = torch.randn(16), torch.randn(16)
    for _ in range(2):
        for given in (x, make(x)):
            assert torch.equal(run(given, y), given + y)


@pytest.mark.usefixtures("remembers")
@pytest.mark.parametrize(
    "hold",
    [Descriptor, lambda t: [t], lambda t: (1, (t,)), lambda t: {"a": t}],
    ids=["descriptor", "list", "tuple", "dict"],
)
def test_what_may_hold_tensors_is_not_kept(hold) -> None:
    """Its tensor would be that of the first call for ever."""

    def first(x: Tensor, held: object) -> Tensor:
        while not isinstance(held, Tensor):
            if isinstance(held, Descriptor):
                held = held.base
            else:
                held = held["a"] if isinstance(held, dict) else held[-1]
        return x * held

    run = replay.remembered(lambda x: shared.done(first, x, hold(x + 1)))
    for value in (2.0, 3.0):
        x = torch.full((16,), value)
        assert torch.equal(run(x), x * (x + 1))
