"""How a size came about: the lines that changed it on its way to a place in the network.

What a block does is one change, at the line that calls it, unless the place is in that call, too.
Knows nodes and their types; knows nothing of what is wrong with the size.
"""

from collections.abc import Iterator, Mapping

from cnndsl.check.places import Place, Tensor
from cnndsl.diagnostics.model import Fix, Label
from cnndsl.graph.graph import Call, Node
from cnndsl.layers.conv import Conv
from cnndsl.layers.pool import Pool
from cnndsl.layers.types import ImageType, TensorType, Unknown, show
from cnndsl.record import Record
from cnndsl.sizes.counted import counted
from cnndsl.sizes.dim import Dim
from cnndsl.source import Source, Span

MOST_CHANGES = 6  # that are told, the last ones
MOST_WALKED = 500  # layers back, for a message must not cost more than the network
_SIDES = ("height", "width", "channels")  # of an image; a vector has features only


class Change(Record):
    """One line that changed a dim: its layer or block, its place, and the dim before and after.

    `type` is what the tensor is behind it.
    """

    name: str
    span: Span
    before: Dim
    after: Dim
    type: TensorType


class Origin:
    """Where the sizes of tensors come from, seen from one place in one file."""

    __slots__ = ("_is_cut", "_nodes", "_place", "_source")

    def __init__(self, nodes: Mapping[str, Node], place: Place, source: Source) -> None:
        """`nodes` by their paths; `place` and `source` are those of the line with a mistake."""
        self._nodes, self._place, self._source = nodes, place, source
        self._is_cut = False  # the last walk ended before the network did

    def span(self, node: Node) -> Span:
        """Where a layer stands; for one in another call of a block, where that is called."""
        call = self._call(node)
        return node.span if call is None else call.span

    def last_change(self, tensor: Tensor, dim: int) -> tuple[Label, ...]:
        """The line that gave the tensor's dim its value, if one did."""
        for change in self._changes(tensor, dim):
            return (Label(change.span, f"{_state(tensor.type, dim, change.type)} from here on"),)
        return ()

    def story(self, tensor: Tensor, dim: int, whose: str = "its") -> tuple[str, ...]:
        """The way of a dim through the lines that changed it, as a note, if they are several."""
        links: list[str] = []
        first = ""
        for change in self._changes(tensor, dim):
            if len(links) == MOST_CHANGES:
                first = f"… → {first}"
                break
            links.append(f" → {change.after.pretty()} ({change.name}, {self._line(change.span)})")
            first = change.before.pretty()
        if self._is_cut and not first.startswith("…"):
            first = "…"  # what the oldest call of these did before is not known
        if len(links) < 2:
            return ()
        side = _SIDES[dim] if isinstance(tensor.type, ImageType) else "features"
        return (f"{whose} {side}: {first}{''.join(reversed(links))}",)

    def more_room(self, tensor: Tensor, dim: int) -> Fix:
        """Where the image could be larger: the nearest stride above, or else a layer, or input."""
        shrinking = [
            node
            for node in self._steps(tensor, dim)
            if not _is_more(node.output.dims[dim], node.arrives.dims[dim])
        ]
        strided = next((node for node in shrinking if _stride(node, dim) > 1), None)
        if strided is not None:
            where = self._layer(strided)
            what = where if strided.layer.kind == "pool" else f"the stride of {where}"
            return Fix(f"take out {what}: the image stays larger")
        if shrinking:
            where = self._layer(shrinking[0])
            what = f"pad {where}" if _is_window(shrinking[0]) else f"take less away by {where}"
            return Fix(f"{what}: the image stays larger")
        return Fix("make the image of the `input` larger")

    def _layer(self, node: Node) -> str:
        return f"the `{node.layer.kind}` in {self._line(node.span)}"

    def _line(self, span: Span) -> str:
        """A line's number, with the name of its file where that is another one."""
        here = span.source is self._source
        return f"line {span.line}" if here else f"line {span.line} of {span.source.name}"

    def _call(self, node: Node) -> Call | None:
        """The outermost call that leads to a layer and not to this place."""
        ours = self._place.calls
        for depth, call in enumerate(node.calls):
            if depth >= len(ours) or call.number != ours[depth].number:
                return call
        return None

    def _changes(self, tensor: Tensor, dim: int) -> Iterator[Change]:
        """What changed a dim, the last change first; what a call does is one of them."""
        changed: Change | None = None
        inside: Call | None = None
        for node in self._steps(tensor, dim):
            before, call = node.arrives.dims[dim], self._call(node)
            if changed is not None and call is not None and call == inside:
                changed = changed.replace(before=before)
                continue
            if changed is not None and changed.before != changed.after:
                yield changed
            name = node.layer.kind if call is None else call.name
            after = node.output.dims[dim]
            changed = Change(name, self.span(node), before, after, node.output)
            inside = call
        if changed is not None and changed.before != changed.after:
            yield changed

    def _steps(self, tensor: Tensor, dim: int) -> Iterator[Node]:
        """The layers that changed a dim, the last one first."""
        self._is_cut = False
        path, kind = tensor.path, type(tensor.type)
        node = self._nodes.get(path)
        if node is None or type(node.output) is not kind or isinstance(node.output, Unknown):
            return
        if node.output.dims[dim] != tensor.type.dims[dim]:
            return  # a line with a mistake, which made no node, or an assertion lies between
        for _ in range(MOST_WALKED):
            node = self._nodes.get(path)
            if node is None or type(node.arrives) is not kind or type(node.output) is not kind:
                return  # at the input, at a `flatten`, or after a mistake
            if node.arrives.dims[dim] != node.output.dims[dim]:
                yield node
            path = node.inputs[0]
        self._is_cut = True


def _state(now: TensorType, dim: int, there: TensorType) -> str:
    """What is so from a line on: the whole shape, if later lines left all of it."""
    size = now.dims[dim]
    if not isinstance(now, ImageType):
        return f"the vector has {counted(size, 'feature')}"
    if there == now:
        return f"the image is {show(now)}"
    if dim == len(_SIDES) - 1:
        return f"the image has {counted(size, 'channel')}"
    return f"the image is {counted(size, 'pixel')} {('high', 'wide')[dim]}"


def _stride(node: Node, axis: int) -> int:
    layer = node.layer
    return layer.geometry.stride.values()[axis] if isinstance(layer, (Conv, Pool)) else 1


def _is_window(node: Node) -> bool:
    return isinstance(node.layer, (Conv, Pool))


def _is_more(after: Dim, before: Dim) -> bool:
    more = (after - before).constant
    return more is not None and more >= 0
