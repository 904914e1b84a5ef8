"""A region, emitted alone with certain ways and imported: its operators as plain functions.

Tiles are changed without emitting anything anew: they are a field of the geometry. Knows how the
emitted text calls things (kernels/README.md); knows nothing of time.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import count
from typing import Any

from cnndsl.emit.module import Operator, Written, emit_region
from cnndsl.fuse.choice import Choice
from cnndsl.fuse.pins import Kernel, Pin, Role, Tile, TileOf
from cnndsl.fuse.regions import Region
from cnndsl.layers.conv import Conv
from cnndsl.record import Record
from cnndsl.runtime.load import import_text
from cnndsl.runtime.using import never, using_in

# Emitted code has no types that are known here, nor has what it shares.
Untyped = Any
RT: Untyped = import_module("cnndsl.rt")
_NUMBERS = count(1)
# Makes the emitter write the field and the question; it is replaced before anything runs.
_PLACEHOLDER = (TileOf("forward", "fp32", 1, Tile(16, 32, 16, 4, 2)),)
# Those with a tile that can be chosen.
_KERNELS: tuple[Kernel, ...] = ("forward", "stage", "input_gradient", "weight_gradient")


class Operators(Record):
    """What computes a region: functions of tensors, which allocate what they give back."""

    forward: Untyped
    backward: Untyped


class Text(Record):
    """The emitted text of a region, and by what it calls the operator that is tried."""

    text: str
    name: str
    operator: Operator
    is_conv: bool


def write(region: Region, role: Role, choice: Choice | None) -> Text:
    """Emit a region that goes these ways, so that its tiles can be changed."""
    found = emit_region(region.replace(pins=((role, Pin(choice, _PLACEHOLDER)),)))
    is_conv = isinstance(region.anchor.layer, Conv)
    return Text(found.text, found.name, dict(found.operators)[role], is_conv)


class Built:
    """The emitted region, imported."""

    def __init__(self, text: Text) -> None:
        """Import it."""
        self.text = text
        self.space: dict[str, Untyped] = vars(import_text(Written(text.text, text.name)))

    @property
    def geometry(self) -> Untyped:
        """Its geometry with the tiles of the rules."""
        return self.space[self.text.operator.geometry]._replace(tiles=())

    def operators(self, tiles: Sequence[tuple[Kernel, Tile]] = (), dtype: str = "") -> Operators:
        """Its operators with these tiles for this type."""
        tile = RT.Tile
        given = tuple((kernel, dtype, 1, tile(*found.values())) for kernel, found in tiles)
        name = f"{self.space['NAMESPACE']}::trial{next(_NUMBERS)}"
        make = RT.conv_op if self.text.is_conv else RT.fc_op
        run = make(
            name, self.geometry._replace(tiles=given), self.space[self.text.operator.launches]
        )
        return Operators(run.operators[name], run.operators[f"{name}_backward"])

    @contextmanager
    def noting(self) -> Generator[dict[Kernel, Tile]]:
        """Note the tiles with which kernels are launched in the block."""
        found: dict[Kernel, Tile] = {}

        def note(kernel: Untyped, arguments: Mapping[str, Untyped]) -> bool:
            for name in _KERNELS:
                if str(kernel.fn.__name__).endswith(f"_{name}"):
                    found[name] = Tile(*arguments["T"])
            return True

        with using_in(self.space, launches=note):
            yield found

    @contextmanager
    def by_operators(self) -> Generator[Untyped]:
        """Give the region's function, as PyTorch's operators compute it."""
        with using_in(self.space, takes=never):
            yield self.space[self.text.name]
