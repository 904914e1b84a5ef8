import io
import sys
from argparse import Namespace

import pytest

from cnndsl.cli import fmt

RAW = "conv  6 5x5\nrelu # a\n"
GOOD = "conv 6 5x5\nrelu    # a\n"


def run(*files, check=False):
    return fmt.run(Namespace(files=[str(f) for f in files], check=check, color="never"))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.cnn"
    path.write_text(RAW, encoding="utf-8")
    return path


def test_a_file_is_rewritten_in_place_and_keeps_its_mode(path, capsys):
    path.chmod(0o640)
    assert run(path) == 0
    assert path.read_text(encoding="utf-8") == GOOD
    assert path.stat().st_mode & 0o777 == 0o640
    assert "canonical" in capsys.readouterr().err
    assert [p.name for p in path.parent.iterdir()] == ["a.cnn"]


def test_a_file_in_the_layout_is_not_touched(path, capsys):
    path.write_text(GOOD, encoding="utf-8")
    before = path.stat().st_mtime_ns
    assert run(path) == 0
    assert path.stat().st_mtime_ns == before
    assert capsys.readouterr() == ("", "")


def test_check_changes_nothing_and_names_the_files(path, tmp_path, capsys):
    done = tmp_path / "b.cnn"
    done.write_text(GOOD, encoding="utf-8")
    assert run(done, check=True) == 0
    assert run(path, done, check=True) == 1
    assert path.read_text(encoding="utf-8") == RAW
    err = capsys.readouterr().err
    assert err == f"{path}: would change, from line 1 on\n"


def test_line_ends_alone_are_a_change(path, capsys):
    path.write_bytes(b"relu\r\n")
    assert run(path, check=True) == 1
    assert run(path) == 0
    assert path.read_bytes() == b"relu\n"
    capsys.readouterr()


def test_a_file_with_mistakes_is_left_alone_and_the_others_are_done(path, tmp_path, capsys):
    broken = tmp_path / "b.cnn"
    broken.write_text("conv 6,\n  relu\n", encoding="utf-8")
    assert run(broken, tmp_path / "missing.cnn", path) == 1
    assert broken.read_text(encoding="utf-8") == "conv 6,\n  relu\n"
    assert path.read_text(encoding="utf-8") == GOOD
    err = capsys.readouterr().err
    assert "E114" in err
    assert "E117" in err


def test_a_link_stays_a_link(path, tmp_path, capsys):
    link = tmp_path / "link.cnn"
    link.symlink_to(path)
    assert run(link) == 0
    assert link.is_symlink()
    assert path.read_text(encoding="utf-8") == GOOD
    capsys.readouterr()


def test_standard_input_goes_to_standard_output(path, monkeypatch, capsys):
    with path.open("rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        assert run("-") == 0
    assert capsys.readouterr().out == GOOD
    assert path.read_text(encoding="utf-8") == RAW
