"""Data sets by name or path, with what `predict` must know of them. Knows no networks' insides.

Values are scaled to 0 … 1, then each channel to mean 0 and deviation 1 over the training images;
`Scale` keeps the two numbers, and the run folder keeps the `Scale`.
"""

import gzip
import hashlib
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from cnndsl.record import Record
from cnndsl.train import folder
from cnndsl.train.errors import TrainError, UsageError
from cnndsl.train.examples import Examples, TensorExamples, as_examples

TEST_SHARE = 0.2


class Scale(Record):
    """For each channel, what is subtracted from the values in 0 … 1, and by what is divided."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """The images (…, C, H, W), scaled."""
        channels = (len(self.mean), 1, 1)
        mean = torch.tensor(self.mean).view(channels)
        deviation = torch.tensor(self.deviation).view(channels)
        return (images - mean) / deviation

    @staticmethod
    def of(images: Tensor) -> "Scale":
        """What brings these images (N, C, H, W) to mean 0 and deviation 1."""
        values = images.double()
        mean = values.mean((0, 2, 3))
        # A channel of one value only has deviation 0; it becomes 0 everywhere.
        deviation = values.std((0, 2, 3), correction=0).clamp_min(1e-8)
        return Scale(_numbers(mean), _numbers(deviation))


class Data(Record):
    """What a network is trained and tested on.

    `classes` names the classes, in the order of the network's outputs; it is empty when they have
    no names. `scale` is None when the caller scaled the images. `fingerprint` tells one data set
    from another when a run is resumed; it is empty for data that is only seen batch by batch.
    """

    name: str
    train: Examples
    test: Examples | None = None
    classes: tuple[str, ...] = ()
    scale: Scale | None = None
    fingerprint: str = ""


def as_data(train: object, test: object = None, classes: tuple[str, ...] = ()) -> Data:
    """Data from Python: `(images, labels)`, a map-style `Dataset`, or an iterable of batches."""
    if isinstance(train, Data):
        return train
    examples = as_examples(train)
    other = None if test is None else as_examples(test)
    return Data("python", examples, other, classes, None, fingerprint(examples))


def load(name: str, channels: int | None = None, seed: int = 0, scale: Scale | None = None) -> Data:
    """The data set of that name, or the images below that folder.

    `channels` is what the network takes: folders are read in colour or in grey accordingly. `seed`
    divides a set that has no test images of its own. `scale` is the one of a run that was trained.
    """
    if name == "digits":
        images, labels = read_digits()
        part = in_test(labels, seed)
        classes = tuple(str(i) for i in range(10))
        return _scaled(
            name, (images[~part], labels[~part]), (images[part], labels[part]), classes, scale
        )
    path = Path(name)
    if path.is_dir():
        found = folder.read(path, channels)
        if found.test is None:
            part = in_test(found.train[1], seed)
            images, labels = found.train
            train, test = (images[~part], labels[~part]), (images[part], labels[part])
        else:
            train, test = found.train, found.test
        return _scaled(str(path.resolve()), train, test, found.classes, scale)
    if path.exists():
        raise UsageError(
            f"`{name}` is a file, not a folder of images",
            "give the folder that has one folder of images for each class",
        )
    near = get_close_matches(name.lower(), NAMES, n=1)
    hint = f"did you mean `{near[0]}`? " if near else ""
    raise UsageError(
        f"there is no data set and no folder called `{name}`",
        f"{hint}known: {', '.join(NAMES)}; or a folder with one folder of images for each class",
    )


NAMES = ("digits",)


def load_for_test(
    name: str, trained_on: str, classes: tuple[str, ...], channels: int, seed: int, scale: Scale
) -> Examples:
    """What a trained network is judged by, scaled as it was trained.

    Of the set that it was trained on, and of a folder that has a test part, only the test images;
    of any other folder all.
    """
    path = Path(name)
    if name in NAMES or not path.is_dir() or str(path.resolve()) == trained_on:
        test = load(name, channels, seed, scale).test
    else:
        found = folder.read(path, channels, classes)
        images, labels = found.test or found.train
        test = TensorExamples(scale(images), labels)
    if test is None:
        raise TrainError(f"`{name}` has too few images to keep some for the test", "add images")
    return test


def read_digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's 1,797 digits: grey 8x8 images with values 0 … 1, and their classes.

    They are the test part of UCI's "Optical Recognition of Handwritten Digits" (CC BY 4.0), white
    ink on black, values 0 … 16. The file is read without importing scikit-learn, which takes a
    second; it is plain comma-separated text.
    """
    spec = find_spec("sklearn")
    places = spec.submodule_search_locations if spec else None
    files = [Path(p) / "datasets" / "data" / "digits.csv.gz" for p in places or ()]
    found = next((f for f in files if f.is_file()), None)
    if found is None:
        raise UsageError(
            "scikit-learn's digits are not installed", "pip install 'scikit-learn>=1.4'"
        )
    lines = gzip.decompress(found.read_bytes()).decode("ascii").split()
    table = torch.tensor([[float(value) for value in line.split(",")] for line in lines])
    return table[:, :64].reshape(-1, 1, 8, 8) / 16, table[:, 64].long()


def in_test(labels: Tensor, seed: int) -> Tensor:
    """Which examples are kept for the test: the same share of each class, drawn by the seed."""
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    draw = torch.Generator().manual_seed(seed)
    for label in range(int(labels.max()) + 1):
        members = torch.arange(len(labels))[labels == label]
        order = members[torch.randperm(len(members), generator=draw)]
        chosen[order[: round(len(members) * TEST_SHARE)]] = True
    return chosen


def fingerprint(examples: Examples) -> str:
    """A hash of all values; empty where they are not in memory."""
    if not isinstance(examples, TensorExamples):
        return ""
    found = hashlib.sha256(repr((examples.shape, examples.count)).encode())
    for tensor in (examples.images, examples.labels):
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _scaled(
    name: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: tuple[str, ...],
    scale: Scale | None,
) -> Data:
    if not len(train[1]):
        raise TrainError(f"`{name}` has no images to train on", "give each class some images")
    used = scale or Scale.of(train[0])
    examples = TensorExamples(used(train[0]), train[1])
    held_back = TensorExamples(used(test[0]), test[1]) if len(test[1]) else None
    return Data(name, examples, held_back, classes, used, fingerprint(examples))


def _numbers(values: Tensor) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
