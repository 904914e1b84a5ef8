"""What the tokens of the language look like: the terminals of the grammar as one pattern.

Knows the terminals; knows neither the rules of the grammar nor what tokens mean.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from cnndsl.syntax.tables import Tables, load

UNIT_LETTERS = "kKMGiB"  # all letters of `k`, `M`, `G`, `KiB`, `MiB` and `GiB`


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
