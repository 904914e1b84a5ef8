"""Data sets by name or path, with what `predict` must know of them. Knows no networks' insides.

Values are scaled to 0 … 1, then each channel to mean 0 and deviation 1 over the training images;
`Scale` keeps the two numbers, and the run folder keeps the `Scale`. A network that takes bytes is
given bytes, and the two numbers.
"""

import hashlib
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor

from cnndsl.record import Record
from cnndsl.train import folder
from cnndsl.train.errors import TrainError, UsageError
from cnndsl.train.examples import Examples, TensorExamples, as_examples
from cnndsl.train.fit import ANY, Fit, Shape
from cnndsl.train.sets import SETS, Images, is_cifar10, read_cifar10_in

TEST_SHARE = 0.2
AS_IT_IS = Fit()


class Scale(Record):
    """For each channel, what is subtracted from the values in 0 … 1, and by what is divided.

    `is_inside` says that the network does it itself, with images that are given to it as bytes.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    is_inside: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """The images (…, C, H, W), values 0 … 1, as they are given to the network."""
        if self.is_inside:
            return as_bytes(images)
        channels = (len(self.mean), 1, 1)
        mean = torch.tensor(self.mean).view(channels)
        deviation = torch.tensor(self.deviation).view(channels)
        return (images - mean).div_(deviation)

    @staticmethod
    def of(images: Tensor) -> "Scale":
        """What brings these images (N, C, H, W) to mean 0 and deviation 1."""
        mean: list[float] = []
        deviation: list[float] = []
        for channel in images.unbind(1):  # one after the other: float64 takes room
            values = channel.double()
            mean.append(float(values.mean()))
            # A channel of one value only has deviation 0; it becomes 0 everywhere.
            deviation.append(max(1e-8, float(values.std(correction=0))))
        return Scale(tuple(mean), tuple(deviation))


def as_bytes(images: Tensor) -> Tensor:
    """Values 0 … 1 as bytes 0 … 255."""
    return (images * 255).round_().clamp_(0, 255).byte()


class Data(Record):
    """What a network is trained and tested on.

    `classes` names the classes, in the order of the network's outputs; it is empty when they have
    no names. `scale` is None when the caller scaled the images. `fingerprint` tells one data set
    from another when a run is resumed; it is empty for data that is only seen batch by batch.
    `fit` is what was done to the images, which is done to others that the network is to judge.
    """

    name: str
    train: Examples
    test: Examples | None = None
    classes: tuple[str, ...] = ()
    scale: Scale | None = None
    fingerprint: str = ""
    fit: Fit = AS_IT_IS


def as_data(train: object, test: object = None, classes: tuple[str, ...] = ()) -> Data:
    """Data from Python: `(images, labels)`, a map-style `Dataset`, or an iterable of batches."""
    if isinstance(train, Data):
        return train
    examples = as_examples(train)
    other = None if test is None else as_examples(test)
    return Data("python", examples, other, classes, None, fingerprint(examples))


def load(
    name: str,
    wanted: Shape | None = None,
    seed: int = 0,
    scale: Scale | None = None,
    fit: Fit = AS_IT_IS,
    *,
    is_inside: bool = False,
) -> Data:
    """The data set of that name, or the images below that folder.

    `wanted` is what the network takes, (channels, height, width): folders are read in colour or in
    grey accordingly, and `fit` says what else may be done. `seed` divides a set that has no test
    images of its own. `scale` is the one of a run that was trained; `is_inside` is said of one that
    is still to be found.
    """
    path = Path(name)
    if name in SETS:
        return _prepared(name, SETS[name](), wanted or ANY, seed, scale, fit, is_inside)
    if path.is_dir() and is_cifar10(path):
        found = read_cifar10_in(path)
        return _prepared(str(path.resolve()), found, wanted or ANY, seed, scale, fit, is_inside)
    if path.is_dir():
        shape = wanted or ANY
        read = folder.read(path, shape[0], (), fit.size(shape))
        images = Images(read.train, read.test, read.classes)
        return _prepared(str(path.resolve()), images, shape, seed, scale, fit, is_inside)
    if path.exists():
        raise UsageError(
            f"`{name}` is a file, not a folder of images",
            "give the folder that has one folder of images for each class",
        )
    near = get_close_matches(name.lower(), SETS, n=1)
    hint = f"did you mean `{near[0]}`? " if near else ""
    raise UsageError(
        f"there is no data set and no folder called `{name}`",
        f"{hint}known: {', '.join(SETS)}; or a folder with one folder of images for each class",
    )


def load_for_test(
    name: str,
    trained_on: str,
    classes: tuple[str, ...],
    wanted: Shape,
    seed: int,
    scale: Scale,
    fit: Fit = AS_IT_IS,
) -> Examples:
    """What a trained network is judged by, scaled as it was trained.

    Of the set that it was trained on, and of a folder that has a test part, only the test images;
    of any other folder all.
    """
    path = Path(name)
    is_set = name in SETS or not path.is_dir() or is_cifar10(path)
    if is_set or str(path.resolve()) == trained_on:
        test = load(name, wanted, seed, scale, fit).test
    else:
        found = folder.read(path, wanted[0], classes, fit.size(wanted))
        images, labels = found.test or found.train
        test = TensorExamples(scale(fit(images, wanted)), labels)
    if test is None:
        raise TrainError(f"`{name}` has too few images to keep some for the test", "add images")
    return test


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
        found.update(tensor.detach().cpu().contiguous().numpy().data)
    return found.hexdigest()


def _prepared(
    name: str,
    found: Images,
    wanted: Shape,
    seed: int,
    scale: Scale | None,
    fit: Fit,
    is_inside: bool,
) -> Data:
    """Divided, if the set is not, brought to what the network takes, and scaled."""
    if found.test is None:
        part = in_test(found.train[1], seed)
        images, labels = found.train
        train, test = (images[~part], labels[~part]), (images[part], labels[part])
    else:
        train, test = found.train, found.test
    if not len(train[1]):
        raise TrainError(f"`{name}` has no images to train on", "give each class some images")
    images = fit(_in_one(train[0]), wanted)
    used = scale or Scale.of(images).replace(is_inside=is_inside)
    examples = TensorExamples(used(images), train[1])
    held_back = (
        TensorExamples(used(fit(_in_one(test[0]), wanted)), test[1]) if len(test[1]) else None
    )
    return Data(name, examples, held_back, found.classes, used, fingerprint(examples), fit)


def _in_one(values: Tensor) -> Tensor:
    """Bytes 0 … 255 as numbers 0 … 1."""
    return values.float().div_(255) if values.dtype == torch.uint8 else values
