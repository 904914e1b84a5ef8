"""Writes sets of positive integers: bounds, remainders, single sizes.

A set that comes from sums, comparisons and floor divisions of one symbol becomes periodic from
some size on. Knows such sets by what `Line` says about them; knows nothing of isl. It offers
formulas, the shortest first, and whoever asked proves the one to be shown.
"""

from collections.abc import Callable, Iterator
from math import gcd, inf

from cnndsl.record import Record
from cnndsl.sizes.dim import Dim
from cnndsl.sizes.factors import divisors
from cnndsl.sizes.formula import (
    ALWAYS,
    Between,
    Compare,
    Formula,
    Multiple,
    both,
    either,
    negated,
    shortest,
)
from cnndsl.sizes.limits import MAX_LISTED

_MOST_SINGLES = 16


class Line(Record):
    """A set of positive integers with a smallest member.

    From `settled` on it has exactly the members whose remainder by `period` is in `remainders`; a
    bounded set has a `high`, its largest member, and no remainders.
    """

    contains: Callable[[int], bool]
    low: int
    high: int | None
    period: int
    remainders: frozenset[int]
    settled: int


def formulas(x: Dim, line: Line, *, terse: bool) -> list[Formula]:
    """Ways to write the set, the shortest first; none where it is too irregular to list.

    `terse` leaves out a lower bound that the remainders imply for positive sizes.
    """
    if line.high is None:
        return shortest(_endless(x, line, terse=terse))
    return shortest(_bounded(x, line, line.high))


def _endless(x: Dim, line: Line, *, terse: bool) -> Iterator[Formula]:
    repeated = pattern(x, line.period, line.remainders)
    first = _first_from(line, 1)
    implied = line.low == first and (terse or not isinstance(repeated, Multiple))
    above = ALWAYS if implied else _at_least(x, line.low)
    if line.settled - line.low > MAX_LISTED:
        yield both((above, repeated))
        return
    early = range(line.low, line.settled)
    expected = {n for n in early if n % line.period in line.remainders}
    members = {n for n in early if line.contains(n)}
    missing = sorted(expected - members)
    if members <= expected and len(missing) <= _MOST_SINGLES:
        yield both((above, repeated, *(Compare(x, "!=", Dim.of(n)) for n in missing)))
    if members != expected:
        if expected <= members and first == min(expected, default=line.settled):
            for listed in _listed(x, sorted(members - expected), line.period):
                yield either((listed, repeated))
        start = max(members ^ expected) + 1
        later = both((_at_least(x, _first_from(line, start)), repeated))
        for listed in _listed(x, sorted(n for n in members if n < start), line.period):
            yield either((listed, later))


def _first_from(line: Line, start: int) -> int:
    """The first number from `start` on with one of the remainders."""
    return min(start + (r - start) % line.period for r in line.remainders)


def _bounded(x: Dim, line: Line, high: int) -> Iterator[Formula]:
    if high - line.low < MAX_LISTED:
        members = [n for n in range(line.low, high + 1) if line.contains(n)]
        yield from _listed(x, members, line.period)
        return
    yield _range(x, line.low, high)
    if line.period <= MAX_LISTED:
        last = range(high - line.period + 1, high + 1)
        remainders = frozenset(n % line.period for n in last if line.contains(n))
        yield both((_range(x, line.low, high), pattern(x, line.period, remainders)))


def _listed(x: Dim, members: list[int], period: int) -> Iterator[Formula]:
    """Ways to write a finite set, from all of its members."""
    runs = _runs(members)
    if len(runs) <= MAX_LISTED // 8:
        yield either(_range(x, first, last) for first, last in runs)
    if not members:
        return
    low, high = members[0], members[-1]
    missing = sorted(set(range(low, high + 1)) - set(members))
    if len(missing) <= _MOST_SINGLES:
        yield both((_range(x, low, high), *(Compare(x, "!=", Dim.of(n)) for n in missing)))
    step = gcd(*(n - low for n in members))
    for modulus in {step, period}:
        remainders = frozenset(n % modulus for n in members) if modulus > 1 else frozenset[int]()
        wanted = [n for n in range(low, high + 1) if modulus > 1 and n % modulus in remainders]
        if wanted == members and modulus <= MAX_LISTED:
            yield both((_range(x, low, high), pattern(x, modulus, remainders)))


def _at_least(x: Dim, low: int) -> Formula:
    return ALWAYS if low <= 1 else Compare(x, ">=", Dim.of(low))


def _range(x: Dim, low: int, high: int) -> Formula:
    if low == high:
        return Compare(x, "==", Dim.of(low))
    return Compare(x, "<=", Dim.of(high)) if low <= 1 else Between(low, x, high)


def _runs(members: list[int]) -> list[tuple[int, int]]:
    """First and last of each stretch without a gap."""
    runs: list[tuple[int, int]] = []
    before: float = -inf
    for n in members:
        if n == before + 1:
            runs[-1] = (runs[-1][0], n)
        else:
            runs.append((n, n))
        before = n
    return runs


# ── remainders ───────────────────────────────────────────────────────────────────────────────────


def pattern(x: Dim, period: int, remainders: frozenset[int]) -> Formula:
    """The shortest way to say that the remainder by `period` is one of these."""
    period, remainders = _least(period, remainders)
    if len(remainders) == period:
        return ALWAYS
    return shortest(_patterns(x, period, remainders))[0]


def _least(period: int, remainders: frozenset[int]) -> tuple[int, frozenset[int]]:
    """The smallest period of the same numbers."""
    for divisor in divisors(period):
        reduced = frozenset(r % divisor for r in remainders)
        if len(reduced) * (period // divisor) == len(remainders):
            return divisor, reduced
    return period, remainders


def _patterns(x: Dim, period: int, remainders: frozenset[int]) -> Iterator[Formula]:
    others = frozenset(range(period)) - remainders
    yield either(_remainder_range(x, period, *run) for run in _runs(sorted(remainders)))
    if len(others) <= _MOST_SINGLES:
        yield both(_remainder_not(x, period, r) for r in sorted(others))
    yield either(_remainder_range(x, q, r, r) for q, r in _classes(period, remainders))
    excluded = _classes(period, others)
    if len(excluded) <= _MOST_SINGLES:
        yield both(_remainder_not(x, q, r) for q, r in excluded)
    for divisor in divisors(period):
        other = period // divisor
        if 1 < divisor < other and gcd(divisor, other) == 1:
            first = frozenset(r % divisor for r in remainders)
            second = frozenset(r % other for r in remainders)
            if len(first) * len(second) == len(remainders):
                yield both((pattern(x, divisor, first), pattern(x, other, second)))


def _classes(period: int, remainders: frozenset[int]) -> list[tuple[int, int]]:
    """Whole classes `q, r` (all numbers with `n % q == r`) that together are the remainders."""
    found: list[tuple[int, int]] = []
    left = set(remainders)
    for q in divisors(period):
        for r in sorted({n % q for n in left}):
            members = set(range(r, period, q))
            if members <= remainders and not members.isdisjoint(left):
                found.append((q, r))
                left -= members
    return found


def _remainder_range(x: Dim, period: int, first: int, last: int) -> Formula:
    remainder = x % period
    if first == last:
        return Compare(remainder, "==", Dim.of(first)) if first else Multiple(x, period)
    if first == 0:
        return Compare(remainder, "<=", Dim.of(last))
    if last == period - 1:
        return Compare(remainder, ">=", Dim.of(first))
    return Between(first, remainder, last)


def _remainder_not(x: Dim, period: int, r: int) -> Formula:
    if period == 2:
        return _remainder_range(x, 2, 1 - r, 1 - r)
    return negated(Compare(x % period, "==", Dim.of(r)))
