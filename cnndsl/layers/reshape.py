"""The same values under other indices."""

from collections.abc import Iterator
from typing import ClassVar

from cnndsl.layers.arguments import Count
from cnndsl.layers.base import Claim, Suggestion, View, argument
from cnndsl.layers.groups import divide
from cnndsl.layers.types import ImageType, TensorType, VectorType, elements
from cnndsl.sizes.counted import counted
from cnndsl.sizes.dim import Dim


class Flatten(View):
    """An image as a vector of H·W·C features, in channel-major order as PyTorch flattens."""

    kind = "flatten"
    examples: ClassVar[tuple[str, ...]] = ("flatten",)

    def output(self, x: ImageType) -> VectorType:
        """H·W·C features."""
        return VectorType(elements(x))

    def formula(self, x: ImageType) -> tuple[str, ...]:
        """The product."""
        height, width, channels = (dim.pretty() for dim in x.dims)
        return (f"H·W·C = {height}·{width}·{channels} = {elements(x).pretty()}",)

    def torch(self, x: ImageType, module: str, value: str) -> str:
        """A call of the function."""
        del x, module
        return f"torch.flatten({value}, 1)"


class Take(View):
    """The channels from FROM up to TO, not with it, counted from 0; of a vector, the features.

    PyTorch: a slice.
    """

    kind = "take"
    accepts = (ImageType, VectorType)
    examples: ClassVar[tuple[str, ...]] = ("take 0 6", "take 6 12")

    first: Dim = argument(Count(0))
    end: Dim = argument(Count())

    def requires(self, x: ImageType | VectorType) -> Iterator[Claim]:
        """At least one channel, and none past the last."""
        have, last = x.dims[-1], len(x.dims) - 1
        what = "channel" if isinstance(x, ImageType) else "feature"
        yield Claim(
            self.end - self.first,
            ">=",
            Dim.of(1),
            "E317",
            f"`take {self.first} {self.end}` takes nothing: it goes from the first number up to "
            "the second, not with it",
            "end",
            None,
            "must be larger than the first",
            (),
            _larger_end(self.first, have),
        )
        yield Claim(
            have,
            ">=",
            self.end,
            "E317",
            f"`take` goes up to {self.end.pretty()}, but its input has only {counted(have, what)}",
            "end",
            last,
            f"at most {have.pretty()}",
            (),
            (Suggestion(f"go up to `{have}` at most"),),
        )

    def output(self, x: ImageType | VectorType) -> ImageType | VectorType:
        """TO − FROM channels."""
        count = self.end - self.first
        if isinstance(x, VectorType):
            return VectorType(count)
        return ImageType(x.height, x.width, count)

    def torch(self, x: TensorType, module: str, value: str) -> str:
        """Dimension 1 holds channels as well as features."""
        del x, module
        return f"{value}[:, {self.first}:{self.end}]"


def _larger_end(first: Dim, have: Dim) -> tuple[Suggestion, ...]:
    if first.constant is None or have.constant is None or first.constant >= have.constant:
        return ()
    return (Suggestion(f"to take all up to the last: `take {first} {have}`"),)


class Shuffle(View):
    """The channels in another order: dealt out from G groups, one of each group in turn.

    Source: Zhang et al., ShuffleNet (2017). PyTorch: `torch.nn.ChannelShuffle`.
    """

    kind = "shuffle"
    examples: ClassVar[tuple[str, ...]] = ("shuffle 3",)

    groups: Dim = argument(Count())

    def requires(self, x: ImageType) -> Iterator[Claim]:
        """Groups that divide."""
        return divide(self.groups, x)

    def torch(self, x: TensorType, module: str, value: str) -> str:
        """A table of groups, read column by column."""
        del x, module
        return f"{value}.unflatten(1, ({self.groups}, -1)).transpose(1, 2).flatten(1, 2)"


class Skip(View):
    """Nothing: the identity."""

    kind = "skip"
    accepts = (ImageType, VectorType)
    examples: ClassVar[tuple[str, ...]] = ("skip",)

    def torch(self, x: TensorType, module: str, value: str) -> str:
        """The value itself."""
        del x, module
        return value
