"""Data sets by name or path, with what `predict` must know of them. Knows no networks' insides.

Images are kept as they are stored, bytes 0 … 255, and scaled batch by batch: to 0 … 1, then each
channel to mean 0 and deviation 1 over the training images. `Scale` keeps the two numbers, and the
run folder keeps the `Scale`. A network that takes bytes is given bytes, and the two numbers.
"""

import hashlib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from cnndsl.record import Record
from cnndsl.train import folder, pictures
from cnndsl.train.errors import TrainError, UsageError
from cnndsl.train.examples import Examples, TensorExamples, as_examples
from cnndsl.train.fit import ANY, Fit, Shape
from cnndsl.train.folder import Found, Listing
from cnndsl.train.pixels import Form, Range
from cnndsl.train.sets import SETS, Images, Pair, is_cifar10, read_cifar10_in
from cnndsl.train.tally import Tally

TEST_SHARE = 0.2
AS_IT_IS = Fit()
_AT_ONCE = 1024  # images that are counted or resized together


class Scale(Record):
    """For each channel, what is subtracted from the values in 0 … 1, and by what is divided.

    `is_inside` says that the network does it itself, with images that are given to it as bytes.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    is_inside: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """The images (…, C, H, W), bytes or values 0 … 1, as they are given to the network."""
        if self.is_inside:
            return as_bytes(images)
        channels = (len(self.mean), 1, 1)
        mean = torch.tensor(self.mean, device=images.device).view(channels)
        deviation = torch.tensor(self.deviation, device=images.device).view(channels)
        return (in_one(images) - mean).div_(deviation)

    @staticmethod
    def of(images: Tensor) -> "Scale":
        """What brings these images (N, C, H, W) to mean 0 and deviation 1."""
        tally = Tally()
        for piece in _pieces(images):
            tally.add(piece)
        return Scale(*tally.scale())


def as_bytes(images: Tensor) -> Tensor:
    """Values 0 … 1 as bytes 0 … 255; bytes as they are."""
    if images.dtype == torch.uint8:
        return images
    return (images * 255).round_().clamp_(0, 255).byte()


def in_one(values: Tensor) -> Tensor:
    """Bytes 0 … 255 as numbers 0 … 1; floats as they are."""
    return values.float().div_(255) if values.dtype == torch.uint8 else values


class Data(Record):
    """What a network is trained and tested on.

    `test` is judged after each epoch, and decides about patience; `judged_on` is what it is called:
    "valid" where the set has a part for that. `final` is judged once, after the last epoch.
    `classes` names the classes, in the order of the network's outputs; it is empty when they have
    no names. `scale` is None when the caller scaled the images. `fingerprint` tells one data set
    from another when a run is resumed; it is empty for data that is only seen batch by batch.
    `fit` is what was done to the images, which is done to others that the network is to judge, and
    `range` what pictures of 32-bit numbers were scaled by. `notes` say what was left out.
    """

    name: str
    train: Examples
    test: Examples | None = None
    classes: tuple[str, ...] = ()
    scale: Scale | None = None
    fingerprint: str = ""
    fit: Fit = AS_IT_IS
    final: Examples | None = None
    judged_on: str = "test"
    range: Range = Range()
    notes: tuple[str, ...] = ()


class Wanted(Record):
    """How a network takes its images.

    `scale` and `range` are those of a run that was trained; None where they are still to be found.
    `is_inside` says that the network takes bytes, and scales them itself.
    """

    shape: Shape = ANY
    fit: Fit = AS_IT_IS
    scale: Scale | None = None
    range: Range | None = None
    is_inside: bool = False

    def form(self) -> Form:
        """How pictures in files are read for it."""
        size = self.fit.size(self.shape) or (None, None)
        return Form(self.shape[0] or 3, size, is_exact=not self.is_inside)


def as_data(train: object, test: object = None, classes: tuple[str, ...] = ()) -> Data:
    """Data from Python: `(images, labels)`, a map-style `Dataset`, or an iterable of batches."""
    if isinstance(train, Data):
        return train
    examples = as_examples(train)
    other = None if test is None else as_examples(test)
    return Data("python", examples, other, tuple(classes), None, fingerprint(examples))


def load(
    name: str,
    wanted: Shape | None = None,
    seed: int = 0,
    scale: Scale | None = None,
    fit: Fit = AS_IT_IS,
    *,
    is_inside: bool = False,
    within: Range | None = None,
) -> Data:
    """The data set of that name, or the images below that folder.

    `wanted` is what the network takes, (channels, height, width): folders are read in colour or in
    grey accordingly, and `fit` says what else may be done. `seed` divides a set that has no test
    images of its own. `scale` and `within` (the range of 32-bit pictures) are those of a run that
    was trained; `is_inside` is said of a network that scales bytes itself.
    """
    return _loaded(name, Wanted(wanted or ANY, fit, scale, within, is_inside), seed)


def _loaded(name: str, wanted: Wanted, seed: int) -> Data:
    path = Path(name)
    if name in SETS:
        return _of_set(name, SETS[name](), wanted, seed)
    if path.is_dir() and is_cifar10(path):
        return _of_set(str(path.resolve()), read_cifar10_in(path), wanted, seed)
    if path.is_dir():
        return _of_folder(path, wanted, seed)
    raise _no_data(name)


def _no_data(name: str) -> UsageError:
    """What is said of a name that is neither a set nor a folder."""
    path = Path(name)
    if path.exists():
        what = "a file" if path.is_file() else "a pipe or a device"
        return UsageError(
            f"`{name}` is {what}, not a folder of images",
            "give the folder that has one folder of images for each class",
        )
    near = get_close_matches(name.lower(), SETS, n=1)
    hint = f"did you mean `{near[0]}`? " if near else ""
    return UsageError(
        f"there is no data set and no folder called `{name}`",
        f"{hint}known: {', '.join(SETS)}; or a folder with one folder of images for each class",
    )


class Judged(Record):
    """Examples that a trained network is judged by, and the classes that they are of."""

    examples: Examples
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def load_for_test(
    name: str, trained_on: str, classes: tuple[str, ...], wanted: Wanted, seed: int
) -> Judged:
    """What a trained network is judged by, read and scaled as it was for the training.

    Of the set that it was trained on, and of a folder that has a test part, only the test images;
    of any other folder all.
    """
    path = Path(name)
    is_set = name in SETS or not path.is_dir() or is_cifar10(path)
    if is_set or str(path.resolve()) == trained_on:
        data = _loaded(name, wanted, seed)
        test = data.final or data.test
        if test is None:
            raise TrainError(f"`{name}` has too few images to keep some for the test", "add images")
        return Judged(test, data.classes, data.notes)
    found = folder.find(path, classes)
    listing = found.test or found.valid or found.train
    scan = pictures.scan(listing.paths, wanted.form(), wanted.range or Range())
    stored = pictures.store(listing, scan.form, pictures.room())
    return Judged(stored.examples(wanted.scale), found.classes, (*found.notes, *scan.notes))


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
    for tensor in (examples.stored, examples.labels):
        values = tensor.detach().cpu().contiguous()
        found.update(values.view(torch.uint8).numpy().data)
    return found.hexdigest()


def _of_set(name: str, found: Images, wanted: Wanted, seed: int) -> Data:
    """Divided, if the set is not, and brought to what the network takes."""
    if found.test is None:
        part = in_test(found.train[1], seed)
        images, labels = found.train
        train, test = (images[~part], labels[~part]), (images[part], labels[part])
    else:
        train, test = found.train, found.test
    images = _fitted(train[0], wanted)
    scale = (wanted.scale or Scale.of(images)).replace(is_inside=wanted.is_inside)
    examples = _scaled((images, train[1]), scale)
    held_back = _scaled((_fitted(test[0], wanted), test[1]), scale)
    return Data(name, examples, held_back, found.classes, scale, fingerprint(examples), wanted.fit)


def _fitted(images: Tensor, wanted: Wanted) -> Tensor:
    """The images of a set in the size and colours of the network, bytes as bytes."""
    if wanted.fit == AS_IT_IS:
        return images
    fit = wanted.fit
    if images.dtype != torch.uint8:
        return fit(images, wanted.shape)
    return torch.cat([as_bytes(fit(in_one(p), wanted.shape)) for p in _pieces(images)])


def _pieces(images: Tensor) -> Sequence[Tensor]:
    return images.tensor_split(-(-len(images) // _AT_ONCE) or 1)


def _scaled(pair: Pair, scale: Scale) -> TensorExamples:
    """Bytes are scaled batch by batch; floats at once, which take no more room then."""
    images, labels = pair
    if images.dtype == torch.uint8:
        return TensorExamples(images, labels, scale)
    return TensorExamples(scale(images), labels)


def _of_folder(path: Path, wanted: Wanted, seed: int) -> Data:
    """The pictures of a folder, in the parts that it has; else a fifth is kept for the test."""
    found = folder.find(path)
    train, test, final, judged_on = _divided(found, seed)
    if not train.paths:
        raise TrainError(f"`{path}` has no images to train on", "give each class some images")
    parts = [part for part in (train, test, final) if part is not None]
    every = [p for part in parts for p in part.paths]
    scan = pictures.scan(every, wanted.form(), wanted.range)
    free = pictures.room()
    stored: list[pictures.Stored] = []
    for part in parts:
        stored.append(pictures.store(part, scan.form, free))
        kept = stored[-1].images
        free -= kept.nbytes if kept is not None else 0
    scale = wanted.scale or Scale(*stored[0].tally.scale())
    scale = scale.replace(is_inside=wanted.is_inside)
    examples = iter([part.examples(scale) for part in stored])
    return Data(
        str(path.resolve()),
        next(examples),
        next(examples) if test else None,
        found.classes,
        scale,
        stored[0].digest,
        wanted.fit,
        next(examples) if final else None,
        judged_on,
        scan.form.range,
        (*found.notes, *scan.notes),
    )


def _divided(found: Found, seed: int) -> tuple[Listing, Listing | None, Listing | None, str]:
    """What is trained on, judged after each epoch and judged at the end; what the second is."""
    if found.valid is not None:
        return found.train, found.valid, found.test, "valid"
    if found.test is not None:
        return found.train, found.test, None, "test"
    part = cast("list[bool]", in_test(torch.tensor(found.train.labels), seed).numpy().tolist())
    kept, held_back = (_only(found.train, part, is_in) for is_in in (False, True))
    return kept, held_back if held_back.paths else None, None, "test"


def _only(listing: Listing, part: list[bool], is_in: bool) -> Listing:
    chosen = [i for i, inside in enumerate(part) if inside == is_in]
    return Listing(
        tuple(listing.paths[i] for i in chosen), tuple(listing.labels[i] for i in chosen)
    )
