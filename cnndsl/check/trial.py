"""Fixes are tried before they are offered: the edits are made, and the text is checked again.

Knows reports and edits; is handed the check as a function.
"""

from collections.abc import Callable
from time import thread_time
from typing import Literal

from cnndsl.check.kept import keeps_sizes
from cnndsl.check.report import Report
from cnndsl.diagnostics.fix import apply, moved
from cnndsl.diagnostics.model import Diagnostic, Fix
from cnndsl.source import Source

# How much is checked again for one report: in characters, a layer counting as some of them, which
# is what either costs. That is a file of fifty layers thirty times.
MOST_WORK = 100_000
CHARACTERS_A_LAYER = 30
# Files made to be slow are slow for other reasons, so that there is a bound on the time as well, of
# the check and its trials together. An ordinary file, on a slow machine too, never comes near it,
# and so gets the same fixes each time.
MOST_SECONDS = 1.5

_CONSEQUENCES = ("E3", "E4")  # what an earlier mistake may have hidden
_NAMES = ("E1", "E2")  # what cannot be read, or names nothing: its line was never looked at
_NO_INPUT = "E209"
_LIMITS = "E5"

# How many errors are left after a fix that helps.
Outcome = int | Literal["untried", "no help"]


def tried(
    report: Report, source: Source, check: Callable[[Source], Report], seconds: float = 0.0
) -> tuple[Diagnostic, ...]:
    """The report's diagnostics with the fixes that proved good; the fewest errors left come first.

    `seconds` is what the check took of the processor, and so about what each trial will take.
    One that could not be tried, because it changes another file or there was too much to check
    again, is still told, without edits: nobody has seen that they help.
    """
    trial = _Trial(report, source, check, seconds)
    # Where not all can be tried, then the first one of each message.
    most = max((len(one.fixes) for one in report.diagnostics), default=0)
    for rank in range(most):
        for one in report.diagnostics:
            if rank < len(one.fixes):
                trial.make(one, rank)
    return tuple(
        one.replace(fixes=trial.proved(one)) if any(fix.edits for fix in one.fixes) else one
        for one in report.diagnostics
    )


class _Trial:
    def __init__(
        self, report: Report, source: Source, check: Callable[[Source], Report], seconds: float
    ) -> None:
        self._source, self._check, self._seconds = source, check, seconds
        self._end = thread_time() - seconds + MOST_SECONDS
        self._report = report
        self._cost = len(source.text) + CHARACTERS_A_LAYER * len(report.layers)
        self._left = MOST_WORK
        self._outcomes: dict[tuple[int, int], Outcome] = {}

    def make(self, diagnostic: Diagnostic, rank: int) -> None:
        """Try one of the fixes of a diagnostic."""
        outcome = self._outcome(diagnostic, diagnostic.fixes[rank])
        self._outcomes[id(diagnostic), rank] = outcome

    def proved(self, diagnostic: Diagnostic) -> tuple[Fix, ...]:
        """The fixes of one diagnostic that may be offered, the best first."""
        found: list[tuple[int, Fix]] = []
        advice: list[Fix] = []
        for rank, fix in enumerate(diagnostic.fixes):
            match self._outcomes[id(diagnostic), rank]:
                case int(left):
                    found.append((left, fix))
                case "untried":
                    advice.append(Fix(fix.message))
                case "no help":
                    pass
        if not found and not advice and diagnostic.code.startswith(_NAMES):
            # What is meant is said, though more is wrong.
            return (Fix(diagnostic.fixes[0].message),)
        return (*(fix for _, fix in sorted(found, key=lambda pair: pair[0])), *advice)

    def _outcome(self, diagnostic: Diagnostic, fix: Fix) -> Outcome:
        own = all(edit.span.source is self._source for edit in fix.edits)
        late = thread_time() + self._seconds > self._end
        if not fix.edits or not own or late or self._left < self._cost:
            return "untried"
        self._left -= self._cost
        mended = Source(self._source.name, apply(self._source.text, (fix,)))
        after = self._check(mended)
        left = _placed(after, mended, lambda offset: offset)
        before = _placed(self._report, self._source, lambda offset: moved(fix, offset))
        shown = [d for key, d in left.items() if key not in before and d.severity == "error"]
        if any(d.code.startswith(_LIMITS) for d in shown):
            return "untried"
        if _key(diagnostic, self._source, lambda offset: moved(fix, offset)) in left:
            return "no help"
        if not keeps_sizes(self._report.layers, after.layers):
            return "no help"
        # What comes to light below the changed lines may have been hidden by the mistake.
        place = diagnostic.span
        ends = [edit.span.end for edit in fix.edits]
        last = max(*ends, place.end if place.source is self._source else 0)
        rest = self._source.text[last:].partition("\n")[2]
        below = len(mended.text) - len(rest)
        consequences = _CONSEQUENCES
        if not diagnostic.code.startswith(_CONSEQUENCES) and place.source is self._source:
            # What a misspelt word hid may stand on its own line.
            below = mended.line_start(mended.position(moved(fix, place.start))[0])
            consequences = (*_CONSEQUENCES, _NO_INPUT)
        if all(
            d.code.startswith(consequences) and d.span.source is mended and d.span.start >= below
            for d in shown
        ):
            return sum(d.severity == "error" for d in left.values())
        return "no help"


_Key = tuple[str, str, object]


def _placed(report: Report, source: Source, place: Callable[[int], int]) -> dict[_Key, Diagnostic]:
    """The diagnostics by code, message and place: the next level may make the same mistake."""
    return {_key(diagnostic, source, place): diagnostic for diagnostic in report.diagnostics}


def _key(diagnostic: Diagnostic, source: Source, place: Callable[[int], int]) -> _Key:
    span = diagnostic.span
    where = place(span.start) if span.source is source else (span.source.name, span.start)
    return diagnostic.code, diagnostic.message, where
