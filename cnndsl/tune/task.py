"""What is chosen for, and among what: plain data that a chooser and a device share.

Knows regions; knows neither how anything is measured nor where.
"""

from typing import Literal

from cnndsl.fuse.choice import Choice
from cnndsl.fuse.pins import Kernel, Pin, Role, Tile, bucket
from cnndsl.fuse.regions import Region
from cnndsl.graph.graph import INPUT, Node
from cnndsl.layers.conv import Conv
from cnndsl.record import Record
from cnndsl.source import Source, Span

_NOWHERE = Span(Source("", ""), 0, 0)

Direction = Literal["forward", "backward"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "backward")


class Task(Record):
    """A region, or its part before a batchnorm in training, for batches of images of one size.

    `label` is what people call it; `region` has no labels of the network, so that regions that are
    alike are one task. `size` is (height, width) of what it reads, None for vectors; `dtype` is one
    of `DTYPES`; `text` is its emitted text as the rules have it.
    """

    label: str
    region: Region
    role: Role
    images: int
    size: tuple[int, int] | None
    dtype: str
    text: str

    @property
    def name(self) -> str:
        """What people call it."""
        return self.label + (" (training)" if self.role == "sums" else "")

    @property
    def bucket(self) -> int:
        """Batches of up to so many images share what is chosen."""
        return bucket(self.images)

    @property
    def is_conv(self) -> bool:
        """Whether it is a convolution; else it is a fully connected layer."""
        return isinstance(self.region.anchor.layer, Conv)

    @property
    def needs_input_gradient(self) -> bool:
        """Whether anybody asks for the gradient of what it reads: not of the network's input."""
        return self.region.inputs[0] != INPUT


def without_labels(region: Region) -> Region:
    """The same region, under names that tell nothing of its network: equal where it is alike."""
    names = {name: f"x{number}" for number, name in enumerate(region.inputs) if name != INPUT}
    for number, node in enumerate(region.nodes):
        names[node.path] = f"{node.layer.kind}{number}"
    nodes = {
        node.path: node.replace(
            path=names[node.path],
            inputs=tuple(names.get(name, name) for name in node.inputs),
            span=_NOWHERE,
            calls=(),
        )
        for node in region.nodes
    }

    def other(node: Node | None) -> Node | None:
        return None if node is None else nodes[node.path]

    residual = region.residual
    return region.replace(
        nodes=tuple(nodes.values()),
        anchor=nodes[region.anchor.path],
        affine=other(region.affine),
        merge=other(region.merge),
        residual=None if residual is None else names.get(residual, residual),
        activation=other(region.activation),
        pool=other(region.pool),
    )


def direction_of(kernel: Kernel) -> Direction:
    """In which direction a kernel is launched."""
    return "forward" if kernel in ("forward", "stage") else "backward"


class Candidate(Record):
    """One way through a region in one direction, and the tiles in which it differs from its rule.

    Of `choice`, the other direction says nothing.
    """

    direction: Direction
    choice: Choice | None
    tiles: tuple[tuple[Kernel, Tile], ...] = ()

    @property
    def way(self) -> str:
        """`fused`, `library` or `staged`."""
        if self.choice is None:
            return "fused"
        return self.choice.forward if self.direction == "forward" else self.choice.backward

    @property
    def taps(self) -> str:
        """How it goes through the terms of a sum; empty for a fully connected layer."""
        return self.choice.taps if self.choice is not None and self.choice.taps != "none" else ""

    @property
    def name(self) -> str:
        """What people call it; no two candidates of a direction have one name."""
        words = f"{self.way}, {self.taps}" if self.taps and self.way != "library" else self.way
        tiles = "".join(f", {kernel} {tile}" for kernel, tile in self.tiles)
        return words + tiles


class Static(Record):
    """What the machine code of a candidate's kernels uses, all of them together at the most.

    `error` says why there is none.
    """

    registers: int = 0
    spills: int = 0
    shared_bytes: int = 0
    error: str = ""


class Row(Record):
    """What became of a candidate: its time in microseconds, or why it was not timed."""

    direction: Direction
    name: str
    us: float | None
    why: str = ""


class Verdict(Record):
    """What was chosen for a task, what it was chosen from, and in words why."""

    pin: Pin
    rows: tuple[Row, ...]
    why: tuple[str, ...]

    def chosen(self, direction: Direction) -> Candidate:
        """What was chosen in a direction."""
        tiles: tuple[tuple[Kernel, Tile], ...] = tuple(
            (t.kernel, t.tile) for t in self.pin.tiles if direction_of(t.kernel) == direction
        )
        return Candidate(direction, self.pin.choice, tiles)
