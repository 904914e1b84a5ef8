"""Pictures in files as examples: kept in memory as bytes, or decoded for each batch if too many.

Every picture is decoded once before training begins, in both cases: so damaged files are named
together, and the images' mean, deviation and hash are known.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from cnndsl.diagnostics.safe import safe_list
from cnndsl.record import Record
from cnndsl.train.errors import TrainError, UsageError
from cnndsl.train.examples import (
    IGNORED,
    WHOLE,
    Batch,
    Examples,
    Part,
    Prepare,
    TensorExamples,
    chosen_of,
    order_of,
)
from cnndsl.train.folder import Listing
from cnndsl.train.pixels import Form, Header, PictureError, Range, header, read, values_between
from cnndsl.train.tally import Tally

# The most that the images of a set may take in memory. 2 GiB hold 14,000 photos of 224 x 224.
ROOM = 2048  # MiB
VARIABLE = "CNNDSL_IMAGE_MEMORY"

_WORKERS = min(8, os.cpu_count() or 1)  # decoders run side by side: they let Python's lock go
_AT_ONCE = 2 * _WORKERS  # files that are read together
_LISTED = 10

_T = TypeVar("_T")


class Scan(Record):
    """What the headers of all files say: the form to read them in, and what is to be said."""

    form: Form
    notes: tuple[str, ...]


class Stored(Record):
    """Pictures that were all read once: in `images`, or to be read again where that is None."""

    listing: Listing
    form: Form
    shape: tuple[int, ...]
    images: Tensor | None
    tally: Tally
    digest: str

    def examples(self, prepare: Prepare | None) -> Examples:
        """The examples; `prepare` makes of stored images what the network gets."""
        if self.images is None:
            return FileExamples(self.listing, self.form, self.shape, prepare)
        return TensorExamples(self.images, torch.tensor(self.listing.labels), prepare)


class FileExamples:
    """Pictures that are decoded for each batch, the next one while the network learns."""

    def __init__(
        self, listing: Listing, form: Form, shape: tuple[int, ...], prepare: Prepare | None
    ) -> None:
        self._paths = listing.paths
        self._form = form
        self._prepare = prepare
        self.labels = torch.tensor(listing.labels)
        self.shape = shape

    @property
    def count(self) -> int:
        """How many images there are."""
        return len(self._paths)

    def steps(self, batch: int) -> int:
        """How many batches an epoch has; the last may be smaller."""
        return -(-self.count // batch)

    def batches(
        self, batch: int, seed: int | None, start: int = 0, part: Part = WHOLE
    ) -> Iterator[Batch]:
        """The batches from number `start` on; only the part's own images are read."""
        places = list(chosen_of(order_of(self.count, seed), batch, start, part))
        paths = [[self._paths[int(i)] for i in place.numbers] for place in places]
        images = _ahead(paths, self._form)
        for place, found in zip(places, images, strict=True):
            labels = self.labels[place.numbers]
            if place.is_stand_in:
                labels = torch.full_like(labels, IGNORED)
            stacked = torch.stack(found)
            ready = self._prepare(stacked) if self._prepare else stacked
            yield Batch(ready, labels, place.first, place.whole)


def room() -> int:
    """How many bytes of images are kept in memory."""
    given = os.environ.get(VARIABLE, str(ROOM))
    try:
        mebibytes = float(given)
        return int(mebibytes * 2**20) if mebibytes >= 0 else _refuse_room(given)
    except (ValueError, OverflowError):
        return _refuse_room(given)


def _refuse_room(given: str) -> int:
    raise UsageError(
        f"the environment variable {VARIABLE} is `{given}`",
        f"give the MiB of images that may stay in memory, for example {VARIABLE}={ROOM}",
    )


def scan(paths: Sequence[Path], form: Form, kept: Range | None = None) -> Scan:
    """How these pictures are read: all in one form, whatever each of them is.

    Where one of them has more than 8 bits, all become float32; but bytes where the network takes
    bytes, for which `form.is_exact` is given as False. `kept` is the range of a run that was
    trained before.
    """
    headers = [found for part in _in_turn(paths, _tolerant) for found in part]
    notes: list[str] = []
    moving = sum(h.has_frames for h in headers)
    if moving:
        notes.append(
            "of 1 picture with several frames, the first is used"
            if moving == 1
            else f"of {moving:,} pictures with several frames, the first is used"
        )
    used = kept
    numbers = [path for path, h in zip(paths, headers, strict=True) if h.depth == "numbers"]
    if numbers and used is None:
        found = [r for part in _in_turn(numbers, values_between) for r in part]
        used = Range(min(r.low for r in found), max(r.high for r in found))
        if used.low >= 0 and used.high <= 1:
            used = Range()
        else:
            notes.append(
                f"pictures of 32-bit numbers hold values from {used.low:g} to {used.high:g}: "
                "in all of them, this range becomes 0 to 1"
            )
    is_exact = form.is_exact and any(h.depth != "bytes" for h in headers)
    return Scan(form.replace(range=used or Range(), is_exact=is_exact), tuple(notes))


def store(listing: Listing, form: Form, free: int) -> Stored:
    """Read all pictures, and keep them if they take no more than `free` bytes."""
    tally, digest = Tally(), hashlib.sha256()
    images: Tensor | None = None
    shape: tuple[int, ...] = ()
    number = 0
    for part in _in_turn(listing.paths, lambda path: read(path, form)[0]):
        for image in part:
            if not number:
                shape = tuple(image.shape)
                if image.nbytes * len(listing.paths) <= free:
                    images = image.new_empty((len(listing.paths), *shape))
            elif image.shape != shape:
                raise TrainError(
                    f"the images differ in size: {listing.paths[number]} has {_size(image.shape)}, "
                    f"{listing.paths[0]} has {_size(shape)}",
                    "`--resize` brings all images to the size of the network's `input`",
                )
            if images is not None:
                images[number] = image
            tally.add(image[None])
            digest.update(image.numpy().data)
            number += 1
    digest.update(repr((shape, listing.labels)).encode())
    return Stored(listing, form, shape, images, tally, digest.hexdigest())


def _tolerant(path: Path) -> Header:
    """The header; one that cannot be read is named together with all others by `store`."""
    try:
        return header(path)
    except PictureError:
        return Header("bytes", has_frames=False)


def _in_turn(paths: Sequence[Path], work: Callable[[Path], _T]) -> Iterator[list[_T]]:
    """What `work` gives for each file, some files at once; names all that cannot be read."""
    broken: list[PictureError] = []

    def tried(path: Path) -> _T | None:
        try:
            return work(path)
        except PictureError as error:
            broken.append(error)
            return None

    with ThreadPoolExecutor(_WORKERS) as pool:
        for first in range(0, len(paths), _AT_ONCE):
            found = list(pool.map(tried, paths[first : first + _AT_ONCE]))
            if not broken:
                yield [value for value in found if value is not None]
    if broken:
        raise _all_named(sorted(broken, key=lambda error: error.path))


def _all_named(broken: list[PictureError]) -> TrainError:
    if len(broken) == 1:
        return broken[0]
    listed = safe_list((f"`{error.path}` ({error.why})" for error in broken), _LISTED)
    return TrainError(
        f"{len(broken):,} files cannot be read as images: {listed}",
        "remove them or replace them",
    )


def _ahead(batches: Sequence[Sequence[Path]], form: Form) -> Iterator[list[Tensor]]:
    """The pictures of each batch; those of the next one are decoded meanwhile."""

    def work(path: Path) -> Tensor:
        return read(path, form)[0]

    with ThreadPoolExecutor(_WORKERS) as pool:
        waiting = deque[list[Future[Tensor]]]()
        for paths in batches:
            waiting.append([pool.submit(work, path) for path in paths])
            if len(waiting) > 1:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[2]}"
