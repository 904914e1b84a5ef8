"""What the emitter does to the text must not break it: sizes that vary, holes that are filled."""

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from cnndsl.kernels.conv_geometry import ConvGeometry
from cnndsl.kernels.conv_op import ConvLaunches, conv_op
from torch import Tensor

from cnndsl.emit.jobs import Family
from cnndsl.emit.kernels import KERNELS

from . import norms
from .hostile import HostileInterpreter
from .regions import Case, check, conv_geometry, ours

FOLDER = Path(__file__).parent.parent.parent / "kernels"
SIZES = ("height", "width", "conv_height", "conv_width", "out_height", "out_width")


def changed(
    folder: Path, name: str, replacements: dict[str, str], family: Family = "conv"
) -> ModuleType:
    """Import the kernels of a family as one module, with some of the text replaced."""
    files = ("windows.py", *KERNELS[family])
    text = "\n\n".join((FOLDER / file).read_text("utf-8") for file in files)
    own = "|".join(file.removesuffix(".py") for file in files)
    text = re.sub(rf"from \.({own}) import .*\n", "", text)
    text = re.sub(r"from \.(\w+) import", r"from cnndsl.kernels.\1 import", text)
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
    assert case.bias is not None
    mine = [t.clone().requires_grad_() for t in (case.x, case.weight, case.bias)]
    theirs = [t.detach().double().requires_grad_() for t in mine]
    y = run(*mine)
    y.backward(case.gradient)
    wanted = function(torch.nn.functional.conv2d(*theirs, padding=1))
    if geometry.pool == "max":
        wanted = torch.nn.functional.max_pool2d(wanted, 2)
    wanted.backward(case.gradient.double())
    pairs = [(y, wanted)] + [(a.grad, b.grad) for a, b in zip(mine, theirs, strict=True)]
    return [(a.detach().double(), b.detach()) for a, b in pairs]


@pytest.mark.parametrize("pool", [{}, {"pool_size": 2}])
def test_an_activation_whose_slope_follows_from_its_output(
    pool: dict[str, Any], tmp_path: Path, hostile: HostileInterpreter
) -> None:
    module = changed(tmp_path, "sigmoid_conv", SIGMOID)
    geometry = conv_geometry(2, 3, 3, pad=1, activation="output", **pool)
    for mine, wanted in run_and_reference(module, geometry, torch.sigmoid, "tests::sigmoid"):
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-5)


def test_an_activation_whose_slope_follows_from_its_input(
    tmp_path: Path, hostile: HostileInterpreter
) -> None:
    module = changed(tmp_path, "silu_conv", SILU)
    geometry = conv_geometry(2, 3, 3, pad=1, activation="input")
    silu = torch.nn.functional.silu
    for mine, wanted in run_and_reference(module, geometry, silu, "tests::silu"):
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-5)


# Each is a mistake that was once made, or is easily made, in kernels of this kind.
MISTAKES = {
    "padding is not masked": (r"\(row \+ down >= 0\) & ", ""),
    "an empty lane is multiplied": (r"mask=x_mask, other=0\.0", "mask=x_mask"),
    "the first of equals loses": (r"\(z > best\) \| ", "(z >= best) | "),
    "a pixel in the padding of the pool": (r"better = exists\[None, :\] & ", "better = "),
    "one window too many": (r"window < batch \* out_height", "window <= batch * out_height"),
    "a tap too few": (
        r"KERNEL\[1\] - first_right \+ TAP_STEP\[1\] - 1",
        "KERNEL[1] - first_right - 1",
    ),
    "splits overlap": (r"last = tl\.minimum\(first \+ tl", "last = tl.minimum(first + 1 + tl"),
    "dead windows count in the bias": (r"winner != 0", "winner >= 0"),
    "a filter too many": (r"filter_mask = filter < GROUP_FILTERS", "filter_mask = filter < 99"),
    "the scale comes before the maximum": (r'if SCALE == "sum":', 'if SCALE != "none":'),
    "a residual is not added": (r"y \+= tl\.load\(residual_ptr", "y += 0 * tl.load(residual_ptr"),
    "a residual's gradient passes the activation": (
        r"gradient\.to\(dz_ptr\.dtype\.element_ty\), mask",
        "tl.load(gradient_ptr + offset, mask=mask), mask",
    ),
}


def is_found(test: Callable[[], object]) -> bool:
    try:
        with HostileInterpreter():
            test()
    except Exception:  # whatever tells: a fault, or a value that is wrong
        return True
    return False


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(mistake: str, tmp_path: Path) -> None:
    """The tests of regions would fail if the kernels had these mistakes."""
    module = changed(tmp_path, "wrong_conv", dict([MISTAKES[mistake]]))
    pool = {"pool_size": 3, "pool_stride": 2, "pool_pad": 1}
    regions = [
        Case(conv_geometry(17, 15, 3, pad=1, activation="relu"), (1, 4, 5)),
        Case(conv_geometry(3, 4, 3, pad=1, **pool), (1, 7, 8), whole=True),
        Case(conv_geometry(3, 4, 3, pad=1, pool_size=2, activation="relu"), (2, 6, 7), whole=True),
        Case(conv_geometry(2, 3, 3, scale="pool", pool_size=2), (1, 6, 7)),
        Case(conv_geometry(2, 3, 3, pad=1, residual=True, activation="relu"), (1, 4, 5)),
    ]
    assert any(is_found(lambda c=c: check(c, ours(c, launches=launches(module)))) for c in regions)


# The same of a batchnorm in training.
NORM_MISTAKES = {
    "the mean of tiles, whatever they hold": (r"tl\.sum\(mean \* count,", "tl.sum(mean,"),
    "tiles are all alike": (r"spread \+ distance \* distance \* count \* share", "spread"),
    "lanes are all alike": (r"squares \+ distance \* distance \* count,", "squares,"),
    "the variance with bias is followed": (r"variance \*= values / [^\n]*\n", "pass\n"),
    "momentum is that of the past": (r"\(1 - momentum\) \* running", "momentum * running"),
    "the mean does not answer": (r"gradient - dbias\[None, :\] - ", "gradient - "),
    "the variance does not answer": (r" - normal \* dweight\[None, :\]", ""),
    "a window before the image": (r"\(window_row >= 0\) & ", ""),
    "one window too many": (r"window < batch \* out_height", "window <= batch * out_height"),
    "one pixel too many": (r"pixel < batch \* height", "pixel <= batch * height"),
    "splits overlap": (r"last = tl\.minimum\(first \+ tl", "last = tl.minimum(first + 1 + tl"),
    "the winner is one off": (r"winner == position\[:, None\] \+ 1", "winner == position[:, None]"),
    "a slope without its residual": (r"saved \+= tl\.load", "saved += 0 * tl.load"),
    "the last of equals wins": (r"\(z > best\) \| ", "(z >= best) | "),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("mistake", NORM_MISTAKES)
def test_a_mistake_in_a_batchnorm_is_found(mistake: str, tmp_path: Path) -> None:
    module = changed(tmp_path, "wrong_norm", dict([NORM_MISTAKES[mistake]]), "norm")
    wrong = norms.NormLaunches(
        *(getattr(module, f"norm_launch_{name}") for name in norms.NormLaunches._fields)
    )
    pool = {"pool_size": 3, "pool_stride": 2}
    added = norms.norm_geometry(3, activation="relu", residual=True)
    cases = [
        norms.NormCase(added, (2, 5, 7), tile=1),  # more tiles than lanes
        norms.NormCase(norms.norm_geometry(3, activation="relu", **pool), (1, 7, 8)),
    ]
    cases[1].z = cases[1].z.round()  # ties
    assert any(is_found(lambda c=c: norms.check(c, norms.run(c, launches=wrong))) for c in cases)
