"""What is known after a mistake: all that comes out the same whatever was meant.

An argument that is wrong is tried with two values that differ. A size of the output, or a claim,
that is the same for both does not depend on the mistake. Knows layers and types, not messages.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from cnndsl.layers.arguments import Count, Flag, Kind, Labelled, Like, Number, Pair, Size, Whole
from cnndsl.layers.base import REQUIRED, Claim, Layer, Merge
from cnndsl.layers.merge import Multiply
from cnndsl.layers.types import (
    ImageType,
    TensorType,
    Unknown,
    Unknowns,
    VectorType,
    is_open,
)
from cnndsl.sizes.dim import Dim
from cnndsl.sizes.limits import SizeError

# Formulas of unknown sizes are kept short: the point of most is that two of them are the same.
MOST_WEIGHT = 8


def is_long(dim: Dim) -> bool:
    """Whether a size is a long formula of what a mistake leaves open."""
    return is_open(dim) and (dim.weight > MOST_WEIGHT or not dim.is_linear)


def as_read(form: type[Layer], x: TensorType) -> ImageType | VectorType | None:
    """The tensor as the layer reads it; None for a kind that it does not take.

    One of an open kind is what the layer needs; where it takes both kinds, an image.
    """
    if isinstance(x, Unknown):
        image = ImageType(x.height, x.width, x.channels)
        return image if ImageType in form.accepts else VectorType(x.channels)
    return x if isinstance(x, form.accepts) else None


def of_open_kind(type_: TensorType, unknowns: Unknowns) -> Unknown:
    """The tensor where it is open whether that is an image or a vector."""
    match type_:
        case Unknown():
            return type_
        case ImageType(height, width, channels):
            return Unknown(height, width, channels)
        case VectorType(features):
            return Unknown(unknowns.dim(), unknowns.dim(), features)


def in_common(types: Sequence[TensorType], unknowns: Unknowns) -> TensorType:
    """What is known of a tensor that is of one of these types."""
    opened = [type_ for type_ in types if isinstance(type_, Unknown)]
    if opened or len({type(type_) for type_ in types}) > 1:
        types = [of_open_kind(type_, unknowns) for type_ in types]
    rows = [(t.height, t.width, t.channels) if isinstance(t, Unknown) else t.dims for t in types]
    dims = [
        column[0] if all(dim == column[0] for dim in column) else unknowns.dim()
        for column in zip(*rows, strict=True)
    ]
    return type(types[0])(*dims)


def output_after(
    form: type[Layer],
    values: Mapping[str, Any],
    doubtful: Collection[str],
    x: ImageType | VectorType,
    unknowns: Unknowns,
) -> ImageType | VectorType:
    """What comes out of a layer of which some arguments are doubtful."""
    probe = unknowns.image() if isinstance(x, ImageType) else VectorType(unknowns.dim())
    one, other = (layer.output(probe) for layer in _variants(form, values, doubtful, unknowns))
    put = {next(iter(p.symbols)): dim for p, dim in zip(probe.dims, x.dims, strict=True)}
    dims: list[Dim] = []
    for a, b in zip(one.dims, other.dims, strict=True):
        try:
            dims.append(a.substitute(put) if a == b else unknowns.dim())
        except SizeError:
            dims.append(unknowns.dim())
    return ImageType(*dims) if isinstance(one, ImageType) else VectorType(*dims)


def sure_claims(
    form: type[Layer],
    values: Mapping[str, Any],
    doubtful: Collection[str],
    x: ImageType | VectorType,
    unknowns: Unknowns,
) -> tuple[Layer, tuple[Claim, ...]]:
    """What the layer claims whatever its doubtful arguments are, and a layer for which it does."""
    one, other = _variants(form, values, doubtful, unknowns)
    same = list(other.requires(x))
    return one, tuple(claim for claim in one.requires(x) if claim in same)


def _variants(
    form: type[Layer], values: Mapping[str, Any], doubtful: Collection[str], unknowns: Unknowns
) -> tuple[Layer, Layer]:
    """Two layers that differ in each doubtful argument, and have the others as given."""
    # A hole that stands where no other argument may is not among them, and has no value either.
    lacking = [n for n, s in form.slots.items() if s.default is REQUIRED and n not in values]
    names = dict.fromkeys([*doubtful, *lacking])
    pairs = {name: _two_values(form.slots[name].kind, unknowns) for name in names}
    return (
        form(**{**values, **{name: pair[0] for name, pair in pairs.items()}}),
        form(**{**values, **{name: pair[1] for name, pair in pairs.items()}}),
    )


def _two_values(kind: Kind, unknowns: Unknowns) -> tuple[Any, Any]:
    match kind:
        case Whole():
            return 1, 2
        case Count():
            return Dim.of(1), Dim.of(2)
        case Size():
            return Pair(1, 1), Pair(2, 2)
        case Flag():
            return False, True
        case Number():
            return 0.25, 0.5
        case Like():
            return Labelled("", unknowns.image()), Labelled("", unknowns.image())
        case _:
            return kind.words[0], kind.words[-1]


# ── merges ───────────────────────────────────────────────────────────────────────────────────────


def of_one_kind(types: Sequence[TensorType]) -> tuple[ImageType | VectorType, ...]:
    """The types of a merge's branches, where those of an open kind are as the others."""
    kinds = {type(type_) for type_ in types}
    if Unknown not in kinds:
        return cast("tuple[ImageType | VectorType, ...]", tuple(types))
    kinds.remove(Unknown)
    return tuple(settled(type_, kinds == {VectorType}) for type_ in types)


def settled(type_: TensorType, are_vectors: bool) -> ImageType | VectorType:
    """The type; one of an open kind as that of a vector or an image."""
    if not isinstance(type_, Unknown):
        return type_
    if are_vectors:
        return VectorType(type_.channels)
    return ImageType(type_.height, type_.width, type_.channels)


def merged(
    layer: Merge,
    types: Sequence[ImageType | VectorType],
    failed: Collection[int],
    unknowns: Unknowns,
) -> ImageType | VectorType:
    """What comes out of a merge whose branches differ in the dims `failed`.

    A size that one branch leaves open is that of the others, where all have to be equal.
    """
    out = layer.output(types)
    dims = list(out.dims)
    for axis, dim in enumerate(dims):
        own = [type_.dims[axis] for type_ in types if len(type_.dims) == len(dims)]
        if axis in failed:
            dims[axis] = unknowns.dim()
        elif is_open(dim) and dim in own:  # not the sum of a `concat`
            gates = (1,) if isinstance(layer, Multiply) and axis < len(dims) - 1 else ()
            dims[axis] = next((d for d in own if not is_open(d) and d not in gates), dim)
    return ImageType(*dims) if isinstance(out, ImageType) else VectorType(*dims)
