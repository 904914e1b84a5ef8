"""Suggestions of layers as edits of the file: arguments changed, statements put beside a line.

Knows where a call's arguments stand; knows nothing of why a suggestion is right.
"""

from cnndsl.check.bind import Bound, written
from cnndsl.diagnostics.model import Edit, Fix
from cnndsl.layers.base import Suggestion
from cnndsl.source import Span
from cnndsl.syntax import tree


def suggested(suggestion: Suggestion, call: tree.LayerCall | tree.Merge, bound: Bound) -> Fix:
    """The suggestion as a fix of this call."""
    edits: list[Edit] = []
    behind = ""
    for name, value in suggestion.changes:
        slot = bound.layer.slots[name]
        text = written(slot, name, value)
        place = bound.places.get(name)
        # An option that a `default` line gives may suit the other layers: this one gets its own.
        if place is None or not _contains(call.head, place):
            behind += "" if _is_left_out(bound, name, value) else f" {text}"
        elif _is_left_out(bound, name, value):
            edits.append(Edit(_with_space_before(place), ""))
        else:
            edits.append(Edit(place, text))
    if suggestion.below:
        behind += f"; {suggestion.below}"
    if behind:
        edits.append(Edit(call.head.after(), behind))
    if suggestion.above:
        edits.append(insert_above(call.span, suggestion.above))
    return Fix(suggestion.message, tuple(edits))


def insert_above(span: Span, *statements: str) -> Edit:
    """Put statements in front of the one at `span`, on lines of their own if it begins its line."""
    source = span.source
    before = source.text[source.line_start(span.line) : span.start]
    separator = "; " if before.strip() else f"\n{before}"
    return Edit(span.before(), "".join(f"{statement}{separator}" for statement in statements))


def _is_left_out(bound: Bound, name: str, value: str) -> bool:
    """Whether an option has this value when the call does not give it."""
    slot = bound.layer.slots[name]
    if slot.way != "name" or slot.default is None or name in bound.defaults:
        return False
    return value == slot.kind.write(slot.default)


def _contains(outer: Span, inner: Span) -> bool:
    return outer.source is inner.source and outer.start <= inner.start and inner.end <= outer.end


def _with_space_before(span: Span) -> Span:
    start = len(span.source.text[: span.start].rstrip(" \t"))
    return Span(span.source, start, span.end)
