"""Applies the edits of fixes to a source's text. Knows nothing of why they are right.

A fix is made whole or not at all: one that overlaps an earlier one waits for the next run, when
the checker has seen what the earlier one did.
"""

from collections.abc import Iterable

from cnndsl.diagnostics.model import Diagnostic, Edit, Fix
from cnndsl.source import Source


def choose(source: Source, diagnostics: Iterable[Diagnostic]) -> tuple[Fix, ...]:
    """The fixes to make together: of each diagnostic the first that has edits, if it still fits.

    Left out are fixes that touch another file, that overlap one chosen before, or that another
    diagnostic has asked for already.
    """
    chosen: list[Fix] = []
    taken: list[Edit] = []
    for diagnostic in diagnostics:
        fix = next((f for f in diagnostic.fixes if f.edits), None)
        if fix is None or any(edit.span.source is not source for edit in fix.edits):
            continue
        if not any(_collide(a, b) for a in fix.edits for b in taken) and _is_consistent(fix):
            chosen.append(fix)
            taken += fix.edits
    return tuple(chosen)


def apply(text: str, fixes: Iterable[Fix]) -> str:
    """The text with the edits of some fixes made, which `choose` has found to fit together."""
    edits = [edit for fix in fixes for edit in fix.edits]
    edits.sort(key=lambda e: (e.span.start, e.span.end))
    parts: list[str] = []
    at = 0
    for edit in edits:
        if edit.span.start < at:
            raise ValueError("these fixes overlap: take what `choose` gives")
        parts += [text[at : edit.span.start], edit.text]
        at = edit.span.end
    return "".join([*parts, text[at:]])


def moved(fix: Fix, offset: int) -> int:
    """Where a character of the text is after the edits of a fix; one that is gone, where they are.

    What is inserted at a place stands in front of what began there.
    """
    shift = 0
    for edit in fix.edits:
        start, end = edit.span.start, edit.span.end
        if end <= offset:
            shift += len(edit.text) - (end - start)
        elif start < offset:
            shift += start - offset
    return offset + shift


def _is_consistent(fix: Fix) -> bool:
    edits = fix.edits
    return not any(_overlap(a, b) for n, a in enumerate(edits) for b in edits[:n])


def _collide(one: Edit, other: Edit) -> bool:
    """Whether two fixes' edits cannot both be made.

    Two insertions at one place cannot: which is to stand first is unknown, and if they are equal
    one is enough.
    """
    same_place = one.span.start == other.span.start and one.span.end == other.span.end
    return same_place or _overlap(one, other)


def _overlap(one: Edit, other: Edit) -> bool:
    return one.span.start < other.span.end and other.span.start < one.span.end
