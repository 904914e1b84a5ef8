"""Pooling over windows, and over the whole image."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from cnndsl.layers.arguments import Flag, Padding, Pair, Size, WindowSize, Word
from cnndsl.layers.base import Claim, Opaque, Step, Suggestion, Window, argument, never
from cnndsl.layers.even import in_pool
from cnndsl.layers.types import ImageType
from cnndsl.layers.window import AXES, ONE, ZERO, Geometry, as_tuple, odd_extent, same
from cnndsl.sizes.dim import Dim


class SameAsSize(Size):
    """A stride that, left out, is the window's size."""

    def data(self, value: Pair | None) -> object:
        """`Pool.data` knows the size."""
        return super().data(value) if value is not None else None


class Pool(Window):
    """The maximum or the average of each window, channel by channel.

    Output ⌊(W + 2P − D(K−1) − 1)/S⌋ + 1; the stride is K unless given. The padding is −∞ for `max`,
    0 for `avg`, where `count_pad=no` leaves it out of the divisor. PyTorch: `F.max_pool2d`,
    `F.avg_pool2d`.
    """

    kind = "pool"
    examples: ClassVar[tuple[str, ...]] = (
        "pool max 2",
        "pool max 3 stride=2 pad=1",
        "pool max 3 stride=1 pad=same",
        "pool avg 2",
        "pool max 2x3 stride=2 ceil=yes",
        "pool avg 3 stride=2 pad=1 count_pad=no",
    )

    function: Literal["max", "avg"] = argument(Word("max", "avg"))
    size: Pair = argument(Size())
    stride: Pair | None = argument(SameAsSize(), default=None)
    pad: Pair | str = argument(Padding(), default=ZERO)
    dilation: Pair = argument(Size(), default=ONE)
    ceil: bool = argument(Flag(), default=False)
    count_pad: bool = argument(Flag(), default=True)

    @property
    def geometry(self) -> Geometry:
        """The sliding window; `same` becomes D(K−1)/2."""
        pad = self.pad if isinstance(self.pad, Pair) else same(self.size, self.dilation)
        return Geometry(self.size, self.stride or self.size, pad, self.dilation, self.ceil)

    def data(self) -> dict[str, object]:
        """Its arguments, with the stride that it really has."""
        stride = self.geometry.stride
        return {**super().data(), "stride": [stride.height, stride.width]}

    def requires(self, x: ImageType) -> Iterator[Claim]:
        """A window that fits, and PyTorch's bound on the padding."""
        uneven: list[Claim] = []
        if self.pad == "same":
            size, geometry = self.size, self.geometry
            uneven += odd_extent(
                size,
                self.dilation,
                "window",
                lambda: in_pool(self.function, size, geometry.extent, geometry.stride),
            )
        yield from uneven
        for axis, (side, _, _) in enumerate(AXES):
            if uneven:
                break  # there is no padding of which to say that it is too large
            pad, size = self.geometry.pad.values()[axis], self.size.values()[axis]
            yield Claim(
                Dim.of(size),
                ">=",
                Dim.of(2 * pad),
                "E308",
                f"a padding of {pad} is more than half of a window of {size} in {side}, so some "
                "windows would see nothing but padding",
                "pad",
                None,
                f"at most {size // 2}",
                (),
                (self._half_a_window(),),
            )
        if self.function == "avg" and self.dilation != ONE:
            yield never(
                "E310",
                "`pool avg` has no dilation: PyTorch defines it for `max` only",
                "dilation",
                suggestions=(
                    Suggestion("leave out the dilation: `dilation=1`", (("dilation", "1"),)),
                ),
            )
        yield from self.geometry.fits(x, "window")

    def _half_a_window(self) -> Suggestion:
        """The most padding that PyTorch takes, in each direction by itself."""
        sides = zip(self.geometry.pad.values(), self.size.values(), strict=True)
        pad = Pair(*(min(pad, size // 2) for pad, size in sides)).short
        return Suggestion(f"use `pad={pad}`", (("pad", pad),))

    def output(self, x: ImageType) -> ImageType:
        """As many channels as come in."""
        return ImageType(*self.geometry.output(x.height, x.width), x.channels)

    def step(self, x: ImageType) -> Step:
        """That of its window."""
        del x
        return self.geometry.step()

    def formula(self, x: ImageType) -> tuple[str, ...]:
        """The output size."""
        return self.geometry.formula(x)

    def torch(self, x: ImageType, module: str, value: str) -> str:
        """A call of the function, with what differs from its defaults; of single pixels a slice."""
        del x, module
        geometry = self.geometry
        if geometry.size == geometry.dilation == ONE and geometry.pad == ZERO:
            # Of one pixel: a view, for nothing is to be compared or added.
            steps = (f"::{step}" for step in geometry.stride.values())
            return channels_innermost(value, f"[:, {', '.join(steps)}]")
        arguments = [value, as_tuple(geometry.size)]
        if geometry.stride != geometry.size:
            arguments.append(f"stride={as_tuple(geometry.stride)}")
        if geometry.pad != ZERO:
            arguments.append(f"padding={as_tuple(geometry.pad)}")
        if geometry.dilation != ONE:
            arguments.append(f"dilation={as_tuple(geometry.dilation)}")
        if self.ceil:
            arguments.append("ceil_mode=True")
        if self.function == "avg" and not self.count_pad:
            arguments.append("count_include_pad=False")
        return f"F.{self.function}_pool2d({', '.join(arguments)})"


class AdaptivePool(Opaque):
    """The maximum or the average of as many windows as make the output exactly H x W.

    Window i of O over a length of I goes from ⌊i·I/O⌋ up to ⌈(i+1)·I/O⌉, so that windows differ by
    a pixel, and overlap, where O does not divide I. PyTorch: `F.adaptive_max_pool2d`,
    `F.adaptive_avg_pool2d`.
    """

    kind = "pool"
    examples: ClassVar[tuple[str, ...]] = ("pool avg to 7x7", "pool max to 3x1")

    function: Literal["max", "avg"] = argument(Word("max", "avg"))
    to: Pair = argument(WindowSize(), way="to")

    def output(self, x: ImageType) -> ImageType:
        """As given."""
        return ImageType(Dim.of(self.to.height), Dim.of(self.to.width), x.channels)

    def step(self, x: ImageType) -> Step | None:
        """Windows that are all alike, or one over the whole image; else there is no one stride."""
        sides = [
            length if count == 1 else length.exact_quotient(count)
            for length, count in ((x.height, self.to.height), (x.width, self.to.width))
        ]
        height, width = sides
        if height is None or width is None:
            return None
        down = 1 if self.to.height == 1 else height.constant
        across = 1 if self.to.width == 1 else width.constant
        return Step((height, width), (down, across), (0, 0)) if down and across else None

    def torch(self, x: ImageType, module: str, value: str) -> str:
        """A call of the function."""
        del x, module
        return f"F.adaptive_{self.function}_pool2d({value}, {as_tuple(self.to)})"


class GlobalPool(Opaque):
    """The maximum or the average of each whole channel: 1 x 1 x C.

    PyTorch: `F.adaptive_max_pool2d` and `F.adaptive_avg_pool2d` to one pixel.
    """

    kind = "globalpool"
    examples: ClassVar[tuple[str, ...]] = ("globalpool avg", "globalpool max")

    function: Literal["max", "avg"] = argument(Word("max", "avg"))

    def output(self, x: ImageType) -> ImageType:
        """One pixel."""
        return ImageType(Dim.of(1), Dim.of(1), x.channels)

    def step(self, x: ImageType) -> Step:
        """It sees the whole image at once."""
        return Step((x.height, x.width), (1, 1), (0, 0))

    def torch(self, x: ImageType, module: str, value: str) -> str:
        """A call of the function; `F.adaptive_avg_pool2d` computes the same bits as the mean."""
        del x, module
        if self.function == "max":
            return f"F.adaptive_max_pool2d({value}, 1)"
        return channels_innermost(value, ".mean((1, 2), keepdim=True)")


def channels_innermost(value: str, rest: str) -> str:
    """`value` with its channels as the last dimension, then what `rest` does, and back.

    PyTorch lays the gradient of a slice or a mean out in the order of its dimensions. So it comes
    with channels innermost, and who reads it so need not copy it.
    """
    return f"torch.movedim({value}.movedim(1, 3){rest}, 3, 1)"
