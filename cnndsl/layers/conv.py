"""Convolution."""

from collections.abc import Iterator
from typing import ClassVar

from cnndsl.layers.arguments import Count, Flag, Padding, Pair, Size, WindowSize
from cnndsl.layers.base import Anchor, Claim, Step, Suggestion, Weight, argument
from cnndsl.layers.types import ImageType
from cnndsl.layers.window import Geometry
from cnndsl.sizes.dim import Dim

ONE = Pair(1, 1)


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
    pad: Pair | str = argument(Padding(), default=Pair(0, 0))
    dilation: Pair = argument(Size(), default=ONE)
    groups: Dim = argument(Count(), default=Dim.of(1))
    bias: bool = argument(Flag(), default=True)

    @property
    def geometry(self) -> Geometry:
        """The sliding window; `same` becomes D(K−1)/2."""
        return Geometry(self.size, self.stride, self._padding(), self.dilation)

    def _padding(self) -> Pair:
        if isinstance(self.pad, Pair):
            return self.pad
        return Pair(
            self.dilation.height * (self.size.height - 1) // 2,
            self.dilation.width * (self.size.width - 1) // 2,
        )

    def requires(self, x: ImageType) -> Iterator[Claim]:
        """Odd extents for `same`, a window that fits, groups that divide."""
        if self.pad == "same":
            yield from self._odd_extent()
        yield from self.geometry.fits(x, "filter")
        if self.groups != Dim.of(1):
            yield self._divides("input channels", x.channels, about=2)
            yield self._divides("filters", self.filters, about=None)

    def _odd_extent(self) -> Iterator[Claim]:
        for size, dilation in zip(self.size.values(), self.dilation.values(), strict=True):
            reach = dilation * (size - 1)
            if reach % 2 == 0:
                continue
            near = [
                Pair(*(n + d if n % 2 == 0 else n for n in self.size.values())) for d in (-1, 1)
            ]
            near = [pair for pair in near if min(pair.values()) >= 1]
            yield Claim(
                Dim.of(0),
                ">=",
                Dim.of(1),
                "E307",
                f"`pad=same` needs a filter of odd size: for {self.size} the padding D(K−1)/2 is "
                f"{reach}/2, which is no whole number",
                "size",
                None,
                "even",
                (),
                tuple(Suggestion(f"use `{pair}`", "size", str(pair)) for pair in near),
            )
            return

    def _divides(self, what: str, count: Dim, about: int | None) -> Claim:
        groups, have = self.groups.constant, count.constant
        notes: tuple[str, ...] = ()
        fixes: tuple[Suggestion, ...] = ()
        if groups is not None and have is not None:
            notes = (f"{have} = {groups}·{have // groups} + {have % groups}",)
            near = sorted(
                (g for g in range(1, have + 1) if have % g == 0), key=lambda g: abs(g - groups)
            )
            fixes = tuple(Suggestion(f"use `groups={g}`", "groups", str(g)) for g in near[:1])
        return Claim(
            count % groups if groups is not None else count - self.groups,
            "==",
            Dim.of(0),
            "E306",
            f"{self.groups.pretty()} groups do not divide {count.pretty()} {what}",
            "groups",
            about,
            "does not divide",
            notes,
            fixes,
        )

    def output(self, x: ImageType) -> ImageType:
        """One channel a filter."""
        return ImageType(*self.geometry.output(x.height, x.width), self.filters)

    def weights(self, x: ImageType) -> tuple[Weight, ...]:
        """`weight` [F, C/G, Kh, Kw] and `bias` [F]."""
        size = (Dim.of(self.size.height), Dim.of(self.size.width))
        per_group = x.channels // self.groups if self.groups != Dim.of(1) else x.channels
        weight = Weight("weight", (self.filters, per_group, *size))
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
        arguments = [str(x.channels), str(self.filters), _pair(geometry.size)]
        for name, pair, default in (
            ("stride", geometry.stride, ONE),
            ("padding", geometry.pad, Pair(0, 0)),
            ("dilation", geometry.dilation, ONE),
        ):
            if pair != default:
                arguments.append(f"{name}={_pair(pair)}")
        if self.groups != Dim.of(1):
            arguments.append(f"groups={self.groups}")
        if not self.bias:
            arguments.append("bias=False")
        return f"nn.Conv2d({', '.join(arguments)})"

    def torch(self, x: ImageType, module: str, value: str) -> str:
        """A call of the module."""
        del x
        return f"{module}({value})"


def _pair(pair: Pair) -> str:
    return str(pair.height) if pair.height == pair.width else f"({pair.height}, {pair.width})"
