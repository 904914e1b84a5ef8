"""What to write where `pad=same` cannot be, for windows that reach over an even number of pixels.

`same` would pad half a pixel more at one side than at the other. Each suggestion keeps the window
and gives the size that other libraries give with `same`: ⌈W/S⌉, of transposed convolution W·S.
"""

from collections.abc import Iterator

from cnndsl.layers.arguments import Pair
from cnndsl.layers.base import Suggestion

NO_PAD = "0"


def padded_above(extent: tuple[int, int], *, zeros_matter: bool = False) -> Suggestion:
    """The zeros that `same` stands for as a layer of their own, one more behind than in front."""
    cuts = " ".join(f"{(e - 1) // 2} {e // 2}" for e in extent)
    warning = ", whose zeros take part in the maximum" if zeros_matter else ""
    return Suggestion(
        f"pad unevenly with a layer above, and keep the size: `pad {cuts}`{warning}",
        (("pad", NO_PAD),),
        above=f"pad {cuts}",
    )


def in_pool(function: str, size: Pair, extent: tuple[int, int], stride: Pair) -> Suggestion:
    """`ceil=yes` where that comes to the same size, else rows and columns cut off, else zeros."""
    sides = tuple(zip(size.values(), extent, stride.values(), strict=True))
    rounded = [_rounded_up(*side) for side in sides]
    if rounded[0] is not None and rounded[1] is not None:
        pad = Pair(rounded[0], rounded[1]).short
        with_pad = f"pad={pad} " if pad != NO_PAD else ""
        return Suggestion(
            f"keep the window, and let the last one hang over the edge: `{with_pad}ceil=yes`",
            (("pad", pad), ("ceil", "yes")),
        )
    cut = [_cut(*side) for side in sides]
    if cut[0] is not None and cut[1] is not None:
        pads, lines = zip(cut[0], cut[1], strict=True)
        pad, crop = Pair(*pads).short, f"crop {lines[0]} 0 {lines[1]} 0"
        return Suggestion(
            f"keep the window: `pad={pad}`, and behind it `{crop}`", (("pad", pad),), below=crop
        )
    return padded_above(extent, zeros_matter=function == "max")


def _rounded_up(size: int, extent: int, stride: int) -> int | None:
    """The padding with which `ceil=yes` gives ⌈W/S⌉; None where none does for every W."""
    if stride == extent:
        return 0
    if extent % 2 and stride == 1:
        return extent // 2 if 2 * (extent // 2) <= size else None
    if extent % 2 == 0 and stride == 2 and extent - 2 <= size:
        return extent // 2 - 1
    return None


def _cut(size: int, extent: int, stride: int) -> tuple[int, int] | None:
    """A padding, and how many of the first windows are to be cut off."""
    pad = extent // 2
    if 2 * pad > size or (extent % 2 == 0 and stride != 1):
        return None
    return pad, 1 - extent % 2


def in_deconv(extent: tuple[int, int], stride: Pair, dilation: Pair) -> Suggestion:
    """A padding and an `output_pad` that make the image S times as large, else a crop behind."""
    found = [
        _transposed(*side) for side in zip(extent, stride.values(), dilation.values(), strict=True)
    ]
    (pad_h, more_h, cut_h), (pad_w, more_w, cut_w) = found
    pad, more = Pair(pad_h, pad_w).short, Pair(more_h, more_w).short
    crop = f"crop 0 {cut_h} 0 {cut_w}" if cut_h or cut_w else ""
    options = [f"{n}={v}" for n, v in (("pad", pad), ("output_pad", more)) if v != NO_PAD]
    said = f"`{' '.join(options)}`" if options else "no padding"
    return Suggestion(
        f"keep the filter, with {said}" + (f", and behind it `{crop}`" if crop else ""),
        (("pad", pad), ("output_pad", more)),
        below=crop,
    )


def _transposed(extent: int, stride: int, dilation: int) -> tuple[int, int, int]:
    """Padding, output padding and pixels to cut off behind: E + output_pad − 2P − cut = S."""
    over = extent - stride
    pad = max(0, over // 2)
    rest = over - 2 * pad
    if rest >= 0:
        more, cut = 0, rest
        if rest and max(stride, dilation) > 1:
            pad, more, cut = pad + 1, 1, 0
        return pad, more, cut
    return pad, -rest, 0


def odd_sizes(size: Pair) -> Iterator[Pair]:
    """The nearest sizes that are odd in each direction."""
    for step in (-1, 1):
        near = Pair(*(n + step if n % 2 == 0 else n for n in size.values()))
        if min(near.values()) >= 1:
            yield near
