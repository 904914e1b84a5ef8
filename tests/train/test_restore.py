"""`cnndsl.load`: a trained model back, from its run folder or from a file and its weights."""

import pytest
import torch

import cnndsl
import cnndsl.train as training

TEXT = """\
model Small
input 8 x 8 x 1
conv 2 3x3; relu
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
