"""Source text and places in it. Knows characters, lines and columns; knows nothing of the language.

Offsets count characters (not bytes) from 0; lines and columns count from 1.
"""

from bisect import bisect_right
from functools import lru_cache
from unicodedata import category, east_asian_width

from cnndsl.record import Record

TAB_WIDTH = 4


class Source:
    """One file's text under the name that messages show."""

    __slots__ = ("_line_starts", "name", "text")

    def __init__(self, name: str, text: str) -> None:
        """Keep `text` as it is; `name` is what messages call it."""
        self.name = name
        self.text = text
        starts = [0]
        starts += [i + 1 for i, c in enumerate(text) if c == "\n"]
        self._line_starts = starts

    @property
    def line_count(self) -> int:
        """How many lines there are; a file that ends in a newline has an empty last one."""
        return len(self._line_starts)

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of a character."""
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def line_start(self, line: int) -> int:
        """The offset at which a line begins."""
        return self._line_starts[line - 1]

    def line(self, line: int) -> str:
        """The text of a line, without its end."""
        start = self._line_starts[line - 1]
        end = self._line_starts[line] if line < len(self._line_starts) else len(self.text)
        return self.text[start:end].rstrip("\r\n")

    def span(self, start: int, end: int) -> "Span":
        """The place from `start` up to, not with, `end`."""
        return Span(self, start, end)

    def __repr__(self) -> str:
        return f"Source({self.name!r})"


class Span(Record):
    """A place in a source: characters `start` up to, not with, `end`."""

    source: Source
    start: int
    end: int

    @property
    def text(self) -> str:
        """The characters there."""
        return self.source.text[self.start : self.end]

    @property
    def line(self) -> int:
        """The line on which it starts."""
        return self.source.position(self.start)[0]

    @property
    def column(self) -> int:
        """The column at which it starts."""
        return self.source.position(self.start)[1]

    @property
    def end_position(self) -> tuple[int, int]:
        """Line and column one past the last character."""
        return self.source.position(self.end)

    def to(self, other: "Span") -> "Span":
        """The place from the start of this one to the end of another."""
        return Span(self.source, min(self.start, other.start), max(self.end, other.end))

    def after(self) -> "Span":
        """The empty place right behind this one, for insertions."""
        return Span(self.source, self.end, self.end)

    def before(self) -> "Span":
        """The empty place right in front of this one, for insertions."""
        return Span(self.source, self.start, self.start)


def display_width(text: str) -> int:
    """How many terminal cells a text takes: wide characters two, combining ones none.

    Tabs count `TAB_WIDTH`, as `expand` prints them.
    """
    if text.isascii() and text.isprintable():
        return len(text)
    return sum(_cell_width(character) for character in text)


def expand(text: str) -> str:
    """A line as it is shown: tabs become spaces, characters that draw nothing become visible."""
    shown = (
        " " * TAB_WIDTH if c == "\t" else c if c.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for c in text
    )
    return "".join(shown)


@lru_cache(maxsize=4096)
def _cell_width(character: str) -> int:
    if character == "\t":
        return TAB_WIDTH
    if not character.isprintable():
        return 1  # `expand` shows a replacement character, which is narrow
    if category(character) in ("Mn", "Me"):
        return 0
    return 2 if east_asian_width(character) in ("W", "F") else 1
