"""A network as people see it: its sizes are simplified under what the file promises.

The graph itself keeps the sizes that were computed, which hold for all sizes; what is shown holds
for those that are valid.
"""

from cnndsl.graph.facts import Facts, ReceptiveField, Tally, Totals
from cnndsl.graph.graph import Graph
from cnndsl.layers.types import ImageType, TensorType, VectorType, factor, is_open
from cnndsl.sizes.promised import Promised


def promised(graph: Graph) -> Promised:
    """What simplifies the sizes of this network."""
    return Promised({name: (k, r) for name, k, r in graph.promised})


def shown(graph: Graph) -> Graph:
    """The network with simplified sizes."""
    if not graph.promised:
        return graph
    known = promised(graph)
    nodes = tuple(
        node.replace(arrives=_type(node.arrives, known), output=_type(node.output, known))
        for node in graph.nodes
    )
    return graph.replace(nodes=nodes)


def counted(graph: Graph) -> tuple[dict[str, Facts], Totals]:
    """What is counted on a network that `shown` gave, with simplified formulas."""
    known, tally = promised(graph), Tally()
    tally.take(graph.source, graph.nodes)
    facts = {path: _facts(one, known) for path, one in tally.facts.items()}
    totals = tally.totals(graph.source, graph.takes_bytes)
    return facts, Totals(
        known.simplified(totals.params),
        known.simplified(totals.buffers),
        known.simplified(totals.macs),
        known.simplified(totals.weight_bytes),
        known.simplified(totals.training_bytes),
        _field(totals.receptive_field, known),
    )


def show(type_: TensorType, known: Promised) -> str:
    """The type for people, as `layers.types.show` writes it: `H/16 x W/16 x 64`."""
    dims = ("?" if is_open(dim) else factor(dim, known.pretty(dim)) for dim in type_.dims)
    return " x ".join(dims) or "?"


def _type(type_: TensorType, known: Promised) -> TensorType:
    if isinstance(type_, ImageType):
        return ImageType(*(known.simplified(dim) for dim in type_.dims))
    if isinstance(type_, VectorType):
        return VectorType(known.simplified(type_.features))
    return type_


def _facts(one: Facts, known: Promised) -> Facts:
    return Facts(
        known.simplified(one.params),
        known.simplified(one.buffers),
        known.simplified(one.macs),
        known.simplified(one.bytes),
        _field(one.receptive_field, known),
    )


def _field(field: ReceptiveField | None, known: Promised) -> ReceptiveField | None:
    if field is None:
        return None
    height, width = field.size
    return field.replace(size=(known.simplified(height), known.simplified(width)))
