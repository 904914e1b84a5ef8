"""The ways in which labelled images come: tensors, a map-style dataset, an iterable of batches.

Each gives the batches of an epoch, in an order that follows from a seed alone, from any batch on:
that is what makes a resumed run see what an unbroken one sees. Of each batch, a process takes its
part. Knows nothing of files, networks or of how processes find each other.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from itertools import chain, islice
from typing import NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from cnndsl.record import Record
from cnndsl.train.errors import TrainError
from cnndsl.train.labelled import as_images, as_label, as_labels

# The label of an image that stands in for a part without images: torch's cross-entropy passes over
# it. A process without images still has to take part in a step, with a gradient of zero.
IGNORED = -100

Prepare = Callable[[Tensor], Tensor]  # makes of images as they are stored what a network gets


class Batch(NamedTuple):
    """A part of a batch: its images and labels, the first one's number, and how many there are."""

    images: Tensor
    labels: Tensor
    first: int
    whole: int


class Part(Record):
    """Which part of each batch is taken: number `rank` of `world` parts as equal as can be."""

    rank: int = 0
    world: int = 1

    def bounds(self, count: int) -> tuple[int, int]:
        """From where up to where in a batch of so many images; the first part is never empty."""
        share, more = divmod(count, self.world)
        first = self.rank * share + min(self.rank, more)
        return first, first + share + (self.rank < more)


WHOLE = Part()


class Examples(Protocol):
    """Labelled images, in batches."""

    @property
    def count(self) -> int:
        """How many images there are, or how many batches where only these are known."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image: channels, height, width."""
        ...

    def steps(self, batch: int) -> int:
        """How many batches an epoch has."""
        ...

    def batches(
        self, batch: int, seed: int | None, start: int = 0, part: Part = WHOLE
    ) -> Iterator[Batch]:
        """The batches from number `start` on; shuffled by `seed`, or in order without one."""
        ...


def order_of(count: int, seed: int | None) -> Tensor:
    """The order in which an epoch visits `count` examples."""
    if seed is None:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


class Place(NamedTuple):
    """A part of a batch: its images' numbers, the first one's number in the batch, its size.

    A part without images has one that stands in for it.
    """

    numbers: Tensor
    is_stand_in: bool
    first: int
    whole: int


def chosen_of(order: Tensor, batch: int, start: int, part: Part) -> Iterator[Place]:
    """Which images a part has, batch by batch from number `start` on."""
    for begin in range(start * batch, len(order), batch):
        numbers = order[begin : begin + batch]
        first, end = part.bounds(len(numbers))
        if first == end:
            yield Place(numbers[:1], True, 0, len(numbers))
        else:
            yield Place(numbers[first:end], False, first, len(numbers))


class TensorExamples:
    """All images in one tensor `(N, C, H, W)`, all labels in another: the fastest way by far.

    `prepare` makes of the images of a batch, as they are stored, what the network gets.
    """

    def __init__(self, images: object, labels: object, prepare: Prepare | None = None) -> None:
        self.stored = as_images(images, 4)
        self.labels = as_labels(labels, len(self.stored)).to(self.stored.device)
        self._prepare = prepare

    @property
    def images(self) -> Tensor:
        """All images, as the network gets them."""
        return self._prepare(self.stored) if self._prepare else self.stored

    @property
    def count(self) -> int:
        """How many images there are."""
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image."""
        return tuple(self.stored.shape[1:])

    def steps(self, batch: int) -> int:
        """How many batches an epoch has; the last may be smaller."""
        return -(-self.count // batch)

    def batches(
        self, batch: int, seed: int | None, start: int = 0, part: Part = WHOLE
    ) -> Iterator[Batch]:
        """The batches from number `start` on."""
        order = order_of(self.count, seed).to(self.labels.device)
        for place in chosen_of(order, batch, start, part):
            labels, images = self.labels[place.numbers], self.stored[place.numbers]
            if place.is_stand_in:
                labels = torch.full_like(labels, IGNORED)
            ready = self._prepare(images) if self._prepare else images
            yield Batch(ready, labels, place.first, place.whole)

    def to(self, device: torch.device) -> "TensorExamples":
        """The same on another device."""
        return TensorExamples(self.stored.to(device), self.labels.to(device), self._prepare)


class Indexed(Protocol):
    """What a map-style dataset is: a length, and a pair (image, class) at each index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> object: ...


class DatasetExamples:
    """A map-style `Dataset`, read one image at a time."""

    def __init__(self, dataset: Indexed) -> None:
        if not len(dataset):
            raise TrainError("the data set is empty", "give at least one image")
        self.dataset = dataset
        self._shape: tuple[int, ...] = ()
        self._shape = tuple(self._pair(0)[0].shape)

    @property
    def count(self) -> int:
        """How many images there are."""
        return len(self.dataset)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image, which is the first one's."""
        return self._shape

    def steps(self, batch: int) -> int:
        """How many batches an epoch has; the last may be smaller."""
        return -(-self.count // batch)

    def batches(
        self, batch: int, seed: int | None, start: int = 0, part: Part = WHOLE
    ) -> Iterator[Batch]:
        """The batches from number `start` on; only the part's own images are read."""
        order = order_of(self.count, seed)
        for place in chosen_of(order, batch, start, part):
            pairs = [self._pair(int(i)) for i in place.numbers]
            images = torch.stack([image for image, _ in pairs])
            labels = torch.tensor([IGNORED if place.is_stand_in else label for _, label in pairs])
            yield Batch(images, labels, place.first, place.whole)

    def _pair(self, index: int) -> tuple[Tensor, int]:
        """The image and the label at an index."""
        what = f"number {index} of the data set"
        image, label = _two(self.dataset[index], what, "(image, class)")
        pixels = as_images(image, 3, f"the values of {what}")
        _refuse_ragged(what, tuple(pixels.shape), self._shape)
        return pixels, as_label(label, what)


class BatchExamples:
    """An iterable of ready batches, such as a `DataLoader`; it shuffles by itself, or not at all.

    Its order must follow from torch's, numpy's and Python's random numbers, which are seeded at the
    start of each epoch. It needs a length: the learning rate depends on the number of steps.
    """

    def __init__(self, source: Iterable[object]) -> None:
        if not isinstance(source, Sized):
            raise TrainError(
                f"how many batches the {type(source).__name__} has is not known",
                "give it a `__len__`: the learning rate depends on the number of steps",
            )
        self.source = source
        self._count = len(source)
        self._shape: tuple[int, ...] = ()
        first = next(iter(source), None)
        if first is None:
            raise TrainError("the data has no batch", "give at least one image")
        self._shape = tuple(self._batch(first, 0, WHOLE).images.shape[1:])

    @property
    def count(self) -> int:
        """How many batches there are."""
        return self._count

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image, which is the first one's."""
        return self._shape

    def steps(self, batch: int) -> int:
        """How many batches an epoch has."""
        return self._count

    def batches(
        self, batch: int, seed: int | None, start: int = 0, part: Part = WHOLE
    ) -> Iterator[Batch]:
        """The batches from number `start` on; the ones before are read and dropped.

        What is not read now draws other random numbers: those of its own step, not the epoch's.
        """
        given = iter(self.source)
        if start:
            deque(islice(given, start), maxlen=0)
        else:
            given = chain(list(islice(given, 1)), given)
        return self._counted(given, start, part)

    def _counted(self, given: Iterator[object], start: int, part: Part) -> Iterator[Batch]:
        """The batches; there must be as many as the source said."""
        number = start
        for batch in given:
            yield self._batch(batch, number, part)
            number += 1
        if number != self._count:
            raise TrainError(
                f"the {type(self.source).__name__} says that it has {self._count:,} batches, but "
                f"gave {number:,}",
                "let it give them all each time that it is gone through, and let `len` count them",
            )

    def _batch(self, given: object, number: int, part: Part) -> Batch:
        what = f"batch {number}"
        pixels, classes = _two(given, what, "(images, labels)")
        images = as_images(pixels, 4, f"the images of {what}")
        _refuse_ragged(f"an image of {what}", tuple(images.shape[1:]), self._shape)
        labels = as_labels(classes, len(images), f"the labels of {what}").to(images.device)
        return _part_of(images, labels, part)


def _two(given: object, what: str, form: str) -> tuple[object, object]:
    """The two parts of a pair."""
    kind = type(given).__name__
    parts = cast("tuple[object, ...]", given) if isinstance(given, tuple | list) else ()
    if len(parts) != 2:
        raise TrainError(f"{what} is of the type {kind}", f"give pairs: {form}")
    return parts[0], parts[1]


def _refuse_ragged(what: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if wanted and shape != wanted:
        raise TrainError(
            f"{what} has the shape {shape}, the first one {wanted}",
            "bring all images to one shape",
        )


def _part_of(images: Tensor, labels: Tensor, part: Part) -> Batch:
    whole = len(labels)
    first, end = part.bounds(whole)
    if first == end:
        return Batch(images[:1], torch.full_like(labels[:1], IGNORED), 0, whole)
    return Batch(images[first:end], labels[first:end], first, whole)


def as_examples(data: object) -> Examples:
    """Any of the ways, told apart by what the object can do."""
    if isinstance(data, TensorExamples | DatasetExamples | BatchExamples):
        return data
    match data:
        case (Tensor() | np.ndarray(), object()):
            return TensorExamples(*_two(cast("object", data), "the data", "(images, labels)"))
        case Sized() if hasattr(data, "__getitem__") and not isinstance(data, Mapping | str):
            return DatasetExamples(cast("Indexed", data))
        case Iterable() if not isinstance(data, Mapping | str | Tensor):
            return BatchExamples(cast("Iterable[object]", data))
        case _:
            raise TrainError(
                f"an object of type {type(data).__name__} is no data to train on",
                "give (images, labels), a map-style Dataset, or an iterable of batches",
            )
