"""The `nn.Module` of the emitted file: its weights, what it returns, and what it refuses.

Knows how parts of a network call each other; knows nothing of kernels.
"""

import ast
from collections.abc import Mapping, Sequence

from cnndsl.emit import blocks, dynamic, layout
from cnndsl.emit.names import KEYWORDS, Names, branches, places
from cnndsl.emit.region import Section, functions
from cnndsl.emit.steps import LOCALS, Known, Writer, is_laid
from cnndsl.emit.tree import Block, Step, tree
from cnndsl.fuse.regions import Part
from cnndsl.graph.graph import INPUT, Graph, Node
from cnndsl.layers.activations import Sigmoid, Softmax
from cnndsl.layers.types import ImageType, show
from cnndsl.sizes.dim import Dim

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


_SCRIPTABLE = layout.method(
    "__prepare_scriptable__",
    ["self"],
    "torch.fx.GraphModule",
    [
        '"""Give what `torch.jit.script` reads: PyTorch\'s operators, in the present mode."""',
        "return torch.fx.symbolic_trace(self)",
    ],
)


def check(graph: Graph, name: str) -> str:
    """`refuse_input`: which tensors the network takes, and what it says of others."""
    order = [graph.source.dims[-1], *graph.source.dims[:-1]]  # as PyTorch orders them
    symbols = {s: s for s in graph.symbols}
    names = Names(KEYWORDS | LOCALS | {"ValueError", "range", "tuple", "where"})
    renamed = {s: names.give(s) for s in symbols}
    shape = ", ".join(["N", *(str(dim) for dim in order)])
    where = _line(graph.place)
    expected = layout.spread(
        "",
        f'ValueError(f"{name} takes ({shape}), not {{given}}{where}")',
        column=14,
    )
    fixed = [(i + 1, d.constant) for i, d in enumerate(order) if d.constant is not None]
    body = [
        f'"""Raise unless x is a batch of {show(graph.source)}."""',
        "if not isinstance(x, Tensor):",
        "    return  # torch.fx.symbolic_trace, which knows no sizes",
        "given = tuple(x.shape)",
    ]
    if len(fixed) == len(order):
        wanted = ", ".join(str(size) for _, size in fixed)
        comma = "," if len(fixed) == 1 else ""
        body.append(f"if x.dim() != {len(order) + 1} or given[1:] != ({wanted}{comma}):")
    else:
        tests = [f"x.dim() != {len(order) + 1}", *(f"given[{i}] != {n}" for i, n in fixed)]
        body.append(f"if {' or '.join(tests)}:")
    body += [layout.indent(f"raise {expected}"), *_conditions(graph, name, order, renamed)]
    if graph.takes_bytes:
        text = f'TypeError(f"{name} takes bytes, torch.uint8, not {{x.dtype}}{where}")'
        raised = layout.spread("", text, column=14)
        body += ["if x.dtype != torch.uint8:", layout.indent(f"raise {raised}")]
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
    if len(rows) == 1:
        lines.append(f"for holds, condition, line in ({rows[0]},):")
    else:
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
    """The class of the network, then those of its blocks.

    `taken` are the names that the file has at its top.
    """
    nodes = [n for n in graph.nodes if n.layer.module(n.arrives) is not None]
    hung = places([n.path for n in nodes])
    known = Known(functions(sections), hung, branches(hung), taken)
    last = _final(graph)
    result = last.inputs[0] if last else graph.result
    steps = tree(parts, [result, *(path for _, path in graph.outputs)])
    forms = blocks.forms(graph, steps, nodes, known)
    writer = Writer(known)
    rows = {node.path for node in graph.nodes if sections and is_laid(node.output)}
    weights = blocks.weights(nodes, known, forms)
    logits = (
        f'"""Give what the last layer before a {_end(last) or "softmax"} gives."""',
        *_arrival(graph, steps, rows=result in rows, fused=bool(sections)),
        *writer.to_result(steps, result, rows=result in rows),
    )
    body = [
        "\n".join(
            [
                f'"""{show(graph.source)} to {outcome(graph)}."""',
                "",
                "# channels, height, width; None: any size that `refuse_input` lets pass",
                f"input_shape = {_shape(graph)}",
                *(["input_dtype = torch.uint8"] if graph.takes_bytes else []),
                *(['ends_in = "sigmoid"'] if _end(last) == "sigmoid" else []),
                f"classes = {layout.strings(graph.classes, column=14)}",
            ]
        ),
        layout.method(
            "__init__", ["self"], "None", ["super().__init__()", *_scaling(graph), *weights]
        ),
        _forward(graph),
        layout.method("logits", ["self", "x: Tensor"], "Tensor", logits),
        layout.method(
            "loss", ["self", "x: Tensor", "y: Tensor"], "Tensor", _loss(graph, bool(sections))
        ),
    ]
    if graph.outputs:
        lines = [
            '"""Give the tensors that the file puts out, by their labels."""',
            *_arrival(
                graph, steps, rows=any(p in rows for _, p in graph.outputs), fused=bool(sections)
            ),
            *writer.to_outputs(steps, graph.outputs, rows),
        ]
        body.append(layout.method("outputs", ["self", "x: Tensor"], "dict[str, Tensor]", lines))
    body.append(_SCRIPTABLE)
    shapes = f"dict[str, dict[int, {dynamic.DIM}]]"
    body.append(layout.method("dynamic_shapes", ["self"], shapes, dynamic.method(graph)))
    text = f"class {name}(nn.Module):\n" + layout.indent("\n\n".join(body)) + "\n"
    return layout.blocks([text, *(form.text for form in forms.classes)])


def _arrival(graph: Graph, steps: Sequence[Step], *, rows: bool, fused: bool) -> list[str]:
    """What is done with x before the first layer; `rows`: whether an image comes out."""
    lines = ["refuse_input(x)"]
    if rows:
        lines.append("by_rows = are_by_rows(x)")
    if fused and is_laid(graph.source):
        if not graph.takes_bytes:
            lines.append("x = with_gradient_by_rows(x)")
        if any(isinstance(step, Block) and INPUT in step.inputs for step in steps):
            lines.append("x = for_blocks(x)")
    if graph.takes_bytes:
        function = "scaled" if fused else "scaled_by_operators"
        given = ["x", "self.input_mean", "self.input_deviation"]
        given.append(f"axes={2 if isinstance(graph.source, ImageType) else 0}")
        lines.append(layout.call(f"x = {function}", given, column=8))
    return lines


def _scaling(graph: Graph) -> list[str]:
    """The numbers by which bytes are scaled: until others are given, to 0 … 1."""
    if not graph.takes_bytes:
        return []
    channels = graph.source.dims[-1].constant
    return [
        f'self.register_buffer("input_mean", torch.zeros({channels}))',
        f'self.register_buffer("input_deviation", torch.ones({channels}))',
    ]


def outcome(graph: Graph) -> str:
    """What comes out: `10`, or `5 x 5 x 16`."""
    return show(graph.node(graph.result).output if graph.nodes else graph.source)


def _shape(graph: Graph) -> str:
    order = [graph.source.dims[-1], *graph.source.dims[:-1]]
    comma = "," if len(order) == 1 else ""
    return f"({', '.join(str(dim.constant) for dim in order)}{comma})"


def _forward(graph: Graph) -> str:
    """`forward`: what the file says, with its softmax or final sigmoid."""
    body = ['"""Give what the last layer gives."""', "return self.logits(x)"]
    last = _final(graph)
    if last is not None:
        what = "each output" if _end(last) == "sigmoid" else "the classes"
        body = [
            f'"""Give the probabilities of {what}; a loss takes the logits, as `loss` does."""',
            f"return {last.layer.torch(last.arrives, '', 'self.logits(x)')}",
        ]
    return layout.method("forward", ["self", "x: Tensor"], "Tensor", body)


def _loss(graph: Graph, has_sections: bool) -> list[str]:
    """`loss`: the one that belongs to the network's end."""
    channels = (graph.node(graph.result).output if graph.nodes else graph.source).dims[-1].constant
    if _end(_final(graph)) == "sigmoid":
        like = "y.to(logits.dtype)" + (".view_as(logits)" if channels == 1 else "")
        return [
            '"""Mean binary cross-entropy with y, 0 to 1 for each output; others give NaN."""',
            "logits = self.logits(x)",
            f"given = {like}",
            "given = torch.where((given < 0) | (given > 1), torch.nan, given)",
            "return F.binary_cross_entropy_with_logits(logits, given)",
        ]
    if channels == 1:
        text = "one output tells no classes apart: end in `sigmoid`, or take another loss"
        return [
            '"""Raise ValueError: a cross-entropy over one output is 0, whatever it is."""',
            f'raise ValueError("{text}")',
        ]
    return [
        '"""Mean cross-entropy of the logits with the classes y, numbers from 0."""',
        f"return {'' if has_sections else 'F.'}cross_entropy(self.logits(x), y)",
    ]


def takes_classes(graph: Graph) -> bool:
    """Whether its loss is the cross-entropy with classes."""
    channels = (graph.node(graph.result).output if graph.nodes else graph.source).dims[-1].constant
    return channels != 1 and _end(_final(graph)) != "sigmoid"


def _final(graph: Graph) -> Node | None:
    """A softmax or sigmoid at the end, which makes probabilities of logits."""
    last = graph.node(graph.result) if graph.nodes else None
    return last if _end(last) else None


def _end(last: Node | None) -> str:
    return last.layer.kind if last and isinstance(last.layer, Softmax | Sigmoid) else ""
