"""`cnndsl train`, `eval` and `predict` on a small network, from the file to the answer."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import save_file

import cnndsl
from cnndsl.cli.eval import show
from cnndsl.cli.main import main
from cnndsl.train import Recipe, Scores
from cnndsl.train.sets import read_digits

NETWORK = """\
model Small

input 8 x 8 x 1
conv 8 3x3; relu
pool max 2
flatten
fc 10
softmax
"""


@pytest.fixture(scope="module", autouse=True)
def on_the_cpu():
    """Train with PyTorch's operators: Triton's interpreter would take minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cnndsl.rt.module.INTERPRETED", False)
        yield


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("a network") / "small.cnn"
    path.write_text(NETWORK)
    return path


@pytest.fixture(scope="module")
def run(network: Path) -> Path:
    """A run of two epochs."""
    path = network.with_name("run")
    assert main(train(network, path)) == 0
    return path


def train(network: Path, out: Path, *more: str) -> list[str]:
    command = ["train", str(network), "--data", "digits", "--out", str(out)]
    return [*command, "--epochs", "2", "--lr", "0.02", "--device", "cpu", *more]


def test_a_run_keeps_the_files_that_its_network_uses(tmp_path, capsys):
    """It goes on, is measured and loaded where the files are gone, and where others have come."""
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "parts").mkdir(parents=True)
    main_text = 'model Small\nuse "parts/a.cnn"\nuse "source.cnn"\ninput 8 x 8 x 1\na 4\nend\n'
    texts = {
        "small.cnn": main_text,
        "parts/a.cnn": 'use "b.cnn"\nblock a(n) { b n }\n',
        "parts/b.cnn": "block b(n) { conv n 3x3; relu; pool max 2 }\n",
        "source.cnn": "block end() { flatten; fc 10; softmax }\n",
    }
    for name, text in texts.items():
        (here / name).write_text(text)
    assert main(train(here / "small.cnn", here / "run")) == 0
    files = [p for p in (here / "run" / "used").rglob("*") if p.is_file()]
    kept = {str(p.relative_to(here / "run" / "used")): p.read_text() for p in files}
    assert kept == {name: text for name, text in texts.items() if name != "small.cnn"}
    assert (here / "run" / "source.cnn").read_text() == main_text

    (here / "run").rename(there)
    shutil.rmtree(here)
    config = json.loads((there / "config.json").read_text())
    config["recipe"]["epochs"] = 3
    (there / "config.json").write_text(json.dumps(config))
    capsys.readouterr()
    assert main(["train", "--resume", str(there)]) == 0
    assert "epoch 3/3" in capsys.readouterr().out
    assert main(["eval", str(there)]) == 0
    assert cnndsl.load(there).conv1.weight.shape == (4, 1, 3, 3)
    (there / "used" / "parts" / "b.cnn").write_text('use "../../config.json"\n')
    assert main(["eval", str(there)]) == 1
    assert "error[E216]: this path leads out of the folder" in capsys.readouterr().err
    shutil.rmtree(there / "used")
    assert main(["eval", str(there)]) == 1
    assert "error[E216]: there is no file `parts/a.cnn`" in capsys.readouterr().err


def test_training_shows_each_epoch_and_the_result(network, tmp_path, capsys):
    assert main(train(network, tmp_path / "run")) == 0
    out, err = capsys.readouterr()
    assert err == ""
    first, counts, *epochs, empty, result, where = out.splitlines()
    assert first == "Small: 810 parameters; digits: 1,438 images to train on, 359 to test"
    assert counts.startswith("images of each class: 0 142, 1 146, ")
    assert [line[:9] for line in epochs] == ["epoch 1/2", "epoch 2/2"]
    assert empty == ""
    assert result.startswith("test accuracy ")
    assert float(result.split()[2].rstrip("%")) > 85
    assert where.startswith(f"the run is in {tmp_path / 'run'}")


def test_the_run_folder_has_the_source_and_the_emitted_module(run):
    assert (run / "source.cnn").read_text() == NETWORK
    emitted = (run / "model.py").read_text()
    assert "class Small(" in emitted
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_value_that_was_set_is_set_again(network, tmp_path, capsys):
    path = tmp_path / "free.cnn"
    path.write_text(NETWORK.replace("input 8 x 8 x 1", "input H x 8 x 1"))
    assert main(train(path, tmp_path / "run", "--set", "H=8", "--epochs", "1")) == 0
    assert main(["eval", str(tmp_path / "run")]) == 0
    assert "accuracy" in capsys.readouterr().out


def test_eval_agrees_with_training(run, capsys):
    assert main(["eval", str(run), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert found["accuracy"] == last["test_accuracy"]
    assert found["loss"] == pytest.approx(last["test_loss"])
    assert (found["count"], found["step"]) == (359, 46)
    assert sum(map(sum, found["confusion"])) == 359
    assert sum(found["confusion"][i][i] for i in range(10)) == found["right"]


def test_the_confusion_matrix():
    scores = Scores(0.25, ((8, 2, 0), (0, 0, 0), (0, 0, 10)))
    assert show(scores, ("cat", "ox", "mouse")) == (
        "accuracy 90.00% (18 of 20 images), loss 0.2500\n"
        "\n"
        "   is │ taken for\n"
        "      │    cat     ox  mouse    right\n"
        "──────┼──────────────────────────────\n"
        "  cat │      8      2      ·    80.0%\n"
        "   ox │      ·      ·      ·        –\n"
        "mouse │      ·      ·     10   100.0%"
    )


def test_of_many_classes_only_the_mistakes_are_listed():
    confusion = [[10 if i == j else 0 for j in range(30)] for i in range(30)]
    names = tuple(f"c{i}" for i in range(30))
    assert "no mistakes" in show(Scores(0.0, tuple(map(tuple, confusion))), names)
    confusion[3][4], confusion[5][6] = 2, 7
    shown = show(Scores(0.0, tuple(map(tuple, confusion))), names).splitlines()
    assert shown[-2:] == ["       7  c5 taken for c6", "       2  c3 taken for c4"]


def test_predict_names_classes_and_says_what_was_converted(run, tmp_path, capsys):
    images, labels = read_digits().train
    first = int((labels == 0).nonzero()[0])
    pixels = bytes(int(v * 255) for v in images[first].flatten())
    image = Image.frombytes("L", (8, 8), pixels)
    image.save(tmp_path / "zero.png")
    image.resize((40, 24)).convert("RGB").save(tmp_path / "large.png")
    command = ["predict", str(run), str(tmp_path / "zero.png"), str(tmp_path / "large.png")]
    assert main([*command, "--top", "2"]) == 0
    zero, large = capsys.readouterr().out.splitlines()
    assert zero.startswith(f"{tmp_path / 'zero.png'}: 0 ")
    assert zero.count("%") == 2
    assert large.endswith("(made grey, resized from 24x40 to 8x8)")
    assert main([*command[:3], "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["classes"][0]["class"] == "0"
    assert sum(c["probability"] for c in found["classes"]) == pytest.approx(1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twelve of each digit as files, in a folder for each class."""
    folder = tmp_path_factory.mktemp("pictures")
    images, labels = read_digits().train
    for label in range(10):
        (folder / str(label)).mkdir()
        for number, image in enumerate(images[labels == label][:12]):
            pixels = bytes(round(float(v) * 255) for v in image.flatten())
            Image.frombytes("L", (8, 8), pixels).save(folder / str(label) / f"{number}.png")
    return folder


def test_a_network_trained_on_the_digits_knows_them_from_files(run, pictures, capsys):
    assert main(["eval", str(run), "--data", str(pictures), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["count"] == 120
    assert found["accuracy"] > 0.85


def test_a_folder_of_pictures_is_trained_on_and_its_test_part_judged(
    network, pictures, tmp_path, capsys
):
    run = tmp_path / "run"
    command = ["train", str(network), "--data", str(pictures), "--out", str(run), "--epochs", "1"]
    assert main(command) == 0
    assert f"{pictures}: 100 images to train on, 20 to test" in capsys.readouterr().out
    assert main(["eval", str(run), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 20


def test_a_class_that_was_not_trained_is_told(run, tmp_path, capsys):
    (tmp_path / "cat").mkdir()
    assert main(["eval", str(run), "--data", str(tmp_path)]) == 1
    assert "cat` is none of the classes that are trained" in capsys.readouterr().err


# ── mistakes ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        (["--data", "digts"], 2, "did you mean `digits`?"),
        (["--epochs", "0"], 2, "epochs is 0; it must be at least 1"),
        (["--epochs", "few"], 2, "`--epochs` takes a whole number, and `few` is none"),
        (["--device", "toaster"], 2, "the device `toaster` cannot be used"),
        (["--dtype", "int8"], 2, "no dtype is called int8"),
        (["--optimizer", "adam"], 2, "no optimizer is called adam"),
        (["--nesterov"], 2, "nesterov is a kind of sgd's momentum"),
        (["--accumulate", "65"], 2, "cannot be computed in 65 parts"),
        (["--set", "width"], 2, "not of the form NAME=VALUE"),
    ],
)
def test_wrong_usage(network, tmp_path, capsys, change, status, said):
    assert main(train(network, tmp_path / "run", *change)) == status
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


ENDS = {
    "conv 10 3x3": "add `globalpool",
    "conv 10 3x3\nglobalpool avg": "add `flatten`",
    "flatten\nfc 1": "one number for each image",
    "flatten\nfc 3": "tells 3 classes apart, but the data has 10",
    "flatten\nfc 10\nsigmoid": "10 independent questions",
}


@pytest.mark.parametrize("end", list(ENDS))
def test_an_end_that_does_not_fit_is_refused_by_each_command(end, pictures, tmp_path, capsys):
    (tmp_path / "n.cnn").write_text(f"input 8 x 8 x 1\n{end}\n")
    model = cnndsl.compile(tmp_path / "n.cnn")
    weights = tmp_path / "w.safetensors"
    save_file(model.state_dict(), weights)
    used = [str(tmp_path / "n.cnn"), "--weights", str(weights), "--device", "cpu"]
    image = str(next(pictures.rglob("*.png")))
    said = ENDS[end].replace("add `globalpool", "one number for each class: `globalpool")
    for command in (["train", *used, "--data", "digits"], ["eval", *used, "--data", "digits"]):
        out = ["--out", str(tmp_path / "run")] if command[0] == "train" else []
        assert main([*command, *out]) == 1
        assert said in capsys.readouterr().err
    status = main(["predict", used[0], image, *used[1:]])
    out, err = capsys.readouterr()
    if "3 classes" in said:
        assert status == 0
        shares = [float(word.rstrip("%,")) for word in out.split() if "%" in word]
        assert sum(shares) == pytest.approx(100, abs=0.2)
    elif "sigmoid" in end:
        assert status == 0
        assert "(each by itself)" in out
    else:
        assert status == 1
        assert said in err


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_a_device_is_not_waited_for(run, tmp_path, capsys, kind):
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    path = path if kind == "pipe" else "/dev/zero"
    for command in (
        ["train", path, "--data", "digits"],
        ["train", str(run / "source.cnn"), "--data", path],
        ["train", str(run / "source.cnn"), "--data", "digits", "--weights", path],
        ["train", "--resume", path],
        ["eval", path],
        ["eval", str(run), "--data", path],
        ["predict", path, path],
        ["predict", str(run), path],
        ["predict", str(run / "source.cnn"), path, "--weights", path],
    ):
        out = ["--out", str(tmp_path / "new")] if command[:2] == ["train", path] else []
        assert main([*command, *out]) in (1, 2), command
        assert "bug in cnndsl" not in capsys.readouterr().err


def test_what_is_missing_is_asked_for(network, capsys):
    assert main(["train"]) == 2
    assert "which network?" in capsys.readouterr().err
    assert main(["train", str(network)]) == 2
    assert "which images? `--data` is missing" in capsys.readouterr().err


def test_images_of_another_size_are_told_with_both_sizes(tmp_path, capsys):
    lenet = Path(__file__).parent.parent.parent / "examples" / "lenet.cnn"
    assert main(train(lenet, tmp_path / "run")) == 1
    assert capsys.readouterr().err == (
        "error: the network takes images of 28 x 28 x 1, but the data has 8 x 8 x 1\n"
        "  = help: bring the images to its size: `--resize` (from Python: `resize=True`)\n"
        "  = help: let the network begin with `input 8 x 8 x 1`\n"
    )


def test_images_are_brought_to_what_the_network_takes(tmp_path, capsys):
    path = tmp_path / "large.cnn"
    path.write_text(NETWORK.replace("8 x 8 x 1", "12 x 10 x 3"))
    run = tmp_path / "run"
    assert main(train(path, run)) == 1
    assert "make them RGB: `--resize --recolor`" in capsys.readouterr().err
    options = ("--resize", "--recolor", "--epochs", "1", "--flip", "--crop", "1")
    assert main(train(path, run, *options)) == 0
    assert main(["train", "--resume", str(run)]) == 0
    assert main(["train", "--resume", str(run), "--resize"]) == 2
    assert "`--resize` cannot be given" in capsys.readouterr().err
    assert main(["eval", str(run), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert found["accuracy"] == last["test_accuracy"]


def test_images_of_several_sizes_are_resized_one_by_one(network, tmp_path, capsys):
    folder, run = tmp_path / "shapes", tmp_path / "run"
    for name, color in (("dark", 0), ("light", 255)):
        (folder / name).mkdir(parents=True)
        for number in range(5):
            image = Image.new("L", (8 + number, 20), color)
            image.save(folder / name / f"{number}.png")
    ten = tmp_path / "two.cnn"
    ten.write_text(NETWORK.replace("fc 10", "fc 2"))
    command = ["train", str(ten), "--data", str(folder), "--out", str(run), "--epochs", "1"]
    assert main(command) == 1
    assert "`--resize` brings all images to the size" in capsys.readouterr().err
    assert main([*command, "--resize"]) == 0
    assert main(["eval", str(run), "--data", str(folder), "--format", "json"]) == 0


def test_a_size_that_is_free_cannot_be_resized_to(network, tmp_path, capsys):
    path = tmp_path / "free.cnn"
    path.write_text(
        NETWORK.replace("input 8 x 8 x 1", "input H x W x 1").replace(
            "flatten", "globalpool avg; flatten"
        )
    )
    assert main(train(path, tmp_path / "run", "--resize")) == 2
    assert "--set H=32 --set W=32" in capsys.readouterr().err


def test_a_training_that_gets_no_better_ends_and_says_what_is_used(network, tmp_path, capsys):
    run = tmp_path / "run"
    options = ("--epochs", "50", "--patience", "1", "--schedule", "constant", "--lr", "0.3")
    assert main(train(network, run, *options)) == 0
    out = capsys.readouterr().out
    found = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(found) < 50
    best = min(found, key=lambda metrics: metrics["test_loss"])
    assert best["epoch"] == len(found) - 1
    assert f"it got no better after epoch {best['epoch']}, whose network is kept" in out
    assert f"test accuracy {best['test_accuracy']:.2%}" in out
    assert main(["eval", str(run), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == best["step"]
    assert main(["train", "--resume", str(run)]) == 0
    assert "nothing is left to do in" in capsys.readouterr().out


def test_the_help_has_each_setting_with_its_default(capsys):
    assert main(["train", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for name, default in zip(Recipe.__fields__, Recipe().values(), strict=True):
        entry = out.partition(f" --{name.replace(chr(95), chr(45))} ")[2].partition(" --")[0]
        assert entry, name
        if not isinstance(default, bool) and default is not None:
            assert (
                f"({default:g})" in entry if isinstance(default, float) else f"({default})" in entry
            )


def test_mistakes_in_the_network_are_shown_as_check_shows_them(tmp_path, capsys):
    path = tmp_path / "bad.cnn"
    path.write_text(NETWORK.replace("pool max 2", "pool max 9"))
    assert main(train(path, tmp_path / "run")) == 1
    err = capsys.readouterr().err
    assert "error[E3" in err
    assert "pool max 9" in err
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_overwritten(network, run, capsys):
    assert main(train(network, run)) == 2
    assert f"--resume {run}" in capsys.readouterr().err


def test_a_resumed_run_keeps_its_settings(run, capsys):
    assert main(["train", "--resume", str(run), "--lr", "1"]) == 2
    assert "`--lr` cannot be given" in capsys.readouterr().err
    assert main(["train", "--resume", str(run)]) == 0
    assert "nothing is left to do" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["eval"], ["predict", "x.png"], ["train", "--resume"]])
def test_a_folder_that_is_no_run(tmp_path, capsys, command):
    name, *rest = command
    arguments = [name, *rest, str(tmp_path)] if name == "train" else [name, str(tmp_path), *rest]
    assert main(arguments) == 2
    assert f"there is no run in `{tmp_path}`" in capsys.readouterr().err


def test_an_image_that_is_not_there(run, capsys):
    assert main(["predict", str(run), "nowhere.png"]) == 1
    assert "there is no image `nowhere.png`" in capsys.readouterr().err


# ── interruptions ────────────────────────────────────────────────────────────────────────────────


def test_ctrl_c_saves_and_resume_goes_on(network, tmp_path):
    run = tmp_path / "my run"
    command = [sys.executable, "-m", "cnndsl"]
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    process = subprocess.Popen(
        [*command, *train(network, run, "--epochs", "15")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (run / "metrics.jsonl").is_file() or not (run / "metrics.jsonl").read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == f"stopped and saved; go on: cnndsl train --resume '{run}'\n"
    ended = subprocess.run(
        [*command, "train", "--resume", str(run)], env=environment, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(text)["epoch"] for text in lines] == list(range(1, 16))
