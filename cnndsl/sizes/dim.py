"""A size: an integer polynomial over symbols and floor divisions, in canonical form.

`H // 2 // 2` and `H // 4` are the same object, so that `==` is a proof which costs nothing. What
`==` cannot settle goes to `condition`, which this file must not know: networks of plain numbers
never load isl. Canonical means

- terms are collected, and ordered by degree and then by name;
- in `P // k`, each coefficient of `P` lies between 0 and k: multiples of k stand outside;
- `P` and `k` have no common factor: `4*H // 6` is `2*H // 3`;
- a division of a division is one: `(H // 2 + W) // 3` is `(H + 2*W) // 6`.

Equal sizes with different canonical forms exist (`H // 2 + (H + 1) // 2` is `H`): `==` never says
yes wrongly, it may say no where `condition` would find a proof.
"""

from collections.abc import Iterable, Mapping
from math import gcd
from typing import Self
from weakref import WeakValueDictionary

from cnndsl.sizes import dimtext
from cnndsl.sizes.atoms import Atom, Floor, Monomial, Symbol, Terms
from cnndsl.sizes.factors import factor
from cnndsl.sizes.limits import (
    MAX_BITS,
    MAX_PRODUCT,
    MAX_WEIGHT,
    TooLarge,
    UndefinedDivision,
)

_put = object.__setattr__


class Dim:
    """A size. Made by `Dim.of`, `Dim.symbol` and arithmetic; never changes.

    Arithmetic takes sizes and integers on either side, and is Python's: `//` rounds down and `%`
    has the sign of the divisor. It raises `UndefinedDivision`, `TooLarge`, or Python's own
    `ZeroDivisionError`, and nothing else.
    """

    __slots__ = ("__weakref__", "_hash", "constant", "terms", "weight")

    constant: int | None
    """The value when there are no symbols in it."""
    terms: Terms
    """The terms with their coefficients, in canonical order."""
    _hash: int
    weight: int
    """How much there is of it; see `limits.MAX_WEIGHT`."""

    @classmethod
    def of(cls, value: int) -> Self:
        """The size `value`."""
        known = _constants.get(value)
        if known is not None:
            return known  # type: ignore[return-value]  # pyright: ignore[reportReturnType] (there are no subclasses)
        if value.bit_length() > MAX_BITS:
            raise TooLarge(f"a number has more than {MAX_BITS} bits")
        made = cls.__new__(cls)
        _put(made, "constant", value)
        _put(made, "terms", (((), value),) if value else ())
        _put(made, "weight", 1)
        _put(made, "_hash", hash(value))
        return made

    @staticmethod
    def symbol(name: str) -> "Dim":
        """The size that is the symbol `name`."""
        return _from_sorted((((Symbol(name),), 1),))

    @staticmethod
    def sum(items: "Iterable[Dim | int]") -> "Dim":
        """All of them added, in one go."""
        constant = 0
        total: dict[Monomial, int] = {}
        for item in items:
            if isinstance(item, int):
                constant += item
            elif item.constant is not None:
                constant += item.constant
            else:
                for monomial, coefficient in item.terms:
                    total[monomial] = total.get(monomial, 0) + coefficient
        if not total:
            return Dim.of(constant)
        total[()] = total.get((), 0) + constant
        return _from(total)

    # ── what it is ───────────────────────────────────────────────────────────────────────────────

    @property
    def atoms(self) -> frozenset[Atom]:
        """The symbols and divisions that its terms multiply."""
        return frozenset(atom for monomial, _ in self.terms for atom in monomial)

    @property
    def symbols(self) -> frozenset[str]:
        """The names in it."""
        if self.constant is not None:
            return frozenset()
        return frozenset[str]().union(*(atom.symbols for atom in self.atoms))

    @property
    def is_linear(self) -> bool:
        """Whether it multiplies no symbols, so that `condition` can decide about it."""
        return all(
            len(monomial) <= 1 and all(atom.is_linear for atom in monomial)
            for monomial, _ in self.terms
        )

    def evaluate(self, values: Mapping[str, int]) -> int:
        """The size where each symbol has its value; `KeyError` for one without."""
        if self.constant is not None:
            return self.constant
        total = 0
        for monomial, coefficient in self.terms:
            product = coefficient
            for atom in monomial:
                if isinstance(atom, Symbol):
                    product *= values[atom.name]
                else:
                    product *= atom.numerator.evaluate(values) // atom.divisor
            total += product
        return total

    def substitute(self, values: "Mapping[str, Dim | int]") -> "Dim":
        """The size with other sizes in place of some symbols."""
        if self.constant is not None or not self.symbols & values.keys():
            return self
        return Dim.sum(_substituted(term, values) for term in self.terms)

    def least(self) -> int | None:
        """A number below which it never falls, whatever positive values its symbols have.

        It is reached where no term is subtracted, and then costs far less than a `Condition`. None
        where terms with symbols are subtracted, of which this knows no bound.
        """
        total = 0
        for monomial, coefficient in self.terms:
            if monomial and coefficient < 0:
                return None
            product = coefficient
            for atom in monomial:
                # Numerators of divisions have no negative coefficients, see above.
                product *= 1 if isinstance(atom, Symbol) else _least_quotient(atom)
            total += product
        return total

    def positive_part(self) -> "Dim":
        """The terms that are added, without those that are subtracted."""
        return _from({monomial: n for monomial, n in self.terms if n > 0})

    def factors(self) -> "tuple[int, tuple[Dim, ...]]":
        """A number and sizes whose product this is, as far as factors are easily found."""
        if self.constant is not None:
            return self.constant, ()
        content, parts = factor(self.terms)
        return content, tuple(_from_sorted(part) for part in parts)

    # ── arithmetic ───────────────────────────────────────────────────────────────────────────────

    def __add__(self, other: "Dim | int") -> "Dim":
        right = _dim(other)
        if right is None:
            return NotImplemented
        if self.constant is not None and right.constant is not None:
            return Dim.of(self.constant + right.constant)
        return Dim.sum((self, right))

    __radd__ = __add__

    def __neg__(self) -> "Dim":
        return self * -1

    def __pos__(self) -> "Dim":
        return self

    def __sub__(self, other: "Dim | int") -> "Dim":
        right = _dim(other)
        return NotImplemented if right is None else self + -right

    def __rsub__(self, other: int) -> "Dim":
        return -self + other

    def __mul__(self, other: "Dim | int") -> "Dim":
        right = _dim(other)
        if right is None:
            return NotImplemented
        if self.constant is not None and right.constant is not None:
            return Dim.of(self.constant * right.constant)
        if len(self.terms) * len(right.terms) > MAX_PRODUCT:
            raise TooLarge(f"a product of sizes has more than {MAX_PRODUCT} terms")
        product: dict[Monomial, int] = {}
        for a, m in self.terms:
            for b, n in right.terms:
                monomial = tuple(sorted(a + b, key=_atom_order)) if a and b else a or b
                product[monomial] = product.get(monomial, 0) + m * n
        return _from(product)

    __rmul__ = __mul__

    def __floordiv__(self, other: "Dim | int") -> "Dim":
        right = _dim(other)
        if right is None:
            return NotImplemented
        divisor = right.constant
        if self.constant is not None and divisor is not None:
            return Dim.of(self.constant // divisor)
        if divisor is None or divisor <= 0:
            raise UndefinedDivision(
                f"{self} cannot be divided by {right}: a size with symbols can be divided by "
                "positive numbers only"
            )
        return _floor(self, divisor)

    def __rfloordiv__(self, other: int) -> "Dim":
        return Dim.of(other) // self

    def __mod__(self, other: "Dim | int") -> "Dim":
        right = _dim(other)
        return NotImplemented if right is None else self - (self // right) * right

    def __rmod__(self, other: int) -> "Dim":
        return Dim.of(other) % self

    def exact_quotient(self, divisor: "Dim | int") -> "Dim | None":
        """The polynomial that times `divisor` is this one, or None where there is none.

        It says nothing about where `divisor` is 0: whoever divides knows that it is positive.
        """
        divisor = divisor if isinstance(divisor, Dim) else Dim.of(divisor)
        if not divisor.terms:
            return None
        leading, unit = divisor.terms[0]
        quotient, rest = Dim.of(0), self
        while rest.terms:
            monomial, coefficient = rest.terms[0]
            left = _without(monomial, leading)
            if left is None or coefficient % unit:
                return None
            step = _from({left: coefficient // unit})
            quotient, rest = quotient + step, rest - step * divisor
        return quotient

    # ── identity and text ────────────────────────────────────────────────────────────────────────

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if isinstance(other, Dim):
            return self._hash == other._hash and self.terms == other.terms
        if isinstance(other, int):
            return self.constant == other
        return NotImplemented

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        """The language's expression, which Python evaluates to the same value."""
        return str(self.constant) if self.constant is not None else dimtext.plain(self)

    def pretty(self) -> str:
        """The formula for messages: `⌊H/2⌋`, `2·⌊H/16⌋`."""
        return str(self.constant) if self.constant is not None else dimtext.pretty(self)

    def __repr__(self) -> str:
        return f"Dim({str(self)!r})"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Dim is immutable: {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Dim is immutable: {name} cannot be deleted")

    def __reduce__(self) -> "tuple[object, tuple[object, ...]]":
        if self.constant is not None:
            return Dim.of, (self.constant,)
        return _from_sorted, (self.terms,)


_interned: "WeakValueDictionary[Terms, Dim]" = WeakValueDictionary()
_floors: "WeakValueDictionary[tuple[Dim, int], Floor]" = WeakValueDictionary()
_constants: dict[int, Dim] = {}
_constants.update({n: Dim.of(n) for n in range(-1, 257)})


def _dim(value: object) -> Dim | None:
    """An operand as a size; None for what is neither a size nor an integer."""
    if isinstance(value, Dim):
        return value
    return Dim.of(value) if isinstance(value, int) else None


def _atom_order(atom: Atom) -> tuple[str, int, str]:
    return atom.order


def _term_order(term: tuple[Monomial, int]) -> tuple[int, list[tuple[str, int, str]]]:
    monomial = term[0]
    return -len(monomial), [atom.order for atom in monomial]


def _from(coefficients: Mapping[Monomial, int]) -> Dim:
    """The size with these terms, in any order and with zeros among them."""
    terms = [term for term in coefficients.items() if term[1]]
    if not terms:
        return Dim.of(0)
    if len(terms) == 1 and not terms[0][0]:
        return Dim.of(terms[0][1])
    terms.sort(key=_term_order)
    return _from_sorted(tuple(terms))


def _from_sorted(terms: Terms) -> Dim:
    """The one object for these terms, which have a symbol and stand in canonical order."""
    known = _interned.get(terms)
    if known is not None:
        return known
    weight = sum(1 + sum(atom.weight for atom in monomial) for monomial, _ in terms)
    if weight > MAX_WEIGHT:
        raise TooLarge(f"the formula of a size has more than {MAX_WEIGHT} parts")
    if any(coefficient.bit_length() > MAX_BITS for _, coefficient in terms):
        raise TooLarge(f"a number in the formula of a size has more than {MAX_BITS} bits")
    made = Dim.__new__(Dim)
    _put(made, "constant", None)
    _put(made, "terms", terms)
    _put(made, "weight", weight)
    _put(made, "_hash", hash(terms))
    return _interned.setdefault(terms, made)


def _floor(dim: Dim, divisor: int) -> Dim:
    """`dim // divisor` for a size with symbols and a positive divisor, in canonical form."""
    whole: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for monomial, coefficient in dim.terms:
        whole[monomial], rest[monomial] = divmod(coefficient, divisor)
    offset = rest.pop((), 0)
    rest = {monomial: coefficient for monomial, coefficient in rest.items() if coefficient}
    if not rest:
        return _from(whole)
    common = gcd(divisor, *rest.values())
    divisor //= common
    rest = {monomial: coefficient // common for monomial, coefficient in rest.items()}
    rest[()] = offset // common
    numerator = _from(rest)
    return _from(whole) + (_merged(numerator, divisor) or _atom(numerator, divisor))


def _atom(numerator: Dim, divisor: int) -> Dim:
    atom = _floors.get((numerator, divisor))
    if atom is None:
        atom = _floors.setdefault((numerator, divisor), Floor(numerator, divisor))
    return _from_sorted((((atom,), 1),))


def _merged(numerator: Dim, divisor: int) -> Dim | None:
    """`numerator // divisor` as one division, where a term of the numerator is itself a division.

    `(P // d + Q) // k` is `(P + d*Q) // (d*k)`, for any whole Q. With a minus, `-(P // d)` is first
    made `(d - 1 - P) // d`; its coefficient is k - 1 here, since all lie between 0 and k.
    """
    for monomial, coefficient in numerator.terms:
        match monomial:
            case (Floor() as inner,) if coefficient == 1:
                others = numerator - _from({monomial: 1})
                return _floor(inner.numerator + others * inner.divisor, inner.divisor * divisor)
            case (Floor() as inner,) if coefficient == divisor - 1:
                one = _from({monomial: 1})
                others = numerator - one * coefficient
                negated = inner.divisor - 1 - inner.numerator
                return one + _floor(negated + others * inner.divisor, inner.divisor * divisor)
            case _:
                pass
    return None


def _least_quotient(division: Floor) -> int:
    return (division.numerator.least() or 0) // division.divisor


def _substituted(term: tuple[Monomial, int], values: "Mapping[str, Dim | int]") -> Dim:
    monomial, coefficient = term
    product = Dim.of(coefficient)
    for atom in monomial:
        if isinstance(atom, Symbol):
            product = product * values.get(atom.name, Dim.symbol(atom.name))
        else:
            product = product * (atom.numerator.substitute(values) // atom.divisor)
    return product


def _without(monomial: Monomial, part: Monomial) -> Monomial | None:
    """The monomial divided by another, or None where that does not divide it."""
    left = list(monomial)
    for atom in part:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left)
