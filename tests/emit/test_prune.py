"""What an emitted file leaves out: what nobody needs, and only what is known to do nothing else."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cnndsl.check import check_source
from cnndsl.emit import kernels, splice
from cnndsl.emit.module import emit
from cnndsl.emit.prune import prune
from cnndsl.source import Source

ROOT = Path(__file__).parents[2]
GOLDEN = sorted(ROOT.glob("tests/golden/*/module.py"))
MANY = os.environ.get("CNNDSL_MANY") == "1"
ZOO = sorted(ROOT.glob("examples/zoo/*.cnn")) if MANY else [ROOT / "examples/zoo/nin.cnn"]


def emitted(path: Path) -> str:
    if path.suffix == ".py":  # what the emitter writes now: test_golden holds it so
        return path.read_text("utf-8")
    source = Source(path.name, path.read_text("utf-8"))
    graph = check_source(source).graph
    assert graph is not None
    return emit(graph, source).text


def unreachable(tree: ast.AST) -> list[int]:
    found: list[int] = []
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            body = getattr(node, name, None)
            found += [
                statement.lineno
                for statement in (body[:-1] if isinstance(body, list) else [])
                if isinstance(statement, ast.Return | ast.Raise | ast.Continue | ast.Break)
            ]
    return found


@pytest.mark.parametrize("path", [*GOLDEN, *ZOO], ids=lambda p: f"{p.parent.name} {p.stem}")
def test_a_file_has_nothing_that_nobody_needs(path: Path, tmp_path: Path) -> None:
    text = emitted(path)
    file = tmp_path / "module.py"
    file.write_text(text, "utf-8")
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache"]
    command += ["--line-length", "100", "--select", "E,F,ARG", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert unreachable(ast.parse(text)) == []


@pytest.mark.parametrize("path", [*GOLDEN, *ZOO], ids=lambda p: f"{p.parent.name} {p.stem}")
def test_heads_describe_the_kernels_that_are_there(path: Path) -> None:
    text = emitted(path)
    prose = " ".join(re.sub(r"^# *", "", line) for line in text.splitlines() if line[:1] == "#")
    defined = re.findall(r"^def (\w+)", text, re.M)
    for family, files in kernels.KERNELS.items():
        for name in files:
            file = kernels.read(name)
            title = " ".join(splice.docstring(file).split("\n\n")[0].split())
            endings = [n.removeprefix(family) for n in splice.definitions(file)]
            is_there = any(
                other.startswith(family) and other.endswith(ending)
                for ending in endings
                for other in defined
            )
            assert (title in prose) <= is_there, f"{title!r} is about nothing in the file"
            if name in ("conv.py", "fc.py", "norm.py"):
                assert (title in prose) == is_there


BODY = """\
@triton.jit
def helper(x):
    return x.zero_()


@triton.jit
def plain(x):
    return tl.exp(x) + 1


@triton.jit
def kernel(x_ptr, count):
    x = tl.load(x_ptr)
    {line}
    tl.store(x_ptr, x)
"""
IDLE = ["a = x + 1", "a = tl.sum(tl.exp(x), 0)", "a = plain(x)", "a = x.to(tl.float32)"]
SEEN = [
    *("a = tl.atomic_max(x_ptr, 1)", "a = tl.atomic_cas(x_ptr, 0, 1)", "a = helper(x)"),
    *("a = x.zero_()", "a = unknown(x)", "a = plain(tl.atomic_xchg(x_ptr, 1))", "a = x.add_(1)"),
    *("a = tl.inline_asm_elementwise(x)", "a, b = tl.device_print(x), 1", "a: int = helper(x)"),
]


@pytest.mark.parametrize("line", [*IDLE, *SEEN])
def test_only_what_is_known_to_compute_is_taken_out(line: str) -> None:
    text = prune(BODY.format(line=line), ["kernel"])
    assert (line.split("= ", 1)[1].split(", 1")[0] in text) == (line in SEEN)


def test_lines_behind_a_return_go() -> None:
    text = """\
def first(a, b):
    if a:
        return 1
        # why
        b = 2
    else:
        raise ValueError
    # never
    for _ in range(3):
        return b
    return 4


def second(a):
    for x in a:
        if x:
            continue
            x.append(1)
        return x
    return None


def third(a):
    with torch.cuda.device_of(a):
        return a
    return None


def fourth(a):
    with contextlib.suppress(ValueError):
        return int(a)
    return None
"""
    assert (
        prune(text, ["first", "second", "third", "fourth"])
        == """\
def first(a, _b):
    if a:
        return 1
    else:
        raise ValueError


def second(a):
    for x in a:
        if x:
            continue
        return x
    return None


def third(a):
    with torch.cuda.device_of(a):
        return a


def fourth(a):
    with contextlib.suppress(ValueError):
        return int(a)
    return None
"""
    )


def test_a_parameter_given_by_its_name_keeps_it() -> None:
    text = "def first(a, b, c):\n    return second(a, d=1)\n\n\ndef second(a, d):\n    return a\n"
    marked = text.replace("(a, b, c)", "(a, _b, _c)")
    assert prune(text, ["first"]) == marked
