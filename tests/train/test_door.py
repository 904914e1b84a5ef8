"""What people give to `cnndsl.train` in Python: taken as they mean it, or a `TrainError`."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import cnndsl
import cnndsl.train as training
from tests.train import trainee

X, Y = trainee.images(12)


@pytest.fixture(autouse=True)
def uninterpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where TRITON_INTERPRET is not set."""
    monkeypatch.setattr("cnndsl.rt.module.INTERPRETED", False)


ONCE = trainee.RECIPE.replace(epochs=1, batch=4)


def trained(data: object, model: nn.Module | None = None, **more: object) -> float:
    outcome = training.train(model or trainee.network(), data, recipe=ONCE, **more)
    return outcome.metrics[-1]["loss"]


class Batches:
    """Ready batches, as many as it says, or not."""

    def __init__(self, *batches: object, length: int | None = None) -> None:
        self.batches = batches
        self.length = len(batches) if length is None else length

    def __len__(self) -> int:
        return self.length

    def __iter__(self):
        return iter(self.batches)


def one(image: object, label: object) -> list[tuple[object, object]]:
    return [(X[0], 0), (image, label)]


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "label too high": (lambda: (X, Y + 1), "label 3, but the network tells 3 classes"),
    "label below 0": (lambda: (X, Y - 1), "hold -1; classes are numbers from 0"),
    "the ignored label": (lambda: (X, torch.full((12,), -100)), "hold -100"),
    "float labels": (lambda: (X, Y.float()), "labels are torch.float32"),
    "one-hot labels": (lambda: (X, nn.functional.one_hot(Y)), r"labels.argmax\(1\)"),
    "labels in a column": (lambda: (X, Y[:, None]), r"labels.squeeze\(1\)"),
    "words as labels": (lambda: (X, ["cat"] * 12), "cannot become a tensor"),
    "fewer labels": (lambda: (X, Y[:11]), "12 images, but the labels have the shape"),
    "no images": (lambda: (X[:0], Y[:0]), "empty"),
    "three dims": (lambda: (X[:, 0], Y), r"shape \(12, 6, 6\)"),
    "long images": (lambda: ((X * 255).long(), Y), "images are torch.int64"),
    "complex images": (lambda: (X.to(torch.complex64), Y), "images are torch.complex64"),
    "nan": (lambda: (X * math.nan, Y), "hold nan or infinity"),
    "infinity": (lambda: (X / 0, Y), "hold nan or infinity"),
    "objects": (lambda: (np.array([["x"]]), Y), "numpy array"),
    "a dict": (lambda: {"images": X}, "type dict is no data"),
    "a word tuple": (lambda: ("images", "labels"), "of the type str"),
    "ragged dataset": (lambda: one(X[0, :, :5], 0), r"\(1, 5, 6\), the first one \(1, 6, 6\)"),
    "dataset of words": (lambda: one("x", 0), "of the type str"),
    "dataset of floats": (lambda: one(X[0], 1.0), "the label of number 1 of the data set"),
    "dataset label below 0": (lambda: one(X[0], -1), "is -1"),
    "dataset label too high": (lambda: one(X[0], 3), "label 3"),
    "dataset of dicts": (lambda: [{"x": 1}], "of the type dict"),
    "dataset with nan": (lambda: one(X[0] * math.nan, 0), "hold nan"),
    "batch with fewer labels": (lambda: Batches((X, Y[:5])), "batch 0 have the shape"),
    "later batch with fewer": (lambda: Batches((X, Y), (X, Y[:5])), "batch 1 have the shape"),
    "batch too high": (lambda: Batches((X, Y), (X, Y + 9)), "label 11"),
    "ragged batches": (lambda: Batches((X, Y), (X[..., :5], Y)), r"an image of batch 1"),
    "batch of three": (lambda: Batches((X, Y, Y)), "give pairs"),
    "empty batch": (lambda: Batches((X, Y), (X[:0], Y[:0])), "empty"),
    "fewer batches": (lambda: Batches((X, Y), length=3), "has 3 batches, but gave 1"),
    "more batches": (lambda: Batches((X, Y), (X, Y), length=1), "has 1 batches, but gave 2"),
    "no batches": (lambda: Batches(), "no batch"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_learned_from_is_a_train_error(name: str) -> None:
    given, message = REFUSED[name]
    with pytest.raises(training.TrainError, match=message) as caught:
        trained(given())
    assert caught.value.fixes


def test_what_means_the_same_is_learned_from_alike() -> None:
    wanted = trained((X, Y))
    same = [
        (X.double(), Y),
        (X.numpy(), Y.numpy()),
        (X, Y.tolist()),
        (X, Y.to(torch.int32)),
        [(x, int(y)) for x, y in zip(X, Y, strict=True)],
        [(x.numpy(), np.int64(y)) for x, y in zip(X, Y, strict=True)],
    ]
    for data in same:
        assert trained(data) == pytest.approx(wanted, rel=1e-6)
    assert trained((X.half(), Y)) == pytest.approx(wanted, rel=1e-2)
    assert trained((X, Y), batch=1000) > 0


def test_bytes_are_scaled_to_one_in_training_and_in_evaluation() -> None:
    pixels = (X * 150).to(torch.uint8)
    assert trained((pixels, Y)) == pytest.approx(trained((pixels / 255, Y)), rel=1e-6)
    model = trainee.network()
    scores = [
        training.evaluate(model, training.as_data((images, Y)).train).loss
        for images in (pixels, pixels / 255)
    ]
    assert scores[0] == pytest.approx(scores[1], rel=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {name: value}
        for name, values in {
            "lr": ["0.1", None, 1j, [0.1]],
            "epochs": ["3", 1.5, True, None, 10**12],
            "batch": [math.nan, math.inf, "64"],
            "seed": [0.5, None],
            "flip": [1, "yes"],
            "device": [None, 0, torch.device("cpu"), "meta", "cuda:9", "mps", "xpu", "", "x"],
            "optimizer": [None, 3],
            "warmup": ["2"],
            "crop": [7, 10**9, 1.0],
            "momentum": [math.nan, math.inf],
            "clip": [math.inf, "1"],
        }.items()
        for value in values
    ],
    ids=str,
)
def test_settings_of_wrong_types_are_usage_errors(wrong: dict[str, object]) -> None:
    with pytest.raises(training.UsageError):
        trained((X, Y), **wrong)


def test_a_batch_of_one_image_is_refused_before_training_where_batchnorm_needs_two() -> None:
    def model() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))

    for more in ({"batch": 11}, {"batch": 1}, {"batch": 4, "accumulate": 3}):
        network = model()
        before = network[2].running_mean.clone()
        with pytest.raises(training.TrainError, match="has one image only"):
            trained((X, Y), network, **more)
        assert torch.equal(network[2].running_mean, before)
    with pytest.raises(training.TrainError, match="has one image only"):
        trained(Batches((X, Y), (X[:1], Y[:1])), model())
    assert trained((X, Y), model(), batch=6) > 0
    assert trained((X, Y), batch=11) > 0  # batchnorm of an image has many values


class Ends(nn.Module):
    """A network with another end than one number a class."""

    def __init__(self, end: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.fc, self.end = nn.Linear(36, 3), end

    def forward(self, x: torch.Tensor) -> object:
        return self.end(self.fc(x.flatten(1)))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Ends(lambda x: (x, x)), "gives a tuple"),
        (Ends(lambda x: {"a": x}), "gives a dict"),
        (Ends(lambda x: x[:, :1]), "one number for each image"),
        (Ends(lambda x: x[:, 0]), r"gives the shape \(\)"),
        (Ends(lambda x: x[:, :, None, None]), r"gives the shape \(3, 1, 1\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(36, 3), nn.Softmax(1)), "ends in `nn.Softmax`"),
        (nn.Sequential(nn.Flatten(), nn.Linear(36, 3), nn.Sigmoid()), "ends in `nn.Sigmoid`"),
    ],
)
def test_an_end_that_names_no_classes_is_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(training.TrainError, match=message):
        trained((X, Y), model)
    with pytest.raises(training.TrainError, match=message):
        training.evaluate(model, training.as_data((X, Y)).train)


def test_a_head_that_would_learn_nothing_is_refused_until_it_is_frozen() -> None:
    source = "input 6 x 6 x 1\nflatten as t\nfc 2 as other\noutput other\nfrom t\nfc 3\n"
    model = cnndsl.compile(source=source)
    with pytest.raises(training.TrainError, match="`other` would learn nothing"):
        trained((X, Y), model)
    model.other.requires_grad_(False)
    assert trained((X, Y), model) > 0


def test_two_classes_are_learned_behind_one_sigmoid() -> None:
    training.seed_all(0)
    model = cnndsl.compile(source="input 6 x 6 x 1\nflatten\nfc 1\nsigmoid\n")
    pair = (X[Y < 2], Y[Y < 2])
    outcome = training.train(model, pair, test=pair, recipe=ONCE, epochs=12, lr=0.1, batch=8)
    assert outcome.metrics[-1]["test_accuracy"] == 1
    chances = model(pair[0])[:, 0]
    assert bool(((chances > 0.5) == pair[1].bool()).all())
    wanted = nn.functional.binary_cross_entropy(chances, pair[1].float()).item()
    assert outcome.metrics[-1]["test_loss"] == pytest.approx(wanted, rel=1e-3)
