"""Changes to Python text at places that its syntax tree names, so that comments and layout survive.

Knows Python's lines and columns; knows nothing of kernels.
"""

import ast
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

_WALKED = "_cnndsl_walked"


def walk(tree: ast.AST) -> tuple[ast.AST, ...]:
    """All nodes of a tree, as `ast.walk` gives them; it is asked many times for the same trees."""
    found: tuple[ast.AST, ...] | None = getattr(tree, _WALKED, None)
    if found is None:
        found = tuple(ast.walk(tree))
        setattr(tree, _WALKED, found)
    return found


@lru_cache(maxsize=32)
def parsed(text: str) -> ast.Module:
    """The tree, which nobody changes: several passes look at one text."""
    return ast.parse(text)


class Lines:
    """A text, with offsets of the places that `ast` gives as a line and a column in bytes."""

    __slots__ = ("lines", "starts", "text", "tree")

    def __init__(self, text: str) -> None:
        """Parse it; `SyntaxError` is a bug in a file of kernels/ or in the emitter."""
        self.text = text
        self.tree = parsed(text)
        self.lines = text.splitlines(keepends=True)
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))

    def extent(self, node: ast.expr | ast.stmt | ast.arg) -> tuple[int, int]:
        """The offsets at which a node starts and ends."""
        end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or 0
        return self._offset(node.lineno, node.col_offset), self._offset(end_line, end_column)

    def _offset(self, line: int, column: int) -> int:
        content = self.lines[line - 1]
        if not content.isascii():
            column = len(content.encode()[:column].decode())
        return self.starts[line - 1] + column

    def whole_lines(self, extent: tuple[int, int]) -> tuple[int, int] | None:
        """The lines of an element of a list that has them for itself; else None."""
        start, end = extent
        first = self.text.rfind("\n", 0, start) + 1
        rest = re.compile(r",?[ \t]*(#[^\n]*)?\n").match(self.text, end)
        if self.text[first:start].strip() or rest is None:
            return None
        return first, rest.end()


Edit = tuple[int, int, str]  # from an offset up to another, this text instead


def apply(text: str, edits: Iterable[Edit]) -> str:
    """The text with all edits done; they do not overlap."""
    for start, end, new in sorted(set(edits), reverse=True):
        text = text[:start] + new + text[end:]
    return text


def without(
    source: Lines, elements: Sequence[ast.expr | ast.arg], unwanted: set[int], whole: Sequence[int]
) -> list[Edit]:
    """Remove elements, by their index, from a list of arguments or parameters.

    `whole` gives where each element starts when that is before its node, as the name of a keyword.
    """
    extents = [
        (min(w, e[0]), e[1]) for w, e in zip(whole, map(source.extent, elements), strict=True)
    ]
    lines = [source.whole_lines(extent) for extent in extents]
    alone = [place for place in lines if place is not None]
    if len(alone) == len(extents):
        return [(*place, "") for index, place in enumerate(alone) if index in unwanted]
    kept = [source.text[a:b] for i, (a, b) in enumerate(extents) if i not in unwanted]
    return [(extents[0][0], extents[-1][1], ", ".join(kept))]


def tidy(text: str) -> str:
    """Blank lines as the formatter has them, after lines between them are gone."""
    text = re.sub(r"\n{4,}", "\n\n\n", text)
    text = re.sub(r"\n\n+(?=[ \t])", "\n\n", text)
    return text.strip("\n") + "\n"


def delete(lines: list[str | None], start: int, end: int) -> None:
    """Mark lines as gone."""
    for index in range(start, end):
        lines[index] = None


def delete_comment_above(lines: list[str | None], line: int) -> None:
    """A comment right above a statement that is gone explained that statement."""
    margin = None
    while line > 0:
        above = lines[line - 1]
        if above is None or not above.lstrip().startswith("#"):
            return
        if margin is not None and margin_of(above) != margin:
            return
        margin = margin_of(above)
        lines[line - 1] = None
        line -= 1


def margin_of(line: str) -> str:
    """The spaces before a line's first word."""
    return line[: len(line) - len(line.lstrip(" "))]
