"""What was measured to be best for a region: ways and tiles, in the place of the rules.

Plain data; knows neither who measures nor what a kernel does with it.
"""

from typing import Literal

from cnndsl.fuse.choice import Choice
from cnndsl.record import Record

# All of a region; or, where a batchnorm is in training, what stands before it.
Role = Literal["whole", "sums"]
ROLES: tuple[Role, ...] = ("whole", "sums")
# A kernel that multiplies in tiles, as its launch calls it.
Kernel = Literal["forward", "stage", "input_gradient", "weight_gradient"]
KERNELS: tuple[Kernel, ...] = ("forward", "stage", "input_gradient", "weight_gradient")
# `tf32`: float32 whose products may be rounded.
DTYPES = ("fp32", "tf32", "fp16", "bf16")

# A matrix unit takes 16 at least; more than 8 warps, or more values in a tile, only spill.
LEAST_SIDE, MOST_SIDE, MOST_VALUES = 16, 256, 128 * 256
WARPS, MOST_STAGES = (4, 8), 5


class Tile(Record):
    """The share of one program: rows x columns of a product, terms a step; warps and stages."""

    rows: int
    columns: int
    terms: int
    warps: int
    stages: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}x{self.terms}, {self.warps} warps, {self.stages} stages"

    @property
    def is_possible(self) -> bool:
        """Whether a kernel could be launched with it at all."""
        sides = (self.rows, self.columns, self.terms)
        return (
            all(LEAST_SIDE <= s <= MOST_SIDE and s & (s - 1) == 0 for s in sides)
            and self.rows * self.columns <= MOST_VALUES
            and self.warps in WARPS
            and 1 <= self.stages <= MOST_STAGES
        )


class TileOf(Record):
    """The tile of a kernel, for a type and batches of up to so many images."""

    kernel: Kernel
    dtype: str
    images: int
    tile: Tile


class Pin(Record):
    """What is settled for a region, or for its part before a batchnorm in training.

    `choice` is None in a file that names no ways, which no region takes; `tiles` are in the order
    of their images, and empty where the kernels' own rules choose.
    """

    choice: Choice | None
    tiles: tuple[TileOf, ...] = ()


def bucket(images: int) -> int:
    """The least power of two that is no less: batches of one bucket share what was measured."""
    return 1 << max(0, images - 1).bit_length()
