"""Functions of single values, and softmax."""

from typing import ClassVar

from cnndsl.layers.base import Opaque, Pointwise
from cnndsl.layers.types import ImageType, TensorType, VectorType


class Relu(Pointwise):
    """max(x, 0), where NaN stays NaN. PyTorch: `F.relu`."""

    kind = "relu"
    slope_from = "relu"
    examples: ClassVar[tuple[str, ...]] = ("relu",)

    def triton(self, x: str) -> str:
        """`tl.maximum` would drop NaN."""
        return f"tl.where({x} <= 0, 0.0, {x})"

    def triton_gradient(self, saved: str, gradient: str) -> str:
        """NaN is alive."""
        return f"tl.where({saved} <= 0, 0.0, {gradient})"

    def torch(self, x: TensorType, module: str, value: str) -> str:
        """A call of the function."""
        del x, module
        return f"F.relu({value})"


class Softmax(Opaque):
    """exp(xᵢ) / Σ exp(xⱼ), over the channels of an image or the features of a vector."""

    kind = "softmax"
    accepts = (ImageType, VectorType)
    examples: ClassVar[tuple[str, ...]] = ("softmax",)

    def torch(self, x: TensorType, module: str, value: str) -> str:
        """PyTorch's dimension 1 holds channels as well as features."""
        del x, module
        return f"F.softmax({value}, 1)"
