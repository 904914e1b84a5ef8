"""Settles the switches of a kernel file: what is dead goes, and what is open stays.

Works on the text, by the lines that its syntax tree names, so that comments and layout stay as they
were written. Knows tests of Python; knows nothing of what they decide.
"""

import ast
import re
from collections.abc import Iterator, Mapping

from cnndsl.emit.lines import Lines, delete, delete_comment_above, margin_of, tidy
from cnndsl.record import Record

INDENT = 4


class _Open:
    """The value of a test that the switches leave open."""


OPEN = _Open()


class Several(Record):
    """The values of a switch that is settled where a kernel is compiled: it has one of them."""

    of: frozenset[object]


class _Branch(Record):
    """One arm of an `if` statement; lines count from 0, and ends are one past the last."""

    test: ast.expr | None  # None: `else`
    header: tuple[int, int]
    body: tuple[int, int]
    statements: tuple[ast.stmt, ...]


def settle(text: str, switches: Mapping[str, object]) -> str:
    """Resolve each `if` whose test speaks of switches alone; what is dead goes, the rest stays.

    `switches` has their values by their text: `C.pool` in a kernel, `geometry.pool` in a launch.
    """
    source = Lines(text)
    lines: list[str | None] = list(source.lines)
    outdents: list[range] = []
    _settle_body(source.tree.body, lines, _Settled(text, switches), outdents)
    # Only now: until here, margins tell which comment belongs to what.
    for place in outdents:
        for index in place:
            line = lines[index]
            if line is not None and line.startswith(" " * INDENT):
                lines[index] = line[INDENT:]
    return tidy("".join(line for line in lines if line is not None))


class _Settled(Record):
    """A text, and the switches by which its tests are settled."""

    text: str
    switches: Mapping[str, object]

    def simplified(self, test: ast.expr) -> str:
        """An open test without the parts of it that are settled, and do not settle all of it."""
        if not isinstance(test, ast.BoolOp):
            found = ast.get_source_segment(self.text, test) or ""
            return " ".join(found.split())
        left = self._open_parts(test)
        word = " or " if isinstance(test.op, ast.Or) else " and "
        parts = [self.simplified(value) for value in left]
        if len(left) > 1:
            groups = [len(self._open_parts(value)) > 1 for value in left]
            parts = [f"({p})" if g else p for p, g in zip(parts, groups, strict=True)]
        return word.join(parts)

    def _open_parts(self, test: ast.expr) -> list[ast.expr]:
        values = test.values if isinstance(test, ast.BoolOp) else [test]
        return [v for v in values if _truth(_value(v, self.switches)) is OPEN]

    def has_settled_part(self, test: ast.expr) -> bool:
        """Whether a part of an open test is settled."""
        if not isinstance(test, ast.BoolOp):
            return False
        is_open = [_truth(_value(value, self.switches)) is OPEN for value in test.values]
        return not all(is_open) or any(self.has_settled_part(value) for value in test.values)


def _settle_body(
    body: list[ast.stmt],
    lines: list[str | None],
    settled: _Settled,
    outdents: list[range],
) -> None:
    for statement in body:
        if isinstance(statement, ast.If):
            _settle_if(_branches(statement, lines), lines, settled, outdents)
            continue
        for child in _bodies(statement):
            _settle_body(child, lines, settled, outdents)


def _bodies(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        yield getattr(statement, name, [])


def _settle_if(
    branches: list[_Branch],
    lines: list[str | None],
    settled: _Settled,
    outdents: list[range],
) -> None:
    kept = list(_kept(branches, settled.switches))
    for branch, _ in kept:
        _settle_body(list(branch.statements), lines, settled, outdents)
    # An arm of which nothing is left goes, unless a later one is for what it does not let pass.
    while kept and _is_empty(kept[-1][0], lines):
        kept.pop()
    staying = [branch for branch, _ in kept]
    for branch in branches:
        if branch not in staying:
            delete(lines, branch.header[0], branch.body[1])
    if not kept:
        delete_comment_above(lines, branches[0].header[0])
    for position, (branch, is_open) in enumerate(kept):
        margin = margin_of(lines[branch.header[0]] or "")
        if is_open and branch.test is not None:
            if settled.has_settled_part(branch.test):
                lines[branch.header[0]] = f"{margin}if {settled.simplified(branch.test)}:\n"
                delete(lines, branch.header[0] + 1, branch.header[1])
            _rewrite_keyword(lines, branch.header[0], "elif" if position else "if")
            if _is_empty(branch, lines):
                lines[branch.body[0]] = f"{margin}{' ' * INDENT}pass\n"
        elif position:
            delete(lines, branch.header[0] + 1, branch.header[1])
            lines[branch.header[0]] = f"{margin}else:\n"
        else:
            delete(lines, *branch.header)
            outdents.append(range(*branch.body))
    if len(kept) == 2 and not kept[1][1] and _is_empty(kept[0][0], lines):
        _turn_round(kept[0][0], kept[1][0], lines, settled)


def _turn_round(
    first: _Branch, second: _Branch, lines: list[str | None], settled: _Settled
) -> None:
    """Make `if a: nothing, else: b` an `if not a: b`."""
    assert first.test is not None
    margin = margin_of(lines[first.header[0]] or "")
    test = settled.simplified(first.test)
    match first.test:
        case ast.Compare(ops=[ast.Eq()]):
            test = test.replace(" == ", " != ")
        case ast.Compare(ops=[ast.NotEq()]):
            test = test.replace(" != ", " == ")
        case ast.BoolOp():
            test = f"not ({test})"
        case _:
            test = f"not {test}"
    delete(lines, first.header[0], first.body[1])
    lines[second.header[0]] = f"{margin}if {test}:\n"


def _is_empty(branch: _Branch, lines: list[str | None]) -> bool:
    """Whether nothing runs in an arm; comments on what is gone count for nothing."""
    body = [line for line in lines[slice(*branch.body)] if line is not None]
    return all(_is_comment_or_blank(line) or line.strip() == "pass" for line in body)


def _kept(
    branches: list[_Branch], switches: Mapping[str, object]
) -> Iterator[tuple[_Branch, bool]]:
    """The arms that may run, each with whether its test is still open."""
    for branch in branches:
        value = True if branch.test is None else _truth(_value(branch.test, switches))
        if value is OPEN:
            yield branch, True
        elif value:
            yield branch, False
            return


def _branches(statement: ast.If, lines: list[str | None]) -> list[_Branch]:
    """The arms of an `if` with its `elif`s and `else`, each with the comments inside it."""
    found: list[_Branch] = []
    current: ast.If | None = statement
    start = statement.lineno - 1
    while current is not None:
        after = _header_end(lines, current.body)
        rest = current.orelse
        is_elif = len(rest) == 1 and _is_elif(rest[0], lines)
        if not rest:
            end = _with_trailing_comments(lines, current.body, statement.col_offset)
        elif is_elif:
            end = rest[0].lineno - 1
        else:
            end = _else_line(lines, current.body, rest)
        found.append(_Branch(current.test, (start, after), (after, end), tuple(current.body)))
        if rest and not is_elif:
            after = _header_end(lines, rest)
            last = _with_trailing_comments(lines, rest, statement.col_offset)
            found.append(_Branch(None, (end, after), (after, last), tuple(rest)))
        start = end
        following = rest[0] if is_elif else None
        current = following if isinstance(following, ast.If) else None
    return found


def _is_elif(statement: ast.stmt, lines: list[str | None]) -> bool:
    line = lines[statement.lineno - 1] or ""
    return isinstance(statement, ast.If) and line.lstrip().startswith("elif ")


def _is_comment_or_blank(line: str | None) -> bool:
    return line is None or not line.strip() or line.lstrip().startswith("#")


def _header_end(lines: list[str | None], body: list[ast.stmt]) -> int:
    """The line after the header: comments above the first statement belong to the body."""
    line = body[0].lineno - 1
    while _is_comment_or_blank(lines[line - 1]):
        line -= 1
    return line


def _else_line(lines: list[str | None], body: list[ast.stmt], orelse: list[ast.stmt]) -> int:
    first, last = body[-1].end_lineno or 0, orelse[0].lineno - 1
    return next(i for i in range(first, last) if (lines[i] or "").strip().startswith("else:"))


def _with_trailing_comments(lines: list[str | None], body: list[ast.stmt], column: int) -> int:
    """The end of a body, with the comments below it that are indented as it is."""
    end = body[-1].end_lineno or body[-1].lineno
    for index in range(end, len(lines)):
        line = lines[index] or ""
        if not _is_comment_or_blank(line):
            break
        if line.strip():
            if len(margin_of(line)) <= column:
                break
            end = index + 1
    return end


def _rewrite_keyword(lines: list[str | None], index: int, keyword: str) -> None:
    line = lines[index] or ""
    lines[index] = re.sub(r"^(\s*)(?:el)?if\b", rf"\g<1>{keyword}", line, count=1)


def _value(test: ast.expr, switches: Mapping[str, object]) -> object:
    """What a test gives, or `OPEN`."""
    match test:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return switches.get(name, OPEN)
        case ast.Attribute(value=ast.Name(id=owner), attr=name):
            return switches.get(f"{owner}.{name}", OPEN)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            value = _truth(_value(operand, switches))
            return OPEN if value is OPEN else not value
        case ast.BoolOp(op=operator, values=values):
            found = [_truth(_value(v, switches)) for v in values]
            deciding = isinstance(operator, ast.Or)
            if any(v is not OPEN and bool(v) == deciding for v in found):
                return deciding
            return OPEN if any(v is OPEN for v in found) else not deciding
        case ast.Compare(left=left, ops=[operator], comparators=[right]):
            return _compare(_value(left, switches), operator, _value(right, switches))
        case ast.Tuple(elts=elements):
            found = [_value(e, switches) for e in elements]
            is_open = any(v is OPEN or isinstance(v, Several) for v in found)
            return OPEN if is_open else tuple(found)
        case _:
            return OPEN


def _truth(value: object) -> object:
    """Whether a value counts as true, or `OPEN` where that depends on which of several it is."""
    if value is OPEN:
        return OPEN
    values = value.of if isinstance(value, Several) else {value}
    if OPEN in values:
        return OPEN
    truths = {bool(v) for v in values}
    return truths.pop() if len(truths) == 1 else OPEN


def _compare(left: object, operator: ast.cmpop, right: object) -> object:
    if isinstance(left, Several):
        return _truth(Several(frozenset(_compare(v, operator, right) for v in left.of)))
    if left is OPEN or right is OPEN or isinstance(right, Several):
        return OPEN
    match operator:
        case ast.Eq():
            return left == right
        case ast.NotEq():
            return left != right
        case ast.In() if isinstance(right, tuple):
            return left in right
        case ast.NotIn() if isinstance(right, tuple):
            return left not in right
        case _:
            return OPEN
