"""`cnndsl compile`: what it writes where, and how it ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cnndsl.cli.main import main

TEXT = "model Tiny\ninput 8 x 8 x 1\nconv 4 3x3; relu\npool max 2\nflatten\nfc 3\nsoftmax\n"
FREE = "model Free\ninput H x W x 1\nconv 4 3x3; relu\nglobalpool avg\nflatten\nfc 3\n"


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("tiny.cnn").write_text(TEXT)
    Path("free.cnn").write_text(FREE)
    return "tiny.cnn"


def test_without_a_file_to_write_the_module_goes_to_standard_output(tiny, capsys):
    assert main(["compile", tiny]) == 0
    out, err = capsys.readouterr()
    assert out.startswith('"""Tiny, a convolutional network: 8 x 8 x 1 to 3.\n')
    assert "class Tiny(nn.Module):" in out
    assert err == ""


def test_a_written_file_is_named_with_its_use(tiny, capsys):
    assert main(["compile", tiny, "-o", "tiny.py"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "wrote tiny.py; use it: from tiny import Tiny\n"
    assert main(["compile", tiny]) == 0
    assert Path("tiny.py").read_text() == capsys.readouterr().out
    assert sorted(p.name for p in Path().iterdir()) == ["free.cnn", "tiny.cnn", "tiny.py"]


def test_a_file_that_is_no_module_name_has_no_use_to_show(tiny, capsys):
    assert main(["compile", tiny, "-o", "my-net.py"]) == 0
    assert capsys.readouterr().err == "wrote my-net.py\n"


def test_the_model_is_not_overwritten(tiny, capsys):
    assert main(["compile", tiny, "-o", "./tiny.cnn"]) == 2
    assert "is the model itself" in capsys.readouterr().err
    assert Path(tiny).read_text() == TEXT


def test_a_device_is_written_to_and_not_replaced(tiny):
    assert main(["compile", tiny, "-o", "/dev/null"]) == 0
    assert not Path("/dev/null").is_file()


def test_a_folder_that_is_not_there(tiny, capsys):
    assert main(["compile", tiny, "-o", "no/such/tiny.py"]) == 74
    assert "no/such" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stage", "line"),
    [
        ("graph", "  conv1 = conv 4 3x3 (input): 6 x 6 x 4"),
        ("regions", "region 1"),
        ("python", "class Tiny(nn.Module):"),
    ],
)
def test_stages(tiny, capsys, stage, line):
    assert main(["compile", tiny, "--emit", stage]) == 0
    assert line in capsys.readouterr().out.splitlines()


def test_a_free_size_can_be_set(tiny, capsys):
    assert main(["compile", "free.cnn", "--set", "H=9", "--set", "W=9"]) == 0
    assert "input_shape = (1, 9, 9)" in capsys.readouterr().out


def test_a_model_with_errors(tiny, capsys):
    Path("bad.cnn").write_text("input 8 x 8 x 1\nconv 4 9x9\n")
    assert main(["compile", "bad.cnn", "-o", "bad.py"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "error[E301]" in err
    assert not Path("bad.py").exists()


def test_warnings_do_not_hold_it_up(tiny, capsys):
    Path("odd.cnn").write_text("input 7 x 7 x 1\npool max 2\n")
    assert main(["compile", "odd.cnn"]) == 0
    out, err = capsys.readouterr()
    assert "warning[W6" in err
    assert "class odd(nn.Module):" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--emit", "rust"], "`rust`"),
        (["--dtype", "int8"], "`int8`"),
        (["--set", "H"], "NAME=VALUE"),
        (["--format", "xml"], "`xml`"),
    ],
)
def test_wrong_usage(tiny, capsys, arguments, message):
    assert main(["compile", tiny, *arguments]) == 2
    assert message in capsys.readouterr().err


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: kernels are interpreted in this one."""
    return subprocess.run(
        [sys.executable, "-m", "cnndsl", "compile", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_python_needs_neither_torch_nor_triton(tiny):
    code = (
        "import sys; from cnndsl.cli.main import main; main(['compile', 'tiny.cnn', '-o', 'a.py']);"
        "print([m for m in ('torch', 'triton', 'numpy', 'islpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_what_kernels_use_is_an_object_a_line(tiny):
    done = command(tiny, "--stats", "--format", "json", "--target", "sm_80", "--dtype", "fp16")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["target"] for row in rows} == {"sm_80"}
    assert {row["dtype"] for row in rows} == {"fp16"}
    assert len({row["kernel"] for row in rows}) == len(rows)
    forward = next(row for row in rows if row["kernel"].endswith("max2_forward"))
    assert forward["spills"] == 0
    assert forward["mma"] == "mma"
    assert list(forward) == [
        "kernel",
        "dtype",
        "target",
        "config",
        "registers",
        "spills",
        "shared_bytes",
        "mma",
        "tma",
        "instructions",
    ]


def test_a_free_size_compiles_to_machine_code(tiny):
    done = command("free.cnn", "--emit", "asm")
    assert done.returncode == 0, done.stderr
    assert "_forward" in done.stdout
    assert "EXIT" in done.stdout


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("sm_90000", ""),
        ("sm_99", ""),  # LLVM would end the process
        ("sm_70", ""),  # NVIDIA's disassembler has forgotten it
        ("sm_88", ""),
        ("sm_", ""),
        ("SM_90", "sm_90"),
        ("sm90", "sm_90"),
        ("sm_90a", ""),
        ("GFX942", "gfx942"),
        ("gfx000", ""),
        ("gfx906", ""),
        ("cpu", ""),
        ("", ""),
        ("a\nb\x1b[31m", ""),
        ("x" * 5000, ""),
    ],
)
def test_a_target_that_is_not_known_is_named_with_those_that_are(name, near):
    from cnndsl.runtime.machine import TargetError
    from cnndsl.runtime.target import gpu_target

    with pytest.raises(TargetError) as caught:
        gpu_target(name)
    text = str(caught.value)
    assert "no target is called '" in text
    assert "sm_80" in text
    assert "gfx942" in text
    assert ("did you mean" in text) == bool(near)
    assert not near or f"`{near}`" in text
    assert len(text) < 600
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "\nb" not in text


def test_the_command_refuses_a_target_before_it_compiles(tiny):
    done = command(tiny, "--stats", "--target", "sm_99")
    assert done.returncode == 1
    assert "no target is called 'sm_99'" in done.stderr
    assert done.stdout == ""


TARGETS = (
    *(f"sm_{n}" for n in (75, 80, 86, 87, 89, 90, 100, 103, 110, 120, 121)),
    *(f"gfx{n}" for n in ("908", "90a", "942", "950", 1030, 1100, 1101, 1150, 1200, 1201, 1250)),
)


def test_every_target_is_listed():
    """With the newest Triton; an older one may have fewer."""
    from cnndsl.runtime.machine import targets

    assert set(targets()) <= set(TARGETS)
    assert {"sm_80", "sm_90", "sm_100", "gfx942"} <= set(targets())


@pytest.mark.skipif(os.environ.get("CNNDSL_MANY") != "1", reason="minutes: CNNDSL_MANY=1")
@pytest.mark.parametrize("target", TARGETS)
def test_every_target_compiles_and_no_two_rows_have_a_name(tiny, target):
    done = command(tiny, "--stats", "--target", target)
    assert done.returncode == 0, done.stderr
    names = [line.split("  ")[0] for line in done.stdout.splitlines()[2:]]
    assert names
    assert len(set(names)) == len(names)
