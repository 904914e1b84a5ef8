"""Diagnostics as SARIF 2.1.0, which code hosts and editors read.

Knows that format; prints nothing. It counts lines, columns and characters as `Span` does, and is
told so (`columnKind`).
"""

from collections.abc import Sequence
from urllib.parse import quote

from cnndsl.diagnostics import catalogue
from cnndsl.diagnostics.machine import Json
from cnndsl.diagnostics.model import Diagnostic, Edit, Fix
from cnndsl.source import Span

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
    return {"uri": quote(span.source.name, errors="surrogateescape")}


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
