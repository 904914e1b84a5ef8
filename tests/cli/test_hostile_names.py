"""Names that would move a terminal's cursor reach no output, whatever command meets them."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest
import torch
from PIL import Image

import cnndsl.train
from cnndsl.cli import training
from cnndsl.cli.main import main

# Clear the screen, colour it in two ways, turn the reading direction, forge a line, a bad byte.
EVIL = "\x1b[2J\x9b31m\u202e\u2028evil\nerror: forged\udcff"
SHOWN = r"\x1b[2J\x9b31m\u202e\u2028evil\nerror: forged\udcff"
TEXT = "input 4 x 4 x 1\nconv 2 3x3; relu\nglobalpool avg\nflatten\nfc 2\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory, emitted_once):
    """A folder of a hostile name with a network, pictures and a run, and all that was printed."""
    folder = tmp_path_factory.mktemp("here") / EVIL
    folder.mkdir()
    (folder / f"{EVIL}.cnn").write_text(TEXT)
    (folder / "wrong.cnn").write_text(
        f"# {EVIL.splitlines()[0]}\nconv 2 3x{EVIL}\n", errors="ignore"
    )
    for label, base in ((f"a{EVIL}", 0), (f"b{EVIL}", 155)):
        (folder / "data" / label).mkdir(parents=True)
        for number in range(5):
            noise = torch.randint(base, base + 100, (4, 4), dtype=torch.uint8)
            Image.fromarray(noise.numpy()).save(folder / "data" / label / f"{EVIL}{number}.png")
        (folder / "data" / label / f"x.{EVIL}").touch()
    return folder


def printed(capsys, *command, status=0):
    """What a command says, which a terminal can show."""
    assert main([str(word) for word in command]) == status
    out, err = capsys.readouterr()
    for text in (out, err):
        hidden = {c for c in text if not c.isprintable() and c != "\n"}
        assert not hidden
        assert "\nerror: forged" not in text
    return out, err


@pytest.fixture(scope="module")
def run(place):
    file, out = str(place / f"{EVIL}.cnn"), str(place / f"run{EVIL}")
    words = ["train", file, "--data", str(place / "data"), "--out", out, "--device", "cpu"]
    assert main([*words, "--epochs", "1"]) == 0
    return Path(out)


def test_training_and_going_on(place, run, capsys):
    file = place / f"{EVIL}.cnn"
    common = "--data", place / "data", "--epochs", "1", "--device", "cpu"
    out, _ = printed(capsys, "train", file, *common, "--out", place / "again")
    assert r"a\x1b[2J" in out
    (run / "checkpoints" / "step-00000009").mkdir(exist_ok=True)  # damaged
    out, _ = printed(capsys, "train", "--resume", run)
    assert f"nothing is left to do in {place.parent}/{SHOWN}/run{SHOWN}" in out
    printed(capsys, "train", file, *common, "--out", run, status=2)
    for path in (place / EVIL, file):
        printed(capsys, "train", file, "--data", path, status=2)
    empty = place / "empty" / EVIL
    empty.mkdir(parents=True, exist_ok=True)
    printed(capsys, "train", file, "--data", empty.parent, status=1)
    printed(capsys, "train", "--resume", empty, status=2)


def test_judging_and_predicting(place, run, capsys):
    picture = next((place / "data" / f"a{EVIL}").glob("*.png"))
    for form in ("text", "json"):
        out, _ = printed(capsys, "eval", run, "--format", form)
        found, _ = printed(capsys, "predict", run, picture, "--format", form)
        if form == "json":
            assert json.loads(out)["classes"] == [f"a{EVIL}", f"b{EVIL}"]
            assert json.loads(found)["image"] == str(picture)
        else:
            assert r"a\x1b[2J" in out
            assert r"a\x1b[2J" in found
    printed(capsys, "predict", run, place / "data" / f"a{EVIL}" / f"x.{EVIL}", status=1)
    printed(capsys, "predict", run, place / EVIL, status=1)
    printed(capsys, "predict", place / EVIL, picture, status=2)
    printed(capsys, "eval", run, "--data", place / EVIL, status=2)
    with pytest.raises(cnndsl.train.TrainError) as wrong:
        cnndsl.load(place / f"no{EVIL}")
    assert SHOWN in str(wrong.value)


@pytest.mark.parametrize("name", [f"{EVIL}.cnn", "wrong.cnn", f"no{EVIL}.cnn"])
def test_checking(place, capsys, name):
    status = 0 if name == f"{EVIL}.cnn" else 1
    for form in ("text", "json", "github", "sarif"):
        printed(capsys, "check", place / name, "--format", form, status=status)
    printed(capsys, "check", place / name, "--annotate", "--color", "never", status=status)
    printed(capsys, "fmt", "--check", place / name, status=status)
    copy = place / f"copy{EVIL}.cnn"
    copy.write_text("input 4 x 4 x 1\nconv 2, 3x3\nconv 2 9x9\n")
    printed(capsys, "check", "--fix", copy)
    copy.write_text(TEXT.replace("conv 2", "conv  2"))
    _, err = printed(capsys, "fmt", copy)
    assert SHOWN in err


def test_writing(place, run, capsys):
    file = place / f"{EVIL}.cnn"
    plain = "compile", file, "--emit", "graph"
    printed(capsys, *plain, "-o", place / f"{EVIL}.py")
    printed(capsys, *plain, "-o", place / EVIL / EVIL, status=74)
    printed(capsys, *plain, "-o", file, status=2)
    printed(capsys, "export", run, "-o", place / f"{EVIL}.onnx")
    printed(capsys, "export", run, "-o", place / f"{EVIL}.py", status=2)
    weights = ["weights", file, "--from", place / f"{EVIL}.safetensors"]
    printed(capsys, *weights, status=1)
    printed(capsys, "bench", place / EVIL, status=1)
    for words in (
        [EVIL], ["--" + EVIL],
        ["check", f"--{EVIL}".replace(" ", "")], ["check", "x", "--set", EVIL],
        ["check", "x", "--format", EVIL], ["explain", EVIL], ["train", file, "--lr", EVIL],
        ["bench", file, "--device", EVIL],
    ):  # fmt: skip
        printed(capsys, *words, status=2)
    # The last: this process cannot go on with interpreted kernels.
    printed(capsys, "compile", file, "--target", EVIL, "--stats", status=1)


@pytest.mark.parametrize("name", ["plain", "it's", EVIL, f"a'{EVIL}\\n5", "größe 犬"])
def test_a_command_to_copy_names_the_same_file(name):
    text = training.quoted(Path(name))
    assert text.isprintable()
    if name.isprintable():
        assert shlex.split(text) == [name]
    shell = subprocess.run(
        ["bash", "-c", f"printf %s {text}"], capture_output=True, check=True,
        env={"LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert shell.stdout == name.encode(errors="surrogateescape")
