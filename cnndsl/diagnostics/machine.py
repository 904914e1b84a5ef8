"""Diagnostics as data for programs: our JSON, GitHub's annotations, SARIF 2.1.0.

Knows those formats; prints nothing. All count lines, columns and characters as `Span` does; SARIF
is told so (`columnKind`).
"""

from collections.abc import Sequence
from typing import TypedDict
from urllib.parse import quote

from cnndsl.diagnostics import catalogue
from cnndsl.diagnostics.model import Diagnostic, Edit, Fix
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
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


# ── SARIF ────────────────────────────────────────────────────────────────────────────────────────

_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)


def sarif(diagnostics: Sequence[Diagnostic], version: str) -> Json:
    """A log of one run, whichever files the diagnostics are from; `version` is cnndsl's."""
    codes = sorted({d.code for d in diagnostics})
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "cnndsl",
                        "version": version,
                        "rules": [_rule(code) for code in codes],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "results": [_result(d, codes.index(d.code)) for d in diagnostics],
            }
        ],
    }


def _rule(code: str) -> Json:
    page = catalogue.page(code)
    return {
        "id": code,
        "shortDescription": {"text": page.title},
        "fullDescription": {"text": page.prose},
        "help": {"text": page.markdown, "markdown": page.markdown},
        "defaultConfiguration": {"level": "warning" if code.startswith("W") else "error"},
    }


def _result(diagnostic: Diagnostic, rule: int) -> Json:
    text = ". ".join(part for part in (diagnostic.message, diagnostic.caption) if part)
    result: Json = {
        "ruleId": diagnostic.code,
        "ruleIndex": rule,
        "level": diagnostic.severity,
        "message": {"text": "\n".join([text, *diagnostic.notes])},
        "locations": [{"physicalLocation": _location(diagnostic.span)}],
    }
    if diagnostic.labels:
        result["relatedLocations"] = [
            {
                "id": n,
                "physicalLocation": _location(label.span),
                "message": {"text": label.message},
            }
            for n, label in enumerate(diagnostic.labels)
        ]
    fixes = [_fix(fix) for fix in diagnostic.fixes if fix.edits]
    if fixes:
        result["fixes"] = fixes
    return result


def _location(span: Span) -> Json:
    return {"artifactLocation": _artifact(span), "region": _region(span)}


def _artifact(span: Span) -> Json:
    return {"uri": quote(span.source.name)}


def _region(span: Span) -> Json:
    end_line, end_column = span.end_position
    return {
        "startLine": span.line,
        "startColumn": span.column,
        "endLine": end_line,
        "endColumn": end_column,
    }


def _fix(fix: Fix) -> Json:
    files: dict[str, list[Edit]] = {}
    for edit in fix.edits:
        files.setdefault(edit.span.source.name, []).append(edit)
    return {
        "description": {"text": fix.message},
        "artifactChanges": [
            {
                "artifactLocation": _artifact(edits[0].span),
                "replacements": [
                    {"deletedRegion": _region(e.span), "insertedContent": {"text": e.text}}
                    for e in edits
                ],
            }
            for edits in files.values()
        ],
    }
