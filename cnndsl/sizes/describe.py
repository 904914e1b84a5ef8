"""Finds the text of a condition: independent symbols apart, each in lowest terms, all proved.

Knows conditions by their questions and formulas by their meaning; nothing of isl. Each formula is
one of several candidates, the shortest that means exactly the condition.
"""

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import TYPE_CHECKING

from cnndsl.sizes import integers
from cnndsl.sizes.atoms import Floor
from cnndsl.sizes.dim import Dim
from cnndsl.sizes.formula import (
    NEVER,
    And,
    Compare,
    Formula,
    Multiple,
    Or,
    balanced,
    both,
    comparisons,
    either,
    negated,
    shortest,
    write,
)
from cnndsl.sizes.limits import TooHard

if TYPE_CHECKING:
    from cnndsl.sizes.condition import Condition

_MOST_PRUNED = 16
_MOST_PIECES = 32


def formula(condition: "Condition", *, terse: bool) -> Formula:
    """The condition in lowest terms, for positive symbols.

    `terse` leaves out lower bounds that follow from the rest: `H >= 16` beside `H % 16 == 0`.
    """
    if condition.never:
        return NEVER
    parts = _independent(condition)
    return both(_connected(part, terse=terse) for part in parts if not part.holds)


def _independent(condition: "Condition") -> list["Condition"]:
    """Conditions on few symbols each, none in two, that together are this one."""
    parts: list[Condition] = []
    for size in (1, 2):
        for names in combinations(condition.symbols, size):
            if len(names) >= len(condition.symbols) or not {*names} <= {*condition.symbols}:
                continue
            alone = condition.about(names)
            others = condition.about(n for n in condition.symbols if n not in names)
            if alone & others == condition:
                parts.append(alone)
                condition = others
    parts.append(condition)
    return sorted(parts, key=lambda part: part.symbols)


def _connected(condition: "Condition", *, terse: bool) -> Formula:
    if len(condition.symbols) > 1:
        solved = _solved(condition, terse=terse)
        if solved is not None:
            return solved
        candidates = _relations(condition, terse=terse)
    else:
        candidates = _sizes(condition, terse=terse)
    for candidate in candidates:
        if condition.means(candidate):
            return candidate
    raise TooHard("a condition on sizes is too irregular to be written")


def _sizes(condition: "Condition", *, terse: bool) -> Iterator[Formula]:
    line = condition.line()
    if line is not None:
        yield from integers.formulas(Dim.symbol(condition.symbols[0]), line, terse=terse)
    outside = [c for c in _by_cases(~condition) if isinstance(c, Compare | Multiple)]
    for candidate in map(negated, outside):
        yield balanced(candidate.left - candidate.right, candidate.operator)
    yield from (_pruned(condition, candidate) for candidate in _by_cases(condition))


def _solved(condition: "Condition", *, terse: bool) -> Formula | None:
    """`… and H == W`, where all members have one symbol as an expression of the others."""
    for equality in condition.equalities():
        for name in reversed(condition.symbols):
            symbol = Dim.symbol(name)
            coefficient = equality.terms and dict(equality.terms).get(symbol.terms[0][0], 0)
            value = symbol - equality if coefficient == 1 else symbol + equality
            if coefficient not in (1, -1) or name in value.symbols:
                continue
            others = condition.about(n for n in condition.symbols if n != name)
            swapped = len(value.terms) == 1 and not _divides(value) and value.terms[0][1] == 1
            equation = Compare(value, "==", symbol) if swapped else Compare(symbol, "==", value)
            found = both((formula(others, terse=terse), equation))
            if condition.means(found):
                return found
    return None


def _divides(value: Dim) -> bool:
    return any(isinstance(atom, Floor) for atom in value.atoms)


def _relations(condition: "Condition", *, terse: bool) -> list[Formula]:
    """Ways to write a condition that relates two symbols or more, the shortest first."""
    found = [*_by_cases(condition)]
    outside = _solved(~condition, terse=True)
    if isinstance(outside, Compare):
        found.append(negated(outside))
    apart = [condition.about((name,)) for name in condition.symbols]
    known = apart[0]
    for part in apart[1:]:
        known = known & part
    bounds = both(_connected(part, terse=terse) for part in apart if not part.holds)
    found += [both((bounds, rest)) for rest in _by_cases(condition.given(known))]
    pieces = condition.separate()
    if 1 < len(pieces) <= _MOST_PIECES:
        found.append(either(formula(piece, terse=terse) for piece in pieces))
    if condition.clauses:
        found.append(both((bounds, *condition.clauses)))
    return shortest(_pruned(condition, candidate) for candidate in found)


def _by_cases(condition: "Condition") -> Iterator[Formula]:
    """The cases of the set one by one: always right, seldom short."""
    cases = (
        both(
            balanced(dim, "==" if is_zero else ">=")
            for dim, is_zero in case
            if is_zero or not _is_positive(dim)
        )
        for case in condition.cases
    )
    yield either(sorted(cases, key=write))


def _is_positive(dim: Dim) -> bool:
    """Whether it is `H - 1`, which is never below 0."""
    rest = dim + 1
    return len(rest.terms) == 1 and rest == rest.positive_part() and not _divides(rest)


def _pruned(condition: "Condition", candidate: Formula) -> Formula:
    """The formula without the parts that can go: those that the others imply, or cover."""
    if comparisons(candidate) > _MOST_PRUNED or not condition.means(candidate):
        return candidate
    return _thinned(candidate, condition.means)


def _thinned(whole: Formula, fits: Callable[[Formula], bool]) -> Formula:
    """`whole` with as many parts left out, at any depth, as still fit."""
    if not isinstance(whole, And | Or):
        return whole
    join = both if isinstance(whole, And) else either
    parts = list(whole.parts)
    for part in whole.parts:
        others = [other for other in parts if other is not part]
        if others and fits(join(others)):
            parts = others
    for place, part in enumerate(parts):

        def fits_here(smaller: Formula, place: int = place) -> bool:
            return fits(join((*parts[:place], smaller, *parts[place + 1 :])))

        parts[place] = _thinned(part, fits_here)
    return join(parts)
