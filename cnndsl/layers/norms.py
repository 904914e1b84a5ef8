"""Normalisation."""

from typing import ClassVar

from cnndsl.layers.arguments import Flag, Number
from cnndsl.layers.base import Affine, Weight, argument
from cnndsl.layers.types import ImageType, VectorType
from cnndsl.sizes.dim import Dim


class BatchNorm(Affine):
    """(x − mean) / √(variance + eps) · weight + bias, a mean and a variance for each channel.

    Training takes them from the batch and follows them with `momentum`; inference takes what it
    followed. A vector's features count as its channels. Source: Ioffe and Szegedy (2015). PyTorch:
    `torch.nn.BatchNorm2d`, `torch.nn.BatchNorm1d`.
    """

    kind = "batchnorm"
    accepts = (ImageType, VectorType)
    examples: ClassVar[tuple[str, ...]] = ("batchnorm", "batchnorm eps=0.001 momentum=0.01")

    eps: float = argument(Number(0.0, positive=True), default=1e-5)
    momentum: float = argument(Number(0.0, 1.0), default=0.1)
    affine: bool = argument(Flag(), default=True)

    def weights(self, x: ImageType | VectorType) -> tuple[Weight, ...]:
        """`weight` and `bias` [C]; the running mean and variance are buffers."""
        shape = (_channels(x),)
        buffers = (
            Weight("running_mean", shape, trained=False),
            Weight("running_var", shape, trained=False),
        )
        if not self.affine:
            return buffers
        return (Weight("weight", shape), Weight("bias", shape), *buffers)

    def module(self, x: ImageType | VectorType) -> str:
        """`nn.BatchNorm2d(…)`, with what differs from its defaults."""
        arguments = [str(_channels(x))]
        if self.eps != 1e-5:
            arguments.append(f"eps={self.eps!r}")
        if self.momentum != 0.1:
            arguments.append(f"momentum={self.momentum!r}")
        if not self.affine:
            arguments.append("affine=False")
        dimensions = 2 if isinstance(x, ImageType) else 1
        return f"nn.BatchNorm{dimensions}d({', '.join(arguments)})"

    def torch(self, x: ImageType | VectorType, module: str, value: str) -> str:
        """A call of the module."""
        del x
        return f"{module}({value})"


def _channels(x: ImageType | VectorType) -> Dim:
    return x.dims[-1]
