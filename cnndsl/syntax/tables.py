"""The parser's tables: what lark makes of grammars/cnn.lark, as plain data.

Knows where the tables are kept and when they are out of date; knows nothing of parsing.

They are kept beside the grammar, in grammars/cnn.json, and travel with the package: lark's import
and its work on the grammar cost ten times what checking a small model does, so they are done once,
by `python -m cnndsl.syntax.generate`, and not on each user's machine. No cache has to be trusted.
"""

import json
from binascii import crc32
from typing import Any, NamedTuple, cast

from cnndsl import assets

GRAMMAR = "cnn.lark"
TABLES = "cnn.json"


class Rule(NamedTuple):
    """What to do when the right-hand side of a rule is complete."""

    origin: str
    length: int
    action: str  # the name of a builder; "" passes the only child on, "*" collects children
    kept: tuple[int, ...]  # which of the symbols are children …
    spread: tuple[bool, ...]  # … and which of those are lists whose items are


class Tables(NamedTuple):
    """An LALR(1) automaton with its words.

    A row maps a symbol to what to do there: go to state `n` (n >= 0), or reduce by rule `-n - 1`.
    """

    grammar: int  # checksum of the grammar they were made from
    patterns: tuple[tuple[str, str], ...]  # terminal and regular expression, in the order to try
    words: dict[str, str]  # keywords and signs, and their terminals
    rules: tuple[Rule, ...]
    rows: tuple[dict[str, int], ...]
    start: int
    end: int


def load() -> Tables:
    """The tables of the grammar as it is now."""
    grammar = assets.read("grammars", GRAMMAR)
    kept = json.loads(assets.read("grammars", TABLES))
    if kept["grammar"] != checksum(grammar):
        # The grammar was edited; a test asks for new tables. Lark is only imported here.
        from cnndsl.syntax.generate import generate  # noqa: PLC0415 (it costs 200 Minstr)

        return generate(grammar)
    return decode(kept)


def checksum(grammar: str) -> int:
    """Tells one version of the grammar from another; it guards nothing."""
    return crc32(grammar.encode())


def decode(data: dict[str, Any]) -> Tables:
    """From JSON's lists to tuples."""
    rules = cast("list[tuple[str, int, str, list[int], list[bool]]]", data["rules"])
    return Tables(
        grammar=data["grammar"],
        patterns=tuple((name, pattern) for name, pattern in data["patterns"]),
        words=data["words"],
        rules=tuple(Rule(o, n, a, tuple(k), tuple(s)) for o, n, a, k, s in rules),
        rows=tuple(data["rows"]),
        start=data["start"],
        end=data["end"],
    )
