"""What programs share: imported from cnndsl.rt, or at the end of a file that stands alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cnndsl.rt
from cnndsl.check import check_source
from cnndsl.cli.main import main
from cnndsl.emit import shared, splice
from cnndsl.emit.fit import fit
from cnndsl.emit.module import emit
from cnndsl.source import Source

ROOT = Path(__file__).parents[2]
LENET = ROOT / "examples" / "lenet.cnn"
# Bytes, a batchnorm, a residual, a pool of its own, a layer that PyTorch lacks, every family.
MIXED = """\
input H x 16 x 3 u8
conv 16 3x3 pad=1 bias=no; batchnorm; relu; pool max 3 stride=2 pad=1
add { conv 16 3x3 pad=1; batchnorm } { skip }
gelu
conv 16 1x1; leaky_relu
scale
globalpool avg; flatten
fc 5; tanh
"""


def written(text: str, *, standalone: bool) -> str:
    source = Source("x.cnn", text)
    graph = check_source(source).graph
    assert graph is not None
    return emit(graph, source, standalone=standalone).text


def test_the_emitter_knows_what_may_be_imported() -> None:
    assert shared.VERSION == cnndsl.rt.VERSION
    assert shared.names() == set(cnndsl.rt.__all__)


def test_kernels_import_only_what_programs_may_import() -> None:
    used = {
        alias.name
        for path in (ROOT / "kernels").glob("*.py")
        for statement in ast.parse(path.read_text("utf-8")).body
        if isinstance(statement, ast.ImportFrom) and "cnndsl.rt" in (statement.module or "")
        for alias in statement.names
    }
    assert used
    assert used <= shared.names()


@pytest.mark.parametrize(
    "change", [("requires(2)", "requires(1)"), ("    launch,\n", "    lunch,\n")]
)
def test_a_file_for_another_version_says_what_to_do(
    change: tuple[str, str], tmp_path: Path
) -> None:
    text = written(LENET.read_text("utf-8"), standalone=False)
    assert text.count(change[0]) == 1
    (tmp_path / "lenet.py").write_text(text.replace(*change), "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", "import lenet"], cwd=tmp_path, capture_output=True, text=True
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert "compile its .cnn file again, or install the cnndsl that wrote it" in last


def test_triton_decides_once() -> None:
    code = """
import os
os.environ["TRITON_INTERPRET"] = "0"
import cnndsl.rt
os.environ["TRITON_INTERPRET"] = "1"
cnndsl.rt.requires(cnndsl.rt.VERSION)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = "ImportError: set TRITON_INTERPRET before the first import of cnndsl.rt"
    assert done.stderr.splitlines()[-1] == last


@pytest.mark.parametrize("text", [LENET.read_text("utf-8"), MIXED], ids=["lenet", "mixed"])
def test_a_file_that_stands_alone_is_clean(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(written(text, standalone=True), "utf-8")
    ruff = [sys.executable, "-m", "ruff"]
    for command in (
        [*ruff, "check", "--isolated", "--select", "E,F,ARG", "--line-length", "100", "."],
        [*ruff, "format", "--isolated", "--check", "."],
    ):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
    assert "cnndsl" not in {
        word
        for line in (tmp_path / "model.py").read_text("utf-8").splitlines()
        if "import" in line
        for word in line.replace(".", " ").split()
    }


def test_shared_files_are_laid_out_for_either_width(tmp_path: Path) -> None:
    for path in (ROOT / "cnndsl" / "rt").glob("*.py"):
        bare, _ = splice.bare(path.read_text("utf-8"))
        (tmp_path / path.name).write_text(fit(bare), "utf-8")
    for width in ("88", "100"):
        command = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", width]
        done = subprocess.run(
            [*command, "--diff", "."], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.stdout == ""


def test_the_network_comes_first_and_what_is_shared_last(tmp_path: Path) -> None:
    path = tmp_path / "lenet.py"
    assert main(["compile", str(LENET), "-o", str(path)]) == 0
    lines = path.read_text("utf-8").splitlines()
    assert lines.index("class LeNet(nn.Module):") < 80
    assert "from cnndsl.rt import (" in lines
    assert main(["compile", str(LENET), "--standalone", "-o", str(path)]) == 0
    alone = path.read_text("utf-8").splitlines()
    assert alone.index("class LeNet(nn.Module):") < 80
    (shared_,) = [i for i, line in enumerate(alone) if line.startswith("# ── what programs share")]
    (region,) = [i for i, line in enumerate(alone) if line.startswith("# ── region 5")]
    assert region < shared_
    assert len(alone) > len(lines)
