"""What the terms of a size multiply: symbols, and divisions that round down.

Knows how atoms are told apart and ordered; the arithmetic that keeps them canonical is in `dim`.
"""

from math import lcm
from typing import TYPE_CHECKING

from cnndsl.sizes.limits import MAX_NESTING, TooLarge

if TYPE_CHECKING:
    from cnndsl.sizes.dim import Dim


UNKNOWN = "?"
"""The start of symbols that stand for what a mistake leaves open; no file can write one."""


class Symbol:
    """A name that stands for any positive integer."""

    __slots__ = ("is_linear", "name", "nesting", "order", "period", "symbols", "weight")

    def __init__(self, name: str) -> None:
        """Make the atom for `name`; equal names must come from `Dim.symbol`."""
        self.name = name
        self.symbols = frozenset((name,))
        self.order = (name, 0, name)
        self.weight = 1
        self.nesting = 0
        self.is_linear = True
        self.period = 1

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Symbol) and self.name == other.name)

    def __hash__(self) -> int:
        return hash(self.name)

    def __reduce__(self) -> "tuple[type[Symbol], tuple[str]]":
        return Symbol, (self.name,)


class Floor:
    """`numerator // divisor`, already canonical: only `_floor` makes one."""

    __slots__ = (
        "__weakref__",
        "_hash",
        "divisor",
        "is_linear",
        "nesting",
        "numerator",
        "order",
        "period",
        "symbols",
        "weight",
    )

    def __init__(self, numerator: "Dim", divisor: int) -> None:
        """Keep both; the numerator has a symbol, the divisor is above 1."""
        atoms = numerator.atoms
        self.numerator = numerator
        self.divisor = divisor
        self.symbols = numerator.symbols
        self.weight = 1 + numerator.weight
        self.nesting = 1 + max(atom.nesting for atom in atoms)
        self.is_linear = numerator.is_linear
        # After how many steps of a symbol it repeats itself, but for what it has grown by.
        self.period = divisor * lcm(*(atom.period for atom in atoms))
        if self.nesting > MAX_NESTING:
            raise TooLarge(f"a size has more than {MAX_NESTING} divisions inside each other")
        # The text orders atoms alike on every run, whatever the seed of Python's hashes.
        self.order = (min(self.symbols), 1, f"{numerator} // {divisor}")
        self._hash = hash((numerator, divisor))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Floor) or self._hash != other._hash:
            return False
        return self.divisor == other.divisor and self.numerator == other.numerator

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> "tuple[type[Floor], tuple[Dim, int]]":
        return Floor, (self.numerator, self.divisor)


Atom = Symbol | Floor
Monomial = tuple[Atom, ...]
"""Atoms multiplied, in order, a power repeated; the empty one is the constant's."""

Terms = tuple[tuple[Monomial, int], ...]


def divisions(dim: "Dim") -> frozenset[Floor]:
    """The divisions in a size, at any depth."""
    own = [atom for atom in dim.atoms if isinstance(atom, Floor)]
    return frozenset(own).union(*(divisions(division.numerator) for division in own))
