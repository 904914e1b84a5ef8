"""Fixes are tried before they are offered: the edits are made, and the text is checked again.

Knows reports and edits; is handed the check as a function.
"""

from collections import Counter
from collections.abc import Callable
from time import thread_time
from typing import Literal

from cnndsl.check.report import Report
from cnndsl.diagnostics.fix import apply
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
_LIMITS = "E5"


def tried(
    report: Report, source: Source, check: Callable[[Source], Report], seconds: float = 0.0
) -> tuple[Diagnostic, ...]:
    """The report's diagnostics with the fixes that proved good, those first that leave no error.

    `seconds` is what the check took of the processor, and so about what each trial will take.
    One that could not be tried, because it changes another file or there was too much to check
    again, is still told, without edits: nobody has seen that they help.
    """
    trial = _Trial(report, source, check, seconds)
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
        self._before = _counted(report)
        self._cost = len(source.text) + CHARACTERS_A_LAYER * len(report.layers)
        self._left = MOST_WORK

    def proved(self, diagnostic: Diagnostic) -> tuple[Fix, ...]:
        """The fixes of one diagnostic that may be offered, the best first."""
        found: list[tuple[int, Fix]] = []
        for fix in diagnostic.fixes:
            match self._outcome(diagnostic, fix):
                case "good":
                    found.append((0, fix))
                case "more to mend":
                    found.append((1, fix))
                case "untried":
                    found.append((2, Fix(fix.message)))
                case "no help":
                    pass
        return tuple(fix for _, fix in sorted(found, key=lambda pair: pair[0]))

    def _outcome(
        self, diagnostic: Diagnostic, fix: Fix
    ) -> Literal["good", "more to mend", "untried", "no help"]:
        own = all(edit.span.source is self._source for edit in fix.edits)
        late = thread_time() + self._seconds > self._end
        if not fix.edits or not own or late or self._left < self._cost:
            return "untried"
        self._left -= self._cost
        text = self._source.text
        mended = Source(self._source.name, apply(text, (fix,)))
        report = self._check(mended)
        new = _counted(report) - self._before
        shown = [d for d in report.diagnostics if d.severity == "error" and new[_key(d)]]
        if any(d.code.startswith(_LIMITS) for d in shown):
            return "untried"
        if _counted(report)[_key(diagnostic)] >= self._before[_key(diagnostic)]:
            return "no help"
        # What comes to light below the changed lines may have been hidden by the mistake.
        place = diagnostic.span
        ends = [edit.span.end for edit in fix.edits]
        last = max(*ends, place.end if place.source is self._source else 0)
        rest = text[last:].partition("\n")[2]
        below = len(mended.text) - len(rest)
        if all(
            d.code.startswith(_CONSEQUENCES) and d.span.source is mended and d.span.start >= below
            for d in shown
        ):
            return "more to mend" if shown else "good"
        return "no help"


def _key(diagnostic: Diagnostic) -> tuple[str, str]:
    return diagnostic.code, diagnostic.message


def _counted(report: Report) -> Counter[tuple[str, str]]:
    return Counter(map(_key, report.diagnostics))
