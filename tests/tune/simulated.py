"""A GPU that is a table: it gives times by the names of candidates, and right or wrong tensors."""

from types import SimpleNamespace
from unittest.mock import patch

import torch

from cnndsl.fuse.choices import kernels, layers
from cnndsl.fuse.pins import Tile
from cnndsl.fuse.regions import Region
from cnndsl.tune import door
from cnndsl.tune.door import Shape, tasks
from cnndsl.tune.expected import Expected
from cnndsl.tune.task import Candidate, Static, Task
from tests.fuse.pinning import graph_of, regions

RULE = Tile(64, 64, 32, 4, 3)
VALUES = torch.arange(12, dtype=torch.float64).view(3, 4)


class Simulated:
    """Times in microseconds by a part of a candidate's name, the last that fits; else 100."""

    def __init__(self, times=(), wrong=(), failing=(), static=None, name="a table") -> None:
        self.times, self.wrong, self.failing = dict(times), set(wrong), set(failing)
        self.static_of = static or {}
        self.name = name
        self.versions = {"torch": "1", "triton": "1"}
        self.shared_limit = 100_000
        self.too_large: tuple[str, ...] = ()
        self.capturing = False
        self.alive = True
        self.opened: list[Task] = []
        self.ran: list[str] = []
        self.timed: list[str] = []

    def is_capturing(self) -> bool:
        return self.capturing

    def is_alive(self) -> bool:
        return self.alive

    def open(self, task: Task):
        self.opened.append(task)
        return Subject(self, task)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


class Subject:
    def __init__(self, device: Simulated, task: Task) -> None:
        self.device, self.task = device, task

    def tiles(self, choice, direction):
        forward = direction == "forward"
        names = kernels(self.task.region, choice)
        return {name: RULE for name in names if (name in ("forward", "stage")) == forward}

    def static(self, candidates):
        return [self._found(self.device.static_of, c, Static()) for c in candidates]

    def expected(self, direction):
        del direction
        return [Expected("y", VALUES)]

    def run(self, candidate):
        name = label(candidate)
        self.device.ran.append(name)
        if any(part in name for part in self.device.failing):
            raise RuntimeError("CUDA error: an illegal instruction\nand much more")
        values = VALUES.float()
        if any(part in name for part in self.device.wrong):
            values = values.clone()
            values[1, 2] += 1  # one value, by one
        return [values]

    def time(self, candidates):
        for name in map(label, candidates):
            if any(part in name for part in self.device.too_large):
                raise RuntimeError("CUDA out of memory")
        self.device.timed += [label(c) for c in candidates]
        return [self._found(self.device.times, c, 100.0) for c in candidates]

    def _found(self, table, candidate: Candidate, default):
        fits = [value for part, value in table.items() if part in label(candidate)]
        return fits[-1] if fits else default


def label(candidate: Candidate) -> str:
    return f"{candidate.direction}: {candidate.name}"


def task_of(text: str, images: int = 64, number: int = 0, role: str = "whole") -> Task:
    graph, _ = graph_of(text)
    with patch.object(door, "text_of", quick_text):
        found = tasks(graph, regions(graph)[number], Shape(images, (), torch.float32))
        return next(task for task in found if task.role == role)


def quick_text(region: Region) -> str:
    """Emitting takes a second."""
    return "\n".join(layers(region))


def rows_by_name(verdict):
    return {
        f"{row.direction}: {row.name}": SimpleNamespace(us=row.us, why=row.why)
        for row in verdict.rows
    }
