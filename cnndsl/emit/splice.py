"""Makes the kernels of one region out of a file of kernels/: the contract is in its README.

Fills the holes and gives names. Works on the text, by the lines that its syntax tree names, so that
comments and layout stay as they were written. Knows how kernel files are built; knows no layers.
"""

import ast
import io
import re
import symtable
import tokenize
from collections.abc import Iterable, Mapping
from functools import lru_cache

from cnndsl.emit.lines import Edit, Lines, apply, delete, delete_comment_above, parsed, tidy, walk

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
                delete_comment_above(lines, first - 1)
                delete(lines, first - 1, field.end_lineno or field.lineno)
    return tidy("".join(line for line in lines if line is not None))


def properties(text: str) -> tuple[str, ...]:
    """The names of the properties of a text's classes."""
    return tuple(
        field.name
        for statement in parsed(text).body
        if isinstance(statement, ast.ClassDef)
        for field in statement.body
        if isinstance(field, ast.FunctionDef)
        and any(isinstance(d, ast.Name) and d.id == "property" for d in field.decorator_list)
    )


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
