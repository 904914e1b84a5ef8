"""Layers that act only in training."""

from typing import ClassVar

from cnndsl.layers.arguments import Number
from cnndsl.layers.base import Opaque, argument
from cnndsl.layers.types import ImageType, TensorType, VectorType


class Dropout(Opaque):
    """In training, zeroes each value with probability p and divides the rest by 1 − p.

    Source: Srivastava et al. (2014). PyTorch: `F.dropout`.
    """

    kind = "dropout"
    accepts = (ImageType, VectorType)
    examples: ClassVar[tuple[str, ...]] = ("dropout", "dropout p=0.25")

    p: float = argument(Number(0.0, 1.0), default=0.5)

    def torch(self, x: TensorType, module: str, value: str) -> str:
        """A call of the function."""
        del x, module
        return f"F.dropout({value}, {self.p!r}, self.training)"
