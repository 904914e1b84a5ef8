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

USUAL_SIZES = (224, 256, 32)  # of images, the most usual first


class Need(Record):
    """A condition that a place in the file needs; `diagnostic` says so when it is not met."""

    condition: "Condition"
    diagnostic: Diagnostic


class Promise(Record):
    """One condition of a `require`."""

    condition: "Condition"
    span: Span


class _Unmet(Record):
    """A need that neither follows from what is `known` nor may be inferred.

    `joint` is the condition of its whole group, `missing` what is left of it.
    """

    need: Need
    joint: "Condition"
    missing: "Condition"
    known: "Condition"


class Verdict(Record):
    """The exact valid set in lowest terms, its parts with their places, and a member of it."""

    valid: str
    constraints: tuple[Constraint, ...]
    example: tuple[tuple[str, int], ...] = ()


class Judge:
    """Weighs the needs of a network against the promises of its file."""

    def __init__(
        self,
        symbols: tuple[str, ...],
        promises: tuple[Promise, ...],
        after_input: Span,
        sink: Sink,
    ) -> None:
        """`after_input` is where a missing `require` would be inserted."""
        self._symbols, self._promises = symbols, promises
        self._after_input, self._sink = after_input, sink

    def verdict(self, needs: tuple[tuple[Need, ...], ...]) -> Verdict:
        """Report each group of needs that is not met, once, and give the valid set.

        The needs of a group come from one layer: what is said of its height is mostly true of its
        width as well.
        """
        if not needs and not self._promises:
            valid = " and ".join(f"{name} >= 1" for name in self._symbols) or "True"
            return Verdict(valid, (), tuple((name, USUAL_SIZES[0]) for name in self._symbols))
        promised = sizes.Condition.always(self._symbols)
        for promise in self._promises:
            promised = promised & promise.condition
        if promised.never:
            self._sink.add(_contradiction(self._promises))
            return Verdict("False", ())
        constraints = [_constraint(p.condition, p.span) for p in self._promises]
        known, unmet = promised, list[_Unmet]()
        for group in needs:
            joint = group[0].condition
            for need in group[1:]:
                joint = joint & need.condition
            missing = joint.given(known)
            if missing.holds:
                continue
            constraints.append(_constraint(missing, group[0].diagnostic.span))
            if (known & joint).never:
                self._sink.add(self._impossible(self._first_unmet(group, known)))
                return Verdict("False", tuple(constraints))
            if self._must_be_promised(missing):
                unmet.append(_Unmet(self._first_unmet(group, known), joint, missing, known))
            known = known & joint
        enough = known.given(promised).requirements() if unmet else ()
        for one in unmet:
            self._sink.add(self._message(one, enough))
        return Verdict(str(known), tuple(constraints), _example(known))

    def _must_be_promised(self, missing: "Condition") -> bool:
        return bool(self._promises) or not missing.without_lower_bounds().holds

    def _first_unmet(self, group: tuple[Need, ...], known: "Condition") -> Need:
        """The need that is to blame: one that has to be promised before one that is inferred."""
        failing = [need for need in group if not known.implies(need.condition)]
        for need in failing:
            if self._must_be_promised(need.condition.given(known)):
                return need
        return failing[0]

    def _impossible(self, need: Need) -> Diagnostic:
        original = need.diagnostic
        labels = tuple(Label(p.span, "with this") for p in self._promises)
        return original.replace(
            code="E403",
            message=f"{original.message}: no size that is valid up to here is valid here too",
            labels=(*original.labels, *labels),
        )

    def _message(self, unmet: "_Unmet", enough: tuple[str, ...]) -> Diagnostic:
        """The need's own diagnostic, with its condition, a counterexample, and what to promise.

        `enough` is what the whole network needs, so that after the fix nothing is missing.
        """
        original, known = unmet.need.diagnostic, unmet.known
        labels = tuple(Label(p.span, "this does not imply it") for p in self._promises)
        # Where it is met, or what is known is not: all others are counterexamples.
        example = (unmet.joint | ~known).typical_counterexample() or {}
        shown = ", ".join(f"{n} = {v}" for n, v in example.items() if n in unmet.missing.symbols)
        condition = " and ".join(unmet.missing.requirements())
        require = f"require {', '.join(enough)}"
        promise = Fix(f"promise it: `{require}`", (Edit(self._after_input, f"\n{require}"),))
        return original.replace(
            code="E402" if self._promises else "E401",
            message=f"{original.message}, unless {condition}",
            labels=(*original.labels, *labels),
            notes=(*original.notes, f"for example, it fails for {shown}"),
            fixes=(promise, *original.fixes),
        )


def _example(condition: "Condition") -> tuple[tuple[str, int], ...]:
    """Sizes that a user might have and that are valid, or the smallest ones."""
    for size in USUAL_SIZES:
        usual = dict.fromkeys(condition.symbols, size)
        if condition.contains(usual):
            return tuple(usual.items())
    return tuple((condition.smallest() or {}).items())


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
