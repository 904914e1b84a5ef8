"""Data: the digits, folders of images, what comes from Python, and whether it fits the network."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

import cnndsl.train as training
from cnndsl.train import extras
from cnndsl.train.data import in_test
from cnndsl.train.examples import as_examples, order_of
from cnndsl.train.network import check_fit
from cnndsl.train.pixels import Form, read
from cnndsl.train.sets import read_digits
from tests.train import trainee


def test_the_digits_are_scikit_learns() -> None:
    images, labels = read_digits().train
    theirs = load_digits()
    assert np.array_equal(images.numpy()[:, 0] * 16, theirs.images.astype(np.float32))
    assert np.array_equal(labels.numpy(), theirs.target)


def test_the_digits_are_divided_by_class_and_scaled_by_the_training_part() -> None:
    data = training.load("digits")
    assert (data.train.count, data.train.shape) == (1438, (1, 8, 8))
    assert data.test is not None
    assert data.test.count == 359
    assert data.classes == tuple("0123456789")
    assert abs(float(data.train.images.mean())) < 1e-5
    assert abs(float(data.train.images.std()) - 1) < 1e-3
    of_test = torch.bincount(data.test.labels, minlength=10) / torch.bincount(
        read_digits().train[1]
    )
    assert bool(((of_test > 0.19) & (of_test < 0.21)).all())


def test_the_division_follows_from_the_seed_and_leaves_nothing_out() -> None:
    labels = read_digits().train[1]
    assert torch.equal(in_test(labels, 1), in_test(labels, 1))
    assert not torch.equal(in_test(labels, 1), in_test(labels, 2))
    data = training.load("digits", seed=5)
    assert data.test is not None
    assert data.train.count + data.test.count == 1797
    assert training.load("digits", seed=5).fingerprint == data.fingerprint
    assert training.load("digits", seed=6).fingerprint != data.fingerprint


@pytest.mark.parametrize("name", ["digit", "Digits", "didgits"])
def test_an_unknown_data_set_is_compared_with_the_known(name: str) -> None:
    with pytest.raises(training.UsageError, match="no data set and no folder") as caught:
        training.load(name)
    assert "did you mean `digits`?" in caught.value.fixes[0]


def test_a_name_like_no_other_is_answered_with_the_list() -> None:
    with pytest.raises(training.UsageError) as caught:
        training.load("nothing")
    assert caught.value.fixes[0].startswith(
        "known: digits, fashion-mnist, mnist, cifar10, photos-10; or a folder"
    )


# ── folders ──────────────────────────────────────────────────────────────────────────────────────


def paint(path: Path, color: tuple[int, int, int], size: tuple[int, int] = (5, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    for number in range(10):
        paint(tmp_path / "cat" / f"{number}.png", (255, number, 0))
        paint(tmp_path / "dog" / "more" / f"{number}.png", (0, number, 255))
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / ".cache").mkdir()
    return tmp_path


def test_a_folder_of_class_folders(animals: Path) -> None:
    data = training.load(str(animals), (3, None, None))
    assert data.classes == ("cat", "dog")
    assert data.train.shape == (3, 4, 5)
    assert data.test is not None
    assert (data.train.count, data.test.count) == (16, 4)
    red = data.train.images[data.train.labels == 0][:, 0]
    assert bool((red > 0).all())
    assert data.scale is not None
    assert data.scale.mean[0] == pytest.approx(0.5)


def test_a_network_for_grey_images_gets_grey_ones(animals: Path) -> None:
    assert training.load(str(animals), (1, None, None)).train.shape == (1, 4, 5)


def test_a_folder_may_bring_its_own_test_images(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("test", 2)):
        for number in range(count):
            paint(tmp_path / part / "a" / f"{number}.png", (number, 0, 0))
            paint(tmp_path / part / "b" / f"{number}.png", (0, number, 0))
    data = training.load(str(tmp_path), (3, None, None))
    assert data.test is not None
    assert (data.train.count, data.test.count, data.classes) == (6, 4, ("a", "b"))
    paint(tmp_path / "test" / "c" / "0.png", (0, 0, 0))
    with pytest.raises(training.TrainError, match=r"test/c` is none of the classes"):
        training.load(str(tmp_path))


def test_images_of_other_sizes_are_named(animals: Path) -> None:
    paint(animals / "dog" / "zebra.png", (0, 0, 0), size=(7, 6))
    with pytest.raises(training.TrainError, match=r"zebra\.png has 6x7, .*cat/0\.png has 4x5"):
        training.load(str(animals))


def test_what_is_no_image_is_named(animals: Path) -> None:
    (animals / "cat" / "broken.png").write_bytes(b"GIF89a?")
    with pytest.raises(training.TrainError, match=r"broken\.png` cannot be read as an image"):
        training.load(str(animals))


def test_folders_without_classes_or_images(tmp_path: Path) -> None:
    with pytest.raises(training.TrainError, match="at least two; it has none"):
        training.load(str(tmp_path))
    (tmp_path / "cat").mkdir()
    with pytest.raises(training.TrainError, match="only `cat`"):
        training.load(str(tmp_path))
    (tmp_path / "dog").mkdir()
    with pytest.raises(training.TrainError, match="cat` has no picture that can be read; it has n"):
        training.load(str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(training.UsageError, match="is a file, not a folder"):
        training.load(str(tmp_path / "file"))


def test_one_image_is_brought_to_the_networks_form(tmp_path: Path) -> None:
    paint(tmp_path / "red.png", (255, 0, 0), size=(10, 6))
    image, done = read(tmp_path / "red.png", Form(1, (8, 8)))
    assert image.shape == (1, 8, 8)
    assert done == ("made grey", "resized from 6x10 to 8x8")
    assert bool((image == 76).all())
    image, done = read(tmp_path / "red.png", Form(3))
    assert (tuple(image.shape), done) == ((3, 6, 10), ())
    with pytest.raises(training.TrainError, match="takes 2 channels"):
        read(tmp_path / "red.png", Form(2, (8, 8)))
    with pytest.raises(training.TrainError, match=r"there is no image .*blue\.png"):
        read(tmp_path / "blue.png", Form(3, (8, 8)))


# ── from Python ──────────────────────────────────────────────────────────────────────────────────


def test_batches_go_through_all_examples_once_in_an_order_of_the_seed() -> None:
    examples = as_examples(trainee.images(10))
    orders = [[b.labels for b in examples.batches(4, seed)] for seed in (1, 1, 2, None)]
    assert [len(labels) for labels in orders[0]] == [4, 4, 2]
    one, same, other, plain = (torch.cat(order) for order in orders)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(plain, torch.arange(10) % 3)
    assert torch.equal(one.sort().values, plain.sort().values)
    assert sorted(order_of(10, 1)) == list(range(10))


@pytest.mark.parametrize("kind", ["tensors", "dataset", "loader"])
def test_batches_may_begin_anywhere(kind: str) -> None:
    images, labels = trainee.images(10)
    pairs = torch.utils.data.TensorDataset(images, labels)
    given = {
        "tensors": (images, labels),
        "dataset": pairs,
        "loader": torch.utils.data.DataLoader(pairs, batch_size=4),
    }[kind]
    examples = as_examples(given)
    whole = list(examples.batches(4, 1))
    rest = list(examples.batches(4, 1, start=1))
    assert examples.steps(4) == 3 == len(whole)
    assert len(rest) == 2
    for here, there in zip(whole[1:], rest, strict=True):
        assert torch.equal(here.images, there.images)
        assert torch.equal(here.labels, there.labels)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((torch.zeros(4, 8, 8), torch.zeros(4).long()), r"shape \(4, 8, 8\)"),
        ((torch.zeros(4, 1, 8, 8), torch.zeros(3).long()), "there are 4 images"),
        ((torch.zeros(4, 1, 8, 8), torch.zeros(4)), "labels are torch.float32"),
        ([], "the data set is empty"),
        ([("a picture", 1)], "number 0 of the data set are of the type str"),
        (iter([]), "how many batches"),
        (7, "an object of type int is no data"),
    ],
)
def test_what_is_no_data_is_told(given: object, message: str) -> None:
    with pytest.raises(training.TrainError, match=message):
        as_examples(given)


# ── does it fit? ─────────────────────────────────────────────────────────────────────────────────


class Sized(nn.Sequential):
    input_shape: tuple[int | None, ...] = (1, 28, 28)


def test_images_of_another_size_than_the_networks_are_told_before_the_first_step() -> None:
    data = training.load("digits")
    with pytest.raises(training.TrainError) as caught:
        training.train(Sized(nn.Flatten(), nn.Linear(784, 10)), data)
    assert caught.value.message == (
        "the network takes images of 28 x 28 x 1, but the data has 8 x 8 x 1"
    )
    assert caught.value.fixes == (
        "bring the images to its size: `--resize` (from Python: `resize=True`)",
        "let the network begin with `input 8 x 8 x 1`",
    )


def test_a_size_that_is_free_takes_any() -> None:
    network = Sized(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 10))
    network.input_shape = (1, None, None)
    data = training.load("digits")
    assert check_fit(network, data.train, data.classes) == 10


def test_the_number_of_classes_must_fit() -> None:
    data = training.load("digits")
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
    with pytest.raises(training.TrainError, match="tells 7 classes apart, but the data has 10: 0"):
        check_fit(network, data.train, data.classes)
    with pytest.raises(training.TrainError, match=r"gives the shape \(1, 8, 8\)"):
        check_fit(nn.Conv2d(1, 1, 1), data.train, data.classes)


def test_labels_of_the_network_must_be_the_datas_in_their_order() -> None:
    data = training.as_data(trainee.images(), classes=("top", "middle", "bottom"))
    network = trainee.network()
    network.classes = ("top", "bottom", "middle")
    with pytest.raises(training.TrainError, match="`labels` are top, bottom, middle") as caught:
        training.train(network, data)
    assert caught.value.fixes[0].startswith('write `labels "top" "middle" "bottom"`')
    network.classes = data.classes
    assert check_fit(network, data.train, data.classes) == 3


# ── what is not installed ────────────────────────────────────────────────────────────────────────


def test_a_missing_package_is_told_with_the_command_that_installs_it() -> None:
    assert extras.missing() == []
    hide = (
        "import importlib.util as util, sys\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name: None if name in ('rich', 'PIL') else find(name)\n"
        "import cnndsl.train\n"
    )
    ended = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True)
    assert "training needs rich and pillow, which are not installed" in ended.stderr
    assert "pip install 'cnndsl[train]'" in ended.stderr
