"""Several tensors made one: their sum, their product, or one behind the other."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

from cnndsl.layers.base import Claim, Merge, Suggestion, never
from cnndsl.layers.types import ImageType, TensorType, VectorType, is_open, show
from cnndsl.layers.window import AXES
from cnndsl.sizes.counted import counted
from cnndsl.sizes.dim import Dim

Types = tuple[TensorType, ...]


class Add(Merge):
    """The sum, value by value; all shapes are equal. PyTorch: `+`."""

    kind = "add"
    examples: ClassVar[tuple[str, ...]] = ("add { skip } { conv 12 3x3 pad=same }",)

    def requires(self, x: Types) -> Iterator[Claim]:
        """Equal shapes."""
        return _alike(self.kind, x)

    def output(self, x: Types) -> TensorType:
        """The shape that all have."""
        return x[0]

    def torch(self, x: Types, module: str, *values: str) -> str:
        """The sum."""
        del x, module
        return " + ".join(values)


class Concat(Merge):
    """The channels of the first, then those of the second, and so on; of vectors, the features.

    Height and width are equal. PyTorch: `torch.cat` along dimension 1.
    """

    kind = "concat"
    examples: ClassVar[tuple[str, ...]] = ("concat { conv 4 1x1 } { conv 8 3x3 pad=same }",)

    def requires(self, x: Types) -> Iterator[Claim]:
        """Equal height and width."""
        return _alike(self.kind, x, channels=False)

    def output(self, x: Types) -> TensorType:
        """As many channels as all have together."""
        channels = Dim.sum(type_.dims[-1] for type_ in x)
        first = x[0]
        if isinstance(first, ImageType):
            return ImageType(first.height, first.width, channels)
        return VectorType(channels)

    def torch(self, x: Types, module: str, *values: str) -> str:
        """A call of the function."""
        del x, module
        return f"torch.cat(({', '.join(values)}), 1)"


class Multiply(Merge):
    """The product, value by value; all shapes are equal, but a factor of 1 x 1 x C fits any image.

    Such a factor is one number a channel: a gate, as in squeeze and excitation, Hu et al. (2017).
    Only a height and width that are 1 for every input make one. PyTorch: `*`.
    """

    kind = "multiply"
    examples: ClassVar[tuple[str, ...]] = (
        "multiply { skip } { sigmoid }",
        "multiply { skip } { globalpool avg; conv 12 1x1; sigmoid }",
    )

    def requires(self, x: Types) -> Iterator[Claim]:
        """Equal shapes, for gates equal channels."""
        return _alike(self.kind, x, gates=tuple(i for i, t in enumerate(x) if _may_be_gate(t)))

    def output(self, x: Types) -> TensorType:
        """The shape of those that are no gates."""
        large = (type_ for type_ in x if not _may_be_gate(type_))
        return next(large, None) or next((type_ for type_ in x if not _is_gate(type_)), x[0])

    def torch(self, x: Types, module: str, *values: str) -> str:
        """The product."""
        del x, module
        return " * ".join(values)


def _is_gate(type_: TensorType) -> bool:
    one = Dim.of(1)
    return isinstance(type_, ImageType) and type_.height == one and type_.width == one


def _may_be_gate(type_: TensorType) -> bool:
    """Whether it is a gate, or may be one where a mistake above leaves its size open."""
    return isinstance(type_, ImageType) and all(
        dim == 1 or (is_open(dim) and (dim.least() or 0) <= 1) for dim in type_.dims[:2]
    )


def _alike(
    kind: str, types: Types, *, channels: bool = True, gates: tuple[int, ...] = ()
) -> Iterator[Claim]:
    """All are images or all vectors, and equal: in height and width but for gates, in `channels`.

    Each is compared with the first that counts, and whose size is as well known.
    """
    mixed = next((i for i, type_ in enumerate(types) if type(type_) is not type(types[0])), None)
    if mixed is not None:
        yield _mixed(kind, types, (0, mixed))
        return
    large = [i for i in range(len(types)) if i not in gates]
    for i in large[1:]:
        if isinstance(types[i], ImageType):
            for axis in range(len(AXES)):
                yield from _equal(kind, types, (_first(types, large, i, axis), i), axis)
    if channels:
        last = len(types[0].dims) - 1
        for i in range(1, len(types)):
            first = _first(types, range(len(types)), i, last)
            yield from _equal(kind, types, (first, i), last)


def _first(types: Types, among: Sequence[int], index: int, axis: int) -> int:
    """The first whose size is known, or open, as that of `index` is."""
    as_open = is_open(types[index].dims[axis])
    return next(i for i in among if is_open(types[i].dims[axis]) == as_open)


def _equal(kind: str, types: Types, between: tuple[int, int], about: int) -> Iterator[Claim]:
    a, b = types[between[0]].dims[about], types[between[1]].dims[about]
    if a == b:
        return
    if isinstance(types[between[0]], VectorType):
        side, line = "features", "feature"
        advice = f"end each branch with the same number of features, such as `fc {a.pretty()}`"
    elif about == len(AXES):
        side, line = "channels", "channel"
        same = f"`conv {a.pretty()} 1x1`"
        advice = f"end each branch with the same number of channels, such as {same}"
    else:
        side, _, lines = AXES[about]
        line = lines[:-1]
        advice = "use the same strides and paddings in each branch, or end one with `upsample like`"
    yield Claim(
        a,
        "==",
        b,
        "E304",
        f"the branches of this `{kind}` differ in {side}",
        None,
        about,
        f"{a.pretty()} and {counted(b, line)}",
        (),
        (Suggestion(advice),),
        between,
    )


def _mixed(kind: str, types: Types, between: tuple[int, int]) -> Claim:
    one, other = (
        f"{'an image' if isinstance(types[i], ImageType) else 'a vector'} of {show(types[i])}"
        for i in between
    )
    return never(
        "E304",
        f"one branch of this `{kind}` is {one}, another {other}",
        caption="an image and a vector",
        suggestions=(Suggestion(_one_kind(kind)),),
    ).replace(between=between)


def _one_kind(kind: str) -> str:
    """What to do where images and vectors meet; a gate is an image of one pixel."""
    if kind == "multiply":
        return (
            "a gate is an image of 1 x 1 x C: leave out the `flatten` behind `globalpool`, and "
            "write `conv N 1x1` for each `fc N`"
        )
    return "end the branch that is an image with `flatten`"
