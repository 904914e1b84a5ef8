"""A file with the shape that each line makes beside it, for people, editors and notebooks."""

from cnndsl.graph.graph import Graph
from cnndsl.graph.shown import promised, show, shown
from cnndsl.layers.types import is_known
from cnndsl.source import Source, display_width

_WIDEST = 60  # cells of code up to which the shapes stand in one column


def shapes(source: Source, graph: Graph) -> dict[int, str]:
    """For each line with layers or a block call, what comes out of it.

    A line inside a block or a repeat makes a shape each time; where they differ, the first and the
    last are given.
    """
    inside: dict[int, dict[str, str]] = {}  # line, then scope: what its last layer makes there
    called: dict[int, str] = {}
    known = promised(graph)
    for node in shown(graph).nodes:
        if not is_known(node.output):
            continue
        shape = show(node.output, known)
        if node.span.source is source:
            scope = node.path.rpartition(".")[0]
            inside.setdefault(node.span.line, {})[scope] = shape
        for call in node.calls:
            if call.span.source is source:
                called[call.span.line] = shape
    found = dict(called)
    for line, by_scope in inside.items():
        first, *_, last = *by_scope.values(), *by_scope.values()
        found[line] = first if len(set(by_scope.values())) == 1 else f"{first} … {last}"
    return found


def annotate(source: Source, graph: Graph) -> str:
    """The text with the shapes as comments; comments that are there already stand behind them."""
    found = shapes(source, graph)
    lines = [source.line(number) for number in range(1, source.line_count + 1)]
    code = {number: _code(lines[number - 1]) for number in found}
    column = max((w for c in code.values() if (w := display_width(c)) <= _WIDEST), default=0)
    for number, shape in found.items():
        text = code[number]
        comment = lines[number - 1][len(text) :].strip().removeprefix("#").strip()
        space = " " * (max(0, column - display_width(text)) + 2)
        lines[number - 1] = f"{text}{space}# {shape}" + (f"   {comment}" if comment else "")
    return "\n".join(lines)


def _code(line: str) -> str:
    """What stands in front of a line's comment."""
    quoted = False
    for position, character in enumerate(line):
        quoted ^= character == '"'
        if character == "#" and not quoted:
            return line[:position].rstrip()
    return line.rstrip()
