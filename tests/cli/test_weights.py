"""`cnndsl weights`, and what takes its result: `train`, `eval`, `predict`, `cnndsl.load`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

import cnndsl
from cnndsl.cli.main import main
from cnndsl.emit.module import emit
from cnndsl.graph.text import dump
from cnndsl.runtime import load

TEXT = """\
model Tiny
param classes = 2

input 6 x 6 x 3
conv 4 3x3 as first; batchnorm as norm; relu
conv 4 1x1 as second; relu
conv 4 1x1 as third; relu
globalpool avg
flatten
fc classes as head
softmax
"""


KNOWN = {}


def emit_once(graph, source):
    """Writing a module takes a second, and all tests here ask for the same few."""
    key = dump(graph), source.text
    if key not in KNOWN:
        KNOWN[key] = emit(graph, source)
    return KNOWN[key]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The network, its state in a file of its own names, and the model that the state is from."""
    monkeypatch.setattr(load, "emit", emit_once)
    monkeypatch.chdir(tmp_path)
    Path("tiny.cnn").write_text(TEXT)
    torch.manual_seed(0)
    model = cnndsl.compile("tiny.cnn").eval()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 1)
    safetensors.torch.save_file(model.state_dict(), "own.safetensors")
    return model


def renamed(model, names):
    state = {}
    for name, tensor in model.state_dict().items():
        layer, leaf = name.split(".")
        state[f"{names[layer]}.{leaf}"] = tensor
    return state


def same(one, other):
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def images(folder):
    """Dark and bright ones."""
    for name, base in (("dark", 0), ("light", 155)):
        (Path(folder) / name).mkdir(parents=True)
        for number in range(6):
            noise = torch.randint(base, base + 100, (6, 6, 3), dtype=torch.uint8)
            Image.fromarray(noise.numpy()).save(Path(folder) / name / f"{number}.png")


def test_by_name(tiny, capsys):
    assert main(["weights", "tiny.cnn", "--from", "own.safetensors", "-o", "out.safetensors"]) == 0
    out = capsys.readouterr().out
    assert "Tiny from own.safetensors, which has 13 tensors\n    13 by name\n" in out
    assert out.endswith("wrote out.safetensors\n")
    assert same(cnndsl.load("tiny.cnn", weights="out.safetensors"), tiny)


def test_without_a_file_to_write_it_only_tells(tiny, capsys):
    assert main(["weights", "tiny.cnn", "--from", "own.safetensors"]) == 0
    assert "wrote" not in capsys.readouterr().out
    assert sorted(p.name for p in Path().iterdir()) == ["own.safetensors", "tiny.cnn"]


@pytest.mark.parametrize("told", [True, False])
def test_by_order_and_shape(tiny, capsys, told):
    # In alphabetical order, which is all that a file without metadata has, b comes before z.
    names = {"first": "stem", "norm": "bn", "second": "z", "third": "b", "head": "out"}
    state = renamed(tiny, names)
    metadata = {"order": "\n".join(state)} if told else None
    safetensors.torch.save_file(state, "other.safetensors", metadata)
    assert main(["weights", "tiny.cnn", "--from", "other.safetensors", "-o", "w.safetensors"]) == 0
    out = capsys.readouterr().out
    assert "     0 by name\n    13 by order and shape\n" in out
    assert "first <- stem   4 x 3 x 3 x 3" in out
    assert ("check these" in out) != told
    assert ("second <- z " in out) == told
    assert same(cnndsl.load("tiny.cnn", weights="w.safetensors"), tiny) == told


def test_types_are_those_of_the_network(tiny):
    half = {name: t.half() if t.is_floating_point() else t for name, t in tiny.state_dict().items()}
    safetensors.torch.save_file(half, "half.safetensors")
    assert main(["weights", "tiny.cnn", "--from", "half.safetensors", "-o", "w.safetensors"]) == 0
    state = safetensors.torch.load_file("w.safetensors")
    assert state["first.weight"].dtype == torch.float32
    assert torch.equal(state["first.weight"], half["first.weight"].float())


def test_what_did_not_fit_is_told_and_nothing_is_written(tiny, capsys):
    command = ["weights", "tiny.cnn", "--from", "own.safetensors", "-o", "out.safetensors"]
    assert main([*command, "--set", "classes=5"]) == 1
    out, err = capsys.readouterr()
    assert "not  `head.weight`: the network has 5 x 4, the file 2 x 4" in out
    assert "1 layer of the network got nothing" in err
    assert "to let it begin anew: `--fresh head`" in err
    assert not Path("out.safetensors").exists()
    assert main([*command, "--set", "classes=5", "--fresh", "head"]) == 0
    assert "2 begin anew, as you say: head" in capsys.readouterr().out
    kept = safetensors.torch.load_file("out.safetensors")
    assert "head.weight" not in kept
    model = cnndsl.load("tiny.cnn", weights="out.safetensors", fresh=["head"], classes=5)
    assert torch.equal(model.first.weight, tiny.first.weight)
    assert model.head.weight.shape == (5, 4)
    assert not model.training


def test_strangers_and_layers_that_are_lacking_are_told(tiny, capsys):
    state = {n: t for n, t in tiny.state_dict().items() if not n.startswith("second")}
    safetensors.torch.save_file(state | {"more.weight": torch.zeros(7)}, "s.safetensors")
    assert main(["weights", "tiny.cnn", "--from", "s.safetensors"]) == 1
    out, err = capsys.readouterr()
    assert "not  in the file: second\n" in out
    assert "not  in the network: more.weight\n" in out
    assert "--fresh second" in err


def test_a_pickle_is_not_read_but_its_conversion_is_shown(tiny, capsys):
    torch.save(tiny.state_dict(), "state.pth")
    assert main(["weights", "tiny.cnn", "--from", "state.pth"]) == 1
    err = capsys.readouterr().err
    assert "`state.pth` is a pickle, which can hold code that runs when it is read" in err
    code = err.split('python -c "')[1].split('"')[0]
    subprocess.run([sys.executable, "-c", code], check=True)
    assert main(["weights", "tiny.cnn", "--from", "state.safetensors"]) == 0
    assert "13 by name" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--from", "none.safetensors"], 1, "there is no file `none.safetensors`"),
        (["--from", "tiny.cnn"], 1, "`tiny.cnn` is no whole safetensors file"),
        (["--from", "."], 1, "`.` is a folder"),
        ([], 2, "--from is missing"),
        (["--from", "own.safetensors", "--fresh", "x"], 1, "the model has no layer `x`"),
        (["--from", "own.safetensors", "--mean", "1,1,1"], 2, "need each other"),
        (["--from", "own.safetensors", "--mean", "1,a"], 2, "`1,a` is no list of numbers"),
        (
            ["--from", "own.safetensors", "--mean", "1", "--deviation", "1"],
            1,
            "images of 3 channels",
        ),
        (
            ["--from", "own.safetensors", "--mean", "0,0,0", "--deviation", "1,1,0"],
            1,
            "deviations finite and above zero",
        ),
        (["--from", "own.safetensors", "-o", "own.safetensors"], 2, "what is read"),
        (["--from", "own.safetensors", "-o", "no/out.safetensors"], 74, "no"),
    ],
)
def test_mistakes(tiny, capsys, arguments, status, message):
    assert main(["weights", "tiny.cnn", *arguments]) == status
    assert message in capsys.readouterr().err


def test_train_begins_with_them(tiny, capsys):
    images("data")
    command = ["train", "tiny.cnn", "--data", "data", "--epochs", "1", "--lr", "1e-9"]
    assert main([*command, "--decay", "0", "--weights", "own.safetensors", "--out", "run"]) == 0
    model = cnndsl.load("run")
    assert model.classes == ("dark", "light")
    assert len(model.input_mean) == len(model.input_deviation) == 3
    torch.testing.assert_close(model.first.weight, tiny.first.weight, atol=1e-6, rtol=0)
    assert main([*command, "--weights", "own.safetensors", "--set", "classes=3"]) == 1
    assert "its `head.weight` is 2 x 4, where the model has 3 x 4" in capsys.readouterr().err
    assert main([*command, "--fresh", "head"]) == 2
    assert "without `--weights`" in capsys.readouterr().err
    assert main(["train", "--resume", "run", "--weights", "own.safetensors"]) == 2
    assert "`--weights` cannot be given" in capsys.readouterr().err


def test_eval_and_predict_take_them_and_how_images_were_scaled(tiny, capsys):
    images("data")
    scaling = ["--mean", "0.5,0.4,0.3", "--deviation", "0.3,0.2,0.1"]
    command = ["weights", "tiny.cnn", "--from", "own.safetensors", "-o", "w.safetensors"]
    assert main([*command, *scaling]) == 0
    x = torch.tensor(_pixels("data/dark/0.png")).permute(2, 0, 1)[None] / 255
    scaled = (x - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / torch.tensor([0.3, 0.2, 0.1])[
        :, None, None
    ]
    for file, wanted in (("own.safetensors", tiny(x)), ("w.safetensors", tiny(scaled))):
        capsys.readouterr()
        given = ["tiny.cnn", "--weights", file, "--format", "json"]
        assert main(["predict", *given, "data/dark/0.png"]) == 0
        out, err = capsys.readouterr()
        found = {c["class"]: c["probability"] for c in json.loads(out)["classes"]}
        assert [found["0"], found["1"]] == pytest.approx(wanted[0].tolist(), abs=1e-6)
        assert ("does not say how images were scaled" in err) == (file == "own.safetensors")
        assert main(["eval", *given, "--data", "data"]) == 0
        assert json.loads(capsys.readouterr().out)["count"] == 12
    model = cnndsl.load("tiny.cnn", weights="w.safetensors")
    assert model.input_mean == (0.5, 0.4, 0.3)
    assert model.input_deviation == (0.3, 0.2, 0.1)


def _pixels(path):
    import numpy as np

    with Image.open(path) as image:
        return np.asarray(image, dtype=np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny.cnn", "--data", "data"], "`tiny.cnn` is a file, which has no weights"),
        (["tiny.cnn", "--weights", "own.safetensors"], "which images?"),
    ],
)
def test_eval_says_what_it_lacks(tiny, capsys, arguments, message):
    assert main(["eval", *arguments]) == 2
    assert message in capsys.readouterr().err
