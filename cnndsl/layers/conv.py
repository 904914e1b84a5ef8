"""Convolution."""

from collections.abc import Iterator
from typing import ClassVar

from cnndsl.layers.arguments import Count, Flag, Padding, Pair, Size, WindowSize
from cnndsl.layers.base import Anchor, Claim, Step, Weight, argument
from cnndsl.layers.even import padded_above
from cnndsl.layers.groups import divide, divided
from cnndsl.layers.types import ImageType
from cnndsl.layers.window import ONE, ZERO, Geometry, as_tuple, odd_extent, same
from cnndsl.sizes.dim import Dim


class Conv(Anchor):
    """Cross-correlation with a bank of filters, as every deep-learning library means it.

    Output ⌊(W + 2P − D(K−1) − 1)/S⌋ + 1 in each direction, F channels; F·(Kh·Kw·C/G) weights, and
    F biases. PyTorch: `torch.nn.Conv2d`.
    """

    kind = "conv"
    kernel = "conv.py"
    examples: ClassVar[tuple[str, ...]] = (
        "conv 6 5x5 pad=same",
        "conv 64 7x7 stride=2 pad=3 bias=no",
        "conv 8 3x1 pad=2x0 dilation=2",
        "conv 12 3x3 groups=3",
    )

    filters: Dim = argument(Count())
    size: Pair = argument(WindowSize())
    stride: Pair = argument(Size(), default=ONE)
    pad: Pair | str = argument(Padding(), default=ZERO)
    dilation: Pair = argument(Size(), default=ONE)
    groups: Dim = argument(Count(), default=Dim.of(1))
    bias: bool = argument(Flag(), default=True)

    @property
    def geometry(self) -> Geometry:
        """The sliding window; `same` becomes D(K−1)/2."""
        pad = self.pad if isinstance(self.pad, Pair) else same(self.size, self.dilation)
        return Geometry(self.size, self.stride, pad, self.dilation)

    def requires(self, x: ImageType) -> Iterator[Claim]:
        """Odd extents for `same`, a window that fits, groups that divide."""
        if self.pad == "same":
            extent = self.geometry.extent
            yield from odd_extent(self.size, self.dilation, "filter", lambda: padded_above(extent))
        yield from self.geometry.fits(x, "filter")
        yield from divide(self.groups, x, self.filters)

    def output(self, x: ImageType) -> ImageType:
        """One channel a filter."""
        return ImageType(*self.geometry.output(x.height, x.width), self.filters)

    def weights(self, x: ImageType) -> tuple[Weight, ...]:
        """`weight` [F, C/G, Kh, Kw] and `bias` [F]."""
        size = (Dim.of(self.size.height), Dim.of(self.size.width))
        weight = Weight("weight", (self.filters, divided(x.channels, self.groups), *size))
        return (weight, Weight("bias", (self.filters,))) if self.bias else (weight,)

    def macs(self, x: ImageType) -> Dim:
        """Output pixels x weights."""
        height, width = self.geometry.output(x.height, x.width)
        return height * width * self.weights(x)[0].count

    def step(self, x: ImageType) -> Step:
        """That of its window."""
        del x
        return self.geometry.step()

    def formula(self, x: ImageType) -> tuple[str, ...]:
        """The output size."""
        return self.geometry.formula(x)

    def module(self, x: ImageType) -> str:
        """`nn.Conv2d(…)`, with what differs from its defaults."""
        geometry = self.geometry
        arguments = [str(x.channels), str(self.filters), as_tuple(geometry.size)]
        for name, pair, default in (
            ("stride", geometry.stride, ONE),
            ("padding", geometry.pad, ZERO),
            ("dilation", geometry.dilation, ONE),
        ):
            if pair != default:
                arguments.append(f"{name}={as_tuple(pair)}")
        if self.groups != Dim.of(1):
            arguments.append(f"groups={self.groups}")
        if not self.bias:
            arguments.append("bias=False")
        return f"nn.Conv2d({', '.join(arguments)})"

    def torch(self, x: ImageType, module: str, value: str) -> str:
        """A call of the module."""
        del x
        return f"{module}({value})"
