"""What a network needs of its symbols, against what the file promises.

Each layer's claims are collected as the file is walked. At the end they are judged together: the
exact valid set is their conjunction; lower bounds are inferred; every other condition has to be
promised by a `require`; and once there is a `require`, it has to imply all.
"""

from typing import TYPE_CHECKING

from cnndsl import sizes
from cnndsl.diagnostics.model import Diagnostic, Edit, Fix, Label, Sink
from cnndsl.graph.graph import Constraint
from cnndsl.record import Record
from cnndsl.source import Span

if TYPE_CHECKING:
    from cnndsl.sizes.condition import Condition


class Need(Record):
    """A condition that a place in the file needs; `diagnostic` says so when it is not met."""

    condition: "Condition"
    diagnostic: Diagnostic


class Promise(Record):
    """One condition of a `require`."""

    condition: "Condition"
    span: Span


class Verdict(Record):
    """The exact valid set in lowest terms, and its parts with their places."""

    valid: str
    constraints: tuple[Constraint, ...]


def judge(
    symbols: tuple[str, ...],
    needs: tuple[Need, ...],
    promises: tuple[Promise, ...],
    after_input: Span,
    sink: Sink,
) -> Verdict:
    """Report each need that is not met, and give the valid set.

    `after_input` is where a missing `require` would be inserted.
    """
    if not needs and not promises:
        return Verdict("True", ())
    promised = sizes.Condition.always(symbols)
    for promise in promises:
        promised = promised & promise.condition
    if promises and promised.never:
        sink.add(_contradiction(promises))
        return Verdict("False", ())
    valid, constraints = promised, [_constraint(p.condition, p.span) for p in promises]
    known = promised
    for need in needs:
        valid = valid & need.condition
        missing = need.condition.given(known)
        if missing.holds:
            continue
        constraints.append(_constraint(missing, need.diagnostic.span))
        if known.__and__(need.condition).never:
            sink.add(need.diagnostic)
            continue
        rest = missing.without_lower_bounds()
        if promises or not rest.holds:
            sink.add(_unmet(need, missing, known, promises, after_input))
        known = known & need.condition
    return Verdict(str(valid), tuple(constraints))


def _constraint(condition: "Condition", span: Span) -> Constraint:
    return Constraint(str(condition), condition.pretty(), span)


def _contradiction(promises: tuple[Promise, ...]) -> Diagnostic:
    return Diagnostic(
        "E403",
        "no size meets all that is required",
        promises[-1].span,
        labels=tuple(Label(p.span, "and this") for p in promises[:-1]),
        fixes=(Fix("weaken one of them"),),
    )


def _unmet(
    need: Need,
    missing: "Condition",
    known: "Condition",
    promises: tuple[Promise, ...],
    after_input: Span,
) -> Diagnostic:
    """The need's own diagnostic, with the exact condition, a counterexample and the promise."""
    text = str(missing)
    example = (known & ~need.condition).smallest()
    shown = ", ".join(f"{n} = {v}" for n, v in (example or {}).items())
    notes = (f"it holds exactly for {missing.pretty()}",)
    if shown:
        notes = (*notes, f"for example, it fails for {shown}")
    require = ", ".join(text.split(" and ")) if " or " not in text else text
    promise = Fix(f"promise it: `require {require}`", (Edit(after_input, f"\nrequire {require}"),))
    labels = tuple(Label(p.span, "this does not imply it") for p in promises)
    original = need.diagnostic
    return original.replace(
        code="E402" if promises else "E401",
        message=f"{original.message}, unless {missing.pretty()}",
        labels=(*original.labels, *labels),
        notes=(*original.notes, *notes),
        fixes=(promise, *original.fixes),
    )
