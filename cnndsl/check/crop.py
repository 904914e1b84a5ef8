"""Images of different sizes that a merge reads: the larger ones cropped, or the other enlarged.

Knows what is merged and where it was made; every fix is tried before it is offered.
"""

from collections.abc import Mapping, Sequence

from cnndsl.check.edits import insert_above
from cnndsl.check.places import Place, Tensor
from cnndsl.diagnostics.model import Edit, Fix
from cnndsl.graph.graph import Node
from cnndsl.layers.types import ImageType, is_open
from cnndsl.sizes.dim import Dim
from cnndsl.syntax import tree

Size = tuple[Dim, ...]  # height and width


def resized(
    call: tree.Merge, branches: Sequence[Tensor], nodes: Mapping[str, Node], place: Place
) -> tuple[Fix, ...]:
    """Fixes that make the images of a merge equally high and wide.

    `nodes` are the layers by their paths. Images that are larger are cropped; nothing that is
    larger is made smaller by interpolation.
    """
    sizes: dict[int, Size] = {}
    for n, branch in enumerate(branches):
        if not isinstance(branch.type, ImageType):
            return ()
        size = branch.type.dims[:2]
        if call.kind.text != "multiply" or any(dim != 1 for dim in size):  # no gate
            sizes[n] = size
    merge = _Merge(call, branches, nodes, place)
    fixes = (_cropped_like(merge, sizes), _cropped_by_numbers(merge, sizes), _larger(merge, sizes))
    return tuple(fix for fix in fixes if fix is not None)


def _cropped_like(merge: "_Merge", sizes: Mapping[int, Size]) -> Fix | None:
    """Each larger image cropped like the smallest, where that has a name or can get one."""
    least = [n for n, size in sizes.items() if all(_no_smaller(s, size) for s in sizes.values())]
    larger = [n for n in sizes if least and not _no_smaller(sizes[least[0]], sizes[n])]
    named = merge.name(least[0]) if larger else None
    if named is None or named.readable_from > larger[0]:
        return None
    edits = merge.put_behind(dict.fromkeys(larger, f"crop like {named.label}"))
    label = merge.label(larger[0])
    what = f"`{label}`, which is larger" if label and len(larger) == 1 else "what is larger"
    return Fix(f"crop {what}: `crop like {named.label}`", (*named.edits, *edits))


def _cropped_by_numbers(merge: "_Merge", sizes: Mapping[int, Size]) -> Fix | None:
    """As many rows and columns taken away as the images are larger.

    It needs no label: in a block or `repeat` that is used several times, one would be taken.
    """
    cuts: dict[int, list[int]] = {n: [] for n in sizes}
    for axis in range(2):
        dims = [size[axis] for size in sizes.values()]
        more = {n: (size[axis] - dims[0]).constant for n, size in sizes.items()}
        known = [difference for difference in more.values() if difference is not None]
        if len(known) < len(more) or any(map(is_open, dims)):
            return None
        for n, difference in zip(more, known, strict=True):
            cut = difference - min(known)
            cuts[n] += [cut // 2, cut - cut // 2]
    lines = {n: f"crop {' '.join(map(str, cut))}" for n, cut in cuts.items() if any(cut)}
    if not lines:
        return None
    said = " and ".join(f"`{line}`" for line in dict.fromkeys(lines.values()))
    return Fix(f"cut off the rows and columns that are too many: {said}", merge.put_behind(lines))


def _larger(merge: "_Merge", sizes: Mapping[int, Size]) -> Fix | None:
    """The one that is not as large as a labelled one, enlarged."""
    for n, size in sizes.items():
        label = merge.label(n)
        smaller = [other for other, s in sizes.items() if s != size]
        if label is None or len(smaller) != 1 or _no_smaller(sizes[smaller[0]], size):
            continue
        if merge.label(smaller[0]) is None:
            edits = merge.put_behind({smaller[0]: f"upsample like {label}"})
            return Fix(f"make it so for every size: `upsample like {label}`", edits)
    return None


class _Named:
    """A label, the edits that define it, and the first branch that can read it."""

    def __init__(self, label: str, edits: tuple[Edit, ...] = (), readable_from: int = 0) -> None:
        self.label, self.edits, self.readable_from = label, edits, readable_from


class _Merge:
    """The text of a merge in either form: with branches in braces, or with labels."""

    def __init__(
        self, call: tree.Merge, ends: Sequence[Tensor], nodes: Mapping[str, Node], place: Place
    ) -> None:
        self._call, self._ends, self._nodes, self._place = call, ends, nodes, place

    def label(self, index: int) -> str | None:
        """The label that a branch reads and does nothing with."""
        if self._call.others:
            return self._call.others[index - 1].text if index else None
        match self._call.branches[index].statements:
            case (tree.From() as only,):
                return only.label.text
            case _:
                return None

    def name(self, index: int) -> _Named | None:
        """A name by which other branches can speak of the end of this one."""
        label = self.label(index)
        if label is not None:
            return _Named(label)
        end = self._nodes.get(self._ends[index].path)
        if self._call.others:
            return self._above(end)
        if end is not None and self._is_skip(index):
            return self._above(self._nodes.get(end.inputs[0]))
        body = self._call.branches[index].statements
        if not body:
            return None
        last, own = body[-1], _own_label(end, self._place)
        if end is None or own is None or not isinstance(last, tree.LayerCall):
            return None
        if last.head != end.span:
            return None
        others = [other for n, other in enumerate(self._call.branches) if n != index]
        text = body[0].span.to(last.head)
        if index and "\n" not in text.text and all(map(_begins_elsewhere, others)):
            above = insert_above(self._call.span, f"{text.text} as {own}")
            return _Named(own, (above, Edit(body[0].span.to(last.span), f"from {own}")))
        return _Named(own, _labelled(end, own), index + 1)

    def put_behind(self, statements: Mapping[int, str]) -> tuple[Edit, ...]:
        """Edits that put a statement at the end of some branches."""
        call = self._call
        if call.branches:
            return tuple(self._behind(n, statement) for n, statement in statements.items())
        if list(statements) == [0]:
            return (insert_above(call.span, statements[0]),)
        parts = [f"{{ {statements.get(0, 'skip')} }}"]
        for n, label in enumerate(call.others, 1):
            then = f"; {statements[n]}" if n in statements else ""
            parts.append(f"{{ from {label.text}{then} }}")
        return (Edit(call.others[0].span.to(call.others[-1].span), " ".join(parts)),)

    def _behind(self, index: int, statement: str) -> Edit:
        branch = self._call.branches[index]
        if not branch.statements:  # one with a mistake, or that ends at once
            return Edit(branch.span, f"{{ {statement} }}")
        last = branch.statements[-1]
        if self._is_skip(index):
            return Edit(last.span, statement)
        return Edit(last.span.after(), f"; {statement}")

    def _is_skip(self, index: int) -> bool:
        match self._call.branches[index].statements:
            case (tree.LayerCall() as only,):
                return only.span.text == "skip"
            case _:
                return False

    def _above(self, end: Node | None) -> _Named:
        """The tensor that arrives at the merge: its own name, or one made for it."""
        own = _own_label(end, self._place)
        if end is not None and own is not None:
            return _Named(own, _labelled(end, own))
        label = f"small{self._call.span.line}"
        return _Named(label, (insert_above(self._call.span, f"skip as {label}"),))


def _begins_elsewhere(body: tree.Body) -> bool:
    """Whether a branch does not read the tensor that arrives at the merge."""
    return bool(body.statements) and isinstance(body.statements[0], tree.From)


def _labelled(end: Node, name: str) -> tuple[Edit, ...]:
    return () if end.labelled else (Edit(end.span.after(), f" as {name}"),)


def _own_label(end: Node | None, place: Place) -> str | None:
    """The name by which a layer can be spoken of here; an unlabelled one keeps its own."""
    if end is None or end.calls != place.calls or not end.path.startswith(place.prefix):
        return None
    name = end.path.removeprefix(place.prefix)
    return name if name.isidentifier() else None


def _no_smaller(one: Size, other: Size) -> bool:
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
