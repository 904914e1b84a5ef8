"""The lines of a method that runs steps of a network, one after the other.

`x` is the current tensor; others have names of their own while they are needed. Knows how parts and
blocks are called; knows nothing of what they hold.
"""

from collections.abc import Container, Mapping, Sequence

from cnndsl.emit import layout
from cnndsl.emit.names import Names, Place
from cnndsl.emit.region import modules
from cnndsl.emit.tree import Block, Step, needed
from cnndsl.fuse.regions import Region
from cnndsl.graph.graph import INPUT, Node
from cnndsl.layers.reshape import Skip
from cnndsl.layers.types import ImageType, TensorType
from cnndsl.record import Record

# The names that the code around a symbol or a value already uses.
LOCALS = frozenset({"self", "x", "y", "holds", "condition", "line", "given", "by_rows"})


class Known(Record):
    """What lines refer to.

    `functions` run regions, by the names of the tensors that these give; `leaves` are the
    places of layers, by their paths, `branches` those of what holds others, by their labels;
    `taken` are the names that the file has at its top.
    """

    functions: Mapping[str, str]
    leaves: Mapping[str, Place]
    branches: Mapping[tuple[str, ...], Place]
    taken: frozenset[str]


def laid(value: str) -> str:
    """An image as somebody outside is to see it; the method has said before whether by rows."""
    return f"{value}.contiguous() if by_rows else {value}"


def is_laid(type_: TensorType) -> bool:
    """Whether an image may lie otherwise than by rows: not if it is one pixel or one channel."""
    if not isinstance(type_, ImageType):
        return False
    height, width, channels = (dim.constant for dim in type_.dims)
    return channels != 1 and (height, width) != (1, 1)


class Writer:
    """Writes the lines of the network, or of its block with that label."""

    def __init__(self, known: Known, label: tuple[str, ...] = ()) -> None:
        """Keep what all lines need."""
        self._known = known
        self._depth = len(label)
        self._prefix = "".join(f"{word}." for word in label)
        self._taken = known.taken | LOCALS

    def forward(self, block: Block, *, rows: bool) -> tuple[list[str], list[str]]:
        """The parameters and the lines of a block's `forward`; `rows`: see `laid`."""
        names = Names(self._taken)
        others = [names.give(self._short(path)) for path in block.inputs[1:]]
        where = dict(zip(block.inputs, ["x", *others], strict=True))
        parameters = [f"{name}: Tensor" for name in where.values()]
        lines = self._to_result(block.steps, block.path, where, names, rows=rows)
        return parameters, ["by_rows = are_seen_by_rows(x, self)", *lines] if rows else lines

    def to_result(self, steps: Sequence[Step], result: str, *, rows: bool) -> list[str]:
        """The lines of a method that returns one tensor."""
        return self._to_result(steps, result, {INPUT: "x"}, Names(self._taken), rows=rows)

    def to_outputs(
        self, steps: Sequence[Step], outputs: Sequence[tuple[str, str]], rows: Container[str]
    ) -> list[str]:
        """The lines of a method that returns several tensors by their labels."""
        results = [path for _, path in outputs]
        lines, where = self._lines(steps, results, {INPUT: "x"}, Names(self._taken))
        items: list[str] = []
        for label, path in outputs:
            value = laid(where[path]) if path in rows else where[path]
            items.append(f"{layout.literal(label)}: {value},")
        return [*lines, "return {", *(layout.indent(item) for item in items), "}"]

    def _to_result(
        self,
        steps: Sequence[Step],
        result: str,
        where: dict[str, str],
        names: Names,
        *,
        rows: bool,
    ) -> list[str]:
        if rows:
            lines, where = self._lines(steps, [result], where, names)
            return [*lines, f"return {laid(where[result])}"]
        lines, where = self._lines(steps, [result], where, names, returns=result)
        is_done = bool(lines) and lines[-1].startswith("return ")
        return lines if is_done else [*lines, f"return {where[result]}"]

    def _lines(
        self,
        steps: Sequence[Step],
        results: Sequence[str],
        where: dict[str, str],
        names: Names,
        returns: str | None = None,
    ) -> tuple[list[str], dict[str, str]]:
        """What makes the results, and the names under which they then are.

        `where` has those under which the inputs are; the last line returns `returns` where it makes
        it.
        """
        steps = needed(steps, results)
        last_read = {name: i for i, step in enumerate(steps) for name in step.inputs}
        last_read |= dict.fromkeys(results, len(steps))
        lines = list[str]()
        for index, step in enumerate(steps):
            inputs = [where[name] for name in step.inputs]
            for name in step.inputs:
                if last_read[name] == index:
                    where.pop(name, None)
            if isinstance(step, Node) and isinstance(step.layer, Skip):
                where[step.path] = inputs[0]
                continue
            made = names.give(self._short(step.path)) if "x" in where.values() else "x"
            where[step.path] = made
            is_last = index == len(steps) - 1 and step.path == returns
            lines.append(self._step(step, "return " if is_last else f"{made} = ", inputs))
        return lines, where

    def _step(self, step: Step, start: str, inputs: Sequence[str]) -> str:
        match step:
            case Block(label=label):
                return layout.call(
                    f"{start}{self._known.branches[label].expression(self._depth)}",
                    inputs,
                    column=8,
                )
            case Region():
                weights = [self._expression(node.path) for _, _, node in modules(step)]
                function = f"{start}{self._known.functions[step.path]}"
                return layout.call(function, [*inputs, *weights], column=8)
            case Node():
                return layout.spread(start, self._call(step, inputs), "", 8)

    def _call(self, node: Node, inputs: Sequence[str]) -> str:
        """The expression that runs a layer by itself."""
        if node.path not in self._known.leaves:
            return node.layer.torch(node.arrives, "", *inputs)
        module = self._expression(node.path)
        call = node.layer.torch(node.arrives, module, *inputs)
        kind = (node.layer.module(node.arrives) or "").partition("(")[0]
        # Only regions lay images otherwise than by rows.
        is_mixed = bool(self._known.functions) and isinstance(node.arrives, ImageType)
        if is_mixed and call == f"{module}({inputs[0]})":
            return f"{module}(laid_for({inputs[0]}, {module}, {kind}))"
        return call

    def _expression(self, path: str) -> str:
        return self._known.leaves[path].expression(self._depth)

    def _short(self, path: str) -> str:
        """A path as it is called in the block."""
        return path.removeprefix(self._prefix)
