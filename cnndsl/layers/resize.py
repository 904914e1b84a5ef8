"""Images made larger or smaller without weights: more pixels, a border, a part."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from cnndsl.layers.arguments import Labelled, Like, Pair, Whole, WindowSize, Word
from cnndsl.layers.base import Claim, Opaque, Step, Suggestion, View, argument, never
from cnndsl.layers.types import ImageType, TensorType, VectorType
from cnndsl.layers.window import AXES
from cnndsl.sizes.counted import counted
from cnndsl.sizes.dim import Dim

Mode = Literal["nearest", "bilinear"]


class Upsample(Opaque):
    """N·H x N·W pixels: each pixel N times (`nearest`), or in between as a mixture (`bilinear`).

    For `bilinear`, output pixel i lies at (i + 1/2)/N − 1/2 between the input pixels, where the
    border goes on beyond itself. PyTorch: `F.interpolate`, with `align_corners=False`.
    """

    kind = "upsample"
    examples: ClassVar[tuple[str, ...]] = ("upsample 2 nearest", "upsample 4 bilinear")

    factor: int = argument(Whole())
    mode: Mode = argument(Word("nearest", "bilinear"))

    def output(self, x: ImageType) -> ImageType:
        """N times as many in each direction."""
        return ImageType(x.height * self.factor, x.width * self.factor, x.channels)

    def step(self, x: ImageType) -> Step:
        """That of the filter which mixes the pixels."""
        del x
        return _mixing(self.mode, (self.factor, self.factor))

    def formula(self, x: ImageType) -> tuple[str, ...]:
        """The products."""
        height, width = self.output(x).dims[:2]
        return (
            f"N·H x N·W = {self.factor}·{x.height.pretty()} x {self.factor}·{x.width.pretty()} "
            f"= {height.pretty()} x {width.pretty()}",
        )

    def torch(self, x: TensorType, module: str, value: str) -> str:
        """A call of the function."""
        del x, module
        return f"F.interpolate({value}, scale_factor={self.factor}{_mode(self.mode)})"


class UpsampleTo(Opaque):
    """Exactly H x W pixels, each the nearest one of the input, or a mixture (`bilinear`).

    For `nearest`, output pixel i of O is input pixel ⌊i·I/O⌋; for `bilinear`, it lies at
    (i + 1/2)·I/O − 1/2. PyTorch: `F.interpolate`, with `align_corners=False`.
    """

    kind = "upsample"
    examples: ClassVar[tuple[str, ...]] = ("upsample to 64x64", "upsample to 56x48 bilinear")

    to: Pair = argument(WindowSize(), way="to")
    mode: Mode = argument(Word("nearest", "bilinear"), default="nearest", way="place")

    def output(self, x: ImageType) -> ImageType:
        """As given."""
        return ImageType(Dim.of(self.to.height), Dim.of(self.to.width), x.channels)

    def step(self, x: ImageType) -> Step | None:
        """As `upsample N` where it is a whole number of times larger."""
        return _whole_times(self.mode, x, self.output(x))

    def torch(self, x: TensorType, module: str, value: str) -> str:
        """A call of the function."""
        del x, module
        size = f"({self.to.height}, {self.to.width})"
        return f"F.interpolate({value}, size={size}{_mode(self.mode)})"


class UpsampleLike(Opaque):
    """As high and as wide as the labelled image, whatever size that has; else as `upsample to`.

    PyTorch: `F.interpolate`, with `align_corners=False`.
    """

    kind = "upsample"
    examples: ClassVar[tuple[str, ...]] = ("upsample like enc1", "upsample like enc1 bilinear")

    like: Labelled = argument(Like(), way="like")
    mode: Mode = argument(Word("nearest", "bilinear"), default="nearest", way="place")

    def requires(self, x: ImageType) -> Iterator[Claim]:
        """An image to be like."""
        del x
        return _is_image(self.like)

    def output(self, x: ImageType) -> TensorType:
        """The other's height and width, the own channels."""
        return _sized_like(x, self.like.type)

    def step(self, x: ImageType) -> Step | None:
        """As `upsample N` where it is a whole number of times larger."""
        return _whole_times(self.mode, x, self.output(x))

    def torch(self, x: TensorType, module: str, *values: str) -> str:
        """A call of the function, for whatever size the other tensor has."""
        del x, module
        value, other = values
        return f"F.interpolate({value}, size={other}.shape[2:]{_mode(self.mode)})"


class Pad(Opaque):
    """T rows of zeros above, B below, L columns of zeros at the left, R at the right.

    PyTorch: `F.pad`.
    """

    kind = "pad"
    examples: ClassVar[tuple[str, ...]] = ("pad 1 1 1 1", "pad 0 1 0 1")

    top: int = argument(Whole(0), axis=0)
    bottom: int = argument(Whole(0), axis=0)
    left: int = argument(Whole(0), axis=1)
    right: int = argument(Whole(0), axis=1)

    def output(self, x: ImageType) -> ImageType:
        """H + T + B x W + L + R."""
        height = x.height + self.top + self.bottom
        return ImageType(height, x.width + self.left + self.right, x.channels)

    def step(self, x: ImageType) -> Step:
        """Pixel for pixel, from before the first on."""
        del x
        return Step((Dim.of(1), Dim.of(1)), (1, 1), (self.top, self.left))

    def torch(self, x: TensorType, module: str, value: str) -> str:
        """A call of the function, which takes the last dimension first."""
        del x, module
        return f"F.pad({value}, ({self.left}, {self.right}, {self.top}, {self.bottom}))"


class Crop(View):
    """Without T rows above, B below, L columns at the left, R at the right. PyTorch: a slice."""

    kind = "crop"
    examples: ClassVar[tuple[str, ...]] = ("crop 2 2 2 2", "crop 0 1 0 1")

    top: int = argument(Whole(0), axis=0)
    bottom: int = argument(Whole(0), axis=0)
    left: int = argument(Whole(0), axis=1)
    right: int = argument(Whole(0), axis=1)

    def requires(self, x: ImageType) -> Iterator[Claim]:
        """Something that is left."""
        cuts = ((self.top, self.bottom, "bottom"), (self.left, self.right, "right"))
        for axis, (side, adjective, lines) in enumerate(AXES):
            before, after, name = cuts[axis]
            have = x.dims[axis]
            only = "only " if have.constant is not None else ""
            yield Claim(
                have,
                ">=",
                Dim.of(before + after + 1),
                "E316",
                f"this takes {counted(before + after, lines[:-1])} away, but its input is "
                f"{only}{counted(have, 'pixel')} {adjective}",
                name,
                axis,
                f"nothing is left in {side}",
                (),
                (Suggestion("take fewer away, or make the image larger above"),),
            )

    def output(self, x: ImageType) -> ImageType:
        """H − T − B x W − L − R."""
        height = x.height - (self.top + self.bottom)
        return ImageType(height, x.width - (self.left + self.right), x.channels)

    def step(self, x: ImageType) -> Step:
        """Pixel for pixel, from behind the first on."""
        del x
        return Step((Dim.of(1), Dim.of(1)), (1, 1), (-self.top, -self.left))

    def torch(self, x: TensorType, module: str, value: str) -> str:
        """A slice of rows and columns."""
        del x, module
        rows, columns = _slice(self.top, self.bottom), _slice(self.left, self.right)
        return f"{value}[:, :, {rows}, {columns}]"


class CropLike(View):
    """The middle of the image, as high and as wide as the labelled one.

    ⌊(H − h)/2⌋ rows go above and ⌈(H − h)/2⌉ below, and so for columns. PyTorch:
    `torch.narrow`.
    """

    kind = "crop"
    examples: ClassVar[tuple[str, ...]] = ("crop like enc1",)

    like: Labelled = argument(Like(), way="like")

    def requires(self, x: ImageType) -> Iterator[Claim]:
        """An image to be like, which is no larger."""
        yield from _is_image(self.like)
        if not isinstance(self.like.type, ImageType):
            return
        for axis, (_, adjective, _) in enumerate(AXES):
            have, wanted = x.dims[axis], self.like.type.dims[axis]
            only = "only " if have.constant is not None else ""
            yield Claim(
                have,
                ">=",
                wanted,
                "E315",
                f"`{self.like.label}` is {counted(wanted, 'pixel')} {adjective}, but the image to "
                f"crop is {only}{have.pretty()}",
                "like",
                axis,
                "larger than what is cropped",
                (),
                (Suggestion(f"to make it larger: `upsample like {self.like.label}`"),),
            )

    def output(self, x: ImageType) -> TensorType:
        """The other's height and width, the own channels."""
        return _sized_like(x, self.like.type)

    def step(self, x: ImageType) -> Step | None:
        """Pixel for pixel, from behind the first on."""
        above, left = self._offsets(x)
        if above is None or left is None:
            return None
        return Step((Dim.of(1), Dim.of(1)), (1, 1), (-above, -left))

    def _offsets(self, x: TensorType) -> list[int | None]:
        """How many rows go above and how many columns at the left, where that is a number."""
        rest = [a - b for a, b in zip(x.dims[:2], self.like.type.dims[:2], strict=True)]
        return [dim.constant // 2 if dim.constant is not None else None for dim in rest]

    def torch(self, x: TensorType, module: str, *values: str) -> str:
        """A part of the rows, and a part of the columns of that."""
        del module
        part, other = values
        for axis, offset in enumerate(self._offsets(x), 2):
            start = f"({values[0]}.shape[{axis}] - {other}.shape[{axis}]) // 2"
            where = offset if offset is not None else start
            part = f"torch.narrow({part}, {axis}, {where}, {other}.shape[{axis}])"
        return part


def _mode(mode: Mode) -> str:
    """The argument of `F.interpolate`, whose default is `nearest`."""
    return ', mode="bilinear"' if mode == "bilinear" else ""


def _slice(before: int, after: int) -> str:
    """The Python slice without so many at the start and at the end."""
    return f"{before or ''}:{-after if after else ''}"


def _mixing(mode: Mode, times: tuple[int, int]) -> Step:
    """The filter that an interpolation lays over an image with `times` − 1 pixels put in between.

    For `nearest` it is N ones. For `bilinear` it is a roof, 2N − 1 wide for odd N and 2N for even
    N, where the middle lies between two pixels.
    """
    if mode == "nearest":
        return Step(_dims(times), (1, 1), (times[0] - 1, times[1] - 1), times)
    sizes = (2 * times[0] - times[0] % 2, 2 * times[1] - times[1] % 2)
    before = (sizes[0] - 1 - times[0] // 2, sizes[1] - 1 - times[1] // 2)
    return Step(_dims(sizes), (1, 1), before, times)


def _dims(numbers: tuple[int, int]) -> tuple[Dim, Dim]:
    return Dim.of(numbers[0]), Dim.of(numbers[1])


def _whole_times(mode: Mode, x: ImageType, larger: TensorType) -> Step | None:
    if not isinstance(larger, ImageType):
        return None
    down, across = larger.height.exact_quotient(x.height), larger.width.exact_quotient(x.width)
    if down is None or across is None or not down.constant or not across.constant:
        return None
    return _mixing(mode, (down.constant, across.constant))


def _is_image(other: Labelled) -> Iterator[Claim]:
    if isinstance(other.type, VectorType):
        yield never(
            "E302",
            f"`like` needs an image, but `{other.label}` is a vector of "
            f"{counted(other.type.features, 'feature')}",
            "like",
            suggestions=(Suggestion("name a layer above the `flatten`"),),
        )


def _sized_like(x: ImageType, other: TensorType) -> TensorType:
    if not isinstance(other, ImageType):
        return x  # `requires` refuses it
    return ImageType(other.height, other.width, x.channels)
