"""Tensors of different sizes that a merge reads: the larger one cropped, or the other enlarged.

Knows what is merged and where it was made; every fix is tried before it is offered.
"""

from collections.abc import Sequence

from cnndsl.check.edits import insert_above
from cnndsl.check.places import Place, Tensor
from cnndsl.diagnostics.model import Edit, Fix
from cnndsl.graph.graph import Node
from cnndsl.layers.types import ImageType, is_open
from cnndsl.sizes.dim import Dim
from cnndsl.syntax import tree


def resized(
    call: tree.Merge, branches: Sequence[Tensor], end: Node | None, place: Place
) -> tuple[Fix, ...]:
    """Where the current tensor meets labelled ones: fixes that make them equally high and wide.

    `end` is the layer that makes the current tensor. Images that are larger are cropped; nothing
    that is larger is made smaller by interpolation.
    """
    images = [branch.type for branch in branches]
    if not call.others or not all(isinstance(image, ImageType) for image in images):
        return ()
    current, *others = [image.dims[:2] for image in images]
    labels = [name.text for name in call.others]
    different = [n for n, other in enumerate(others) if other != current]
    fixes: list[Fix] = []
    if all(_no_smaller(others[n], current) for n in different):
        fixes.append(_crop_labelled(call, labels, set(different), end, place))
    elif len(different) == 1 and _no_smaller(current, others[different[0]]):
        label = labels[different[0]]
        edit = insert_above(call.span, f"crop like {label}")
        fixes.append(Fix(f"crop the larger one: `crop like {label}` in front", (edit,)))
    first = different[0] if different else 0
    if not _no_smaller(current, others[first]):
        edit = Edit(call.span.before(), f"upsample like {labels[first]}; ")
        fixes.append(Fix(f"make it so for every size: `upsample like {labels[first]}`", (edit,)))
    return tuple(fixes)


def _crop_labelled(
    call: tree.Merge, labels: list[str], larger: set[int], end: Node | None, place: Place
) -> Fix:
    """Each larger tensor in a branch of its own, cropped like the current one."""
    edits: list[Edit] = []
    small = _own_label(end, place)
    if small is None:
        small = f"small{call.span.line}"
        edits.append(insert_above(call.span, f"skip as {small}"))
    elif end is not None and not end.labelled:
        edits.append(Edit(end.span.after(), f" as {small}"))
    parts = [
        f"{{ from {label}; crop like {small} }}" if n in larger else f"{{ from {label} }}"
        for n, label in enumerate(labels)
    ]
    place_of_labels = call.others[0].span.to(call.others[-1].span)
    edits.append(Edit(place_of_labels, " ".join(["{ skip }", *parts])))
    cropped = ", ".join(f"`{labels[n]}`" for n in sorted(larger))
    return Fix(f"crop {cropped}, which is larger: `crop like {small}`", tuple(edits))


def _own_label(end: Node | None, place: Place) -> str | None:
    """The name by which a layer can be spoken of here; an unlabelled one keeps its own."""
    if end is None or end.uses != place.uses or not end.path.startswith(place.prefix):
        return None
    name = end.path.removeprefix(place.prefix)
    return name if name.isidentifier() else None


def _no_smaller(one: tuple[Dim, ...], other: tuple[Dim, ...]) -> bool:
    """Whether one is at least as high and as wide, for every size as far as that can be seen."""
    return all(_at_least(a, b) for a, b in zip(one, other, strict=True))


def _at_least(one: Dim, other: Dim) -> bool:
    if one == other or is_open(one) or is_open(other):
        return True
    more = (one - other).constant
    if more is not None:
        return more >= 0
    symbols = one.symbols | other.symbols
    return all(
        one.evaluate(dict.fromkeys(symbols, size)) >= other.evaluate(dict.fromkeys(symbols, size))
        for size in range(300, 420)
    )
