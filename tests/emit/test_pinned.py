"""Choices in the emitted file: readable, right, and nothing of them where there are none."""

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from cnndsl.cli.main import main
from cnndsl.emit.module import Written, emit
from cnndsl.fuse.choices import NONE, write
from cnndsl.fuse.pins import Tile
from cnndsl.runtime.load import import_text
from cnndsl.runtime.using import never, using
from tests.fuse.pinning import TILE, choices, graph_of, pin_for, regions

ROOT = Path(__file__).parent.parent.parent
SMALL = "input 8 x 8 x 2\nconv 5 3x3; relu; pool max 2\nflatten; fc 3\n"
NAMED = f"model Tiny\n{SMALL}"


def test_without_choices_nothing_of_them_is_there():
    """Golden files say that no byte of it is."""
    text = emit(*graph_of(SMALL), NONE, standalone=True).text
    words = ("measured_tile", "geometry.tiles", "    tiles: tuple", "POOL1_TILES")
    assert not [word for word in words if word in text]


def test_the_tiles_stand_beside_the_geometry():
    graph, source = graph_of(SMALL)
    text = emit(graph, source, choices(graph)).text
    assert (
        "CONV1_RELU1_POOL1_TILES = (\n"
        "    # measured: kernel, type, images at most; rows, columns, terms a step, warps, stages\n"
        '    ("forward", "fp32", 64, Tile(16, 32, 16, 4, 2)),\n'
        '    ("input_gradient", "fp32", 64, Tile(16, 32, 16, 4, 2)),\n'
        '    ("weight_gradient", "fp32", 64, Tile(16, 32, 16, 4, 2)),\n'
        ")\nCONV1_RELU1_POOL1 = ConvGeometry(\n"
    ) in text
    assert "    tiles=CONV1_RELU1_POOL1_TILES,\n)" in text
    assert 'measured_tile(geometry.tiles, "forward", x, precision)' in text
    # Only what is pinned asks.
    first = choices(graph).replace(regions=choices(graph).regions[:1])
    text = emit(graph, source, first).text
    assert "FC1_TILES" not in text
    text = emit(graph, source, first, standalone=True).text
    assert text.count("tiles: tuple[tuple[str, str, int, Tile], ...] = ()") == 1


@pytest.mark.parametrize("number", [0, 99])
def test_the_formatter_would_change_nothing(number, tmp_path):
    graph, source = graph_of()
    path = tmp_path / "x.py"
    path.write_text(emit(graph, source, choices(graph, number)).text)
    for width in ("88", "100"):
        command = [sys.executable, "-m", "ruff", "format", "--check", "--line-length", width]
        done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    command = [sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml")]
    ignored = (
        "N803,N806,ANN001,ANN201,ANN202,I001"  # those of the files in kernels/, and tests/golden/
    )
    command += ["--ignore", ignored, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_regions_that_are_alike_but_for_their_choices_stand_apart():
    text = "input 8 x 8 x 16\n" + "conv 16 3x3 pad=1; relu\n" * 2
    graph, source = graph_of("input 8 x 8 x 16\nrelu\n" + text.split("\n", 1)[1])
    found = choices(graph)
    assert "CONV2_RELU3" not in emit(graph, source, found).text
    first, second = found.regions
    other = pin_for(regions(graph)[1], second.pins[0][1].choice, Tile(32, 16, 16, 4, 2))
    found = found.replace(regions=(first, second.replace(pins=(("whole", other),))))
    text = emit(graph, source, found).text
    assert "CONV2_RELU3_TILES" in text
    assert text.count("def conv_relu_forward(") == 1  # and share their kernels


def results(written: Written, x: torch.Tensor) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = getattr(import_text(written), written.name)().to(x.dtype)
    # In float64, what PyTorch's own operators give.
    with using(model, takes=never) if x.dtype == torch.float64 else nullcontext():
        y = model(x)
    y.backward(torch.linspace(-1, 1, y.numel(), dtype=x.dtype).view_as(y))
    return [y.detach(), *(p.grad for p in model.parameters())]


def test_a_pinned_tile_is_launched_and_computes_the_same():
    """Also for a batch beyond the bucket; and a type without a tile follows the rule."""
    graph, source = graph_of(SMALL)
    written = emit(graph, source, choices(graph))
    namespace = vars(import_text(written))
    tile_of = namespace["conv_few_relu_max2_forward_tile"]
    x = torch.randn(3, 2, 8, 8)
    geometry = namespace["CONV1_RELU1_POOL1"]
    assert tile_of(geometry, x, "ieee") == TILE.values()
    assert tile_of(geometry, x.expand(3, 2, 8, 8).repeat(30, 1, 1, 1), "ieee") == TILE.values()
    assert tile_of(geometry, x.half(), "ieee") != TILE.values()
    assert tile_of(geometry, x, "tf32") != TILE.values()
    for found, wanted in zip(
        results(written, x), results(emit(graph, source), x.double()), strict=True
    ):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


def test_the_command_takes_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("x.cnn").write_text(NAMED)
    graph, source = graph_of(NAMED)
    found = choices(graph, 1)
    Path("x.json").write_text(write(found))
    assert main(["compile", "x.cnn", "--choices", "x.json"]) == 0
    text = capsys.readouterr().out
    assert text == emit(graph, source, found).text
    assert main(["compile", "x.cnn", "--choices", "x.json", "--emit", "regions"]) == 0
    assert "PyTorch's library multiplies" in capsys.readouterr().out
    Path("x.cnn").write_text(NAMED.replace("conv 5 3x3", "conv 9 3x3"))
    assert main(["compile", "x.cnn", "--choices", "x.json"]) == 1
    error = capsys.readouterr().err
    assert "`conv1 + relu1 + pool1` were made for `conv 5 3x3 -> 6 x 6 x 5`" in error
    assert "help: make it anew: `cnndsl bench FILE --pin OUT.json`" in error
    assert main(["compile", "x.cnn", "--choices", "y.json"]) == 1
    assert "`y.json` cannot be read: No such file" in capsys.readouterr().err
