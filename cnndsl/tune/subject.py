"""A task with its tensors on a device that runs kernels, and its candidates as functions.

Each of a region's ways is emitted and imported once; tiles are changed in its geometry. Knows what
a candidate is; how its kernels are compiled ahead, and what a clock is, the device tells.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Protocol

import torch
from torch import Tensor

from cnndsl.fuse.choice import Choice
from cnndsl.fuse.pins import Kernel, Tile
from cnndsl.layers.conv import Conv
from cnndsl.record import Record
from cnndsl.tune import trial
from cnndsl.tune.built import RT, Built, Text, write
from cnndsl.tune.expected import Expected
from cnndsl.tune.reference import Reference
from cnndsl.tune.task import Candidate, Direction, Static, Task, direction_of
from cnndsl.tune.trial import Draw, Forward, Given

DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
# What is compared with float64 is no larger than this: a GPU is slow at it.
MOST_PRODUCTS = 2e10


class Question(Record):
    """What is asked of the compiler: a candidate's emitted text, tiles, and tensors (on `meta`)."""

    text: Text
    direction: Direction
    dtype: str
    tiles: tuple[tuple[Kernel, Tile], ...]
    given: Given


class Means(Protocol):
    """What differs between machines."""

    @property
    def device(self) -> torch.device:
        """Where tensors are."""
        ...

    def static(self, questions: Sequence[Question]) -> Sequence[Static]:
        """Compile all, side by side."""
        ...

    def time(self, calls: Sequence[Callable[[], object]]) -> Sequence[float]:
        """Microseconds of each, in turns."""
        ...


class Subject:
    """The task, ready to be tried."""

    def __init__(self, task: Task, means: Means) -> None:
        """Tensors are made when they are first needed."""
        self._task, self._means = task, means
        self._built: dict[Choice | None, Built] = {}
        self._tiles: dict[tuple[Choice | None, Direction], dict[Kernel, Tile]] = {}

    def tiles(self, choice: Choice | None, direction: Direction) -> Mapping[Kernel, Tile]:
        """The tiles of the rules, as they are launched."""
        if (choice, direction) not in self._tiles:
            built = self._of(choice)
            with built.noting() as found:
                self._once(Candidate(direction, choice), self._small)
            self._tiles[choice, direction] = {
                kernel: tile for kernel, tile in found.items() if direction_of(kernel) == direction
            }
        return self._tiles[choice, direction]

    def static(self, candidates: Sequence[Candidate]) -> Sequence[Static]:
        """What the compiler says."""
        task, given = self._task, self._large.on_meta()
        return self._means.static(
            [
                Question(self._of(c.choice).text, c.direction, task.dtype, c.tiles, given)
                for c in candidates
            ]
        )

    def expected(self, direction: Direction) -> Sequence[Expected]:
        """What PyTorch's operators give."""
        return self._reference[direction]

    def run(self, candidate: Candidate) -> Sequence[Tensor | None]:
        """The results of a trial, on memory that holds what is no number."""
        self._poison()
        found = self._once(candidate, self._small)
        if self._means.device.type == "cuda":
            torch.cuda.synchronize(self._means.device)
        if isinstance(found, Forward):
            return trial.results(self._task, found)
        wanted = self._small.needs
        needs = (*wanted, self._small.residual is not None and found[-1].numel() > 0)
        return [t if need else None for t, need in zip(found, needs, strict=False)]

    def time(self, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Microseconds, on tensors such as training has."""
        return self._means.time([self._call(c) for c in candidates])

    # ── what is run ──────────────────────────────────────────────────────────────────────────────

    def _once(self, candidate: Candidate, given: Given) -> Forward | Sequence[Tensor]:
        built = self._of(candidate.choice)
        operators = built.operators(candidate.tiles, self._task.dtype)
        made = trial.forward(operators, built, given)
        if candidate.direction == "forward":
            return made
        return trial.backward(operators, built, given, made)

    def _call(self, candidate: Candidate) -> Callable[[], object]:
        built, given = self._of(candidate.choice), self._large
        operators = built.operators(candidate.tiles, self._task.dtype)
        if candidate.direction == "forward":
            return partial(trial.forward, operators, built, given)
        made = trial.forward(operators, built, given)
        return partial(trial.backward, operators, built, given, made)

    def _of(self, choice: Choice | None) -> Built:
        if choice not in self._built:
            task = self._task
            self._built[choice] = Built(write(task.region, task.role, choice))
        return self._built[choice]

    @property
    def _any(self) -> Built:
        return next(iter(self._built.values()))

    @cached_property
    def _small(self) -> Given:
        """Whole numbers, of as many images as float64 has time for."""
        task = self._task
        images = min(task.images, max(1, int(MOST_PRODUCTS // self._products)))
        draw = Draw(self._means.device, DTYPES[task.dtype], whole=True)
        return trial.given(task, self._any, images, draw)

    @cached_property
    def _large(self) -> Given:
        draw = Draw(self._means.device, DTYPES[self._task.dtype], whole=False)
        return trial.given(self._task, self._any, self._task.images, draw)

    @property
    def _products(self) -> int:
        """For one image."""
        layer, size, g = self._task.region.anchor.layer, self._task.size, self._any.geometry
        if not isinstance(layer, Conv) or size is None:
            return g.features * g.outputs
        terms = g.channels // g.groups * g.kernel[0] * g.kernel[1]
        sizes = RT.conv_sizes(g, *size)
        return int(sizes.conv_height * sizes.conv_width * g.filters * terms)

    @cached_property
    def _reference(self) -> Mapping[Direction, Sequence[Expected]]:
        found = Reference(self._task, self._any, self._small)
        return {"forward": found.forward(), "backward": found.backward()}

    def _poison(self) -> None:
        """Leave memory full of what is no number, for the next tensors of the same sizes."""
        for tensor in self._small.tensors:
            if tensor is not None:
                torch.full_like(tensor, float("nan"))
