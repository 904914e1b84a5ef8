"""Colours by what a piece of text is for, and rows of terminal cells to draw on.

Knows escape sequences and cell widths; knows nothing of diagnostics or of the terminal at hand.
"""

from collections.abc import Mapping
from itertools import groupby
from operator import itemgetter
from typing import Literal

from cnndsl.record import Record
from cnndsl.source import display_width, expand

Role = Literal["", "error", "warning", "label", "help", "gutter", "strong"]


class Style(Record):
    """An escape sequence (its numbers) for each role that has one."""

    colours: Mapping[Role, str]

    def paint(self, role: Role, text: str) -> str:
        """The text in the role's colour."""
        colour = self.colours.get(role)
        return f"\x1b[{colour}m{text}\x1b[0m" if colour and text else text


PLAIN = Style({})

# The eight classic colours only: every terminal has them, in tones that suit its background.
COLOURED = Style(
    {
        "error": "1;31",
        "warning": "1;33",
        "label": "1;34",
        "help": "1;32",
        "gutter": "34",
        "strong": "1",
    }
)


def cells(text: str) -> int:
    """How many cells a text takes as `Row` draws it."""
    if text.isascii() and text.isprintable():
        return len(text)
    return display_width(text)


class Row:
    """One line of output, drawn cell by cell; what is drawn later covers what was there."""

    __slots__ = ("_cells",)

    def __init__(self) -> None:
        """Start empty."""
        # A wide character fills its second cell with "", a combining one joins the cell before.
        self._cells: list[tuple[str, Role]] = []

    @property
    def width(self) -> int:
        """How many cells are drawn."""
        return len(self._cells)

    def put(self, column: int, text: str, role: Role = "") -> None:
        """Draw a text from a cell on; tabs and characters that draw nothing as `expand` shows."""
        drawn = self._cells
        blank: tuple[str, Role] = (" ", "")
        drawn.extend([blank] * (column - len(drawn)))
        for character in expand(text):
            width = display_width(character)
            if width == 0 and column > 0:
                base, base_role = drawn[column - 1]
                drawn[column - 1] = (base + character, base_role)
            else:
                cell: tuple[str, Role] = (character, role)
                rest: tuple[str, Role] = ("", role)
                drawn[column : column + width] = [cell, *([rest] * (width - 1))]
                column += width

    def text(self, style: Style) -> str:
        """The row in colours, without blanks at its end."""
        drawn = self._cells
        end = len(drawn)
        while end and drawn[end - 1][0] == " ":
            end -= 1
        runs = groupby(drawn[:end], key=itemgetter(1))
        return "".join(style.paint(role, "".join(c for c, _ in run)) for role, run in runs)
