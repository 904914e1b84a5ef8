"""What flows between layers: the type of a tensor, without its batch dimension."""

from cnndsl.record import Record
from cnndsl.sizes.atoms import UNKNOWN
from cnndsl.sizes.dim import Dim

FLOAT_BYTES = 4  # activations and weights are counted as 32-bit floats


class ImageType(Record):
    """A feature map of `height` x `width` pixels with `channels` values each."""

    height: Dim
    width: Dim
    channels: Dim

    @property
    def dims(self) -> tuple[Dim, ...]:
        """Height, width, channels."""
        return (self.height, self.width, self.channels)


class VectorType(Record):
    """A vector of `features` values."""

    features: Dim

    @property
    def dims(self) -> tuple[Dim, ...]:
        """The one dimension."""
        return (self.features,)


class Unknown(Record):
    """A tensor that is an image or a vector; which of them, a mistake above leaves open.

    As an image it is `height` x `width` x `channels`; as a vector it has `channels` features.
    """

    height: Dim
    width: Dim
    channels: Dim

    @property
    def dims(self) -> tuple[Dim, ...]:
        """How many there are depends on what it is."""
        return ()


TensorType = ImageType | VectorType | Unknown


class Unknowns:
    """Makes the sizes that a mistake leaves open, each a symbol of its own.

    So what holds for every size is still found: `?` and `? − 2` differ, whatever `?` is.
    """

    def __init__(self) -> None:
        """None are made yet."""
        self._count = 0

    def dim(self) -> Dim:
        """A size of which nothing is known but that it is positive."""
        self._count += 1
        return Dim.symbol(f"{UNKNOWN}{self._count}")

    def tensor(self) -> Unknown:
        """A tensor of which nothing is known."""
        return Unknown(self.dim(), self.dim(), self.dim())

    def image(self) -> ImageType:
        """An image of any size."""
        return ImageType(self.dim(), self.dim(), self.dim())


NO_INPUT = Unknown(*(Dim.symbol(f"{UNKNOWN}{side}") for side in "hwc"))
"""What arrives in a file without an `input`."""


def is_open(dim: Dim) -> bool:
    """Whether a size depends on what a mistake leaves open."""
    return dim.constant is None and any(name.startswith(UNKNOWN) for name in dim.symbols)


def is_known(type_: TensorType) -> bool:
    """Whether it is an image or a vector, and every size of it is known."""
    if isinstance(type_, Unknown):
        return False
    # Asked of every layer: numbers, which most sizes are, cost no call.
    return not any(dim.constant is None and is_open(dim) for dim in type_.dims)


def elements(type_: TensorType) -> Dim:
    """How many values an image or vector has (1 where it is unknown)."""
    product = Dim.of(1)
    for dim in type_.dims:
        product = product * dim
    return product


def show(type_: TensorType) -> str:
    """The type as a message shows it: `28 x 28 x 6`, with `?` for what is not known."""
    if isinstance(type_, Unknown):
        return "?"
    return " x ".join("?" if is_open(dim) else factor(dim) for dim in type_.dims)


def write(type_: TensorType) -> str:
    """The type as a `.cnn` file says it, for fixes: `H // 2 x W // 2 x 6`."""
    return " x ".join(str(dim) for dim in type_.dims)


def factor(dim: Dim, text: str = "") -> str:
    """A dim, or its `text`, as one factor of a product: in parentheses where it is a sum."""
    text = text or dim.pretty()
    depth = 0
    for character in text:
        depth += (character in "(⌊") - (character in ")⌋")
        if depth == 0 and character in "+−":
            return f"({text})"
    return text
