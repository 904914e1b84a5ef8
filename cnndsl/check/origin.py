"""How a size came about: the lines that changed it on its way to a place in the network.

Knows nodes and their types; knows nothing of what is wrong with the size.
"""

from collections.abc import Iterator, Mapping

from cnndsl.check.places import Tensor
from cnndsl.diagnostics.model import Label
from cnndsl.graph.graph import Node
from cnndsl.layers.types import ImageType, show
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


def _changes(nodes: Mapping[str, Node], tensor: Tensor, dim: int) -> Iterator[tuple[Node, Dim]]:
    """The layers that changed a dim, the last one first, with what it was before each."""
    path, kind = tensor.path, type(tensor.type)
    for _ in range(MOST_WALKED):
        node = nodes.get(path)
        if node is None or type(node.arrives) is not kind or type(node.output) is not kind:
            return  # at the input, at a `flatten`, or after a mistake
        if node.arrives.dims[dim] != node.output.dims[dim]:
            yield node, node.arrives.dims[dim]
        path = node.inputs[0]
