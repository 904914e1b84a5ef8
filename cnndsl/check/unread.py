"""Layers whose result nothing reads: they are counted, and they never run.

Knows the finished graph only. A mistake may be what leaves a layer unread, so this is asked of
networks without errors.
"""

from collections import Counter
from collections.abc import Mapping

from cnndsl.diagnostics.model import Diagnostic, Fix, Label, Sink
from cnndsl.graph.graph import Graph, Node
from cnndsl.sizes.counted import counted
from cnndsl.source import Span


def warn_of_unread(graph: Graph, sink: Sink) -> None:
    """Report the last layer of each chain that neither the result nor an `output` needs."""
    live = _live(graph)
    if len(live) == len(graph.nodes):
        return
    dead = {node.path: node for node in graph.nodes if node.path not in live}
    order = {path: index for index, path in enumerate(dead)}
    read = {name for node in dead.values() for name in node.inputs}
    places = _Places(graph, live)
    reported: set[Span] = set()
    claimed: set[str] = set()
    for end in dead.values():
        if end.path in read:
            continue
        chain = sorted(_chain(end, dead, claimed), key=lambda node: order[node.path])
        span = places.of(end)
        if span not in reported:
            reported.add(span)
            sink.add(_warning(end, chain, span, places))


def _live(graph: Graph) -> set[str]:
    """The nodes that the result or an `output` is computed from."""
    wanted = {graph.result, *(path for _, path in graph.outputs)}
    live: set[str] = set()
    for node in reversed(graph.nodes):
        if node.path in wanted:
            live.add(node.path)
            wanted.update(node.inputs)
    return live


def _chain(end: Node, dead: Mapping[str, Node], claimed: set[str]) -> list[Node]:
    """The dead layers that lead to an end, in any order, each in one chain only."""
    names, chain = [end.path], list[Node]()
    while names:
        name = names.pop()
        if name in dead and name not in claimed:
            claimed.add(name)
            chain.append(dead[name])
            names += dead[name].inputs
    return chain


class _Places:
    """Where to report a layer of a block: at the call, if nothing in the call is read."""

    def __init__(self, graph: Graph, live: set[str]) -> None:
        self._live_calls = {
            spans[: depth + 1]
            for node in graph.nodes
            if node.path in live
            for spans in (_calls(node),)
            for depth in range(len(spans))
        }
        self._live_spans = Counter(node.span for node in graph.nodes if node.path in live)

    def of(self, node: Node) -> Span:
        calls = _calls(node)
        for depth, call in enumerate(calls):
            if calls[: depth + 1] not in self._live_calls:
                return call
        return node.span

    def call(self, node: Node) -> tuple[Label, ...]:
        """The call that is meant, where other calls of the block read the layer."""
        if self.of(node) != node.span or not node.calls or not self._live_spans[node.span]:
            return ()
        return (Label(node.calls[0].span, "in this call"),)


def _calls(node: Node) -> tuple[Span, ...]:
    """Where the blocks are called, whichever turn of a `repeat` it is."""
    return tuple(call.span for call in node.calls)


def _warning(end: Node, chain: list[Node], span: Span, places: _Places) -> Diagnostic:
    count = len(chain)
    what = f"this `{end.layer.kind}`" if span == end.span else "this block's result"
    if count == 1:
        message = f"nothing reads {what}: it never runs"
    elif span == end.span:
        others = "the layer before it" if count == 2 else f"the {count - 1} layers before it"
        message = f"nothing reads {what}: it and {others} never run"
    else:
        message = f"nothing reads {what}: {counted(count, 'layer')} never run"
    start = places.of(chain[0])
    labels = (Label(start, "from here on"),) if start != span else ()
    weighted = any(w.trained for node in chain for w in node.layer.weights(node.arrives))
    whose = "its" if count == 1 else "their"
    notes = (f"{whose} weights are counted and saved, and training does not change them",)
    name, as_name = (end.path, "") if end.labelled else ("NAME", ", with `as NAME` on this line")
    return Diagnostic(
        "W604",
        message,
        span,
        labels=(*labels, *places.call(end)),
        notes=notes if weighted else (),
        fixes=(
            Fix(f"merge it below: `add {name}` or `concat {name}`{as_name}"),
            Fix(f"or return it: `output {name}`"),
            Fix("or delete it, if it is not needed"),
        ),
    )
