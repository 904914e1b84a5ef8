"""Transposed convolution."""

from collections.abc import Iterator
from typing import ClassVar

from cnndsl.layers.arguments import Count, Flag, Padding, Pair, Size, WindowSize
from cnndsl.layers.base import Claim, Opaque, Step, Suggestion, Weight, argument, never
from cnndsl.layers.even import in_deconv
from cnndsl.layers.groups import divide, divided
from cnndsl.layers.types import ImageType
from cnndsl.layers.window import AXES, ONE, ZERO, Geometry, as_tuple, odd_extent, same
from cnndsl.sizes.counted import counted
from cnndsl.sizes.dim import Dim


class Deconv(Opaque):
    """The transpose of a convolution, which makes images larger: each pixel lays down a filter.

    Output (W − 1)·S − 2P + D(K−1) + output_pad + 1 in each direction, F channels. `pad` takes
    pixels away at all sides; `output_pad` adds some at the right and at the bottom, to choose
    between the sizes that a convolution of stride S makes equal, so it is below S or D. Parameters:
    F/G·Kh·Kw·C weights, and F biases. Source: Dumoulin and Visin (2016), relationship 14. PyTorch:
    `torch.nn.ConvTranspose2d`.
    """

    kind = "deconv"
    examples: ClassVar[tuple[str, ...]] = (
        "deconv 64 2x2 stride=2",
        "deconv 8 3x3 stride=2 pad=same output_pad=1",
        "deconv 12 4x4 stride=2 pad=1 groups=3 bias=no",
    )

    filters: Dim = argument(Count())
    size: Pair = argument(WindowSize())
    stride: Pair = argument(Size(), default=ONE)
    pad: Pair | str = argument(Padding(), default=ZERO)
    output_pad: Pair = argument(Size(0), default=ZERO)
    dilation: Pair = argument(Size(), default=ONE)
    groups: Dim = argument(Count(), default=Dim.of(1))
    bias: bool = argument(Flag(), default=True)

    @property
    def padding(self) -> Pair:
        """In numbers: `same` is D(K−1)/2, so that the output is (W − 1)·S + output_pad + 1."""
        return self.pad if isinstance(self.pad, Pair) else same(self.size, self.dilation)

    def requires(self, x: ImageType) -> Iterator[Claim]:
        """Odd extents for `same`, room for `output_pad`, something left, groups that divide."""
        if self.pad == "same":
            extent = Geometry(self.size, ONE, ZERO, self.dilation).extent
            yield from odd_extent(
                self.size,
                self.dilation,
                "filter",
                lambda: in_deconv(extent, self.stride, self.dilation),
            )
        yield from self._room()
        for axis, (side, _, lines) in enumerate(AXES):
            pad = self.padding.values()[axis]
            whole = self._along(axis, x.dims[axis]) + 2 * pad
            yield Claim(
                whole,
                ">=",
                Dim.of(2 * pad + 1),
                "E316",
                f"a padding of {pad} takes away all of the {counted(whole, lines[:-1])} that it "
                "makes",
                "pad",
                axis,
                f"nothing is left in {side}",
                (self._formula_along(axis, "HW"[axis], x.dims[axis]),),
                (self._less_padding(x),),
            )
        yield from divide(self.groups, x, self.filters)

    def _room(self) -> Iterator[Claim]:
        """PyTorch's bound on `output_pad`."""
        for axis, (side, _, _) in enumerate(AXES):
            extra, stride, dilation = (
                pair.values()[axis] for pair in (self.output_pad, self.stride, self.dilation)
            )
            if extra >= max(stride, dilation):
                most = max(stride, dilation) - 1
                yield never(
                    "E314",
                    f"an `output_pad` of {extra} must be smaller than the stride, {stride}, or the "
                    f"dilation, {dilation}, in {side}",
                    "output_pad",
                    f"at most {most}",
                    (self._less_room(),),
                )
                return

    def _less_padding(self, x: ImageType) -> Suggestion:
        """The most padding that leaves a pixel, in each direction; none for sizes not yet known."""
        pads: list[int] = []
        for axis, pad in enumerate(self.padding.values()):
            whole = (self._along(axis, x.dims[axis]) + 2 * pad).constant
            pads.append(min(pad, max(0, (whole - 1) // 2)) if whole is not None else 0)
        less = Pair(*pads).short
        return Suggestion(f"use a smaller padding: `pad={less}`", (("pad", less),))

    def _less_room(self) -> Suggestion:
        """As much `output_pad` as there may be, in each direction by itself."""
        most = Pair(
            *(
                min(extra, max(stride, dilation) - 1)
                for extra, stride, dilation in zip(
                    self.output_pad.values(),
                    self.stride.values(),
                    self.dilation.values(),
                    strict=True,
                )
            )
        ).short
        return Suggestion(f"use `output_pad={most}`", (("output_pad", most),))

    def _along(self, axis: int, length: Dim) -> Dim:
        size, stride, pad, extra, dilation = self._numbers(axis)
        return (length - 1) * stride - 2 * pad + dilation * (size - 1) + extra + 1

    def _numbers(self, axis: int) -> tuple[int, ...]:
        pairs = (self.size, self.stride, self.padding, self.output_pad, self.dilation)
        return tuple(pair.values()[axis] for pair in pairs)

    def output(self, x: ImageType) -> ImageType:
        """One channel a filter."""
        return ImageType(self._along(0, x.height), self._along(1, x.width), self.filters)

    def weights(self, x: ImageType) -> tuple[Weight, ...]:
        """`weight` [C, F/G, Kh, Kw] and `bias` [F]."""
        size = (Dim.of(self.size.height), Dim.of(self.size.width))
        per_group = divided(self.filters, self.groups)
        weight = Weight("weight", (x.channels, per_group, *size))
        return (weight, Weight("bias", (self.filters,))) if self.bias else (weight,)

    def macs(self, x: ImageType) -> Dim:
        """Input pixels x weights: every pixel meets every weight of its channel."""
        return x.height * x.width * self.weights(x)[0].count

    def step(self, x: ImageType) -> Step:
        """A convolution of stride 1 over an input with S − 1 empty pixels between any two."""
        del x
        reach = [
            dilation * (size - 1)
            for dilation, size in zip(self.dilation.values(), self.size.values(), strict=True)
        ]
        pad, stride = self.padding, self.stride
        return Step(
            (Dim.of(reach[0] + 1), Dim.of(reach[1] + 1)),
            (1, 1),
            (reach[0] - pad.height, reach[1] - pad.width),
            (stride.height, stride.width),
        )

    def formula(self, x: ImageType) -> tuple[str, ...]:
        """The output size with the numbers put in, once where both axes agree."""
        if x.height == x.width and self._numbers(0) == self._numbers(1):
            return (self._formula_along(1, "W", x.width),)
        return (self._formula_along(0, "H", x.height), self._formula_along(1, "W", x.width))

    def _formula_along(self, axis: int, letter: str, length: Dim) -> str:
        size, stride, pad, extra, dilation = self._numbers(axis)
        general, numbers = f"({letter} − 1)·S", f"({length.pretty()} − 1)·{stride}"
        if pad:
            general, numbers = f"{general} − 2P", f"{numbers} − 2·{pad}"
        if dilation == 1:
            general, numbers = f"{general} + K", f"{numbers} + {size}"
        else:
            general, numbers = f"{general} + D(K−1) + 1", f"{numbers} + {dilation}·({size}−1) + 1"
        if extra:
            general, numbers = f"{general} + output_pad", f"{numbers} + {extra}"
        return f"O = {general} = {numbers} = {self._along(axis, length).pretty()}"

    def module(self, x: ImageType) -> str:
        """`nn.ConvTranspose2d(…)`, with what differs from its defaults."""
        arguments = [str(x.channels), str(self.filters), as_tuple(self.size)]
        for name, pair, default in (
            ("stride", self.stride, ONE),
            ("padding", self.padding, ZERO),
            ("output_padding", self.output_pad, ZERO),
            ("dilation", self.dilation, ONE),
        ):
            if pair != default:
                arguments.append(f"{name}={as_tuple(pair)}")
        if self.groups != Dim.of(1):
            arguments.append(f"groups={self.groups}")
        if not self.bias:
            arguments.append("bias=False")
        return f"nn.ConvTranspose2d({', '.join(arguments)})"

    def torch(self, x: ImageType, module: str, value: str) -> str:
        """A call of the module."""
        del x
        return f"{module}({value})"
