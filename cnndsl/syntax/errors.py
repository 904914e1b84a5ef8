"""What a syntax error is called: from where the parser stopped to words a user knows (E1xx)."""

from typing import NamedTuple

from cnndsl.diagnostics.model import Diagnostic, Edit, Fix
from cnndsl.source import Source
from cnndsl.syntax.lex import Token


class Situation(NamedTuple):
    """Where the parser stopped."""

    source: Source
    token: Token  # the one that fits nowhere
    before: tuple[Token, ...]  # the tokens of its statement so far
    after: tuple[Token, ...]  # the next few
    expected: frozenset[str]  # terminals that would have fitted


def mistake(at: Situation) -> Diagnostic:
    """The diagnostic for one place."""
    span = at.source.span(at.token.start, at.token.end)
    return Diagnostic("E100", f"`{span.text}` does not fit here", span)


def unclosed_brace(source: Source, opener: Token, place: int) -> Diagnostic:
    """A `{` without its `}`, which belongs at `place`."""
    span = source.span(opener.start, opener.end)
    before = source.text[:place]
    text = "}\n" if before.endswith("\n") or not before else "\n}\n"
    return Diagnostic(
        "E103",
        "this `{` is never closed",
        span,
        fixes=(Fix("close it with `}`", (Edit(source.span(place, place), text),)),),
    )
