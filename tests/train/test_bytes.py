"""Training a network that takes bytes: it is given bytes, and how to scale them."""

import json

import pytest
import torch

import cnndsl
import cnndsl.train as training
from cnndsl.cli.main import main
from cnndsl.train.data import as_bytes

TEXT = "model Small\ninput 8 x 8 x 1 u8\nconv 4 3x3; relu\nglobalpool avg\nflatten\nfc 10\n"
pytestmark = pytest.mark.usefixtures("uninterpreted")


@pytest.fixture(scope="module")
def uninterpreted():
    """As where TRITON_INTERPRET is not set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cnndsl.rt.module.INTERPRETED", False)
        yield


LITTLE = training.Recipe(epochs=1, batch=64, device="cpu")


def test_values_become_the_bytes_that_they_were():
    stored = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(as_bytes(stored / 255), stored)
    assert as_bytes(torch.tensor([-0.1, 1.2])).tolist() == [0, 255]


def test_a_set_is_given_as_bytes_and_the_network_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.cnn").write_text(TEXT)
    command = ["train", "small.cnn", "--data", "digits", "--epochs", "1", "--out", "run"]
    assert main([*command, "--device", "cpu", "--flip"]) == 0
    data = training.load("digits")
    bytes_ = training.load("digits", is_inside=True)
    assert bytes_.train.images.dtype == torch.uint8
    assert (bytes_.scale.mean, bytes_.scale.deviation) == (data.scale.mean, data.scale.deviation)
    model = cnndsl.load("run")
    assert model.input_mean.tolist() == pytest.approx(data.scale.mean)
    assert model.input_deviation.tolist() == pytest.approx(data.scale.deviation)
    capsys.readouterr()
    assert main(["eval", "run", "--data", "digits", "--format", "json"]) == 0
    right = sum((model(bytes_.test.images).argmax(1) == bytes_.test.labels).tolist())
    found = json.loads(capsys.readouterr().out)
    assert round(found["accuracy"] * found["count"]) == right


def test_training_is_that_of_floats():
    """Digits have 16 levels, of which bytes keep 0.2 %."""
    losses = []
    for text in (TEXT, TEXT.replace(" u8", "")):
        training.seed_all(0)
        model = cnndsl.compile(source=text)
        outcome = training.train(model, "digits", recipe=LITTLE)
        losses.append(outcome.metrics[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
    assert losses[0] != losses[1]


def test_tensors_are_bytes_or_refused(tmp_path):
    data = training.load("digits", is_inside=True).train
    model = cnndsl.compile(source=TEXT)
    model.input_deviation.fill_(0.5)
    training.train(model, (data.images, data.labels), recipe=LITTLE)
    assert model.input_deviation.tolist() == [0.5]  # what the caller said
    with pytest.raises(
        training.TrainError, match=r"takes bytes.*but the images are torch\.float32"
    ):
        training.train(model, (data.images / 255, data.labels), recipe=LITTLE, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_bytes_for_a_network_of_floats_are_scaled_as_everywhere():
    data = training.load("digits", is_inside=True).train
    losses = []
    for images in (data.images, data.images / 255):
        training.seed_all(0)
        model = cnndsl.compile(source=TEXT.replace(" u8", ""))
        outcome = training.train(model, (images, data.labels), recipe=LITTLE)
        losses.append(outcome.metrics[0]["loss"])
    assert losses[0] == losses[1]


def test_images_of_another_size_stay_bytes():
    data = training.load("digits", is_inside=True).train
    model = cnndsl.compile(source=TEXT.replace("8 x 8", "12 x 12"))
    training.train(model, (data.images, data.labels), resize=True, recipe=LITTLE)


def test_a_run_goes_on_to_the_same_bits(tmp_path):
    data = training.load("digits", is_inside=True)
    outcomes = []
    for name in ("whole", "broken"):
        training.seed_all(0)
        model = cnndsl.compile(source=TEXT)
        recipe = LITTLE.replace(epochs=2)
        origin = training.Origin(TEXT, (), "")
        training.train(model, data, out=tmp_path / name, recipe=recipe, origin=origin)
        if name == "broken":
            (newest,) = sorted((tmp_path / name / "checkpoints").glob("step-*"))[-1:]
            for file in newest.iterdir():
                file.unlink()
            newest.rmdir()
            training.resume(tmp_path / name)
        outcomes.append(cnndsl.load(tmp_path / name).state_dict())
    for first, second in zip(outcomes[0].values(), outcomes[1].values(), strict=True):
        assert torch.equal(first, second)
