"""A file mended by the edits that the checker offers, until none of them helps any more.

Knows reports and edits; is handed the check as functions, and writes no file.
"""

from collections.abc import Callable, Iterator, Sequence

from cnndsl.check.report import Report
from cnndsl.diagnostics.fix import apply, choose
from cnndsl.diagnostics.model import Diagnostic, Fix, Sink
from cnndsl.record import Record
from cnndsl.source import Source

Check = Callable[[Source, Sink], Report]


class Done(Record):
    """An edit that was made: the line it was made in, as that was numbered then, and its words."""

    line: int
    message: str


class Repaired(Record):
    """The text after all edits that help, its report with its sink, and what was done."""

    source: Source
    report: Report
    sink: Sink
    done: tuple[Done, ...]


def repaired(source: Source, report: Report, sink: Sink, check: Check, count: Check) -> Repaired:
    """Mend a text as far as edits do.

    `check` gives a whole report, `count` one whose fixes nobody has tried. After every round there
    are fewer errors, or as many, further down: so it comes to an end, and there a second call
    finds nothing to do. It never makes more errors than there are.
    """
    done: list[Done] = []
    while True:
        made = _next(source, report, sink, count)
        if made is None:
            return Repaired(source, report, sink, tuple(done))
        fixes, source = made
        done += [Done(min(e.span.line for e in fix.edits), fix.message) for fix in fixes]
        sink = Sink(sink.limit)
        report = check(source, sink)


def why_left(diagnostic: Diagnostic, source: Source) -> str:
    """Why an error is still there after `repaired`."""
    if diagnostic.span.source is not source:
        return f"it is in {diagnostic.span.source.name}, and only the checked file is changed"
    if any(fix.edits for fix in diagnostic.fixes):
        return "the edits for it bring up more errors than they mend"
    if diagnostic.fixes:
        return "no edit is sure to be meant; its help says what would mend it"
    return "no edit is known that mends it"


def _next(
    source: Source, report: Report, sink: Sink, count: Check
) -> tuple[Sequence[Fix], Source] | None:
    """The fixes to make now and the text after them: many at once, or else the first that helps."""
    errors = [d for d in report.diagnostics if d.severity == "error"]
    now = len(errors) + sink.dropped
    together = choose(source, errors)
    if len(together) > 1:
        mended = Source(source.name, apply(source.text, together))
        if _errors(mended, count) < now:
            return together, mended
    for fix in _candidates(source, errors):
        mended = Source(source.name, apply(source.text, (fix,)))
        if _errors(mended, count) <= now:
            return (fix,), mended
    return None


def _candidates(source: Source, errors: Sequence[Diagnostic]) -> Iterator[Fix]:
    """Each fix with edits that can be made by itself, of the first error first."""
    for error in errors:
        for fix in error.fixes:
            yield from choose(source, (error.replace(fixes=(fix,)),))


def _errors(source: Source, count: Check) -> int:
    sink = Sink()
    report = count(source, sink)
    return sum(d.severity == "error" for d in report.diagnostics) + sink.dropped
