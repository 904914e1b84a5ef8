"""Where the parser stopped: what the modules that name a mistake look at."""

from collections.abc import Callable
from typing import NamedTuple

from cnndsl.source import Source, Span
from cnndsl.syntax.lex import Token
from cnndsl.syntax.spelling import shortened

LINE_ENDS = ("_NL", "$END", "RBRACE")
VALUES = ("INTEGER", "REAL", "NAME", "SIZE", "SHAPE", "STRING", "QMARK")


class Situation(NamedTuple):
    """Where the parser stopped."""

    source: Source
    token: Token  # the one that fits nowhere
    before: tuple[Token, ...]  # the tokens of its statement so far
    after: tuple[Token, ...]  # those that follow, up to the end of the line or a brace
    accepts: Callable[[str], bool]  # whether a terminal would have fitted
    head: tuple[Token, ...] = ()  # of the statement whose `}` stands right in front, up to its `{`

    def text(self, token: Token) -> str:
        """What stands there."""
        return self.source.text[token.start : token.end]

    def span(self, token: Token) -> Span:
        """Where it stands."""
        return self.source.span(token.start, token.end)

    @property
    def place(self) -> Span:
        """Where the mistake shows: at the token, or behind the last one of a line."""
        if self.token.kind in LINE_ENDS and self.before:
            return self.span(self.before[-1])
        return self.span(self.token)

    @property
    def first(self) -> str:
        """The terminal that began the statement."""
        return self.before[0].kind if self.before else ""

    @property
    def last(self) -> str:
        """The terminal in front of the token."""
        return self.before[-1].kind if self.before else ""

    @property
    def in_shape(self) -> bool:
        """Whether a shape is being read."""
        return self.first == "INPUT" or any(t.kind == "ARROW" for t in self.before)

    @property
    def named(self) -> str:
        """The token, for a message."""
        if self.token.kind in LINE_ENDS:
            return "the end of the line"
        return f"`{shortened(self.text(self.token))}`"
