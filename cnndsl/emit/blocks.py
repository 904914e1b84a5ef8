"""The classes of a network's blocks, one for all that are alike, and the modules that they make.

A block is a `ModuleDict` that can be called: labels may be numbers, and published weights have
their names. Its parent calls it, so that hooks, checkpoints and shards of it work.
"""

from collections.abc import Iterable, Mapping, Sequence

from cnndsl.emit import layout
from cnndsl.emit.names import class_name
from cnndsl.emit.steps import Known, Writer, is_laid
from cnndsl.emit.tree import Block, Step
from cnndsl.graph.graph import INPUT, Graph, Node
from cnndsl.layers.types import show
from cnndsl.record import Record

# A node with what is left of the way to it.
Hung = tuple[tuple[str, ...], Node]


class Form(Record):
    """A class of blocks: its name, what stands in it, and the types and labels of its blocks."""

    name: str
    body: str
    types: str
    labels: tuple[str, ...]

    @property
    def text(self) -> str:
        """The class as it stands in the file."""
        about = layout.comment([f"{', '.join(self.labels)}: {self.types}"], "# ")
        return f"{about}\nclass {self.name}(nn.ModuleDict):\n{layout.indent(self.body)}\n"


class Forms(Record):
    """The classes in the order of the file, and their names by the keys of their blocks' places."""

    classes: tuple[Form, ...]
    names: Mapping[tuple[str, ...], str]


def forms(graph: Graph, steps: Sequence[Step], nodes: Sequence[Node], known: Known) -> Forms:
    """The classes of all blocks among these steps and within them; `nodes` have the modules."""
    types = {INPUT: graph.source, **{node.path: node.output for node in graph.nodes}}
    under: dict[tuple[str, ...], list[Node]] = {}
    for node in nodes:
        words = tuple(node.path.split("."))
        for depth in range(1, len(words)):
            under.setdefault(words[:depth], []).append(node)
    found: dict[tuple[str, str], Form] = {}
    names: dict[tuple[str, ...], str] = {}
    for block in _inner_first(steps):
        arrive = " and ".join(show(types[path]) for path in block.inputs)
        written = f"{arrive} to {show(types[block.path])}"
        rows = bool(known.functions) and is_laid(types[block.path])
        body = _body(block, under[block.label], known, names, rows=rows)
        form = found.get((body, written))
        if form is None:
            taken = known.taken.union(other.name for other in found.values())
            form = Form(class_name(block.label, taken), body, written, ())
        found[body, written] = form.replace(labels=(*form.labels, ".".join(block.label)))
        names[known.branches[block.label].keys] = form.name
    return Forms(tuple(found.values()), names)


def _inner_first(steps: Sequence[Step]) -> list[Block]:
    """All blocks, each behind those within it."""
    found: list[Block] = []
    waiting = [step for step in steps if isinstance(step, Block)]
    while waiting:
        block = waiting.pop()
        found.append(block)
        waiting += [step for step in block.steps if isinstance(step, Block)]
    return found[::-1]


def _body(
    block: Block,
    nodes: Sequence[Node],
    known: Known,
    names: Mapping[tuple[str, ...], str],
    *,
    rows: bool,
) -> str:
    depth = len(block.label)
    inside = [(known.leaves[node.path].keys[depth:], node) for node in nodes]
    at = known.branches[block.label].keys
    made = f"super().__init__(\n{_items(at, inside, 8, names)}\n)"
    parameters, lines = Writer(known, block.label).forward(block, rows=rows)
    return "\n\n".join(
        [
            '"""The layers under one label."""',
            layout.method("__init__", ["self"], "None", [made]),
            layout.method("forward", ["self", *parameters], "Tensor", lines),
        ]
    )


def weights(nodes: Sequence[Node], known: Known, made: Forms) -> list[str]:
    """The statements that make a network's modules."""
    places = [(known.leaves[node.path].keys, node) for node in nodes]
    lines: list[str] = []
    for key, inside in _by_first_key(places):
        line = _module(f"self.{key} = ", (key,), inside, "", 8, made.names)
        if (key,) in made.names and len(line) + 8 > layout.WIDTH:
            # The only form of a call without arguments that the formatter leaves alone.
            line = layout.call("self.add_module", [f'"{key}"', f"{made.names[key,]}()"], column=80)
        lines.append(line)
    return lines


def _module(
    start: str,
    at: tuple[str, ...],
    inside: Sequence[Hung],
    end: str,
    column: int,
    names: Mapping[tuple[str, ...], str],
) -> str:
    """A layer, a block, or a `ModuleDict` of what hangs in it."""
    if at in names:
        return f"{start}{names[at]}(){end}"
    keys, node = inside[0]
    if not keys:
        return layout.spread(start, node.layer.module(node.arrives) or "", end, column)
    return f"{start}nn.ModuleDict(\n{_items(at, inside, column, names)}\n){end}"


def _items(
    at: tuple[str, ...],
    inside: Sequence[Hung],
    column: int,
    names: Mapping[tuple[str, ...], str],
) -> str:
    """What hangs in a `ModuleDict`, as the one argument that makes it."""
    lines = [
        _module(f'"{key}": ', (*at, key), deeper, ",", column + 8, names)
        for key, deeper in _by_first_key(inside)
    ]
    items = "\n".join(layout.indent(line, 8) for line in lines)
    return f"    {{\n{items}\n    }}"


def _by_first_key(inside: Iterable[Hung]) -> list[tuple[str, list[Hung]]]:
    """What hangs under each key, without that key, in the order of the keys' first appearance."""
    found: dict[str, list[Hung]] = {}
    for keys, node in inside:
        found.setdefault(keys[0], []).append((keys[1:], node))
    return list(found.items())
