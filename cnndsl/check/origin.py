"""How a size came about: the lines that changed it on its way to a place in the network.

Knows nodes and their types; knows nothing of what is wrong with the size.
"""

from collections.abc import Iterator, Mapping

from cnndsl.check.places import Tensor
from cnndsl.diagnostics.model import Fix, Label
from cnndsl.graph.graph import Node
from cnndsl.layers.conv import Conv
from cnndsl.layers.pool import Pool
from cnndsl.layers.types import ImageType, Unknown, show
from cnndsl.sizes.dim import Dim

MOST_CHANGES = 6  # that are told, the last ones
MOST_WALKED = 500  # layers back, for a message must not cost more than the network
_SIDES = ("height", "width", "channels")  # of an image; a vector has features only


def last_change(nodes: Mapping[str, Node], tensor: Tensor, dim: int) -> tuple[Label, ...]:
    """The layer that gave the tensor's dim its value, if one did."""
    for node, _ in _changes(nodes, tensor, dim):
        return (Label(node.span, f"the image is {show(tensor.type)} from here on"),)
    return ()


def story(
    nodes: Mapping[str, Node], tensor: Tensor, dim: int, whose: str = "its"
) -> tuple[str, ...]:
    """The way of a dim through the lines that changed it, as a note, where there are several."""
    links: list[str] = []
    first = ""
    for node, before in _changes(nodes, tensor, dim):
        if len(links) == MOST_CHANGES:
            first = f"… → {first}"
            break
        after = node.output.dims[dim].pretty()
        links.append(f" → {after} ({node.layer.kind}, line {node.span.line})")
        first = before.pretty()
    if len(links) < 2:
        return ()
    side = _SIDES[dim] if isinstance(tensor.type, ImageType) else "features"
    return (f"{whose} {side}: {first}{''.join(reversed(links))}",)


def more_room(nodes: Mapping[str, Node], tensor: Tensor, dim: int) -> Fix:
    """Where the image could be kept larger: the nearest stride above, or else a layer, or input."""
    shrinking = [
        node
        for node, before in _changes(nodes, tensor, dim)
        if not _is_more(node.output.dims[dim], before)
    ]
    strided = next((node for node in shrinking if _stride(node, dim) > 1), None)
    if strided is not None:
        where = f"the `{strided.layer.kind}` in line {strided.span.line}"
        what = where if strided.layer.kind == "pool" else f"the stride of {where}"
        return Fix(f"take out {what}: the image stays larger")
    if shrinking:
        where = f"the `{shrinking[0].layer.kind}` in line {shrinking[0].span.line}"
        what = f"pad {where}" if _is_window(shrinking[0]) else f"take less away by {where}"
        return Fix(f"{what}: the image stays larger")
    return Fix("make the image of the `input` larger")


def _stride(node: Node, axis: int) -> int:
    layer = node.layer
    return layer.geometry.stride.values()[axis] if isinstance(layer, (Conv, Pool)) else 1


def _is_window(node: Node) -> bool:
    return isinstance(node.layer, (Conv, Pool))


def _is_more(after: Dim, before: Dim) -> bool:
    more = (after - before).constant
    return more is not None and more >= 0


def _changes(nodes: Mapping[str, Node], tensor: Tensor, dim: int) -> Iterator[tuple[Node, Dim]]:
    """The layers that changed a dim, the last one first, with what it was before each."""
    path, kind = tensor.path, type(tensor.type)
    node = nodes.get(path)
    if node is None or type(node.output) is not kind or isinstance(node.output, Unknown):
        return
    if node.output.dims[dim] != tensor.type.dims[dim]:
        return  # a line with a mistake, which made no node, or an assertion lies between
    for _ in range(MOST_WALKED):
        node = nodes.get(path)
        if node is None or type(node.arrives) is not kind or type(node.output) is not kind:
            return  # at the input, at a `flatten`, or after a mistake
        if node.arrives.dims[dim] != node.output.dims[dim]:
            yield node, node.arrives.dims[dim]
        path = node.inputs[0]
