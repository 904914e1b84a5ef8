"""`cnndsl.load`: a trained model back, from its run folder or from a file and its weights."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

import cnndsl
import cnndsl.train as training
from cnndsl.cli.main import main
from cnndsl.train import checkpoint

TEXT = """\
model Small
input 8 x 8 x 1
conv 2 3x3; batchnorm as norm; relu
globalpool avg
flatten
fc 10
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run, and the model as it was at its end."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    training.seed_all(0)
    model = cnndsl.compile(source=TEXT)
    digits = training.load("digits")
    few = training.as_data((digits.train.images[:32], digits.train.labels[:32])).train
    data = digits.replace(train=few, test=None)
    recipe = training.Recipe(epochs=1, batch=16, device="cpu")
    training.train(model, data, out=out, recipe=recipe, origin=training.Origin(TEXT, (), ""))
    return out, model.eval(), data


def test_a_run_gives_its_model_back(run):
    out, model, data = run
    loaded = cnndsl.load(out)
    assert not loaded.training
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(loaded(x), model(x))
    assert loaded.classes == tuple("0123456789")
    assert (loaded.input_mean, loaded.input_deviation) == (data.scale.mean, data.scale.deviation)


def test_a_damaged_checkpoint_is_named(run):
    out, _, _ = run
    newest = sorted((out / "checkpoints").glob("step-*"))[-1]
    tensors = newest / "model.safetensors"
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:-1])
    with pytest.warns(UserWarning, match=r"passed over .*model\.safetensors does not fit"):
        cnndsl.load(out)
    tensors.write_bytes(whole)


def test_what_cannot_be_loaded(run, tmp_path):
    out, _, _ = run
    file = tmp_path / "small.cnn"
    file.write_text(TEXT)
    with pytest.raises(TypeError, match="its folder alone"):
        cnndsl.load(out, classes=3)
    with pytest.raises(TypeError, match=r"weights=…"):
        cnndsl.load(file)
    with pytest.raises(training.TrainError, match="no run folder and no file"):
        cnndsl.load(tmp_path / "nothing")
    with pytest.raises(training.TrainError, match="there is no run in"):
        cnndsl.load(tmp_path)
    with pytest.raises(cnndsl.WeightsError, match="there is no file"):
        cnndsl.load(file, weights=tmp_path / "nothing.safetensors")
    with pytest.raises(cnndsl.CheckError):
        cnndsl.load(out / "config.json", weights="x")


def test_a_run_from_python_needs_its_network(tmp_path):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    data = (torch.rand(8, 1, 2, 2), torch.arange(8) % 2)
    recipe = training.Recipe(epochs=1, device="cpu")
    training.train(model, training.as_data(data), out=tmp_path / "run", recipe=recipe)
    with pytest.raises(training.TrainError, match="was given from Python"):
        cnndsl.load(tmp_path / "run")


SPOILT = [
    ("fc1.bias", lambda t: t[1:3].fill_(float("nan")), "2 NaN of 10 values"),
    ("conv1.weight", lambda t: t.view(-1)[:1].fill_(float("inf")), "1 infinite of 18"),
    ("norm.running_var", lambda t: t.neg_(), "2 negative variances of 2 values"),
]


@pytest.mark.parametrize("which", ["all", "newest"])
@pytest.mark.parametrize(("name", "spoil", "message"), SPOILT)
def test_a_checkpoint_with_bad_values_is_not_used(
    run, tmp_path, monkeypatch, capsys, name, spoil, message, which
):
    """The hashes fit: somebody's own program has written it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run[0], "run")
    folders = sorted(Path("run/checkpoints").glob("step-*"))
    assert len(folders) == 2
    for folder in folders if which == "all" else folders[-1:]:
        rewrite(folder, "model.safetensors", name, spoil)
    message = rf"model\.safetensors: `{name}` has {message}"
    Image.new("L", (8, 8)).save("black.png")
    for command in (
        ["eval", "run"],
        ["predict", "run", "black.png"],
        ["export", "run", "-o", "out.onnx"],
        ["train", "--resume", "run", "--data", "digits"],
    ):
        if which == "newest" and command[0] == "train":
            continue
        assert main(command) == (1 if which == "all" else 0)
        assert re.search(message, capsys.readouterr().err)
    if which == "all":
        with pytest.raises(training.TrainError, match=f"no checkpoint that can be used.*{message}"):
            cnndsl.load("run")
    else:
        with pytest.warns(UserWarning, match=f"passed over .*{message}"):
            assert all(torch.isfinite(t).all() for t in cnndsl.load("run").state_dict().values())


def test_moments_that_are_nan_are_not_gone_on_with(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    newest = sorted((tmp_path / "run/checkpoints").glob("step-*"))[-1]
    first = next(iter(safetensors.torch.load_file(newest / "optimizer.safetensors")))
    rewrite(newest, "optimizer.safetensors", first, lambda t: t.fill_(float("inf")))
    assert checkpoint.load(tmp_path / "run").skipped == ()  # the square of a large gradient
    rewrite(newest, "optimizer.safetensors", first, lambda t: t.fill_(float("nan")))
    assert "NaN of" in checkpoint.load(tmp_path / "run").skipped[0]


def rewrite(folder, file, name, spoil):
    tensors = safetensors.torch.load_file(folder / file)
    spoil(tensors[name])
    safetensors.torch.save_file(tensors, folder / file)
    state = json.loads((folder / "state.json").read_text())
    state["sha256"][file] = hashlib.sha256((folder / file).read_bytes()).hexdigest()
    (folder / "state.json").write_text(json.dumps(state))
