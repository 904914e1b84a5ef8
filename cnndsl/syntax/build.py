"""Makes the tree: one function a rule of the grammar, under the rule's name.

Knows what the children of each rule are; knows nothing of how they were found.
"""

from collections.abc import Callable
from typing import Any, cast

from cnndsl.source import Span
from cnndsl.syntax import tree
from cnndsl.syntax.lex import UNIT_LETTERS, Token

_UNITS = {
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}

Builder = Callable[[list[Any], Span], Any]


def _read(token: Token, span: Span) -> str:
    return span.source.text[token.start : token.end]


def _name(_children: list[Any], span: Span) -> tree.Name:
    return tree.Name(span.text, span)


def _reference(_children: list[Any], span: Span) -> tree.Reference | tree.Boolean:
    word = span.text
    return (
        tree.Boolean(word == "yes", span) if word in ("yes", "no") else tree.Reference(word, span)
    )


def _number(_children: list[Any], span: Span) -> tree.Integer | tree.Real:
    value = number(span.text)
    return tree.Integer(value, span) if isinstance(value, int) else tree.Real(value, span)


def _size(_children: list[Any], span: Span) -> tree.Size:
    height, width = _dims(span)
    return tree.Size(height.value, width.value, span)


def _shape(children: list[Any], span: Span) -> tree.Shape:
    dims: list[tree.Expression] = []
    for child in children:
        if isinstance(child, tuple):
            dims += cast("tuple[tree.Integer, ...]", child)
        elif isinstance(child, tree.Size):
            dims += _dims(child.span)
        else:
            dims.append(child)
    return tree.Shape(tuple(dims), span)


def _dims(span: Span) -> tuple[tree.Integer, ...]:
    """`28x28x1`, number by number."""
    dims: list[tree.Integer] = []
    start = span.start
    for part in span.text.replace("×", "x").split("x"):
        place = span.source.span(start, start + len(part))
        dims.append(tree.Integer(int(part.replace("_", "")), place))
        start = place.end + 1
    return tuple(dims)


def _unary(children: list[Any], span: Span) -> tree.Unary:
    operator, operand = children
    return tree.Unary(cast("Any", _read(operator, span)), operand, span)


def _binary(children: list[Any], span: Span) -> tree.Binary:
    left, operator, right = children
    return tree.Binary(cast("Any", _read(operator, span)), left, right, span)


def _comparison(children: list[Any], span: Span) -> tree.Comparison:
    operators = tuple(_read(token, span) for token in children[1::2])
    return tree.Comparison(tuple(children[::2]), operators, span)


def _group(children: list[Any], span: Span) -> tree.Expression:
    """An expression in parentheses: its place takes them in."""
    return children[0].replace(span=span)


def number(text: str) -> int | float:
    """The value of a number as written; with a unit it stays exact, so `1.1M` is 1_100_000."""
    digits = text.replace("_", "").rstrip(UNIT_LETTERS)
    unit = _UNITS.get(text[len(text.rstrip(UNIT_LETTERS)) :], 1)
    if digits.isdigit():
        return int(digits) * unit
    if unit == 1:
        return float(digits)
    mantissa, _, exponent = digits.partition("e")
    whole, _, fraction = mantissa.partition(".")
    shift = int(exponent or 0) - len(fraction)
    scaled = int(whole + fraction) * unit * 10 ** max(shift, 0)
    parts = 10 ** max(-shift, 0)
    return scaled / parts if scaled % parts else scaled // parts


# ── statements: their children are trees already ─────────────────────────────────────────────────


def _tail(children: list[Any]) -> tuple[tree.Name | None, tree.Shape | None]:
    """What `as` and `->` said."""
    label = next((c for c in children if isinstance(c, tree.Name)), None)
    expected = next((c for c in children if isinstance(c, tree.Shape)), None)
    return label, expected


def _is_broken(tail: list[Any]) -> bool:
    """Whether the shape behind `->` had a mistake."""
    return bool(tail) and isinstance(tail[-1], tree.Broken)


def _layer(children: list[Any], span: Span) -> tree.LayerCall | tree.Broken:
    name, *rest = children
    if _is_broken(rest):
        return tree.Broken(span)
    arguments = [c for c in rest if isinstance(c, tree.Argument)]
    label, expected = _tail(rest[len(arguments) :])
    head = name.span.to(arguments[-1].span) if arguments else name.span
    return tree.LayerCall(name, tuple(arguments), label, expected, head, span)


def _merge(children: list[Any], span: Span) -> tree.Merge | tree.Broken:
    kind, joined, *rest = children
    if _is_broken(rest):
        return tree.Broken(span)
    label, expected = _tail(rest)
    branches = tuple(c for c in joined if isinstance(c, tree.Body))
    others = tuple(c for c in joined if isinstance(c, tree.Name))
    head = kind.span.to(joined[-1].span)
    return tree.Merge(kind, branches, others, label, expected, head, span)


def _repeat(children: list[Any], span: Span) -> tree.Repeat:
    count, *label, body = children
    head = span.source.span(span.start, count.span.end)
    return tree.Repeat(count, label[0] if label else None, body, head, span)


def _if(children: list[Any], span: Span) -> tree.If:
    condition, then, *rest = children
    otherwise = rest[0] if rest else None
    if isinstance(otherwise, tree.If):
        otherwise = tree.Body((otherwise,), otherwise.span)
    return tree.If(condition, then, otherwise, span)


def _block(children: list[Any], span: Span) -> tree.Block:
    name, *parameters, body = children
    return tree.Block(name, tuple(parameters), body, span)


def _input(children: list[Any], span: Span) -> tree.Input | tree.Broken:
    shape, *words = children
    if isinstance(shape, tree.Broken):
        return tree.Broken(span)
    return tree.Input(shape, bool(words), span)


def _optional(children: list[Any]) -> tuple[Any, Any]:
    return children[0], children[1] if len(children) > 1 else None


BUILDERS: dict[str, Builder] = {
    "start": lambda children, _span: tuple(children),
    "model": lambda children, span: tree.Model(children[0], span),
    "input": _input,
    "bytes": lambda _children, span: span,
    "labels": lambda children, span: tree.Labels(tuple(children), span),
    "use": lambda children, span: tree.Use(children[0], span),
    "require": lambda children, span: tree.Require(tuple(children), span),
    "expect": lambda children, span: tree.Expect(tuple(children), span),
    "param": lambda children, span: tree.Param(*_optional(children), span),
    "let": lambda children, span: tree.Let(children[0], children[1], span),
    "default": lambda children, span: tree.Default(children[0], tuple(children[1:]), span),
    "layer": _layer,
    "merge": _merge,
    "branches": lambda children, _span: tuple(children),
    "others": lambda children, _span: tuple(children),
    "from_": lambda children, span: tree.From(children[0], span),
    "output": lambda children, span: tree.Output(children[0], span),
    "positional": lambda children, span: tree.Positional(children[0], span),
    "keyword": lambda children, span: tree.Keyword(children[0], children[1], span),
    "to": lambda children, span: tree.To(children[0], span),
    "like": lambda children, span: tree.Like(children[0], span),
    "block": _block,
    "parameter": lambda children, span: tree.BlockParameter(*_optional(children), span),
    "repeat": _repeat,
    "if_": _if,
    "body": lambda children, span: tree.Body(tuple(children), span),
    "broken": lambda _children, span: tree.Broken(span),
    "name": _name,
    "label": _name,
    "merger": _name,
    "reference": _reference,
    "integer": _number,
    "real": _number,
    "text": lambda _children, span: tree.Text(span.text[1:-1], span),
    "size": _size,
    "sizes": lambda _children, span: _dims(span),
    "shape": _shape,
    "unary": _unary,
    "binary": _binary,
    "comparison": _comparison,
    "group": _group,
    "hole": lambda _children, span: tree.Hole(span),
}
