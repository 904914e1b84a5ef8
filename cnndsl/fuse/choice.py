"""Whose products a region takes: those of its own kernels, or those of PyTorch's library.

"library" is cuDNN on an NVIDIA GPU, with one pass of ours that does all the rest. A rule, made of
what was measured on an H200 (docs/performance.md).
"""

from typing import Literal

from cnndsl.layers.conv import Conv
from cnndsl.layers.pool import Pool
from cnndsl.layers.types import ImageType
from cnndsl.layers.window import ONE
from cnndsl.record import Record
from cnndsl.sizes.dim import Dim

Way = Literal["fused", "library", "staged"]
Taps = Literal["apart", "packed", "rows", "none"]  # none: a fully connected layer's
WAYS: tuple[Way, ...] = ("fused", "library", "staged")
TAPS: tuple[Taps, ...] = ("apart", "packed", "rows", "none")

# With fewer channels in a group than this, one step of the sum takes several taps of the filter.
FEW_CHANNELS = 16
# Of a first layer, so many channels are laid out as four, and a row of so wide a filter takes one
# step of the sum: where a filter is so large that this saves more than the laying out costs.
CHANNELS_OF_A_ROW, WIDTH_OF_A_ROW = 4, 8
# A tile of the weight's gradient has so many terms: with more, it reads all pixels again.
TERMS_OF_A_TILE = 64
# Images so small are bound by launches, of which a library has more.
PIXELS_OF_A_SMALL_IMAGE = 64 * 64


class Choice(Record):
    """How the kernels go through the terms of a sum, and whose products are taken each way."""

    taps: Taps
    forward: Way
    backward: Way


# A fully connected layer that a library multiplies faster is no region (`regions`).
OF_FC = Choice("none", "fused", "fused")


def choice(conv: Conv, arrives: ImageType, pool: Pool | None) -> Choice:
    """Choose for a convolution of this input, and the pool that is computed with it."""
    groups = _number(conv.groups)
    channels = _number(arrives.channels) // groups
    # Each window that holds a value would compute it anew, and its gradient.
    overlaps = pool is not None and _overlaps(pool)
    if channels >= FEW_CHANNELS:
        # Forward, a fused kernel writes so much less that it wins although cuDNN multiplies faster;
        # backward it would rebuild each gradient for every tap of the filter.
        return Choice("apart", "library" if overlaps else "fused", "library")
    if groups > 1:
        return Choice("packed", "library", "library")  # a matrix unit would multiply zeros
    reads_once = conv.size.height * conv.size.width * channels <= TERMS_OF_A_TILE
    is_row = 1 < channels <= CHANNELS_OF_A_ROW and conv.size.width <= WIDTH_OF_A_ROW
    is_row = is_row and not reads_once and conv.dilation == ONE
    taps = "rows" if is_row else "packed"
    if overlaps:
        return Choice(taps, "staged", "library")
    leaves = conv.output(arrives)
    pixels = (leaves.height * leaves.width).constant
    reads_once |= pixels is not None and pixels <= PIXELS_OF_A_SMALL_IMAGE
    return Choice(taps, "fused", "fused" if reads_once or is_row else "library")


def reason(conv: Conv, arrives: ImageType, pool: Pool | None) -> str:
    """Why the rule chooses so, in a sentence."""
    found = choice(conv, arrives, pool)
    groups = _number(conv.groups)
    channels = _number(arrives.channels) // groups
    if channels < FEW_CHANNELS and groups > 1:
        return f"groups of {channels} channels would leave a matrix unit to multiply zeros"
    if found.forward != "fused":
        return "its windows overlap, so a fused kernel would compute values several times"
    if found.backward == "fused":
        return f"with {channels} channels it is bound by memory: what is fused is not written out"
    return "forward, fusing saves writing; backward, a gradient would be rebuilt for every tap"


def _overlaps(pool: Pool) -> bool:
    size, stride = pool.geometry.size, pool.geometry.stride
    return stride.height < size.height or stride.width < size.width


def _number(dim: Dim) -> int:
    if dim.constant is None:
        raise ValueError(f"a region needs {dim} as a number")
    return dim.constant
