"""Normalisation."""

from collections.abc import Iterator
from typing import ClassVar

from cnndsl.layers.arguments import Count, Flag, Number, Whole
from cnndsl.layers.base import Affine, Claim, Opaque, Weight, argument
from cnndsl.layers.groups import divide
from cnndsl.layers.types import ImageType, TensorType, VectorType
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


class LayerNorm(Opaque):
    """(x − mean) / √(variance + eps) · weight + bias, over the channels of each pixel by itself.

    A vector's features count as its channels. Source: Ba, Kiros and Hinton (2016); over the
    channels of an image as ConvNeXt has it, Liu et al. (2022). PyTorch: `torch.nn.LayerNorm`, with
    the channels last.
    """

    kind = "layernorm"
    accepts = (ImageType, VectorType)
    examples: ClassVar[tuple[str, ...]] = ("layernorm", "layernorm 1e-06")

    # Bounded, because `layernorm 64` is what somebody writes who means 64 channels.
    eps: float = argument(Number(0.0, 0.5, positive=True), default=1e-5, way="either")

    def weights(self, x: ImageType | VectorType) -> tuple[Weight, ...]:
        """`weight` and `bias` [C]."""
        return Weight("weight", (_channels(x),)), Weight("bias", (_channels(x),))

    def module(self, x: ImageType | VectorType) -> str:
        """`nn.LayerNorm(C)`."""
        eps = f", eps={self.eps!r}" if self.eps != 1e-5 else ""
        return f"nn.LayerNorm({_channels(x)}{eps})"

    def torch(self, x: ImageType | VectorType, module: str, value: str) -> str:
        """A call of the module, which wants the channels last."""
        if isinstance(x, VectorType):
            return f"{module}({value})"
        return f"{module}({value}.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)"


class GroupNorm(Opaque):
    """As batchnorm, but each image by itself, a mean and a variance for each of G groups.

    A group is C/G neighbouring channels with all their pixels; weight and bias are for each
    channel. That its statistics see the whole image is left out of receptive fields. Source: Wu
    and He (2018). PyTorch: `torch.nn.GroupNorm`.
    """

    kind = "groupnorm"
    accepts = (ImageType, VectorType)
    examples: ClassVar[tuple[str, ...]] = ("groupnorm 4", "groupnorm 1 eps=1e-06")

    groups: Dim = argument(Count())
    eps: float = argument(Number(0.0, positive=True), default=1e-5)

    def requires(self, x: ImageType | VectorType) -> Iterator[Claim]:
        """Groups that divide."""
        return divide(self.groups, x)

    def weights(self, x: ImageType | VectorType) -> tuple[Weight, ...]:
        """`weight` and `bias` [C]."""
        return Weight("weight", (_channels(x),)), Weight("bias", (_channels(x),))

    def module(self, x: ImageType | VectorType) -> str:
        """`nn.GroupNorm(G, C)`."""
        eps = f", eps={self.eps!r}" if self.eps != 1e-5 else ""
        return f"nn.GroupNorm({self.groups}, {_channels(x)}{eps})"

    def torch(self, x: ImageType | VectorType, module: str, value: str) -> str:
        """A call of the module.

        With channels innermost, PyTorch's backward crashes on a CPU where the input needs no
        gradient (seen with torch 2.13). So images are laid out by rows first: also those of one
        pixel, whose strides `contiguous` would leave as they are.
        """
        if isinstance(x, ImageType):
            value = f"{value}.flatten(1).unflatten(1, {value}.shape[1:])"
        return f"{module}({value})"


class LocalResponseNorm(Opaque):
    """x / (k + alpha/size · Σ x²)^beta, the sum over `size` neighbouring channels of the pixel.

    Channels beyond the first and the last count as 0. Source: Krizhevsky et al. (2012), whose
    alpha is `alpha/size` here, as it is in PyTorch: `F.local_response_norm`.
    """

    kind = "lrn"
    examples: ClassVar[tuple[str, ...]] = ("lrn", "lrn size=3 alpha=0.001 beta=0.5 k=1")

    size: int = argument(Whole(), default=5)
    alpha: float = argument(Number(0.0), default=1e-4)
    beta: float = argument(Number(0.0), default=0.75)
    k: float = argument(Number(0.0, positive=True), default=2.0)

    def torch(self, x: TensorType, module: str, value: str) -> str:
        """A call of the function, of which the default k is another."""
        del x, module
        return (
            f"F.local_response_norm({value}, {self.size}, {self.alpha!r}, {self.beta!r}, "
            f"{self.k!r})"
        )


def _channels(x: ImageType | VectorType) -> Dim:
    return x.dims[-1]
