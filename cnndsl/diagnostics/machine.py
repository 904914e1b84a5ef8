"""Diagnostics for programs: our JSON, and GitHub's annotations.

Knows those formats; prints nothing. SARIF is in `sarif`, apart because it needs more imports.
"""

from typing import TypedDict

from cnndsl.diagnostics.model import Diagnostic
from cnndsl.diagnostics.safe import safe
from cnndsl.source import Span

Json = dict[str, object]

# ── our own JSON, version 1 ──────────────────────────────────────────────────────────────────────


class Position(TypedDict):
    """A line and a column, from 1."""

    line: int
    column: int


class Place(TypedDict):
    """From a position up to, not with, another."""

    start: Position
    end: Position


def place(span: Span) -> Place:
    """A span as line and column of its start and of its end."""
    end_line, end_column = span.end_position
    return {
        "start": {"line": span.line, "column": span.column},
        "end": {"line": end_line, "column": end_column},
    }


def to_json(diagnostic: Diagnostic) -> Json:
    """One diagnostic. A span in another file than the diagnostic's has that `file` beside it.

    The words behind the carets are in `labels` too, first, where there are any.
    """
    home = diagnostic.span
    labels = [_located(home, label.span, {"message": label.message}) for label in diagnostic.labels]
    if diagnostic.caption:
        labels.insert(0, _located(home, home, {"message": diagnostic.caption}))
    return {
        "code": diagnostic.code,
        "severity": diagnostic.severity,
        "message": diagnostic.message,
        "span": place(home),
        "labels": labels,
        "notes": list(diagnostic.notes),
        "fixes": [
            {
                "message": fix.message,
                "edits": [_located(home, edit.span, {"text": edit.text}) for edit in fix.edits],
            }
            for fix in diagnostic.fixes
        ],
    }


def _located(home: Span, span: Span, rest: Json) -> Json:
    file = {} if span.source is home.source else {"file": span.source.name}
    return {"span": place(span), **file, **rest}


# ── GitHub: https://docs.github.com/actions, "Workflow commands", "Setting an error message" ─────


def github(diagnostic: Diagnostic) -> str:
    """The line that makes GitHub show a diagnostic beside the source."""
    span = diagnostic.span
    end_line, end_column = span.end_position
    properties = {"file": span.source.name, "line": span.line}
    if end_line == span.line:  # GitHub takes columns within one line only
        properties |= {"col": span.column, "endLine": end_line, "endColumn": end_column}
    else:
        properties |= {"endLine": end_line}
    properties["title"] = f"{diagnostic.code}: {diagnostic.message}"
    text = ",".join(f"{name}={_property(str(value))}" for name, value in properties.items())
    details = [
        diagnostic.caption,
        *diagnostic.notes,
        *(f"help: {f.message}" for f in diagnostic.fixes),
    ]
    message = "\n".join(detail for detail in details if detail) or diagnostic.message
    return f"::{diagnostic.severity} {text}::{_data(message)}"


def _data(text: str) -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return safe(text, len(text))


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
