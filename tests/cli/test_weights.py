"""`cnndsl weights`, and what takes its result: `train`, `eval`, `predict`, `cnndsl.load`."""

import json
import os
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
from tests.examples.oracle import models

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


def emit_once(graph, source, *given, **how):
    """Writing a module takes a second, and all tests here ask for the same few."""
    key = dump(graph), source.text, given, *how.items()
    if key not in KNOWN:
        KNOWN[key] = emit(graph, source, *given, **how)
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


# In alphabetical order, which is all that a file without metadata has, b comes before z.
OTHERS = {"first": "stem", "norm": "bn", "second": "z", "third": "b", "head": "out"}
NUMBERED = {"first": "f.0", "norm": "f.1", "second": "f.9", "third": "f.10", "head": "f.12"}


def fit(*more, state="other.safetensors"):
    return main(["weights", "tiny.cnn", "--from", state, "-o", "w.safetensors", *more])


def loaded():
    return cnndsl.load("tiny.cnn", weights="w.safetensors")


def test_by_order_and_shape(tiny, capsys):
    state = renamed(tiny, OTHERS)
    safetensors.torch.save_file(state, "other.safetensors", {"order": "\n".join(state)})
    assert fit() == 0
    out = capsys.readouterr().out
    assert "     0 by name\n    13 by order and shape\n" in out
    assert "first <- stem   4 x 3 x 3 x 3" in out
    assert "second <- z " in out
    assert same(loaded(), tiny)


@pytest.mark.parametrize("names", [OTHERS, NUMBERED])
def test_two_layers_of_a_shape_are_not_guessed_without_an_order(tiny, capsys, names):
    state = renamed(tiny, names)
    safetensors.torch.save_file(state, "other.safetensors")
    assert fit() == 1
    out, err = capsys.readouterr()
    assert f"not  certain: second, third of the network and {names['third']}" in out or (
        f"not  certain: second, third of the network and {names['second']}" in out
    )
    assert "it is not certain which layers belong together" in err
    assert "--order names" in err
    assert not Path("w.safetensors").exists()
    Path("names.txt").write_text("\n".join(state))
    assert fit("--order", "names.txt") == 0
    assert same(loaded(), tiny)
    assert fit("--order", "names") == 0
    assert same(loaded(), tiny) == (names is NUMBERED)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["x"], "the weights have no `x`"),
        ([], "the weights have no ``"),
        (["stem.weight"], "it lacks `b.bias`"),
        (None, "there is no file `names.txt`"),
    ],
)
def test_an_order_that_is_not_that_of_the_weights(tiny, capsys, lines, message):
    safetensors.torch.save_file(renamed(tiny, OTHERS), "other.safetensors")
    if lines is not None:
        Path("names.txt").write_text("\n".join(lines))
    assert fit("--order", "names.txt") in (1, 2)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "prefix",
    ["module.", "model.", "module.module.", "_orig_mod.", "backbone.", "net.", "model.net.",
     "ema_model.", "module._orig_mod.model."],
)  # fmt: skip
@pytest.mark.parametrize("record", ["n_averaged", "total_ops"])
def test_what_a_wrapper_put_before_the_names(tiny, capsys, prefix, record):
    """One key without the prefix, as AveragedModel has it, made it go unseen."""
    state = {prefix + name: tensor for name, tensor in tiny.state_dict().items()}
    safetensors.torch.save_file(state | {record: torch.tensor(5)}, "other.safetensors")
    assert fit() == 0
    out = capsys.readouterr().out
    assert f"    13 by name, without the file's prefix `{prefix}`\n" in out
    assert f"left out, for no layer needs it: {record}" in out
    assert same(loaded(), tiny)


def test_the_state_of_an_averaged_model(tiny):
    average = torch.optim.swa_utils.AveragedModel(tiny)
    safetensors.torch.save_file(average.state_dict(), "other.safetensors")
    assert fit() == 0
    assert same(loaded(), tiny)


def test_of_two_sets_of_weights_the_user_says_which(tiny, capsys):
    state = {f"model.{name}": tensor for name, tensor in tiny.state_dict().items()}
    state |= {f"ema_model.{name}": tensor + 1 for name, tensor in tiny.state_dict().items()}
    safetensors.torch.save_file(state, "other.safetensors")
    assert fit() == 1
    err = capsys.readouterr().err
    assert "more than once: below `ema_model.` and `model.`" in err
    for given in ("--prefix=model", "--prefix=model."):
        assert fit(given) == 0
        assert same(loaded(), tiny)
    assert fit("--prefix=ema_model") == 0
    assert torch.equal(loaded().head.weight, tiny.head.weight + 1)
    assert fit("--prefix=mod") == 2
    assert "they begin with: ema_model, model" in capsys.readouterr().err


def test_names_that_are_shifted_by_one_are_not_taken_for_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(load, "emit", emit_once)
    monkeypatch.chdir(tmp_path)
    layers = "".join(f"conv 3 1x1 as conv{n}; relu\n" for n in (1, 2, 3))
    Path("tiny.cnn").write_text(f"input 4 x 4 x 3\n{layers}globalpool avg; flatten\n")
    model = cnndsl.compile("tiny.cnn")
    state = {
        name.replace(f"conv{n}", f"conv{n - 1}"): tensor
        for name, tensor in model.state_dict().items()
        for n in (1, 2, 3)
        if f"conv{n}." in name
    }
    for metadata in (None, {"order": "\n".join(state)}):
        safetensors.torch.save_file(state, "other.safetensors", metadata)
        assert fit() == 1
        assert "not  certain: conv3 <- conv0 fits in shape" in capsys.readouterr().out


CONVNEXT = """\
input 16 x 16 x 3
conv 8 4x4 stride=4 as features.0.0
layernorm eps=1e-6 as features.0.1
repeat 2 as features.1 {
    add {
        conv 8 7x7 pad=3 groups=8 as block.0
        layernorm eps=1e-6 as block.2
        conv 32 1x1 as block.3; gelu
        conv 8 1x1 as block.5
        scale init=1e-6 as layer_scale
    } { skip }
}
globalpool avg
layernorm eps=1e-6 as classifier.0
flatten
fc 10 as classifier.2
"""


def test_convnext_from_torchvision(tmp_path, monkeypatch, capsys):
    """Its 1x1 convolutions are fully connected there, and its factors (C, 1, 1)."""
    convnext = models.convnext
    monkeypatch.chdir(tmp_path)
    Path("tiny.cnn").write_text(CONVNEXT)
    block = convnext.CNBlockConfig(8, None, 2)
    theirs = convnext.ConvNeXt([block], num_classes=10, layer_scale=0.5).eval()
    state = {name: t.uniform_(-1, 1) for name, t in theirs.state_dict().items()}
    safetensors.torch.save_file(state, "other.safetensors")
    assert fit() == 0
    out = capsys.readouterr().out
    assert "    26 by name\n     6 of them under another shape" in out
    assert "features.1.0.block.3.weight 32 x 8 x 1 x 1 <- features.1.0.block.3.weight 32 x 8" in out
    assert "features.1.0.layer_scale.weight 8 <- features.1.0.layer_scale 8 x 1 x 1" in out
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(loaded()(x), theirs(x), rtol=1e-4, atol=1e-4)


# ── numbers with which nothing can be computed ───────────────────────────────────────────────────

BAD = [
    ("first.weight", lambda t: t.view(-1)[:3].fill_(float("nan")), "3 NaN of 108 values"),
    ("second.bias", lambda t: t[1:2].fill_(float("-inf")), "1 infinite of 4 values"),
    ("norm.running_mean", lambda t: t.fill_(float("inf")), "4 infinite of 4 values"),
    ("norm.running_var", lambda t: t[:2].neg_(), "2 negative variances of 4 values"),
]


@pytest.mark.parametrize(("name", "spoil", "message"), BAD)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_bad_values_are_refused_wherever_weights_are_read(
    tiny, capsys, name, spoil, message, dtype
):
    state = {n: t.to(dtype) if t.is_floating_point() else t for n, t in tiny.state_dict().items()}
    spoil(state[name])
    safetensors.torch.save_file(state, "other.safetensors")
    message = f"`{name}` has {message}"
    with pytest.raises(cnndsl.WeightsError, match=message):
        cnndsl.load("tiny.cnn", weights="other.safetensors")
    images("data")
    weights = ["--weights", "other.safetensors"]
    for command in (
        ["weights", "tiny.cnn", "--from", "other.safetensors"],
        ["train", "tiny.cnn", "--data", "data", *weights, "--epochs", "1"],
        ["eval", "tiny.cnn", "--data", "data", *weights],
        ["predict", "tiny.cnn", *weights, "data/dark/0.png"],
        ["export", "tiny.cnn", *weights, "-o", "out.onnx"],
    ):
        assert main(command) == 1
        assert message in capsys.readouterr().err


def test_a_double_that_a_float_cannot_hold_is_refused(tiny, capsys):
    state = {n: t.double() if t.is_floating_point() else t for n, t in tiny.state_dict().items()}
    safetensors.torch.save_file(state, "fine.safetensors")
    assert fit(state="fine.safetensors") == 0
    assert same(loaded(), tiny)
    state["head.bias"][1] = 1e39
    safetensors.torch.save_file(state, "other.safetensors")
    assert fit() == 1
    assert "`head.bias` has 1 too large for float32 of 2 values" in capsys.readouterr().err
    with pytest.raises(cnndsl.WeightsError, match="too large for float32"):
        cnndsl.load("tiny.cnn", weights="other.safetensors")


@pytest.mark.parametrize(
    ("dtype", "word"),
    [
        (torch.int32, "integers"),
        (torch.uint8, "integers"),
        (torch.bool, "booleans"),
        (torch.complex64, "complex numbers"),
        (torch.float8_e4m3fn, "F8_E4M3, which needs scales"),
    ],
)
def test_tensors_that_are_no_floats_are_no_weights(tiny, capsys, dtype, word):
    state = tiny.state_dict() | {"head.weight": torch.ones(2, 4).to(dtype)}
    safetensors.torch.save_file(state, "other.safetensors")
    assert fit() == 1
    assert f"`head.weight`: the network has 2 x 4, the file 2 x 4 ({word})" in (
        capsys.readouterr().out
    )
    with pytest.raises(cnndsl.WeightsError, match=word.replace("_", ".")):
        cnndsl.load("tiny.cnn", weights="other.safetensors")


# ── files that are none, and names that a terminal would obey ────────────────────────────────────


def spoilt(kind):
    """A file of this kind, called `bad`."""
    whole = Path("own.safetensors").read_bytes()
    content = {
        "empty": b"",
        "short": whole[:5],
        "cut in the header": whole[:100],
        "cut in the data": whole[:-7],
        "huge header": (10**15).to_bytes(8, "little") + b"{}",
        "zeros": bytes(4096),
        "not JSON": (4).to_bytes(8, "little") + b"nope",
        "list": (2).to_bytes(8, "little") + b"[]",
    }
    match kind:
        case "pipe":
            os.mkfifo("bad")
        case "folder":
            Path("bad").mkdir()
        case "device":
            Path("bad").symlink_to("/dev/zero")
        case "nothing":
            pass
        case _:
            Path("bad").write_bytes(content[kind])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("pipe", "`bad` is a device or a pipe"),
        ("device", "`bad` is a device or a pipe"),
        ("folder", "`bad` is a folder"),
        ("nothing", "there is no file `bad`"),
        ("empty", "`bad` is empty"),
        ("short", "`bad` is not a whole safetensors file"),
        ("cut in the header", "`bad` is not a whole safetensors file"),
        ("cut in the data", "`bad` is not a whole safetensors file"),
        ("huge header", "`bad` is not a whole safetensors file"),
        ("zeros", "`bad` is not a whole safetensors file"),
        ("not JSON", "`bad` is not a whole safetensors file"),
        ("list", "`bad` is not a whole safetensors file"),
    ],
)
def test_what_is_no_file_of_weights_is_refused_by_each_command(tiny, capsys, kind, message):
    spoilt(kind)
    images("data")
    for command in (
        ["weights", "tiny.cnn", "--from", "bad"],
        ["export", "tiny.cnn", "--weights", "bad", "-o", "out.onnx"],
        ["predict", "tiny.cnn", "--weights", "bad", "data/dark/0.png"],
    ):
        assert main(command) == 1
        assert message in capsys.readouterr().err
    with pytest.raises(cnndsl.WeightsError, match=message):
        cnndsl.load("tiny.cnn", weights="bad")


def test_names_in_a_file_reach_no_terminal_as_they_are(tiny, capsys):
    evil = "\x1b[2J\x9b31m\u202eevil\nerror: forged"
    state = tiny.state_dict()
    state = {n: t for n, t in state.items() if not n.startswith("head")} | {
        f"{evil}.weight": torch.ones(2, 4),
        f"{evil}.bias": torch.ones(2),
        f"{evil}2.weight": torch.ones(3),
        "head.weight": torch.ones(1),
    }
    safetensors.torch.save_file(state, "other.safetensors")
    shown = r"\x1b[2J\x9b31m\u202eevil\nerror: forged"
    assert fit("--fresh", "head") == 0
    out, err = capsys.readouterr()
    assert shown in out
    assert fit("--prefix", evil) == 1
    assert main(["weights", "tiny.cnn", "--from", evil]) == 1
    with pytest.raises(cnndsl.WeightsError) as caught:
        cnndsl.load("tiny.cnn", weights="other.safetensors")
    more, wrong = capsys.readouterr()
    for text in (out, err, more, wrong, str(caught.value)):
        assert all(c.isprintable() or c == "\n" for c in text)
        assert "\nerror: forged" not in text
    assert shown in wrong
    assert shown in str(caught.value)


def test_somebodys_own_weights_stay_and_ours_are_replaced(tiny, capsys):
    mine = Path("own.safetensors").read_bytes()
    Path("w.safetensors").write_bytes(mine)
    assert fit(state="own.safetensors") == 2
    assert "cnndsl did not write it" in capsys.readouterr().err
    assert Path("w.safetensors").read_bytes() == mine
    Path("w.safetensors").chmod(0o600)
    for more in (["--force"], []):
        assert fit(*more, state="own.safetensors") == 0
    assert Path("w.safetensors").stat().st_mode & 0o777 == 0o600
    Path("link").symlink_to("w.safetensors")
    assert main(["weights", "tiny.cnn", "--from", "own.safetensors", "-o", "link"]) == 0
    assert Path("link").is_symlink()
    assert same(loaded(), tiny)


def test_weights_into_standard_output_are_alone_there(tiny, capsysbinary):
    for name in ("-", "/dev/stdout"):
        assert main(["weights", "tiny.cnn", "--from", "own.safetensors", "-o", name]) == 0
        out, err = capsysbinary.readouterr()
        assert len(safetensors.torch.load(out)) == 13
        assert b"13 by name" in err
    assert main(["weights", "tiny.cnn", "--from", "own.safetensors", "-o", "/dev/full"]) == 74
    assert b"No space left" in capsysbinary.readouterr().err


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
    assert "to let it begin fresh: `--fresh head`" in err
    assert not Path("out.safetensors").exists()
    assert main([*command, "--set", "classes=5", "--fresh", "head"]) == 0
    assert "2 keep fresh weights, as you say: head" in capsys.readouterr().out
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
        (["--from", "tiny.cnn"], 1, "`tiny.cnn` is not a whole safetensors file"),
        (["--from", "."], 1, "`.` is a folder"),
        ([], 2, "--from is missing"),
        (["--from", "own.safetensors", "--fresh", "x"], 1, "the model has no layer `x`"),
        (["--from", "own.safetensors", "--mean", "1,1,1"], 2, "need each other"),
        (["--from", "own.safetensors", "--mean", "1,a"], 2, "`1,a` is not a list of numbers"),
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
