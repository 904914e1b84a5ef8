"""The network as text: the table of its layers, and a dump for those who build cnndsl."""

from collections.abc import Mapping, Sequence

from cnndsl.graph.facts import Facts, ReceptiveField, Totals
from cnndsl.graph.graph import Graph, Node
from cnndsl.graph.shown import promised, shown
from cnndsl.graph.shown import show as show_promised
from cnndsl.layers.base import Merge
from cnndsl.layers.types import factor, show
from cnndsl.sizes.dim import Dim
from cnndsl.sizes.promised import Promised
from cnndsl.source import display_width

_HEADER = ("layer", "", "output", "parameters", "MACs", "sees")
_RIGHT = (3, 4)  # columns of numbers
_GAP = "  "
_UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def table(graph: Graph, found: Mapping[str, Facts], *, explain: bool = False) -> str:
    """One line a layer: name, what it is, output, parameters, MACs, receptive field.

    With `explain`, the formula of each output size stands below its layer.
    """
    graph, known = shown(graph), promised(graph)
    rows: list[tuple[str, ...]] = [
        ("input", "u8" if graph.takes_bytes else "", show(graph.source), "", "", "")
    ]
    rows += [_row(node, found.get(node.path), known) for node in graph.nodes]
    lines = _align([_HEADER, *rows])
    if not explain:
        return "\n".join(lines)
    indent = " " * (max(display_width(row[0]) for row in rows) + len(_GAP))
    text = lines[:2]
    for node, line in zip(graph.nodes, lines[2:], strict=True):
        text.append(line)
        if node.path in found:
            text += [f"{indent}{formula}" for formula in _formulas(node, known)]
    return "\n".join(text)


def summary(graph: Graph, totals: Totals) -> str:
    """The totals; those that grow with the image are given for one size as well."""
    example = dict(graph.example)
    counted = [
        f"{_counted(totals.params, 'parameter')} ({_bytes(totals.weight_bytes)})",
        f"{_counted(_at(totals.macs, example), 'MAC')} an image",
    ]
    memory = _bytes(_at(totals.training_bytes, example))
    training = f"training needs {memory} for one image, with Adam in fp32"
    if not graph.symbols:
        return f"{', '.join(counted)}\n{training}"
    at = ", ".join(f"{name} = {value}" for name, value in graph.example)
    return f"valid for {graph.valid}\n{', '.join(counted)} at {at}\n{training}, at that size"


def _at(dim: Dim, example: dict[str, int]) -> Dim:
    return dim if dim.constant is not None else Dim.of(dim.evaluate(example))


def dump(graph: Graph) -> str:
    """Every node with its inputs and types, for `compile --emit graph` and golden files."""
    lines = [f"graph {graph.name}", f"  input: {show(graph.source)}{' u8' * graph.takes_bytes}"]
    for node in graph.nodes:
        reads = ", ".join(node.inputs)
        lines.append(f"  {node.path} = {node.layer.write()} ({reads}): {show(node.output)}")
    lines.append(f"  return {graph.result}")
    if graph.symbols:
        lines.append(f"  valid: {graph.valid}")
    return "\n".join(lines)


def _row(node: Node, found: Facts | None, known: Promised) -> tuple[str, ...]:
    what = node.layer.write()
    if found is None:
        return (node.path, what, "?", "", "", "")
    params = found.params + found.buffers
    return (
        node.path,
        what,
        show_promised(node.output, known),
        _count(found.params) if params != Dim.of(0) else "",
        _count(found.macs, known) if found.macs != Dim.of(0) else "",
        _field(found.receptive_field, known),
    )


def _formulas(node: Node, known: Promised) -> list[str]:
    """The formulas of a layer's output, each up to what the table shows of it."""
    lines: list[str] = []
    made = node.output if isinstance(node.layer, Merge) else node.layer.output(node.arrives)
    ends = [(show(made), show_promised(node.output, known))]
    for one, other in zip(made.dims, node.output.dims, strict=True):
        ends.append((one.pretty(), known.pretty(other)))
    for line in node.layer.formula(node.arrives):
        start, end = next(((s, e) for s, e in ends if line.endswith(f" = {s}")), ("", ""))
        if start.replace("⌊", "").replace("⌋", "") == end:
            line = line.removesuffix(start) + end
        lines.append(line if line.endswith(f" = {end}") or not end else f"{line} = {end}")
    return lines


def _align(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(display_width(row[i]) for row in rows) for i in range(len(_HEADER))]
    lines: list[str] = []
    for row in rows:
        cells: list[str] = []
        for i, cell in enumerate(row):
            space = " " * (widths[i] - display_width(cell))
            cells.append(space + cell if i in _RIGHT else cell + space)
        lines.append(_GAP.join(cells).rstrip())
    return lines


def _field(field: ReceptiveField | None, promise: Promised) -> str:
    if field is None:
        return ""
    known = all(size.constant is not None for size in field.size)
    sizes = (factor(size, promise.pretty(size)) for size in field.size)
    return ("x" if known else " x ").join(sizes)


def _count(dim: Dim, known: Promised | None = None) -> str:
    if dim.constant is not None:
        return f"{dim.constant:,}"
    return known.pretty(dim) if known is not None else dim.pretty()


def _counted(dim: Dim, what: str) -> str:
    return f"{_count(dim)} {what}{'' if dim.constant == 1 else 's'}"


def _bytes(dim: Dim) -> str:
    number = dim.constant
    if number is None:
        return f"{dim.pretty()} bytes"
    for name, size in _UNITS:
        if number >= size:
            return f"{number / size:,.1f} {name}"
    return f"{number} bytes"
