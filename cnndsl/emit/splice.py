"""Makes the kernels of one region out of a file of kernels/: the contract is in its README.

Settles the switches, fills the holes, names everything anew. Works on the text, by the lines that
its syntax tree names, so that comments and layout stay as they were written. Knows how kernel files
are built; knows no layers.
"""

import ast
import io
import re
import symtable
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from cnndsl.emit.lines import Edit, Lines, apply, parsed, tidy, walk
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


# ── switches ─────────────────────────────────────────────────────────────────────────────────────


def settle(text: str, switches: Mapping[str, object]) -> str:
    """Resolve each `if` whose test speaks of switches alone; what is dead goes, the rest stays.

    `switches` has their values by their text: `POOL` in a kernel, `geometry.pool` in a launch.
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
    staying = [branch for branch, _ in kept]
    for branch in branches:
        if branch not in staying:
            _delete(lines, branch.header[0], branch.body[1])
    if not kept:
        _delete_comment_above(lines, branches[0].header[0])
    for position, (branch, is_open) in enumerate(kept):
        _settle_body(list(branch.statements), lines, settled, outdents)
        if is_open:
            if branch.test is not None and settled.has_settled_part(branch.test):
                test = settled.simplified(branch.test)
                lines[branch.header[0]] = f"{_margin(lines[branch.header[0]] or '')}if {test}:\n"
                _delete(lines, branch.header[0] + 1, branch.header[1])
            _rewrite_keyword(lines, branch.header[0], "elif" if position else "if")
        elif position:
            _delete(lines, branch.header[0] + 1, branch.header[1])
            lines[branch.header[0]] = f"{_margin(lines[branch.header[0]] or '')}else:\n"
        else:
            _delete(lines, *branch.header)
            outdents.append(range(*branch.body))


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
            if len(_margin(line)) <= column:
                break
            end = index + 1
    return end


def _delete(lines: list[str | None], start: int, end: int) -> None:
    for index in range(start, end):
        lines[index] = None


def _delete_comment_above(lines: list[str | None], line: int) -> None:
    """A comment right above a statement that is gone explained that statement."""
    margin = None
    while line > 0:
        above = lines[line - 1]
        if above is None or not above.lstrip().startswith("#"):
            return
        if margin is not None and _margin(above) != margin:
            return
        margin = _margin(above)
        lines[line - 1] = None
        line -= 1


def _rewrite_keyword(lines: list[str | None], index: int, keyword: str) -> None:
    line = lines[index] or ""
    lines[index] = re.sub(r"^(\s*)(?:el)?if\b", rf"\g<1>{keyword}", line, count=1)


def _margin(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" "))]


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


# ── holes, names, sizes ──────────────────────────────────────────────────────────────────────────


def fill(text: str, holes: Mapping[str, str]) -> str:
    """Put functions in the place of the stubs that have their names."""
    source = Lines(text)
    edits: list[Edit] = []
    for statement in source.tree.body:
        if isinstance(statement, ast.FunctionDef) and statement.name in holes:
            first = min([statement.lineno, *(d.lineno for d in statement.decorator_list)])
            start, end = source.starts[first - 1], source.starts[statement.end_lineno or first]
            edits.append((start, end, holes[statement.name].strip("\n") + "\n"))
    return apply(text, edits)


def rename(text: str, names: Mapping[str, str]) -> str:
    """Call global names by others, also where a comment has them in backticks."""
    return _renamed(text, frozenset((old, new) for old, new in names.items() if old in text))


@lru_cache(maxsize=1024)
def _renamed(text: str, pairs: frozenset[tuple[str, str]]) -> str:
    names = dict(pairs)
    if not names:
        return text
    source = Lines(text)
    edits: list[Edit] = []
    after_dot = False
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME and token.string in names and not after_dot:
            start = source.starts[token.start[0] - 1] + token.start[1]
            edits.append((start, start + len(token.string), names[token.string]))
        after_dot = token.string == "."
    return re.sub(r"`(\w+)`", lambda m: f"`{names.get(m[1], m[1])}`", apply(text, edits))


def loosen(text: str, sizes: frozenset[str]) -> str:
    """Make parameters of these names run-time values: a symbol decides them."""
    if not sizes:
        return text
    pattern = rf"\b({'|'.join(sorted(sizes))}): tl\.constexpr\b"
    return re.sub(pattern, r"\1", text)


def without_field(text: str, name: str) -> str:
    """The text without a field or property of its classes that no region uses, and its comment."""
    source = Lines(text)
    lines: list[str | None] = list(source.lines)
    for statement in source.tree.body:
        for field in getattr(statement, "body", ()) if isinstance(statement, ast.ClassDef) else ():
            match field:
                case ast.AnnAssign(target=ast.Name(id=found)):
                    first = field.lineno
                case ast.FunctionDef(name=found):  # a property
                    first = min(field.lineno, *(d.lineno for d in field.decorator_list))
                case _:
                    continue
            if found == name:
                _delete_comment_above(lines, first - 1)
                _delete(lines, first - 1, field.end_lineno or field.lineno)
    return tidy("".join(line for line in lines if line is not None))


@lru_cache(maxsize=1024)
def definitions(text: str) -> tuple[str, ...]:
    """The names of functions, classes and values that a text defines, in order."""
    found: list[str] = []
    for statement in parsed(text).body:
        match statement:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.append(name)
            case ast.Assign(targets=[ast.Name(id=name)]):
                found.append(name)
            case _:
                pass
    return tuple(found)


def read_names(text: str) -> set[str]:
    """The names of the module that a text reads, at its top or within functions."""
    found: set[str] = set()
    tables = [symtable.symtable(text, "emitted", "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        is_top = table.get_type() == "module"
        found.update(
            symbol.get_name()
            for symbol in table.get_symbols()
            if symbol.is_referenced()
            and (is_top or symbol.is_global())
            and symbol.get_name() != "__class__"  # of `super()`
        )
    return found


def words(texts: Iterable[str]) -> frozenset[str]:
    """All names in these texts."""
    return frozenset[str]().union(*(_words(text) for text in texts))


@lru_cache(maxsize=256)
def _words(text: str) -> frozenset[str]:
    names = {n.id for n in walk(parsed(text)) if isinstance(n, ast.Name)}
    return frozenset(names.union(definitions(text)))


# ── what stands around the definitions ───────────────────────────────────────────────────────────

BANNER = re.compile(r"^# ── .*\n", re.MULTILINE)


@lru_cache(maxsize=64)
def docstring(text: str) -> str:
    """What a kernel file says of itself."""
    return ast.get_docstring(parsed(text)) or ""


def is_own(statement: ast.stmt) -> bool:
    """Whether it imports from another file of kernels/ or cnndsl/rt/."""
    return isinstance(statement, ast.ImportFrom) and (
        statement.level > 0 or (statement.module or "").startswith("cnndsl.rt")
    )


@lru_cache(maxsize=64)
def bare(text: str) -> tuple[str, tuple[ast.Import | ast.ImportFrom, ...]]:
    """The definitions of a kernel file, and what it imports from outside kernels/.

    Docstring, imports and banners go: in the emitted file they stand once, in their own place.
    """
    source = Lines(text)
    edits: list[Edit] = []
    imports: list[ast.Import | ast.ImportFrom] = []
    for statement in source.tree.body:
        is_docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if isinstance(statement, ast.Import | ast.ImportFrom):
            if not is_own(statement):
                imports.append(statement)
        elif not is_docstring:
            continue
        last = statement.end_lineno or statement.lineno
        edits.append((source.starts[statement.lineno - 1], source.starts[last], ""))
    return tidy(BANNER.sub("", apply(text, edits))), tuple(imports)
