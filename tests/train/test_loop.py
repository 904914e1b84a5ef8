"""Training: it learns, gives the same bits for the same seed, and stops in good order."""

import math
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import cnndsl
import cnndsl.train as training
from cnndsl.train.network import first_not_finite
from cnndsl.train.progress import Bar, Lines, Quiet, line
from tests.train import trainee


def test_it_learns() -> None:
    outcome = training.train(trainee.network(), trainee.data(), recipe=trainee.RECIPE)
    assert [m["epoch"] for m in outcome.metrics] == [1, 2, 3, 4, 5, 6]
    first, last = outcome.metrics[0], outcome.metrics[-1]
    assert last["loss"] < 0.5 * first["loss"]
    assert last["test_accuracy"] >= 0.9
    assert last["step"] == 36
    assert outcome.interrupted is None


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        torch.rand(7)  # what was drawn before must not matter
        recipe = trainee.RECIPE.replace(epochs=2, seed=seed)
        training.train(trainee.network(), trainee.data(), out=tmp_path / name, recipe=recipe)
    assert trainee.difference(tmp_path / "a", tmp_path / "b") == ""
    assert trainee.difference(tmp_path / "a", tmp_path / "c") != ""


class Stop(Quiet):
    """Sends the process a signal in a step of an epoch."""

    def __init__(self, epoch: int, step: int, number: int = signal.SIGINT) -> None:
        self.when = (epoch, step)
        self.number = number

    def step(self, epoch: int, done: int, steps: int) -> None:
        if (epoch, done) == self.when:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(("epoch", "step"), [(0, 1), (1, 4), (2, 6), (5, 6)])
def test_a_signal_ends_the_step_and_the_rest_is_as_if_there_had_been_none(
    tmp_path: Path, epoch: int, step: int
) -> None:
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    train = training.train
    train(trainee.network(), trainee.data(), out=unbroken, recipe=trainee.RECIPE)
    outcome = train(
        trainee.network(),
        trainee.data(),
        out=broken,
        recipe=trainee.RECIPE,
        reporter=Stop(epoch, step),
        save_every=1000,
    )
    assert outcome.interrupted == signal.SIGINT
    assert len(outcome.metrics) == epoch
    assert trainee.result(broken)[0].step == 6 * epoch + step
    torch.rand(3)  # whatever the second process did before
    outcome = training.resume(broken, trainee.network(), trainee.data())
    assert outcome.interrupted is None
    assert [m["epoch"] for m in outcome.metrics] == [1, 2, 3, 4, 5, 6]
    assert trainee.difference(unbroken, broken) == ""


def test_a_signal_outside_training_does_what_it_did_before(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    training.train(trainee.network(), trainee.data(), recipe=trainee.RECIPE.replace(epochs=1))
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_signal_ends_the_process_at_once() -> None:
    child = os.fork()
    if not child:
        try:
            Slow = type("Slow", (Quiet,), {"step": lambda *_: time.sleep(30)})
            training.train(trainee.network(), trainee.data(), reporter=Slow())
        finally:
            os._exit(1)
    time.sleep(0.5)
    os.kill(child, signal.SIGINT)
    time.sleep(0.1)
    assert os.waitpid(child, os.WNOHANG) == (0, 0)  # the step has not ended
    os.kill(child, signal.SIGINT)
    began = time.monotonic()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert time.monotonic() - began < 5


def test_it_trains_outside_the_main_thread() -> None:
    outcomes: list[training.Outcome] = []

    def work() -> None:
        recipe = trainee.RECIPE.replace(epochs=1)
        outcomes.append(training.train(trainee.network(), trainee.data(), recipe=recipe))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(outcomes) == 1


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    recipe = trainee.RECIPE.replace(epochs=1)
    training.train(trainee.network(), trainee.data(), out=tmp_path / "run", recipe=recipe)
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    outcome = training.resume(tmp_path / "run", trainee.network(), trainee.data())
    assert len(outcome.metrics) == 1
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("kind", ["tensors", "dataset", "loader", "shuffling loader"])
def test_every_way_to_give_data_survives_an_interruption(tmp_path: Path, kind: str) -> None:
    images, labels = trainee.images()
    pairs = torch.utils.data.TensorDataset(images, labels)

    def data() -> training.Data:
        match kind:
            case "tensors":
                return training.as_data((images, labels))
            case "dataset":
                return training.as_data([(image, int(label)) for image, label in pairs])
            case "loader":
                return training.as_data(torch.utils.data.DataLoader(pairs, batch_size=16))
            case _:
                loader = torch.utils.data.DataLoader(pairs, batch_size=16, shuffle=True)
                return training.as_data(loader)

    recipe = trainee.RECIPE.replace(epochs=3)
    one, other = tmp_path / "one", tmp_path / "other"
    training.train(trainee.network(), data(), out=one, recipe=recipe)
    stop = Stop(1, 3)
    training.train(trainee.network(), data(), out=other, recipe=recipe, reporter=stop)
    training.resume(other, trainee.network(), data())
    assert trainee.difference(one, other) == ""


@pytest.fixture
def operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train compiled networks with PyTorch's operators: Triton's interpreter would take minutes."""
    monkeypatch.setattr("cnndsl.rt.module.INTERPRETED", False)


@pytest.mark.usefixtures("operators")
def test_the_package_is_the_function_and_takes_a_file_and_settings(tmp_path: Path) -> None:
    network = tmp_path / "thirds.cnn"
    network.write_text("input 6 x 6 x 1\nconv 4 3x3; relu\nflatten\nfc 3\nsoftmax\n")
    images, labels = trainee.images()
    run = tmp_path / "run"
    outcome = cnndsl.train(
        network,
        data=(images, labels),
        test=torch.utils.data.TensorDataset(*trainee.images(30, seed=1)),
        out=run,
        epochs=3,
        lr=0.01,
        device="cpu",
    )
    assert [m["epoch"] for m in outcome.metrics] == [1, 2, 3]
    assert outcome.metrics[-1]["test_count"] == 30
    assert (run / "source.cnn").read_text() == network.read_text()
    again = training.resume(run, data=(images, labels))
    assert again.metrics == outcome.metrics
    with pytest.raises(training.UsageError, match="trained on data from Python"):
        training.resume(run)
    with pytest.raises(TypeError, match="has no field speed"):
        cnndsl.train(network, (images, labels), speed=3)


@pytest.mark.usefixtures("operators")
def test_tensors_from_python_are_resized_and_a_dataset_is_not(tmp_path: Path) -> None:
    network = tmp_path / "large.cnn"
    network.write_text("input 9 x 7 x 3\nconv 4 3x3; relu\nflatten\nfc 3\n")
    settings = {"epochs": 1, "device": "cpu", "resize": True, "recolor": True}
    run = tmp_path / "run"
    cnndsl.train(network, trainee.images(), test=trainee.images(9), out=run, **settings)
    assert training.open_run(run).config["data"]["shape"] == [3, 9, 7]
    assert len(training.resume(run, data=trainee.images(), test=trainee.images(9)).metrics) == 1
    pairs = torch.utils.data.TensorDataset(*trainee.images())
    with pytest.raises(training.UsageError, match="only tensors, sets and folders"):
        cnndsl.train(network, pairs, **settings)


@pytest.mark.usefixtures("operators")
def test_a_set_is_trained_on_by_name_and_found_again(tmp_path: Path) -> None:
    network = tmp_path / "small.cnn"
    network.write_text("input 8 x 8 x 1\nconv 4 3x3; relu\nflatten\nfc 10\n")
    outcome = cnndsl.train(network, "digits", out=tmp_path / "run", epochs=1, device="cpu")
    assert training.resume(tmp_path / "run").metrics == outcome.metrics


# ── what is not finite ───────────────────────────────────────────────────────────────────────────


class Explodes(nn.Module):
    """Divides by zero once it has seen enough batches."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        return x / 0 if self.left < 0 else x


def exploding(after: int) -> nn.Module:
    layers = list(trainee.network())
    return nn.Sequential(*layers[:2], Explodes(after), *layers[2:])


def test_a_loss_that_is_not_finite_stops_and_names_step_and_layer(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(training.TrainError) as caught:
        # One batch goes to check that the data fits, one epoch of six steps is fine.
        training.train(
            exploding(9), training.as_data(trainee.images()), out=run, recipe=trainee.RECIPE
        )
    assert "in step 9 (epoch 2)" in caught.value.message
    assert "the first layer to give nan or infinity is `2`" in caught.value.message
    assert "--lr" in caught.value.fixes[0]
    kept = trainee.result(run)[0]
    assert 6 <= kept.step < 9
    assert all(bool(torch.isfinite(t).all()) for t in kept.model.values())


def test_gradients_that_are_not_finite_stop_before_they_spoil_the_weights(tmp_path: Path) -> None:
    model = trainee.network()
    model[0].weight.register_hook(lambda g: g * math.inf)
    before = model[0].weight.detach().clone()
    with pytest.raises(training.TrainError, match=r"gradient of `0\.weight`"):
        training.train(model, trainee.data(), out=tmp_path / "run", recipe=trainee.RECIPE)
    assert torch.equal(model[0].weight, before)


def test_images_that_are_not_finite_are_named() -> None:
    images, labels = trainee.images()
    images[40] = math.nan
    with pytest.raises(training.TrainError, match="the images already hold nan"):
        training.train(trainee.network(), training.as_data((images, labels)), recipe=trainee.RECIPE)


def test_a_parameter_that_is_not_finite_is_named() -> None:
    model = trainee.network()
    with torch.no_grad():
        model[5].bias[1] = math.nan
    assert first_not_finite(model, trainee.images()[0]) == "`5.bias` is not finite"


# ── settings ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch": -1}, "batch is -1"),
        ({"lr": 0.0}, "learning rate is 0"),
        ({"lr": math.nan}, "learning rate is nan"),
        ({"decay": -1.0}, "decay is -1"),
        ({"seed": -1}, "the seed is -1"),
        ({"dtype": "int8"}, "no dtype is called int8"),
        ({"device": "toaster"}, "the device `toaster` cannot be used"),
        ({"optimizer": "adam"}, "no optimizer is called adam"),
        ({"schedule": "step"}, "no schedule is called step"),
        ({"momentum": 1.0}, "momentum is 1.0; it must be from 0 up to 1"),
        ({"smoothing": -0.1}, "smoothing is -0.1"),
        ({"ema": 1.0}, "ema is 1.0"),
        ({"nesterov": True}, "nesterov is a kind of sgd's momentum"),
        ({"clip": -1.0}, "clip is -1.0"),
        ({"accumulate": 17}, "16 images cannot be computed in 17 parts"),
        ({"patience": -1}, "patience is -1"),
        ({"crop": -1}, "crop is -1"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(training.UsageError, match=message):
        training.train(trainee.network(), trainee.data(), recipe=trainee.RECIPE.replace(**change))


def test_bfloat16_learns_and_keeps_its_weights_in_float32(tmp_path: Path) -> None:
    recipe = trainee.RECIPE.replace(dtype="bf16")
    outcome = training.train(trainee.network(), trainee.data(), out=tmp_path / "run", recipe=recipe)
    assert outcome.metrics[-1]["test_accuracy"] >= 0.9
    assert trainee.result(tmp_path / "run")[0].model["0.weight"].dtype == torch.float32


# ── what is shown ────────────────────────────────────────────────────────────────────────────────

METRICS = {
    "epoch": 3,
    "loss": 0.12345,
    "train_accuracy": 0.96,
    "test_accuracy": 1.0,
    "lr": 0.00281,
    "images_per_second": 12345.6,
}


def test_an_epoch_is_one_line() -> None:
    assert line(METRICS, 12) == (
        "epoch  3/12  loss 0.1235  train 96.00%  test 100.00%  lr 2.81e-03  12,346 images/s"
    )
    assert "test" not in line({**METRICS, "test_accuracy": None}, 12)


@pytest.mark.parametrize("kind", [Lines, Bar])
def test_what_is_shown_has_a_line_an_epoch(kind: type[Lines], tmp_path: Path) -> None:
    with (tmp_path / "shown").open("w+") as stream:
        shown = kind(stream)
        training.train(trainee.network(), trainee.data(), recipe=trainee.RECIPE, reporter=shown)
        stream.seek(0)
        lines = [text for text in stream.read().splitlines() if text.startswith("epoch")]
    assert len([text for text in lines if "images/s" in text]) == trainee.RECIPE.epochs
