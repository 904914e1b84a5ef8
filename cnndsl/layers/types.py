"""What flows between layers: the type of a tensor, without its batch dimension."""

from cnndsl.record import Record
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
    """What comes out of a layer with a mistake: it causes no further messages."""

    @property
    def dims(self) -> tuple[Dim, ...]:
        """None are known."""
        return ()


TensorType = ImageType | VectorType | Unknown


def elements(type_: TensorType) -> Dim:
    """How many values an image or vector has (1 where it is unknown)."""
    product = Dim.of(1)
    for dim in type_.dims:
        product = product * dim
    return product


def show(type_: TensorType) -> str:
    """The type as a message shows it: `28 x 28 x 6`."""
    if isinstance(type_, Unknown):
        return "?"
    return " x ".join(factor(dim) for dim in type_.dims)


def write(type_: TensorType) -> str:
    """The type as a `.cnn` file says it, for fixes: `H // 2 x W // 2 x 6`."""
    return " x ".join(str(dim) for dim in type_.dims)


def factor(dim: Dim) -> str:
    """A dim as one factor of a product: in parentheses where it is a sum."""
    text = dim.pretty()
    depth = 0
    for character in text:
        depth += (character in "(⌊") - (character in ")⌋")
        if depth == 0 and character in "+−":
            return f"({text})"
    return text
