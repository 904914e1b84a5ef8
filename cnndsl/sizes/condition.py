"""Conditions on symbols, decided exactly: the image sizes for which something holds.

A `Condition` is a set of assignments of positive integers to symbols (Presburger arithmetic, done
by isl through `presburger`). It answers whether it always holds, implies another, and where it
fails; `describe` finds its text. Files without symbols never get here.
"""

from collections.abc import Iterable, Mapping
from math import lcm

from cnndsl.record import once
from cnndsl.sizes import describe, integers, presburger
from cnndsl.sizes.atoms import Floor, divisions
from cnndsl.sizes.dim import Dim
from cnndsl.sizes.factors import divisors
from cnndsl.sizes.formula import (
    And,
    Between,
    Compare,
    Formula,
    Multiple,
    Operator,
    Or,
    balanced,
    comparisons,
    negated,
    write,
)
from cnndsl.sizes.limits import (
    MAX_DIVISIONS,
    MAX_FACTORED,
    MAX_LISTED,
    MAX_PIECES,
    MAX_RELATED,
    MAX_RELATED_PERIOD,
    TooHard,
    TooLarge,
    Undecidable,
)
from cnndsl.sizes.presburger import budget

__all__ = ["Condition", "TooHard", "Undecidable", "budget"]

_TYPICAL = (32, 64, 224, 16, 8, 4, 2, 1)
_TYPICAL_MOST = 1_024
_MOST_CLAUSES = 12


class Condition:
    """A set of positive assignments to `symbols`; never changes.

    Conditions may speak of different symbols: where two meet, each says nothing about the symbols
    that only the other has. Any question may raise `TooHard`; see `budget`.
    """

    def __init__(
        self,
        symbols: tuple[str, ...],
        members: presburger.Set,
        clauses: tuple[Compare, ...] = (),
        related: frozenset[Floor] = frozenset(),
    ) -> None:
        """For this room only: use `always`, `compare` and `of`.

        `clauses` are relations between symbols as the file put them. The text uses them where they
        prove to be the condition; nothing else trusts them. `related` are the divisions in
        comparisons of several symbols, which are capped.
        """
        period = lcm(*(division.period for division in related))
        if len(related) > MAX_RELATED or period > MAX_RELATED_PERIOD:
            raise TooHard("symbols are related by too many divisions, or too large ones")
        self.symbols = symbols
        self.members = members
        self.clauses = clauses
        self.related = related

    # ── making ───────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def always(cls, symbols: Iterable[str]) -> "Condition":
        """Holds for all positive values."""
        names = tuple(sorted(set(symbols)))
        with budget():
            return cls(names, presburger.positive(len(names)))

    @classmethod
    def compare(cls, left: Dim, operator: Operator, right: Dim | int) -> "Condition":
        """Where `left operator right`; `Undecidable` if that multiplies symbols with each other."""
        difference = left - right
        symbols = tuple(sorted(left.symbols | (left - difference).symbols))
        if not difference.is_linear:
            return _product_compared(left, operator, right) & cls.always(symbols)
        inside = divisions(difference)
        if len(inside) > MAX_DIVISIONS:
            raise TooHard(f"a comparison has more than {MAX_DIVISIONS} different divisions")
        if len(difference.symbols) < 2:
            with budget():
                return cls(symbols, presburger.compared(difference, operator, symbols))
        always = cls.always(symbols).members
        related = cls(symbols, always, (), inside).related  # refused here, before isl has to try
        clause = balanced(difference, operator)
        with budget():
            members = presburger.compared(difference, operator, symbols)
        return cls(symbols, members, (clause,) if isinstance(clause, Compare) else (), related)

    @classmethod
    def of(cls, formula: Formula, symbols: Iterable[str] = ()) -> "Condition":
        """What a formula means."""
        result: Condition
        match formula:
            case Compare(left, operator, right):
                result = cls.compare(left, operator, right)
            case Between(low, middle, high):
                at_least = cls.compare(middle, ">=", Dim.of(low))
                result = at_least & cls.compare(middle, "<=", Dim.of(high))
            case Multiple(value, divisor):
                result = cls.compare(value % divisor, "==", Dim.of(0))
            case And(parts):
                result = cls.always(symbols)
                for part in parts:
                    result = result & cls.of(part)
            case Or(parts):
                result = ~cls.always(symbols)
                for part in parts:
                    result = result | cls.of(part)
        return result & cls.always(symbols)

    def __and__(self, other: "Condition") -> "Condition":
        symbols, a, b = self._with(other)
        with budget():
            joined = self._limited(a.intersect(b))
        clauses = tuple(dict.fromkeys(self.clauses + other.clauses))[:_MOST_CLAUSES]
        return Condition(symbols, joined, clauses, self.related | other.related)

    def __or__(self, other: "Condition") -> "Condition":
        symbols, a, b = self._with(other)
        with budget():
            return Condition(symbols, self._limited(a.union(b)), (), self.related | other.related)

    def __invert__(self) -> "Condition":
        return self._complement

    @once
    def _complement(self) -> "Condition":
        clauses = tuple(negated(c) for c in self.clauses) if len(self.clauses) == 1 else ()
        with budget():
            outside = presburger.positive(len(self.symbols)).subtract(self.members)
            return Condition(self.symbols, self._limited(outside), clauses, self.related)

    def given(self, other: "Condition") -> "Condition":
        """What is still to be shown once `other` is known: with it, the same as this with it."""
        symbols, a, b = self._with(other)
        with budget():
            if b.is_subset(a):
                return Condition.always(symbols)
            rest = a.gist(b).intersect(presburger.positive(len(symbols))).coalesce()
            return Condition(symbols, rest, self.clauses, self.related)

    def about(self, symbols: Iterable[str]) -> "Condition":
        """What it says of some symbols alone: their values that can be part of a member."""
        kept = tuple(name for name in self.symbols if name in set(symbols))
        positions = [self.symbols.index(name) for name in kept]
        clauses = tuple(c for c in self.clauses if c.left.symbols | c.right.symbols <= {*kept})
        with budget():
            return Condition(kept, presburger.onto(self.members, positions), clauses, self.related)

    def without_lower_bounds(self) -> "Condition":
        """What is left to promise, since lower bounds are inferred.

        Together with the bounds of `lower_bounds` it is the same condition.
        """
        if self.never:
            return self
        with budget():
            lows = [presburger.bounds(self.members, i)[0] for i in range(len(self.symbols))]
            inferred = presburger.box(lows, [None] * len(lows))
            return self.given(Condition(self.symbols, inferred))

    # ── asking ───────────────────────────────────────────────────────────────────────────────────

    @once
    def holds(self) -> bool:
        """Whether it holds for all positive values."""
        return self._complement.never

    @once
    def never(self) -> bool:
        """Whether it holds for no positive values."""
        with budget():
            return self.members.is_empty()

    def implies(self, other: "Condition") -> bool:
        """Whether the other holds wherever this one does."""
        _, a, b = self._with(other)
        with budget():
            return a.is_subset(b)

    def __eq__(self, other: object) -> bool:
        """Whether they hold for the same values."""
        if not isinstance(other, Condition):
            return NotImplemented
        _, a, b = self._with(other)
        with budget():
            return a.is_equal(b)

    __hash__ = None  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType] (equality is a proof, not a comparison of parts)

    def contains(self, values: Mapping[str, int]) -> bool:
        """Whether it holds for these values; `KeyError` where one is missing."""
        if any(values[name] < 1 for name in self.symbols):
            return False
        return any(
            all(
                value == 0 if is_zero else value >= 0
                for value, is_zero in ((dim.evaluate(values), zero) for dim, zero in case)
            )
            for case in self.cases
        )

    def smallest(self) -> dict[str, int] | None:
        """The member with the smallest value of the first symbol, and so on."""
        with budget():
            found = presburger.smallest(self.members)
        return None if found is None else dict(zip(self.symbols, found, strict=True))

    def counterexample(self) -> dict[str, int] | None:
        """The smallest values for which it fails, in the same order."""
        return self._complement.smallest()

    def typical_counterexample(self) -> dict[str, int] | None:
        """Values for which it fails and which a user might have: images of 32 pixels and more."""
        count = len(self.symbols)
        outside = self._complement.members
        with budget():
            for low in _TYPICAL:
                usual = presburger.box([low] * count, [_TYPICAL_MOST] * count)
                found = presburger.smallest(outside.intersect(usual))
                if found is not None:
                    return dict(zip(self.symbols, found, strict=True))
        return self.counterexample()

    def first_members(self, most: int) -> tuple[dict[str, int], ...] | None:
        """All members, if there are at most so many."""
        found: list[dict[str, int]] = []
        left = self.members
        with budget():
            while (member := presburger.smallest(left)) is not None:
                if len(found) == most:
                    return None
                found.append(dict(zip(self.symbols, member, strict=True)))
                left = left.subtract(presburger.box(member, member))
        return tuple(found)

    def lower_bounds(self) -> dict[str, int]:
        """The smallest value of each symbol that cannot be 1."""
        found = self._bounds
        return {name: low for name, (low, _) in found.items() if low > 1}

    def upper_bounds(self) -> dict[str, int]:
        """The largest value of each symbol that has one."""
        found = self._bounds
        return {name: high for name, (_, high) in found.items() if high is not None}

    @once
    def _bounds(self) -> dict[str, tuple[int, int | None]]:
        if self.never:
            return {}
        with budget():
            return {name: presburger.bounds(self.members, i) for i, name in enumerate(self.symbols)}

    # ── text ─────────────────────────────────────────────────────────────────────────────────────

    def __str__(self) -> str:
        """The language's expression in lowest terms; Python evaluates it to the same answer.

        Where it always holds that is `H >= 1`, and `True` only where there are no symbols.
        """
        return write(self._formula)

    def pretty(self) -> str:
        """The text for messages: `H ≥ 32 and H is a multiple of 16`."""
        return write(self._formula, pretty=True)

    def requirements(self) -> tuple[str, ...]:
        """The conditions to put behind `require`, without bounds that follow from the others."""
        formula = self._terse
        return tuple(write(p) for p in (formula.parts if isinstance(formula, And) else (formula,)))

    def brief(self) -> str:
        """The same as one expression, for messages."""
        return write(self._terse)

    @once
    def _terse(self) -> Formula:
        with budget():
            return describe.formula(self, terse=True)

    def __repr__(self) -> str:
        return f"Condition({str(self)!r})"

    @once
    def _formula(self) -> Formula:
        with budget():
            if self.symbols and self.holds:
                return And(tuple(Compare(Dim.symbol(n), ">=", Dim.of(1)) for n in self.symbols))
            return describe.formula(self, terse=False)

    # ── for `describe` ───────────────────────────────────────────────────────────────────────────

    @once
    def cases(self) -> tuple[tuple[presburger.Inequality, ...], ...]:
        """Cases of which one has to hold, as sizes that have to be 0, or at least 0."""
        with budget():
            try:
                return presburger.cases(self.members, self.symbols)
            except TooLarge as error:
                raise TooHard(str(error)) from error

    def separate(self) -> "tuple[Condition, ...]":
        """Simpler conditions of which one has to hold."""
        with budget():
            pieces = presburger.separate(self.members)
        return tuple(Condition(self.symbols, piece, (), self.related) for piece in pieces)

    def equalities(self) -> tuple[Dim, ...]:
        """Sizes that are 0 for all members."""
        with budget():
            return presburger.equalities(self.members, self.symbols)

    def means(self, formula: Formula) -> bool:
        """Whether the formula is exactly this condition, for positive symbols."""
        if comparisons(formula) > MAX_PIECES:
            return False
        return Condition.of(formula, self.symbols) == self

    def line(self) -> integers.Line | None:
        """A condition on one symbol that some size meets, from number to number.

        None where it repeats itself only after more than `MAX_LISTED` sizes.
        """
        (name,) = self.symbols
        low, high = self._bounds[name]
        period = lcm(*(atom.period for case in self.cases for dim, _ in case for atom in dim.atoms))
        line = integers.Line(
            lambda n: self.contains({name: n}), low, high, period, frozenset(), low
        )
        if high is not None:
            return line
        if period > MAX_LISTED:
            return None
        far = period << 256  # beyond any bound that numbers of MAX_BITS can make
        remainders = frozenset(r for r in range(period) if line.contains(far + r))
        pattern = integers.pattern(Dim.symbol(name), period, remainders)
        if comparisons(pattern) > MAX_PIECES:
            return None
        periodic = Condition.of(pattern, (name,))
        with budget():
            differing = self.members.subtract(periodic.members).union(
                periodic.members.subtract(self.members)
            )
            last = None if differing.is_empty() else presburger.bounds(differing, 0)[1]
        return line.replace(remainders=remainders, settled=1 if last is None else last + 1)

    def _with(self, other: "Condition") -> tuple[tuple[str, ...], presburger.Set, presburger.Set]:
        """Both over the symbols of both."""
        if self.symbols == other.symbols:
            return self.symbols, self.members, other.members
        symbols = tuple(sorted({*self.symbols, *other.symbols}))
        with budget():
            a = presburger.with_symbols(self.members, self.symbols, symbols)
            b = presburger.with_symbols(other.members, other.symbols, symbols)
        return symbols, a, b

    @staticmethod
    def _limited(members: presburger.Set) -> presburger.Set:
        members = members.coalesce()
        if members.n_basic_set() > MAX_PIECES:
            raise TooHard(f"a condition on sizes has more than {MAX_PIECES} cases")
        if presburger.most_divisions(members) > MAX_DIVISIONS:
            raise TooHard(f"a condition on sizes has more than {MAX_DIVISIONS} divisions")
        return members


def _product_compared(left: Dim, operator: Operator, right: Dim | int) -> Condition:
    """Where a product of linear sizes is, or is not, a number: each factor divides the number."""
    difference = left - right
    total = (left - difference).constant
    content, factors = difference.factors() if total is None else left.factors()
    if operator not in ("==", "!=") or not all(factor.is_linear for factor in factors):
        raise Undecidable(f"whether {difference} {operator} 0 depends on products of symbols")
    quotient, odd = divmod(total or 0, content)
    found = ~Condition.always(difference.symbols)
    if not total:
        for factor in factors:
            found = found | Condition.compare(factor, "==", 0)
    elif not odd:
        found = found | _equal_product(factors, quotient)
    return found if operator == "==" else ~found


def _equal_product(factors: tuple[Dim, ...], total: int) -> Condition:
    """Where the factors multiply to a total that is not 0."""
    first, *others = factors
    if not others:
        return Condition.compare(first, "==", total)
    if abs(total) > MAX_FACTORED:
        raise TooHard(f"the divisors of {abs(total)} are too many to try")
    found = ~Condition.always(symbol for factor in factors for symbol in factor.symbols)
    signs = (1,) if Condition.compare(first, ">=", 0).holds else (1, -1)
    for divisor in divisors(abs(total)):
        for sign in signs:
            here = Condition.compare(first, "==", sign * divisor)
            if not here.never:
                found = found | (here & _equal_product(tuple(others), total // (sign * divisor)))
    return found
