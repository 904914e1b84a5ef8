"""The arithmetic of sliding windows, shared by convolution and pooling.

Source: Dumoulin and Visin, A guide to convolution arithmetic for deep learning (2016), relationship
15: O = ⌊(I + 2P − D(K−1) − 1) / S⌋ + 1; `ceil` as PyTorch defines it for pooling.
"""

from collections.abc import Callable, Iterator

from cnndsl.layers.arguments import Pair
from cnndsl.layers.base import Claim, Step, Suggestion, never
from cnndsl.layers.even import odd_sizes
from cnndsl.layers.types import ImageType
from cnndsl.record import Record
from cnndsl.sizes.counted import counted
from cnndsl.sizes.dim import Dim

AXES = (("height", "high", "rows"), ("width", "wide", "columns"))
ONE, ZERO = Pair(1, 1), Pair(0, 0)


def same(size: Pair, dilation: Pair) -> Pair:
    """The padding that `same` stands for, D(K−1)/2."""
    return Pair(dilation.height * (size.height - 1) // 2, dilation.width * (size.width - 1) // 2)


def odd_extent(
    size: Pair, dilation: Pair, what: str, instead: Callable[[], Suggestion]
) -> Iterator[Claim]:
    """What `same` needs: a padding of whole pixels on both sides. `instead` says what to write."""
    for length, apart in zip(size.values(), dilation.values(), strict=True):
        reach = apart * (length - 1)
        if reach % 2 == 0:
            continue
        near = " or ".join(f"`{odd}`" for odd in odd_sizes(size))
        yield never(
            "E307",
            f"`pad=same` needs a {what} of odd size: for {size} the padding D(K−1)/2 is "
            f"{reach}/2, which is no whole number",
            "size",
            "even",
            (instead(), Suggestion(f"or take a {what} of odd size, such as {near}")),
        )
        return


def as_tuple(pair: Pair) -> str:
    """The pair as PyTorch takes it: one number where both are the same."""
    return str(pair.height) if pair.height == pair.width else f"({pair.height}, {pair.width})"


class Geometry(Record):
    """Size K, stride S, padding P and dilation D of a window, each for height and width."""

    size: Pair
    stride: Pair
    pad: Pair
    dilation: Pair
    ceil: bool = False

    @property
    def extent(self) -> tuple[int, int]:
        """The pixels from the window's first to its last, D(K−1)+1."""
        return (
            self.dilation.height * (self.size.height - 1) + 1,
            self.dilation.width * (self.size.width - 1) + 1,
        )

    def output(self, height: Dim, width: Dim) -> tuple[Dim, Dim]:
        """Height and width of what comes out."""
        return self._along(0, height), self._along(1, width)

    def _along(self, axis: int, length: Dim) -> Dim:
        extent, stride, pad = self.extent[axis], self.stride.values()[axis], self.pad.values()[axis]
        room = length + 2 * pad - extent
        if not self.ceil or stride == 1:
            return room // stride + 1
        # Rounded up, the last window ends `beyond` pixels past the padding. PyTorch drops it where
        # it would start behind the image, which is where no more than `beyond` of it is left.
        rounded_up = (room + stride - 1) // stride + 1
        inside = extent - pad
        if inside >= stride:
            return rounded_up
        beyond = (0 - room) % stride
        return rounded_up - (beyond + stride - inside) // stride

    def step(self) -> Step:
        """For receptive fields."""
        height, width = self.extent
        return Step(
            (Dim.of(height), Dim.of(width)),
            (self.stride.height, self.stride.width),
            (self.pad.height, self.pad.width),
        )

    def fits(self, x: ImageType, what: str) -> Iterator[Claim]:
        """The window must fit into the padded image."""
        for axis, (_, adjective, _) in enumerate(AXES):
            extent, pad = self.extent[axis], self.pad.values()[axis]
            padded = x.dims[axis] + 2 * pad
            # With `ceil` a window may hang over by less than a stride.
            needed = max(1, extent - (self.stride.values()[axis] - 1 if self.ceil else 0))
            least = padded.constant if padded.constant is not None else padded.least()
            if least is not None and least >= needed:
                continue  # as for most layers: what a message would say is not put together
            only = "only " if padded.constant is not None else ""
            with_padding = " with its padding" if pad else ""
            yield Claim(
                padded,
                ">=",
                Dim.of(needed),
                "E301",
                f"the {what} is {counted(extent, 'pixel')} {adjective}, but its input is "
                f"{only}{counted(padded, 'pixel')} {adjective}{with_padding}",
                "size",
                axis,
                f"{extent} {adjective}",
                (self._formula_along(axis, "HW"[axis], x.dims[axis]),),
                self._ways_to_fit(x, may_hang_over=what == "window"),
            )

    def _ways_to_fit(self, x: ImageType, *, may_hang_over: bool) -> tuple[Suggestion, ...]:
        """What makes the window fit in both directions, its size as it is; a smaller one last."""
        height, width = x.height.constant, x.width.constant
        if height is None or width is None:
            return (Suggestion("make the input larger, or the window smaller"),)
        sides = tuple(
            zip((height, width), self.size.values(), self.extent, self.pad.values(), strict=True)
        )
        found: list[Suggestion] = []
        reach = [
            extent - stride + 1
            for extent, stride in zip(self.extent, self.stride.values(), strict=True)
        ]
        if may_hang_over and all(
            have + 2 * pad >= least for (have, _, _, pad), least in zip(sides, reach, strict=True)
        ):
            message = "let the last window hang over the edge: `ceil=yes`"
            found.append(Suggestion(message, (("ceil", "yes"),)))
        pads = [max(pad, (extent - have + 1) // 2) for have, _, extent, pad in sides]
        # More than half of the window in padding is no fix, and a pool refuses it.
        if all(
            new == pad or 2 * new <= size
            for new, (_, size, _, pad) in zip(pads, sides, strict=True)
        ):
            pad = Pair(*pads).short
            found.append(Suggestion(f"pad the input: `pad={pad}`", (("pad", pad),)))
        if self.dilation.values() == (1, 1):
            smaller = Pair(*(_at_most(size, have + 2 * pad) for have, size, _, pad in sides))
            found.append(Suggestion(f"make the window smaller, such as `{smaller}`"))
        else:
            found.append(Suggestion("use a smaller dilation"))
        return tuple(found)

    def formula(self, x: ImageType) -> tuple[str, ...]:
        """`O = (W − K + 2P)/S + 1` with the numbers put in, once where both axes agree."""
        pairs = (self.size, self.stride, self.pad, self.dilation)
        if x.height == x.width and all(pair.height == pair.width for pair in pairs):
            return (self._formula_along(1, "W", x.width),)
        return (self._formula_along(0, "H", x.height), self._formula_along(1, "W", x.width))

    def _formula_along(self, axis: int, letter: str, length: Dim) -> str:
        size, stride, pad = (p.values()[axis] for p in (self.size, self.stride, self.pad))
        dilation, result = self.dilation.values()[axis], self._along(axis, length)
        general, numbers = f"{letter} − K", f"{length.pretty()} − {size}"
        if dilation != 1:
            general, numbers = (
                f"{letter} − D(K−1) − 1",
                f"{length.pretty()} − {dilation}·({size}−1) − 1",
            )
        if pad:
            general, numbers = f"{general} + 2P", f"{numbers} + 2·{pad}"
        left, right = ("⌈", "⌉") if self.ceil else ("⌊", "⌋")
        room = length + 2 * pad - self.extent[axis]
        if room.constant is not None and room.constant % stride == 0:
            left = right = ""
        return (
            f"O = {left}({general})/S{right} + 1 = {left}({numbers})/{stride}{right} + 1 "
            f"= {result.pretty()}"
        )

    def lost(self, axis: int, length: Dim) -> Dim | None:
        """How many real pixels at the far side no window reaches; None where none can be.

        The remainder of the division beyond the padding: max(0, (I + 2P − E) mod S − P).
        """
        extent, stride, pad = self.extent[axis], self.stride.values()[axis], self.pad.values()[axis]
        if self.ceil or stride == 1 or stride - 1 <= pad:
            return None
        return (length + 2 * pad - extent) % stride - pad

    def skipped(self, axis: int, length: Dim) -> int:
        """How many pixels of the image lie between two windows, which read none of them.

        There are none where only one window fits, and what lies in the padding is no pixel.
        """
        extent, stride, pad = self.extent[axis], self.stride.values()[axis], self.pad.values()[axis]
        gap = stride - extent
        have, count = length.constant, self._along(axis, length).constant
        if gap <= 0 or have is None or count is None:
            return max(0, gap) if count != 1 else 0
        # The gap behind window i starts at i·S − P + E. The largest of them counts: the first that
        # lies in the image whole, or else one that its edge cuts.
        first = (pad - extent + stride - 1) // stride
        found = 0
        for i in (first - 1, first):
            if 0 <= i <= count - 2:
                start = i * stride - pad + extent
                found = max(found, min(have, start + gap) - max(0, start))
        return found


def _at_most(size: int, have: int) -> int:
    """The largest size of the same parity that fits, if one does."""
    return size if size <= have else max(1, have - (size - have) % 2 * (have > 1))
