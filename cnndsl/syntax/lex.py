"""Cuts a text into tokens, and holds the limits that are counted in characters and tokens.

Knows the terminals of the grammar's tables; knows neither its rules nor what tokens mean.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from cnndsl.syntax.tables import Tables, load


class Token(NamedTuple):
    """A word or sign: a terminal's name, and where it stands."""

    kind: str
    start: int
    end: int


# What no terminal matches: a number or a string that went wrong, or a foreign character.
_REST = (
    ("BAD_NUMBER", r"[0-9][A-Za-z0-9_.]*+"),
    ("BAD_STRING", r'"[^"\r\n]*+'),
    ("BAD_CHARACTER", r"[\s\S]"),
)


class Lexicon:
    """The terminals of the grammar as one regular expression."""

    __slots__ = ("kinds", "pattern", "starters", "tables", "words")

    def __init__(self, tables: Tables) -> None:
        """Compile the patterns in their order, then the signs, longest first."""
        self.tables = tables
        # The words with which a statement can start, layers apart.
        self.starters = frozenset(tables.rows[tables.start]) & frozenset(tables.words.values())
        self.words = {text: kind for text, kind in tables.words.items() if text[0].isalpha()}
        signs = [(text, kind) for text, kind in tables.words.items() if text not in self.words]
        signs.sort(key=lambda sign: -len(sign[0]))
        terminals = (
            *tables.patterns,
            *((kind, re.escape(text)) for text, kind in signs),
            *_REST,
        )
        self.kinds = ("", *(kind for kind, _ in terminals))
        self.pattern = re.compile("|".join(f"({pattern})" for _, pattern in terminals))


@lru_cache(maxsize=1)
def lexicon() -> Lexicon:
    """The lexicon of the language, made once."""
    return Lexicon(load())


def tokens(text: str) -> list[Token]:
    """All tokens of a text, bad ones too, without blanks and comments."""
    known = lexicon()
    words = known.words
    kinds = known.kinds
    found: list[Token] = []
    for match in known.pattern.finditer(text):
        kind = kinds[match.lastindex or 0]
        if kind == "NAME":
            kind = words.get(match.group(), "NAME")
        if kind:
            found.append(Token(kind, match.start(), match.end()))
    return found
