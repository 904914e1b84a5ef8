"""What commands write goes where the user said, in one step, and never over somebody's own file."""

import os
import stat
import threading
from pathlib import Path

import pytest

from cnndsl.cli.main import main

TEXT = "model Tiny\ninput 4 x 4 x 1\nconv 2 3x3; relu\nglobalpool avg\nflatten\nfc 2\n"
MINE = "print('my own work')\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny.cnn").write_text(TEXT)
    return tmp_path


def graph(*more):
    """The quickest thing that `compile` writes."""
    return main(["compile", "tiny.cnn", "--emit", "graph", *more])


def listing():
    return sorted(p.name for p in Path().iterdir())


@pytest.mark.parametrize("stage", ["graph", "regions", "python"])
def test_somebodys_own_file_stays_and_ours_is_replaced(here, capsys, stage):
    command = ["compile", "tiny.cnn", "--emit", stage, "-o", "out.py"]
    Path("out.py").write_text(MINE)
    assert main(command) == 2
    err = capsys.readouterr().err
    assert "`out.py` exists, and cnndsl did not write it" in err
    assert "--force" in err
    assert Path("out.py").read_text() == MINE
    assert main([*command, "--force"]) == 0
    written = Path("out.py").read_text()
    assert written != MINE
    assert main(command) == 0  # what it wrote itself
    assert Path("out.py").read_text() == written
    assert listing() == ["out.py", "tiny.cnn"]


def test_an_empty_file_is_nothing_to_lose(here):
    Path("out.txt").touch()
    assert graph("-o", "out.txt") == 0
    assert Path("out.txt").read_text().startswith("graph Tiny")


def test_the_input_is_not_overwritten_even_by_force_or_through_a_link(here, capsys):
    Path("link.cnn").symlink_to("tiny.cnn")
    for name in ("tiny.cnn", "link.cnn", "./tiny.cnn"):
        assert graph("-o", name, "--force") == 2
        assert "would be lost" in capsys.readouterr().err
    assert Path("tiny.cnn").read_text() == TEXT


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_what_it_points_to_is_written(here, exists):
    Path("folder").mkdir()
    if exists:
        Path("folder/real.txt").touch(mode=0o640)
    Path("out.txt").symlink_to("folder/real.txt")
    assert graph("-o", "out.txt") == 0
    assert Path("out.txt").is_symlink()
    assert Path("folder/real.txt").read_text().startswith("graph Tiny")
    assert [p.name for p in Path("folder").iterdir()] == ["real.txt"]
    if exists:
        assert stat.S_IMODE(Path("folder/real.txt").stat().st_mode) == 0o640


def test_a_pipe_gets_what_is_written(here):
    os.mkfifo("pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append(Path("pipe").read_text()))
    reader.start()
    assert graph("-o", "pipe") == 0
    reader.join(5)
    assert got[0].startswith("graph Tiny")
    assert stat.S_ISFIFO(Path("pipe").stat().st_mode)


def test_devices_get_what_is_written_and_stay(here, capsys):
    before = Path("/dev/null").stat()
    assert graph("-o", "/dev/null") == 0
    assert os.path.samestat(before, Path("/dev/null").stat())
    Path("null").symlink_to("/dev/null")
    assert graph("-o", "null") == 0
    assert os.path.samestat(before, Path("null").stat())
    assert graph("-o", "/dev/full") == 74
    assert "No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1"])
def test_standard_output(here, capsysbinary, name):
    assert graph("-o", name) == 0
    assert capsysbinary.readouterr().out.startswith(b"graph Tiny")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nodir/x.py", "nodir/x.py: there is no folder `nodir`"),
        ("tiny.cnn/x.py", "tiny.cnn/x.py: `tiny.cnn` is a file, not a folder"),
        ("folder", "folder: this is a folder"),
        ("x/", "x/: this is a folder"),
        ("loop", "loop: this link points to itself"),
        ("gone", "there is no folder"),
        ("n" * 300, "File name too long"),
        ("no\ndir/\x1b[2J", r"there is no folder `no\ndir`"),
    ],
)
def test_what_cannot_be_written_is_named_as_the_user_named_it(here, capsys, name, message):
    Path("folder").mkdir()
    Path("loop").symlink_to("loop")
    Path("gone").symlink_to("no/such/x.py")
    before = listing()
    assert graph("-o", name) == 74
    err = capsys.readouterr().err
    assert message in err
    assert "tmp" not in err.replace(str(here), "")
    assert "\x1b" not in err
    assert listing() == before


def test_a_read_only_file_stays(here, capsys, monkeypatch):
    Path("out.txt").write_text("graph Tiny\n  input: 4")
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: mode != os.W_OK and access(path, mode)
    )  # for root, every file is writable
    assert graph("-o", "out.txt") == 74
    assert "out.txt: this file is read-only" in capsys.readouterr().err
