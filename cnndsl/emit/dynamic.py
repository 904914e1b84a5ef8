"""The free sizes of a network as `torch.export` takes them.

Reads the condition for which a network is valid; knows nothing of what computes it. A bound and a
divisor of one symbol can be said to `torch.export`, a relation between two cannot.
"""

import ast
from collections.abc import Iterator, Sequence

from cnndsl.emit import layout
from cnndsl.graph.graph import Graph
from cnndsl.record import Record

DIM = "torch.export.Dim"


class Bounds(Record):
    """What a symbol may be: at least `low`, at most `high`, and `rest` modulo `divisor`."""

    low: int = 1
    high: int | None = None
    divisor: int = 1
    rest: int = 0


def method(graph: Graph) -> list[str]:
    """The lines of a method that gives the `dynamic_shapes` for `torch.export.export`."""
    order = [graph.source.dims[-1], *graph.source.dims[:-1]]  # as PyTorch orders them
    batch = "batch_" if "batch" in graph.symbols else "batch"
    known = bounds(graph)
    items = [f"0: {DIM}({layout.literal(batch)})"]
    for axis, dim in enumerate(order, 1):
        if str(dim) in known:
            items.append(f"{axis}: {_expression(str(dim), known[str(dim)])}")
        elif dim.constant is None:
            items.append(f"{axis}: {DIM}.AUTO")
    lines = ['"""Give the sizes that are free, for `torch.export.export`."""']
    if len(items) == 1:
        return [*lines, f'return {{"x": {{{items[0]}}}}}']
    inside = [layout.indent(f"{item},", 8) for item in items]
    return [*lines, "return {", '    "x": {', *inside, "    },", "}"]


def bounds(graph: Graph) -> dict[str, Bounds]:
    """The bounds of each symbol, as far as the condition says them apart from the others."""
    found = {symbol: Bounds() for symbol in graph.symbols}
    for name, operator, value, divisor in _comparisons(graph.valid):
        known = found.get(name, Bounds())
        match operator:
            case ast.GtE():
                known = known.replace(low=max(known.low, value))
            case ast.Gt():
                known = known.replace(low=max(known.low, value + 1))
            case ast.LtE():
                known = known.replace(high=min(known.high or value, value))
            case ast.Lt():
                known = known.replace(high=min(known.high or value, value - 1))
            case ast.Eq() if divisor:
                known = known.replace(divisor=divisor, rest=value)
            case _:
                continue
        found[name] = known
    return found


def _comparisons(condition: str) -> Iterator[tuple[str, ast.cmpop, int, int]]:
    """Of `4 <= W <= 9 and H % 16 == 0`: (W, >=, 4, 0), (W, <=, 9, 0) and (H, ==, 0, 16)."""
    tree = ast.parse(condition, mode="eval").body
    parts: Sequence[ast.expr] = [tree]
    if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And):
        parts = tree.values
    for part in parts:
        if not isinstance(part, ast.Compare):
            continue
        sides = [part.left, *part.comparators]
        for left, operator, right in zip(sides, part.ops, sides[1:], strict=False):
            match left, right:
                case ast.Name(name), ast.Constant(int(value)):
                    yield name, operator, value, 0
                case ast.Constant(int(value)), ast.Name(name):
                    yield name, _turned(operator), value, 0
                case ast.BinOp(ast.Name(name), ast.Mod(), ast.Constant(int(d))), ast.Constant(
                    int(value)
                ):
                    yield name, operator, value, d
                case _:
                    continue


def _turned(operator: ast.cmpop) -> ast.cmpop:
    """`3 <= W` the other way round."""
    match operator:
        case ast.LtE():
            return ast.GtE()
        case ast.Lt():
            return ast.Gt()
        case ast.GtE():
            return ast.LtE()
        case ast.Gt():
            return ast.Lt()
        case _:
            return operator


def _expression(symbol: str, known: Bounds) -> str:
    if known.divisor == 1:
        return _dim(symbol, known.low, known.high)
    # PyTorch can divide a size only if it is told as a product.
    low = max(0, -(-(known.low - known.rest) // known.divisor))
    high = None if known.high is None else (known.high - known.rest) // known.divisor
    rest = f" + {known.rest}" if known.rest else ""
    return f"{known.divisor} * {_dim(f'_{symbol}', low, high)}{rest}"


def _dim(name: str, low: int, high: int | None) -> str:
    most = "" if high is None else f", max={high}"
    return f"{DIM}({layout.literal(name)}, min={low}{most})"
