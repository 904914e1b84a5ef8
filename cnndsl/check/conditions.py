"""What a network needs of its symbols, against what the file promises.

Each layer's claims are collected as the file is walked. At the end they are judged together: the
exact valid set is their conjunction; lower bounds are inferred; every other condition has to be
promised by a `require`; and once there is a `require`, it has to imply all.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from cnndsl import sizes
from cnndsl.diagnostics.model import Diagnostic, Edit, Fix, Label, Sink
from cnndsl.graph.graph import Constraint
from cnndsl.record import Record
from cnndsl.sizes.dim import Dim
from cnndsl.sizes.promised import remainders
from cnndsl.source import Span

if TYPE_CHECKING:
    from cnndsl.sizes.condition import Condition

MAX_SYMBOLS = 24  # in all conditions of a file together
USUAL_SIZES = (224, 256, 32)  # of images, the most usual first


class Need(Record):
    """A condition that a place in the file needs: `left operator right`.

    `tell` makes the message of that `code` for when it is not met, which takes longer than to see
    that it is.
    """

    condition: "Condition"
    left: Dim
    right: Dim
    code: str
    span: Span
    tell: Callable[[], Diagnostic]


class Promise(Record):
    """One condition of a `require`."""

    condition: "Condition"
    span: Span


class _Unmet(Record):
    """A need that neither follows from what is `known` nor may be inferred."""

    need: Need
    known: "Condition"


class Verdict(Record):
    """The exact valid set in lowest terms, its parts with their places, and a member of it.

    `condition` is the set itself; None where it has all sizes, or none. `promised` are the
    remainders that a `require` leaves of the symbols.
    """

    valid: str
    constraints: tuple[Constraint, ...]
    example: tuple[tuple[str, int], ...] = ()
    condition: "Condition | None" = None
    promised: tuple[tuple[str, int, int], ...] = ()


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
        self._refuse_too_many(needs)
        promised = sizes.Condition.always(self._symbols)
        for promise in self._promises:
            promised = promised & promise.condition
        if promised.never:
            self._sink.add(_contradiction(self._promises))
            return Verdict("False", ())
        parts = [(promise.condition, promise.span) for promise in self._promises]
        known, unmet = promised, list[_Unmet]()
        met: set[tuple[int, ...]] = set()
        for group in needs:
            asked = tuple(id(need.condition) for need in group)
            if asked in met:
                continue  # another layer asked just that, and got the same answer
            met.add(asked)
            joint = group[0].condition
            for need in group[1:]:
                joint = joint & need.condition
            missing = joint.given(known)
            if missing.holds:
                continue
            parts.append((missing, group[0].span))
            if (known & joint).never:
                self._sink.add(self._impossible(self._first_unmet(group, known)))
                return Verdict("False", ())
            if self._must_be_promised(missing):
                unmet.append(_Unmet(self._first_unmet(group, known), known))
            known = known & joint
        if unmet:
            self._sink.add(self._message(unmet, promised, known))
            return Verdict(str(known), ())  # its parts are for modules, which there is none of
        constraints = tuple(_constraint(*part) for part in parts)
        return Verdict(str(known), constraints, _example(known), known, self._remainders(known))

    def _remainders(self, known: "Condition") -> tuple[tuple[str, int, int], ...]:
        """What simplifies the sizes that are shown; without a promise there is nothing."""
        if not self._promises:
            return ()
        return tuple((name, *left) for name, left in remainders(known).items())

    def _refuse_too_many(self, needs: tuple[tuple[Need, ...], ...]) -> None:
        """Raise `TooHard` where conditions speak of more symbols than isl can take in time."""
        conditions = [p.condition for p in self._promises]
        conditions += [need.condition for group in needs for need in group]
        count = len({name for condition in conditions for name in condition.symbols})
        if count > MAX_SYMBOLS:
            what = f"the conditions speak of {count} free sizes and params"
            raise sizes.TooHard(f"{what}, of which at most {MAX_SYMBOLS} are weighed together")

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
        original = need.tell()
        labels = tuple(Label(p.span, "with this") for p in self._promises)
        return original.replace(
            code="E403",
            message=f"{original.message}: no size that is valid up to here is valid here too",
            labels=(*original.labels, *labels),
        )

    def _message(
        self, unmet: list[_Unmet], promised: "Condition", valid: "Condition"
    ) -> Diagnostic:
        """One message for all that is to be promised, since one promise mends it.

        It is that of the first unmet need, with the condition, a counterexample and the promise;
        the other places are named.
        """
        told = [one.need.tell() for one in unmet]
        original, missing = told[0], valid.given(promised)
        enough = missing.requirements()
        require = f"require {', '.join(enough)}"
        fix = Fix(f"promise it: `{require}`", (Edit(self._after_input, f"\n{require}"),))
        blamed = unmet[0].need.left.symbols | unmet[0].need.right.symbols
        labels = [
            Label(promise.span, "this does not suffice")
            for promise in self._promises
            if blamed.intersection(promise.condition.symbols)
        ]
        spans = dict.fromkeys(other.need.span for other in unmet[1:])
        labels += [Label(s, "this needs it, too") for s in spans if s != unmet[0].need.span]
        notes = (_failure(unmet[0].need, unmet[0].known), f"it is valid for exactly {valid}")
        code = "E402" if self._promises else "E401"
        return original.replace(
            code="E304" if original.code == "E304" else code,
            message=f"{original.message} unless {missing.brief()}",
            labels=(*original.labels, *labels),
            notes=(*notes, *original.notes),
            fixes=(fix, *_joint_fixes(told)),
        )


def _joint_fixes(diagnostics: list[Diagnostic]) -> tuple[Fix, ...]:
    """The fixes of the first, each with edits made at all places at once."""
    fixes = diagnostics[0].fixes
    if len(diagnostics) == 1:
        return fixes
    joint: list[Fix] = []
    for number, fix in enumerate(fixes):
        alike = [d.fixes[number] for d in diagnostics if len(d.fixes) > number]
        edits = tuple(edit for one in alike for edit in one.edits) if fix.edits else ()
        joint.append(Fix(f"{fix.message}, and so on below", edits) if edits else fix)
    return tuple(joint)


def _failure(need: Need, known: "Condition") -> str:
    """Sizes that a user might have and for which the need is not met, with what they give."""
    # All that fails there is a counterexample: where it is met, or what is known does not hold.
    found = (need.condition | ~known).typical_counterexample() or {}
    used = need.left.symbols | need.right.symbols
    values = ", ".join(f"{name} = {value}" for name, value in found.items() if name in used)
    left, right = need.left.evaluate(found), need.right.evaluate(found)
    if right == 0 and left > 0:
        return f"for example, {values} leaves a remainder of {left}"
    return f"for example, {values} gives {left} and {right}"


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
