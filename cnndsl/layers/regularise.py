"""Layers that act only in training, and the learned factor that goes with them."""

from typing import ClassVar

from cnndsl.layers.arguments import Number
from cnndsl.layers.base import Opaque, Weight, argument
from cnndsl.layers.types import ImageType, TensorType, VectorType


class Dropout(Opaque):
    """In training, zeroes each value with probability p and divides the rest by 1 − p.

    Source: Srivastava et al. (2014). PyTorch: `F.dropout`.
    """

    kind = "dropout"
    accepts = (ImageType, VectorType)
    examples: ClassVar[tuple[str, ...]] = ("dropout", "dropout 0.25")

    p: float = argument(Number(0.0, 1.0), default=0.5, way="either")

    def torch(self, x: TensorType, module: str, value: str) -> str:
        """A call of the function."""
        del x, module
        return f"F.dropout({value}, {self.p!r}, self.training)"


class Dropout2d(Opaque):
    """In training, zeroes each channel with probability p and divides the rest by 1 − p.

    Source: Tompson et al. (2015). PyTorch: `F.dropout2d`.
    """

    kind = "dropout2d"
    examples: ClassVar[tuple[str, ...]] = ("dropout2d 0.2",)

    p: float = argument(Number(0.0, 1.0), way="either")

    def torch(self, x: TensorType, module: str, value: str) -> str:
        """A call of the function."""
        del x, module
        return f"F.dropout2d({value}, {self.p!r}, self.training)"


class DropPath(Opaque):
    """In training, zeroes all of an image with probability p and divides the others by 1 − p.

    At the end of a branch of `add` it drops that branch: stochastic depth. Source: Huang et al.
    (2016). PyTorch: dropout of channels, where the whole image is made one channel.
    """

    kind = "droppath"
    accepts = (ImageType, VectorType)
    examples: ClassVar[tuple[str, ...]] = ("droppath 0.1",)

    p: float = argument(Number(0.0, 1.0), way="either")

    def torch(self, x: TensorType, module: str, value: str) -> str:
        """A call of the function with one dimension more."""
        del module
        dimensions = 3 if isinstance(x, ImageType) else 1
        call = f"F.dropout{dimensions}d({value}.unsqueeze(1), {self.p!r}, self.training)"
        return f"{call}.squeeze(1)"


class Scale(Opaque):
    """A learned factor for each channel: C weights, `init` to begin with.

    A vector's features count as its channels. Source: the LayerScale of Touvron et al. (2021).
    PyTorch: a product with a parameter; `Scale` in the emitted file is a module of it.
    """

    kind = "scale"
    accepts = (ImageType, VectorType)
    examples: ClassVar[tuple[str, ...]] = ("scale", "scale 1e-06")

    init: float = argument(Number(), default=1.0, way="either")

    def weights(self, x: ImageType | VectorType) -> tuple[Weight, ...]:
        """`weight` [C]."""
        return (Weight("weight", (x.dims[-1],)),)

    def module(self, x: ImageType | VectorType) -> str:
        """`Scale(C, …)`, which the emitted file defines."""
        return f"Scale({x.dims[-1]}, {self.init!r}, is_image={isinstance(x, ImageType)})"

    def torch(self, x: ImageType | VectorType, module: str, value: str) -> str:
        """A call of the module."""
        del x
        return f"{module}({value})"
