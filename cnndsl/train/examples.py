"""The ways in which labelled images come: tensors, a map-style dataset, an iterable of batches.

Each gives the batches of an epoch, in an order that follows from a seed alone, from any batch on:
that is what makes a resumed run see what an unbroken one sees. Of each batch, a process takes its
part. Knows nothing of files, networks or of how processes find each other.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sized
from itertools import chain, islice
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor

from cnndsl.record import Record
from cnndsl.train.errors import TrainError

# The label of an image that stands in for a part without images: torch's cross-entropy passes over
# it. A process without images still has to take part in a step, with a gradient of zero.
IGNORED = -100

Pair = tuple[Tensor, Tensor]


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


def _chosen(
    order: Tensor, batch: int, start: int, part: Part
) -> Iterator[tuple[Tensor, bool, int, int]]:
    """The numbers of a part's images, batch by batch; one that stands in where it has none."""
    for begin in range(start * batch, len(order), batch):
        numbers = order[begin : begin + batch]
        first, end = part.bounds(len(numbers))
        if first == end:
            yield numbers[:1], True, 0, len(numbers)
        else:
            yield numbers[first:end], False, first, len(numbers)


class TensorExamples:
    """All images in one tensor `(N, C, H, W)`, all labels in another: the fastest way by far."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        if images.ndim != 4:
            raise TrainError(
                f"the images are a tensor of shape {tuple(images.shape)}",
                "give four dims: (images, channels, height, width)",
            )
        if labels.shape != images.shape[:1]:
            raise TrainError(
                f"there are {len(images):,} images, but the labels have the shape "
                f"{tuple(labels.shape)}",
                "give one whole number, its class, for each image",
            )
        if labels.is_floating_point() or labels.is_complex():
            raise TrainError(f"the labels are {labels.dtype}", "make them whole: `labels.long()`")
        is_kept = images.is_floating_point() or images.dtype == torch.uint8
        self.images = images if is_kept else images.float()
        self.labels = labels.long()

    @property
    def count(self) -> int:
        """How many images there are."""
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image."""
        return tuple(self.images.shape[1:])

    def steps(self, batch: int) -> int:
        """How many batches an epoch has; the last may be smaller."""
        return -(-self.count // batch)

    def batches(
        self, batch: int, seed: int | None, start: int = 0, part: Part = WHOLE
    ) -> Iterator[Batch]:
        """The batches from number `start` on."""
        order = order_of(self.count, seed).to(self.labels.device)
        for chosen, empty, first, whole in _chosen(order, batch, start, part):
            labels = self.labels[chosen]
            if empty:
                labels = torch.full_like(labels, IGNORED)
            yield Batch(self.images[chosen], labels, first, whole)

    def to(self, device: torch.device) -> "TensorExamples":
        """The same on another device."""
        return TensorExamples(self.images.to(device), self.labels.to(device))


class Indexed(Protocol):
    """What a map-style dataset is: a length, and a pair (image, class) at each index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]: ...


class DatasetExamples:
    """A map-style `Dataset`, read one image at a time."""

    def __init__(self, dataset: Indexed) -> None:
        if not len(dataset):
            raise TrainError("the data set is empty", "give at least one image")
        self.dataset = dataset
        image = cast("object", dataset[0][0])
        if not isinstance(image, Tensor):
            raise TrainError(
                f"the data set gives images as {type(image).__name__}",
                "let it give tensors, for example with torchvision's `transforms.ToTensor()`",
            )
        self._shape = tuple(image.shape)

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
        for chosen, empty, first, whole in _chosen(order, batch, start, part):
            pairs = [self.dataset[int(i)] for i in chosen]
            images = torch.stack([image for image, _ in pairs])
            labels = torch.tensor([IGNORED if empty else int(label) for _, label in pairs])
            yield Batch(images, labels, first, whole)


class BatchExamples:
    """An iterable of ready batches, such as a `DataLoader`; it shuffles by itself, or not at all.

    Its order must follow from torch's, numpy's and Python's random numbers, which are seeded at the
    start of each epoch. It needs a length: the learning rate depends on the number of steps.
    """

    def __init__(self, source: Iterable[Pair]) -> None:
        if not isinstance(source, Sized):
            raise TrainError(
                f"how many batches the {type(source).__name__} has is not known",
                "give it a `__len__`: the learning rate depends on the number of steps",
            )
        self.source = source
        self._count = len(source)
        first = next(iter(source), None)
        if first is None:
            raise TrainError("the data has no batch", "give at least one image")
        self._shape = tuple(first[0].shape[1:])

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
        pairs = iter(self.source)
        if start:
            deque(islice(pairs, start), maxlen=0)
        else:
            pairs = chain(list(islice(pairs, 1)), pairs)
        return (_part_of(images, labels, part) for images, labels in pairs)


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
        case (Tensor() as images, Tensor() as labels):
            return TensorExamples(images, labels)
        case Sized() if hasattr(data, "__getitem__"):
            return DatasetExamples(cast("Indexed", data))
        case Iterable():
            return BatchExamples(cast("Iterable[Pair]", data))
        case _:
            raise TrainError(
                f"an object of type {type(data).__name__} is no data to train on",
                "give (images, labels), a map-style Dataset, or an iterable of batches",
            )
