"""Channels given first, `input 1 x 28 x 28`, as other libraries have them; here they come last.

Knows the input and the layers on it; a fix that swaps the sizes is tried like every other.
"""

from collections.abc import Iterable, Sequence

from cnndsl.diagnostics.model import Diagnostic, Edit, Fix, Sink
from cnndsl.graph.graph import Node
from cnndsl.layers.conv import Conv
from cnndsl.layers.deconv import Deconv
from cnndsl.layers.pool import Pool
from cnndsl.layers.types import ImageType, TensorType
from cnndsl.sizes.counted import counted
from cnndsl.sizes.dim import Dim
from cnndsl.syntax import tree

_CHANNELS = (1, 3, 4)  # of grey, colour, and colour with transparency
_LARGE = 8  # from here on a number may well be a height or a width
_MOST_LONG = 4  # an image is at most so many times as wide as high, or as high as wide
# What a wrong order leads to: windows that do not fit, weights that depend on a size, other shapes.
_CONSEQUENCES = ("E301", "E304", "E305", "E306", "E309")


def with_swap(
    diagnostics: Sequence[Diagnostic], statement: tree.Input | None, x: TensorType
) -> tuple[Diagnostic, ...]:
    """The diagnostics; the first that the order may have led to has the swap as its best fix."""
    if statement is None or not isinstance(x, ImageType) or not _may_be_swapped(x):
        return tuple(diagnostics)
    first = next((d for d in diagnostics if d.code in _CONSEQUENCES), None)
    if first is None:
        return tuple(diagnostics)
    # The others would only make a wrong order pass.
    others = tuple(Fix(fix.message) for fix in first.fixes)
    mended = first.replace(fixes=(_swap(statement), *others))
    return tuple(mended if one is first else one for one in diagnostics)


def warn_of_order(statement: tree.Input, x: TensorType, nodes: Iterable[Node], sink: Sink) -> None:
    """Warn where the network is valid, but its image looks as if the channels came first."""
    if not isinstance(x, ImageType) or not _may_be_swapped(x):
        return
    windows = [n.layer for n in nodes if isinstance(n.layer, (Conv, Deconv, Pool))]
    tall = any(window.size.height > 1 for window in windows)
    one_row = x.height.constant == 1
    if windows and not tall:
        return  # meant for one row, or for a few
    if not (one_row and tall) and _times(x.channels, x.width) > _MOST_LONG:
        return
    high, wide = counted(x.height, "pixel"), counted(x.width, "pixel")
    warning = Diagnostic(
        "W603",
        f"this image is {high} high, {wide} wide and has {counted(x.channels, 'channel')}: "
        "are the channels given first?",
        statement.shape.span,
        "height x width x channels",
        fixes=(_swap(statement), Fix("leave it so if the image is really so low")),
    )
    sink.add(warning)


def _may_be_swapped(x: ImageType) -> bool:
    """Whether the first size is one of channels, and the others are those of an image.

    Long rows of a few channels (`1 x 1000 x 12`) are signals, given in the right order.
    """
    if x.height.constant not in _CHANNELS or not (_is_large(x.width) and _is_large(x.channels)):
        return False
    return _times(x.width, x.channels) <= _MOST_LONG


def _is_large(dim: Dim) -> bool:
    return dim.constant is None or dim.constant >= _LARGE


def _times(one: Dim, other: Dim) -> float:
    """How many times one is as large as the other; 1 where that is not known."""
    if one.constant is None or other.constant is None:
        return 1.0
    return one.constant / other.constant


def _swap(statement: tree.Input) -> Fix:
    first, *others = (dim.span.text for dim in statement.shape.dims)
    shape = " x ".join((*others, first))
    message = f"a shape is height x width x channels: `input {shape}`"
    return Fix(message, (Edit(statement.shape.span, shape),))
