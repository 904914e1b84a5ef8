"""What the emitter does to the text must not break it: sizes that vary, holes that are filled."""

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from cnndsl.emit.kernels import KERNELS
from cnndsl.rt.conv_geometry import ConvGeometry
from cnndsl.rt.conv_operator import ConvLaunches, conv_op

from .hostile import HostileInterpreter
from .regions import Case, conv_geometry, ours

FOLDER = Path(__file__).parent.parent.parent / "kernels"
RT = Path(__file__).parent.parent.parent / "cnndsl" / "rt"
SIZES = ("height", "width", "conv_height", "conv_width", "out_height", "out_width")


def changed(folder: Path, name: str, replacements: dict[str, str]) -> ModuleType:
    """Import the kernels of convolutions as one module, with some of the text replaced."""
    files = [RT / "windows.py", *(FOLDER / file for file in KERNELS["conv"])]
    text = "\n\n".join(file.read_text("utf-8") for file in files)
    text = re.sub(r"from (?:\.\w+|cnndsl\.rt\.windows) import .*\n", "", text)
    for old, new in replacements.items():
        text, count = re.subn(old, new, text)
        assert count, old
    path = folder / f"{name}.py"
    path.write_text(text, "utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def launches(module: ModuleType) -> ConvLaunches:
    return ConvLaunches(
        forward=module.conv_launch_forward,
        input_gradient=module.conv_launch_input_gradient,
        weight_gradient=module.conv_launch_weight_gradient,
        bias_gradient=module.conv_launch_bias_gradient,
    )


@pytest.fixture(scope="module")
def symbolic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConvLaunches]:
    """The kernels with all sizes as values of run time."""
    folder = tmp_path_factory.mktemp("symbolic")
    sizes = {rf"\n    {size}: tl\.constexpr,": f"\n    {size}," for size in SIZES}
    module = changed(folder, "symbolic_conv", sizes)
    yield launches(module)
    del sys.modules["symbolic_conv"]


@pytest.mark.parametrize(
    "given",
    [
        {"activation": "relu", "pool_size": 2},
        {"stride": 2, "activation": "relu"},
        {"activation": "relu", "pool_size": 3, "pool_stride": 2, "pool_pad": 1, "ceil": True},
        {"pool": "average", "pool_size": 3, "pool_stride": 2, "pool_pad": 1, "count_pad": False},
    ],
)
def test_sizes_may_be_values(
    given: dict[str, Any], symbolic: ConvLaunches, hostile: HostileInterpreter
) -> None:
    run = conv_op("tests::symbolic", conv_geometry(2, 3, 3, pad=1, **given), symbolic)
    for shape in ((1, 6, 7), (2, 5, 4)):
        case = Case(conv_geometry(2, 3, 3, pad=1, **given), shape)
        found = ours(case)
        assert case.bias is not None
        leaves = [t.clone().requires_grad_() for t in (case.x, case.weight, case.bias)]
        y = run(*leaves)
        y.backward(case.gradient)
        assert torch.equal(y, found.y)
        for leaf, gradient in zip(leaves, found[1:], strict=False):
            assert torch.equal(leaf.grad, gradient)


SIGMOID = {
    r"return tl\.where\(z <= 0, 0\.0, z\)": "return 1 / (1 + tl.exp(-z))",
    r"return tl\.where\(saved <= 0, 0\.0, gradient\)": "return gradient * saved * (1 - saved)",
}
SILU = {
    r"return tl\.where\(z <= 0, 0\.0, z\)": "return z / (1 + tl.exp(-z))",
    r"return tl\.where\(saved <= 0, 0\.0, gradient\)": (
        "s = 1 / (1 + tl.exp(-saved))\n    return gradient * s * (1 + saved * (1 - s))"
    ),
}


def run_and_reference(
    module: ModuleType, geometry: ConvGeometry, function: Any, name: str
) -> list[tuple[Tensor, Tensor]]:
    case = Case(geometry, (2, 6, 6))
    run = conv_op(name, geometry, launches(module))
    mine = [t.clone().requires_grad_() for t in case.given if t is not None]
    theirs = [t.detach().double().requires_grad_() for t in mine]
    y = run(*mine[:3], residual=mine[3] if geometry.residual else None)
    y.backward(case.gradient)
    before = torch.nn.functional.conv2d(*theirs[:3], padding=1)
    wanted = function(before + theirs[3] if geometry.residual else before)
    if geometry.pool == "max":
        wanted = torch.nn.functional.max_pool2d(wanted, 2)
    wanted.backward(case.gradient.double())
    pairs = [(y, wanted)] + [(a.grad, b.grad) for a, b in zip(mine, theirs, strict=True)]
    return [(a.detach().double(), b.detach()) for a, b in pairs]


@pytest.mark.parametrize("given", [{}, {"pool_size": 2}, {"residual": True}])
def test_an_activation_whose_slope_follows_from_its_output(
    given: dict[str, Any], tmp_path: Path, hostile: HostileInterpreter
) -> None:
    module = changed(tmp_path, "sigmoid_conv", SIGMOID)
    geometry = conv_geometry(2, 3, 3, pad=1, activation="output", **given)
    for mine, wanted in run_and_reference(module, geometry, torch.sigmoid, "tests::sigmoid"):
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("given", [{}, {"residual": True}])
def test_an_activation_whose_slope_follows_from_its_input(
    given: dict[str, Any], tmp_path: Path, hostile: HostileInterpreter
) -> None:
    module = changed(tmp_path, "silu_conv", SILU)
    geometry = conv_geometry(2, 3, 3, pad=1, activation="input", **given)
    silu = torch.nn.functional.silu
    for mine, wanted in run_and_reference(module, geometry, silu, "tests::silu"):
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-5)
