"""The ways in which labelled images come: tensors, a map-style dataset, an iterable of batches.

Each gives the batches of an epoch, in an order that follows from a seed alone, from any batch on:
that is what makes a resumed run see what an unbroken one sees. Knows nothing of files or networks.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from typing import Protocol, cast

import torch
from torch import Tensor

from cnndsl.train.errors import TrainError

Batch = tuple[Tensor, Tensor]


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

    def batches(self, batch: int, seed: int | None, start: int = 0) -> Iterator[Batch]:
        """The batches from number `start` on; shuffled by `seed`, or in order without one."""
        ...


def order_of(count: int, seed: int | None) -> Tensor:
    """The order in which an epoch visits `count` examples."""
    if seed is None:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


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
        self.images = images if images.is_floating_point() else images.float()
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

    def batches(self, batch: int, seed: int | None, start: int = 0) -> Iterator[Batch]:
        """The batches from number `start` on."""
        order = order_of(self.count, seed).to(self.labels.device)
        for first in range(start * batch, self.count, batch):
            chosen = order[first : first + batch]
            yield self.images[chosen], self.labels[chosen]

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

    def batches(self, batch: int, seed: int | None, start: int = 0) -> Iterator[Batch]:
        """The batches from number `start` on."""
        order = order_of(self.count, seed)
        for first in range(start * batch, self.count, batch):
            pairs = [self.dataset[int(i)] for i in order[first : first + batch]]
            yield torch.stack([image for image, _ in pairs]), torch.tensor([y for _, y in pairs])


class BatchExamples:
    """An iterable of ready batches, such as a `DataLoader`; it shuffles by itself, or not at all.

    Its order must follow from torch's, numpy's and Python's random numbers, which are seeded at the
    start of each epoch. It needs a length: the learning rate depends on the number of steps.
    """

    def __init__(self, source: Iterable[Batch]) -> None:
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

    def batches(self, batch: int, seed: int | None, start: int = 0) -> Iterator[Batch]:
        """The batches from number `start` on; the ones before are read and dropped."""
        batches = iter(self.source)
        # Read them now, not when the first is asked for: random numbers are put back afterwards.
        deque(islice(batches, start), maxlen=0)
        return batches


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
            return BatchExamples(cast("Iterable[Batch]", data))
        case _:
            raise TrainError(
                f"an object of type {type(data).__name__} is no data to train on",
                "give (images, labels), a map-style Dataset, or an iterable of batches",
            )
