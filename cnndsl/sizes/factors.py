"""Writes a polynomial as a product: `H*W - 4*H - 4*W + 16` is `(H - 4)*(W - 4)`.

Knows terms only. It finds what sizes are made of (common factors, one factor a dimension, whole
roots of squares such as `(H - 4)*(H - 4)`), not every factor there may be.
"""

from math import gcd, isqrt

from cnndsl.sizes.atoms import Atom, Monomial, Terms

_MOST_TERMS = 64
_LARGEST_TRIED = 1_000_000

_Sum = dict[Monomial, int]


def factor(terms: Terms) -> tuple[int, tuple[Terms, ...]]:
    """An integer and polynomials whose product is the sum of `terms`.

    The polynomials have no common divisor in their coefficients and a positive leading one.
    """
    content = gcd(*(coefficient for _, coefficient in terms))
    if terms[0][1] < 0:
        content = -content
    shared = _shared(terms)
    parts: list[Terms] = [(((atom,), 1),) for atom in shared]
    rest = {_divided(monomial, shared): n // content for monomial, n in terms}
    if len(rest) == 1:
        return content, tuple(parts)
    if len(rest) > _MOST_TERMS:
        return content, (*parts, _ordered(rest))
    for piece in _separated(rest):
        parts += [_ordered(root) for root in _rooted(piece)]
    return content, tuple(parts)


def _ordered(total: _Sum) -> Terms:
    return tuple(
        sorted(total.items(), key=lambda term: (-len(term[0]), [a.order for a in term[0]]))
    )


def _shared(terms: Terms) -> Monomial:
    """The atoms that every term has, as often as each does."""
    shared = list(terms[0][0])
    for monomial, _ in terms[1:]:
        left = list(monomial)
        kept: list[Atom] = []
        for atom in shared:
            if atom in left:
                left.remove(atom)
                kept.append(atom)
        shared = kept
    return tuple(shared)


def _divided(monomial: Monomial, shared: Monomial) -> Monomial:
    left = list(monomial)
    for atom in shared:
        left.remove(atom)
    return tuple(left)


def _separated(total: _Sum) -> list[_Sum]:
    """The factors that have no symbol in common, such as one in `H` and one in `W`."""
    atoms = sorted({atom for monomial in total for atom in monomial}, key=lambda atom: atom.order)
    if not atoms:
        return []
    group = _connected(atoms)
    if len(group) == len(atoms):
        return [total]
    rows: dict[Monomial, _Sum] = {}
    for monomial, coefficient in total.items():
        inside = tuple(atom for atom in monomial if atom in group)
        outside = tuple(atom for atom in monomial if atom not in group)
        rows.setdefault(inside, {})[outside] = coefficient
    first = next(iter(rows.values()))
    content = gcd(*first.values())
    factor_outside = {monomial: n // content for monomial, n in first.items()}
    pivot, unit = next(iter(factor_outside.items()))
    factor_inside: _Sum = {}
    for inside, row in rows.items():
        times, odd = divmod(row.get(pivot, 0), unit)
        if odd or row != {monomial: n * times for monomial, n in factor_outside.items()}:
            return [total]
        factor_inside[inside] = times
    if _ordered(factor_outside)[0][1] < 0:
        factor_inside = {monomial: -n for monomial, n in factor_inside.items()}
        factor_outside = {monomial: -n for monomial, n in factor_outside.items()}
    return [factor_inside, *_separated(factor_outside)]


def _connected(atoms: list[Atom]) -> set[Atom]:
    """The first atom and all that share symbols with it, directly or by way of others."""
    group = {atoms[0]}
    symbols = atoms[0].symbols
    grown = True
    while grown:
        more = {atom for atom in atoms if atom not in group and atom.symbols & symbols}
        grown = bool(more)
        group |= more
        symbols = symbols.union(*(atom.symbols for atom in more))
    return group


def _rooted(total: _Sum) -> list[_Sum]:
    """A polynomial in one atom as `(a*x - b)*…`, as far as a and b are small integers."""
    atoms = {atom for monomial in total for atom in monomial}
    degree = max(len(monomial) for monomial in total)
    if len(atoms) != 1 or degree < 2:
        return [total]
    (atom,) = atoms
    coefficients = [total.get((atom,) * n, 0) for n in range(degree, -1, -1)]
    found: list[_Sum] = []
    while len(coefficients) > 2:
        root = _root(coefficients)
        if root is None:
            break
        a, b, coefficients = root
        found.append({(atom,): a, (): -b})
    last = len(coefficients) - 1
    rest = {(atom,) * (last - n): c for n, c in enumerate(coefficients) if c}
    return [*found, rest]


def _root(coefficients: list[int]) -> tuple[int, int, list[int]] | None:
    """`a`, `b` and the quotient where `a*x - b` divides the polynomial; None where none was found.

    There is no factor x, so the constant is not 0.
    """
    first, last = abs(coefficients[0]), abs(coefficients[-1])
    if max(first, last) > _LARGEST_TRIED:
        return None
    for a in divisors(first):
        for size in divisors(last):
            for b in (size, -size):
                quotient = _quotient(coefficients, a, b)
                if quotient is not None and gcd(a, b) == 1:
                    return a, b, quotient
    return None


def _quotient(coefficients: list[int], a: int, b: int) -> list[int] | None:
    """The polynomial divided by `a*x - b`, where that leaves nothing."""
    quotient: list[int] = []
    carry = 0
    for coefficient in coefficients[:-1]:
        value, odd = divmod(coefficient + carry, a)
        if odd:
            return None
        quotient.append(value)
        carry = value * b
    return quotient if coefficients[-1] + carry == 0 else None


def divisors(n: int) -> list[int]:
    """The positive divisors of a positive number, in order."""
    small = [d for d in range(1, isqrt(n) + 1) if n % d == 0]
    return small + [n // d for d in reversed(small) if d * d != n]
