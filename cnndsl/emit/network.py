"""The `nn.Module` of the emitted file: its weights, what it returns, and what it refuses.

Knows how parts of a network call each other; knows nothing of kernels.
"""

import ast
from collections.abc import Iterable, Mapping, Sequence

from cnndsl.emit import dynamic, layout
from cnndsl.emit.names import KEYWORDS, Names, Place, places
from cnndsl.emit.region import Section, modules
from cnndsl.fuse.regions import Part, Region
from cnndsl.graph.graph import INPUT, Graph, Node
from cnndsl.layers.activations import Softmax
from cnndsl.layers.reshape import Skip
from cnndsl.layers.types import show
from cnndsl.sizes.dim import Dim

# A node with what is left of the way to it.
Hung = tuple[tuple[str, ...], Node]

# The names that the code around a symbol or a value already uses.
_LOCALS = ("self", "x", "y", "holds", "condition", "line", "given")

# A size of the input that is no symbol by itself, such as the second of `H x H x 3`.
_UNNAMED = "size_"
_ARITHMETIC = (
    ast.BinOp,
    ast.BoolOp,
    ast.Compare,
    ast.Constant,
    ast.Expression,
    ast.UnaryOp,
    ast.boolop,
    ast.cmpop,
    ast.expr_context,
    ast.operator,
    ast.unaryop,
)


def check(graph: Graph, name: str) -> str:
    """`refuse_input`: which tensors the network takes, and what it says of others."""
    order = [graph.source.dims[-1], *graph.source.dims[:-1]]  # as PyTorch orders them
    symbols = {s: s for s in graph.symbols}
    names = Names(KEYWORDS | frozenset(_LOCALS) | {"ValueError", "range", "tuple", "where"})
    renamed = {s: names.give(s) for s in symbols}
    shape = ", ".join(["N", *(str(dim) for dim in order)])
    where = _line(graph.place)
    expected = layout.spread(
        "",
        f'ValueError(f"{name} takes ({shape}), not {{given}}{where}")',
        column=14,
    )
    fixed = [(i + 1, d.constant) for i, d in enumerate(order) if d.constant is not None]
    body = [f'"""Raise unless x is a batch of {show(graph.source)}."""', "given = tuple(x.shape)"]
    if len(fixed) == len(order):
        wanted = ", ".join(str(size) for _, size in fixed)
        comma = "," if len(fixed) == 1 else ""
        body.append(f"if x.dim() != {len(order) + 1} or given[1:] != ({wanted}{comma}):")
    else:
        tests = [f"x.dim() != {len(order) + 1}", *(f"given[{i}] != {n}" for i, n in fixed)]
        body.append(f"if {' or '.join(tests)}:")
    body += [layout.indent(f"raise {expected}"), *_conditions(graph, name, order, renamed)]
    return layout.function("def refuse_input", ["x: Tensor"], "None", body)


def _conditions(
    graph: Graph, name: str, order: Sequence[Dim], renamed: Mapping[str, str]
) -> list[str]:
    """The lines that hold the symbols' values against what the network needs."""
    lines: list[str] = []
    bound: set[str] = set()
    needs: list[tuple[str, int]] = []
    first = graph.place.line if graph.place else 0
    for index, dim in enumerate(order, 1):
        text = str(dim)
        if text in renamed and text not in bound:
            bound.add(text)
            lines.append(f"{renamed[text]} = given[{index}]")
            needs.append((f"{text} >= 1", first))
        elif dim.constant is None:
            lines.append(f"{_UNNAMED}{index} = given[{index}]")
            needs.append((f"{_UNNAMED}{index} == {text}", first))
    needs += [(c.text, c.span.line) for c in graph.constraints]
    if not needs:
        return lines
    rows = [_row(text, line, renamed) for text, line in needs]
    lines += ["for holds, condition, line in (", *(layout.indent(f"{r},") for r in rows), "):"]
    sizes = " x ".join(f"{{given[{i}]}}" for i in (*range(2, len(order) + 1), 1))
    lines += [
        "    if not holds:",
        f'        where = f"{name} needs {{condition}} (cnn line {{line}})"',
        f'        raise ValueError(f"{{where}}, but the input is {sizes}")',
    ]
    return lines


def _row(text: str, line: int, renamed: Mapping[str, str]) -> str:
    """A condition of the language as Python, as text, and its line."""
    arguments = [_condition(text, renamed), layout.literal(text), str(line)]
    return layout.call("", arguments, column=9)


def _condition(text: str, renamed: Mapping[str, str]) -> str:
    """The text as Python with the symbols' names here; nothing but arithmetic passes."""
    tree = ast.parse(text, mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            if node.id not in renamed and not node.id.startswith(_UNNAMED):
                raise ValueError(f"{node.id} is no symbol of the network")
            node.id = renamed.get(node.id, node.id)
        elif not isinstance(node, _ARITHMETIC):
            raise TypeError(f"{text} is no condition on sizes")
    return ast.unparse(tree)


def _line(place: object) -> str:
    line = getattr(place, "line", None)
    return f" (cnn line {line})" if line else ""


def network(
    graph: Graph,
    parts: Sequence[Part],
    sections: Sequence[Section],
    name: str,
    taken: frozenset[str],
) -> str:
    """The class; `taken` are the names that the file has at its top."""
    held = [n for n in graph.nodes if n.layer.module(n.arrives) is not None]
    hung = places([n.path for n in held])
    steps, softmax = _Steps(parts, sections, hung, taken), _final_softmax(graph)
    loss = (
        '"""Mean cross-entropy of the logits with the classes y, numbers from 0."""',
        f"return {'' if sections else 'F.'}cross_entropy(self.logits(x), y)",
    )
    body = [
        "\n".join(
            [
                f'"""{show(graph.source)} to {outcome(graph)}."""',
                "",
                "# channels, height, width; None: any size that `refuse_input` lets pass",
                f"input_shape = {_shape(graph)}",
                f"classes = {layout.strings(graph.classes, column=14)}",
            ]
        ),
        _method("__init__", ["self"], "None", ["super().__init__()", *_weights(held, hung)]),
        _forward(graph),
        _method(
            "logits",
            ["self", "x: Tensor"],
            "Tensor",
            [
                '"""Give what the last layer before a softmax gives."""',
                "refuse_input(x)",
                *steps.to_result(softmax.inputs[0] if softmax else graph.result),
            ],
        ),
        _method("loss", ["self", "x: Tensor", "y: Tensor"], "Tensor", loss),
    ]
    shapes = f"dict[str, dict[int, {dynamic.DIM}]]"
    free = _method("dynamic_shapes", ["self"], shapes, dynamic.method(graph))
    if graph.outputs:
        lines = [
            '"""Give the tensors that the file puts out, by their labels."""',
            "refuse_input(x)",
            *steps.to_outputs(graph.outputs),
        ]
        body.append(_method("outputs", ["self", "x: Tensor"], "dict[str, Tensor]", lines))
    body.append(free)
    return f"class {name}(nn.Module):\n" + layout.indent("\n\n".join(body)) + "\n"


def outcome(graph: Graph) -> str:
    """What comes out: `10`, or `5 x 5 x 16`."""
    return show(graph.node(graph.result).output if graph.nodes else graph.source)


def _shape(graph: Graph) -> str:
    order = [graph.source.dims[-1], *graph.source.dims[:-1]]
    comma = "," if len(order) == 1 else ""
    return f"({', '.join(str(dim.constant) for dim in order)}{comma})"


def _method(name: str, parameters: Sequence[str], result: str, body: Iterable[str]) -> str:
    return layout.function(f"def {name}", parameters, result, body, column=4).rstrip("\n")


def _weights(held: Sequence[Node], hung: Mapping[str, Place]) -> list[str]:
    """The statements that make the modules; what has a dotted path lies in a `ModuleDict`."""
    lines: list[str] = []
    places = [(hung[node.path].keys, node) for node in held]
    for key, inside in _by_first_key(places):
        start = f"self.{key} = "
        lines.append(_held(start, inside, "", 8))
    return lines


def _held(start: str, inside: Sequence[Hung], end: str, column: int) -> str:
    """One module, or a `ModuleDict` of all that hangs in it."""
    keys, node = inside[0]
    if not keys:
        return layout.spread(start, node.layer.module(node.arrives) or "", end, column)
    lines = [_held(f'"{key}": ', deeper, ",", column + 8) for key, deeper in _by_first_key(inside)]
    items = "\n".join(layout.indent(line, 8) for line in lines)
    return f"{start}nn.ModuleDict(\n    {{\n{items}\n    }}\n){end}"


def _by_first_key(inside: Sequence[Hung]) -> list[tuple[str, list[Hung]]]:
    """What hangs under each key, without that key, in the order of the keys' first appearance."""
    found: dict[str, list[Hung]] = {}
    for keys, node in inside:
        found.setdefault(keys[0], []).append((keys[1:], node))
    return list(found.items())


def _forward(graph: Graph) -> str:
    """`forward`: what the file says, with its softmax."""
    body = ['"""Give what the last layer gives."""', "return self.logits(x)"]
    softmax = _final_softmax(graph)
    if softmax is not None:
        body = [
            '"""Give the probabilities of the classes."""',
            f"return {softmax.layer.torch(softmax.arrives, '', 'self.logits(x)')}",
        ]
    return _method("forward", ["self", "x: Tensor"], "Tensor", body)


def _final_softmax(graph: Graph) -> Node | None:
    last = graph.node(graph.result) if graph.nodes else None
    return last if last is not None and isinstance(last.layer, Softmax) else None


class _Steps:
    """Writes a method that runs the network, a line a part.

    `x` is the current tensor; others have names of their own while they are needed.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        sections: Sequence[Section],
        hung: Mapping[str, Place],
        taken: frozenset[str],
    ) -> None:
        self._parts = parts
        self._functions = {section.region.path: section.function for section in sections}
        self._hung = hung
        self._taken = taken | frozenset(_LOCALS)

    def to_result(self, result: str) -> list[str]:
        """The lines of a method that returns one tensor."""
        lines, where = self._lines([result], returns=result)
        return (
            lines
            if lines and lines[-1].startswith("return ")
            else [*lines, f"return {where[result]}"]
        )

    def to_outputs(self, outputs: Sequence[tuple[str, str]]) -> list[str]:
        """The lines of a method that returns several tensors by their labels."""
        lines, where = self._lines([path for _, path in outputs])
        items = [f"{layout.literal(label)}: {where[path]}," for label, path in outputs]
        return [*lines, "return {", *(layout.indent(item) for item in items), "}"]

    def _lines(
        self, results: Sequence[str], returns: str | None = None
    ) -> tuple[list[str], dict[str, str]]:
        """What makes the results, and the names under which they then are.

        The last line returns `returns` where it makes it.
        """
        parts = _needed(self._parts, results)
        last_read = {name: i for i, part in enumerate(parts) for name in _reads(part)}
        last_read |= dict.fromkeys(results, len(parts))
        names = Names(self._taken)
        lines, where = list[str](), {INPUT: "x"}
        for index, part in enumerate(parts):
            inputs = [where[name] for name in _reads(part)]
            for name in _reads(part):
                if last_read[name] == index:
                    where.pop(name, None)
            if isinstance(part, Node) and isinstance(part.layer, Skip):
                where[part.path] = inputs[0]
                continue
            made = names.give(part.path) if "x" in where.values() else "x"
            where[part.path] = made
            is_last = index == len(parts) - 1 and part.path == returns
            lines.append(self._step(part, "return " if is_last else f"{made} = ", inputs))
        return lines, where

    def _step(self, part: Part, start: str, inputs: Sequence[str]) -> str:
        if isinstance(part, Region):
            weights = [self._hung[node.path].expression for _, _, node in modules(part)]
            return layout.call(
                f"{start}{self._functions[part.path]}", [*inputs, *weights], column=8
            )
        module = self._hung[part.path].expression if part.path in self._hung else ""
        call = part.layer.torch(part.arrives, module, *inputs)
        return layout.spread(start, call, column=8)


def _needed(parts: Sequence[Part], results: Sequence[str]) -> list[Part]:
    """The parts without which some result could not be made, in order."""
    wanted = set(results)
    found: list[Part] = []
    for part in reversed(parts):
        if part.path in wanted:
            found.append(part)
            wanted.update(_reads(part))
    return found[::-1]


def _reads(part: Part) -> tuple[str, ...]:
    return part.inputs
