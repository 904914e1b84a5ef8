"""Sizes as they read under a promise: with `H % 32 == 0`, `2*((H + 31) // 32)` is `H // 16`.

Knows one thing of each symbol: the remainder that every promised value leaves by some number. What
it gives has the same value for all promised sizes, and may have another one elsewhere.
"""

from collections.abc import Mapping
from math import gcd, lcm
from typing import TYPE_CHECKING

from cnndsl.sizes.atoms import Atom, Floor, Symbol, divisions
from cnndsl.sizes.dim import Dim
from cnndsl.sizes.factors import divisors
from cnndsl.sizes.limits import SizeError

if TYPE_CHECKING:
    from cnndsl.sizes.condition import Condition

_LARGEST = 1 << 20  # of the numbers by which remainders are looked for
_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹"

Remainder = tuple[int, int]
"""`(k, r)`: divided by k, it leaves r."""


def remainders(condition: "Condition") -> dict[str, Remainder]:
    """What each symbol leaves by the largest number by which all its values leave the same."""
    try:
        member = condition.smallest()
        periods: dict[str, int] = {}
        for name in condition.symbols:
            for zero in condition.about((name,)).equalities():
                own = (division.period for division in divisions(zero))
                periods[name] = lcm(periods.get(name, 1), *own)
        found: dict[str, Remainder] = {}
        for name, period in periods.items():
            if member is not None and 1 < period <= _LARGEST:
                found[name] = _remainder(condition, name, period, member[name])
    except SizeError:
        return {}  # too hard to find: sizes are shown as they were computed
    return {name: one for name, one in found.items() if one[0] > 1}


def _remainder(condition: "Condition", name: str, period: int, value: int) -> Remainder:
    """The remainder by the largest divisor of the period by which all values leave `value`'s."""
    for k in reversed(divisors(period)):
        left = Dim.symbol(name) % k
        if condition.implies(condition.compare(left, "==", value % k)):
            return k, value % k
    return 1, 0


class Promised:
    """Simplifies sizes under the remainders of their symbols."""

    def __init__(self, known: Mapping[str, Remainder]) -> None:
        """`known` has the symbols of which something is known."""
        self._known = known
        self._simplified: dict[Dim, Dim] = {}

    def simplified(self, dim: Dim) -> Dim:
        """The size without what only other sizes need."""
        if dim.constant is not None or not self._known:
            return dim
        found = self._simplified.get(dim)
        if found is None:
            try:
                found = Dim.sum(self._term(monomial, n) for monomial, n in dim.terms)
            except SizeError:
                found = dim
            self._simplified[dim] = found
        return found

    def pretty(self, dim: Dim) -> str:
        """The formula for messages; a division that leaves nothing needs no floor: `H/16`."""
        text = dim.pretty()
        if "⌊" not in text or any(digit in text for digit in _RAISED):
            return text
        if all(self._top(floor)[1] for floor in divisions(dim)):
            return text.replace("⌊", "").replace("⌋", "")
        return text

    def _term(self, monomial: tuple[Atom, ...], count: int) -> Dim:
        """A term; where one division leaves nothing, its factor goes into it."""
        match monomial:
            case (Floor() as floor,):
                top, is_exact = self._top(floor)
                common = gcd(count, floor.divisor) if is_exact else 1
                return top // (floor.divisor // common) * (count // common)
            case _:
                product = Dim.of(count)
                for atom in monomial:
                    product = product * self._factor(atom)
                return product

    def _factor(self, atom: Atom) -> Dim:
        if isinstance(atom, Symbol):
            return Dim.symbol(atom.name)
        return self._top(atom)[0] // atom.divisor

    def _top(self, floor: Floor) -> tuple[Dim, bool]:
        """The numerator without what the division drops, and whether it drops nothing more."""
        top = self.simplified(floor.numerator)
        modulus, left = self._left(top, floor.divisor)
        return top - left, modulus == floor.divisor

    def _left(self, dim: Dim, divisor: int) -> Remainder:
        """What a size leaves by the largest number that divides `divisor`, as far as is known."""
        modulus, total = divisor, 0
        for monomial, count in dim.terms:
            k, r = 0, 1
            for atom in monomial:
                own, rest = self._atom(atom)
                k, r = gcd(k * own, k * rest, own * r), r * rest
            modulus, total = gcd(modulus, k * count), total + r * count
        return modulus, total % modulus

    def _atom(self, atom: Atom) -> Remainder:
        if isinstance(atom, Symbol):
            return self._known.get(atom.name, (1, 0))
        top = self.simplified(atom.numerator)
        # By d times m, a numerator that leaves r makes a quotient that leaves r // d by m.
        whole = atom.divisor * lcm(1, *(k for k, _ in self._known.values()))
        modulus, left = self._left(top, whole)
        if modulus % atom.divisor:
            return 1, 0
        return modulus // atom.divisor, left // atom.divisor
