"""The same values under other indices."""

from typing import ClassVar

from cnndsl.layers.base import View
from cnndsl.layers.types import ImageType, TensorType, VectorType, elements


class Flatten(View):
    """An image as a vector of H·W·C features, in channel-major order as PyTorch flattens."""

    kind = "flatten"
    examples: ClassVar[tuple[str, ...]] = ("flatten",)

    def output(self, x: ImageType) -> VectorType:
        """H·W·C features."""
        return VectorType(elements(x))

    def formula(self, x: ImageType) -> tuple[str, ...]:
        """The product."""
        height, width, channels = (dim.pretty() for dim in x.dims)
        return (f"H·W·C = {height}·{width}·{channels} = {elements(x).pretty()}",)

    def torch(self, x: ImageType, module: str, value: str) -> str:
        """A call of the function."""
        del x, module
        return f"torch.flatten({value}, 1)"


class Skip(View):
    """Nothing: the identity."""

    kind = "skip"
    accepts = (ImageType, VectorType)
    examples: ClassVar[tuple[str, ...]] = ("skip",)

    def torch(self, x: TensorType, module: str, value: str) -> str:
        """The value itself."""
        del x, module
        return value
