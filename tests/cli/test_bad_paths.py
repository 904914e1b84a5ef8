"""Each command with each kind of path that is not what it takes: a sentence, and nothing lost."""

import os
import signal
from pathlib import Path

import pytest
import safetensors.torch
import torch

from cnndsl.cli.main import main

TEXT = "input 4 x 4 x 1\nconv 2 3x3; relu\nglobalpool avg\nflatten\nfc 2\n"
BAD = ("missing", "folder", "binary", "empty", "pipe", "zero", "loop", "gone", "a b\n犬", "nodir/x",
       "tiny.cnn/x", "n" * 300, "nul\0x", "")  # fmt: skip
# `?` is the path. What is given besides is good, as far as it is looked at before.
COMMANDS = (
    "check ?", "check --fix ?", "fmt ?", "compile ? --emit graph", "train ? --data digits",
    "compile tiny.cnn --emit regions --choices ?", "train tiny.cnn --data ?", "train --resume ?",
    "eval ?", "predict ? x.png", "export ? -o o.onnx", "weights ? --from own.safetensors",
    "weights tiny.cnn --from ?", "export tiny.cnn --weights ? -o o.onnx", "bench ?", "explain ?",
    "weights tiny.cnn --from own.safetensors --order ?", "eval tiny.cnn --data x --weights ?",
    "eval folder/run --data ?", "predict folder/run ?",
)  # fmt: skip
OUT = ("train tiny.cnn --data digits --epochs 1 --device cpu --out ?",)


@pytest.fixture(scope="module")
def here(tmp_path_factory, emitted_once):
    folder = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("tiny.cnn").write_text(TEXT)
        Path("folder").mkdir()
        Path("folder/mine.txt").write_text("mine")
        Path("binary").write_bytes(bytes(range(256)) * 9)
        Path("empty").touch()
        os.mkfifo("pipe")
        Path("zero").symlink_to("/dev/zero")
        Path("loop").symlink_to("loop")
        Path("gone").symlink_to("nowhere")
        Path("a b\n犬").write_text("x")
        safetensors.torch.save_file({"a": torch.zeros(1)}, "own.safetensors")
        yield folder


def state(folder):
    """All that is there, with what is in it."""
    return {
        p: p.read_bytes() if p.is_file() and not p.is_symlink() else os.lstat(p).st_mode
        for p in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("command", [*COMMANDS, *OUT])
def test_a_bad_path_is_refused_in_a_sentence(here, capsys, command):
    before = state(here)
    for bad in BAD:
        if command in OUT and bad in ("missing", "nodir/x"):
            continue  # good for this one
        arguments = [bad if word == "?" else word for word in command.split()]
        signal.alarm(60)  # a pipe would be waited for
        status = main(arguments)
        signal.alarm(0)
        out, err = capsys.readouterr()
        if bad == "empty" and command == "fmt ?":
            assert status == 0
            continue
        assert status in (1, 2, 74), (bad, err)
        assert "error" in err
        assert all(c.isprintable() or c == "\n" for c in out + err)
    assert state(here) == before


@pytest.mark.parametrize("kind", ["folder", "file", "pipe", "link to a folder", "link to nothing"])
def test_a_run_takes_no_place_of_somebody_else(here, capsys, kind, tmp_path):
    names = {"folder": "folder", "file": "binary", "pipe": "pipe", "link to nothing": "gone"}
    name = names.get(kind) or str(tmp_path / "link")
    if kind == "link to a folder":
        Path(name).symlink_to(here / "folder")
    before = state(here)
    assert main(["train", "tiny.cnn", "--data", "digits", "--out", name]) == 2
    assert "train into a folder that does not exist: `--out`" in capsys.readouterr().err
    assert state(here) == before


def test_a_place_that_is_read_only_is_named_before_data_is_read(here, capsys, monkeypatch):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and access(path, mode))
    assert main(["train", "tiny.cnn", "--data", "nothing", "--out", "nodir/deep"]) == 2
    assert "you may not write in `.`" in capsys.readouterr().err
    assert not Path("nodir").exists()


def test_a_link_to_an_empty_folder_gets_the_run(here, tmp_path):
    from cnndsl.train.checkpoint import Checkpoint
    from cnndsl.train.run import create

    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    create(tmp_path / "link", {"a": 1}, None, Checkpoint(0, {}, {}, {}, {}))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real/config.json").exists()


def test_the_folder_that_one_is_in_can_be_taken_while_it_is_empty(tmp_path, monkeypatch):
    from cnndsl.train.run import refuse_existing

    monkeypatch.chdir(tmp_path)
    refuse_existing(Path())
