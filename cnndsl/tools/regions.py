"""The regions of a network for `bench`: candidates, time, bytes, share of the roof, choice and why.

Measured where there is a GPU; else what the rules choose, and by which reason.
"""

from contextlib import closing
from typing import Any, cast

import torch

from cnndsl.fuse.choice import reason
from cnndsl.fuse.choices import Choices, title
from cnndsl.fuse.regions import Region, parts
from cnndsl.fuse.ways import pool_of, roles, ruled
from cnndsl.layers.conv import Conv
from cnndsl.layers.pool import Pool
from cnndsl.layers.types import ImageType
from cnndsl.record import Record
from cnndsl.runtime.load import Origin
from cnndsl.tools.roof import Roof, Work, measured, work
from cnndsl.tune.cuda import Cuda
from cnndsl.tune.device import Device
from cnndsl.tune.door import DTYPES, Shape, measure, sizes_of
from cnndsl.tune.store import Store
from cnndsl.tune.task import DIRECTIONS, Direction, Task, Verdict, without_labels


class Line(Record):
    """A region, or its part before a batchnorm in training, in one direction.

    `us` is its time in microseconds and `share` that of the roof, None where nothing was measured;
    `candidates` are (name, microseconds or None, why it was not timed).
    """

    region: str
    role: str
    direction: Direction
    choice: str
    work: Work
    us: float | None
    share: float | None
    candidates: tuple[tuple[str, float | None, str], ...]
    why: str

    def json(self) -> dict[str, Any]:
        """As `bench --format json` has it."""
        found = dict(zip(self.__fields__, self.values(), strict=True))
        del found["work"]
        rows = [{"name": n, "us": us, "why": why} for n, us, why in self.candidates]
        counted = {"bytes": self.work.bytes, "products": self.work.products}
        return {**found, **counted, "candidates": rows}


def by_rule(origin: Origin, shape: Shape) -> list[Line]:
    """What the rules choose, without any measurement."""
    found: list[Line] = []
    for region in regions(origin):
        for role in roles(region):
            choice = ruled(region, role)
            dtype = DTYPES.get(shape.dtype, "fp32")
            counted = work(region, role, shape.images, sizes_of(origin.graph, shape), dtype)
            for direction in DIRECTIONS:
                way = "fused"
                if choice is not None:
                    way = choice.forward if direction == "forward" else choice.backward
                    way += f", {choice.taps}" * (way != "library" and choice.taps != "none")
                line = Line(
                    title(region), role, direction, way, counted[direction], None, None, (),
                    _reason(region, role),
                )  # fmt: skip
                found.append(line)
    return found


def by_measurement(
    origin: Origin, shape: Shape, device: Device, store: Store, roof: Roof
) -> tuple[list[Line], Choices]:
    """What a GPU says."""
    found: list[Line] = []
    bare = {without_labels(region): region for region in regions(origin)}
    sizes = sizes_of(origin.graph, shape)

    def note(task: Task, verdict: Verdict) -> None:
        region = bare[task.region]
        counted = work(region, task.role, shape.images, sizes, task.dtype)
        for direction, why in zip(DIRECTIONS, verdict.why, strict=True):
            found.append(_line(task, verdict, direction, why, counted[direction], roof))

    choices = measure(origin.graph, shape, device, store, note)
    return found, choices


def on_gpu(origin: Origin, shape: Shape, device: torch.device) -> tuple[list[Line], Choices]:
    """The same on a GPU of this machine."""
    with closing(Cuda(device)) as gpu:
        roof = measured(device, DTYPES[shape.dtype])
        return by_measurement(origin, shape, gpu, Store(), roof)


def regions(origin: Origin) -> list[Region]:
    """The regions of a network, in order."""
    return [part for part in parts(origin.graph) if isinstance(part, Region)]


def _line(
    task: Task, verdict: Verdict, direction: Direction, why: str, counted: Work, roof: Roof
) -> Line:
    rows = [row for row in verdict.rows if row.direction == direction]
    choice = verdict.chosen(direction).name
    us = next((row.us for row in rows if row.name == choice), None)
    share = None if us is None else roof.microseconds(counted) / us
    candidates = tuple((row.name, row.us, row.why) for row in rows)
    return Line(task.label, task.role, direction, choice, counted, us, share, candidates, why)


def _reason(region: Region, role: str) -> str:
    layer, arrives = region.anchor.layer, region.anchor.arrives
    if not isinstance(layer, Conv) or not isinstance(arrives, ImageType):
        return "with so few weights, one kernel beats a product and its company"
    node = pool_of(region, cast("Any", role))
    pool = node.layer if node is not None else None
    return reason(layer, arrives, pool if isinstance(pool, Pool) else None)
