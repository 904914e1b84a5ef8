"""Random sizes and conditions, each beside the plain Python that says what it must mean."""

from collections.abc import Callable
from functools import wraps

from hypothesis import reject
from hypothesis import strategies as st

from cnndsl.sizes.condition import Condition
from cnndsl.sizes.dim import Dim
from cnndsl.sizes.limits import TooHard

SYMBOLS = ("H", "W")
Values = dict[str, int]
Meaning = Callable[[Values], int]

values = st.fixed_dictionaries({name: st.integers(1, 200) for name in SYMBOLS})


def _symbol(name: str) -> tuple[Dim, Meaning]:
    return Dim.symbol(name), lambda v: v[name]


def _constant(n: int) -> tuple[Dim, Meaning]:
    return Dim.of(n), lambda v: n


def _sum(pair: tuple[tuple[Dim, Meaning], tuple[Dim, Meaning]]) -> tuple[Dim, Meaning]:
    (a, f), (b, g) = pair
    return a + b, lambda v: f(v) + g(v)


def _difference(pair: tuple[tuple[Dim, Meaning], tuple[Dim, Meaning]]) -> tuple[Dim, Meaning]:
    (a, f), (b, g) = pair
    return a - b, lambda v: f(v) - g(v)


def _times(pair: tuple[tuple[Dim, Meaning], tuple[Dim, Meaning]]) -> tuple[Dim, Meaning]:
    (a, f), (b, g) = pair
    return a * b, lambda v: f(v) * g(v)


def _scaled(pair: tuple[tuple[Dim, Meaning], int]) -> tuple[Dim, Meaning]:
    (a, f), n = pair
    return n * a, lambda v: n * f(v)


def _floor(pair: tuple[tuple[Dim, Meaning], int]) -> tuple[Dim, Meaning]:
    (a, f), k = pair
    return a // k, lambda v: f(v) // k


def _remainder(pair: tuple[tuple[Dim, Meaning], int]) -> tuple[Dim, Meaning]:
    (a, f), k = pair
    return a % k, lambda v: f(v) % k


def _grown(inner, *, products: bool, divisors):
    pairs = st.tuples(inner, inner)
    options = [
        pairs.map(_sum),
        pairs.map(_difference),
        st.tuples(inner, st.integers(-5, 5)).map(_scaled),
        st.tuples(inner, divisors).map(_floor),
        st.tuples(inner, divisors).map(_remainder),
    ]
    return st.one_of(*options, *([pairs.map(_times)] if products else []))


def sizes(*, products: bool, symbols=SYMBOLS, leaves: int = 8, divisors=None):
    """Pairs of a size and the function that it must compute."""
    leaf = st.one_of(st.sampled_from(symbols).map(_symbol), st.integers(-9, 9).map(_constant))
    divisors = st.integers(1, 9) if divisors is None else divisors
    return st.recursive(
        leaf, lambda s: _grown(s, products=products, divisors=divisors), max_leaves=leaves
    )


def decided(test):
    """Pass over the few random conditions that are refused as too hard; many fail the test."""

    @wraps(test)
    def passing_over(*args, **kwargs):
        try:
            return test(*args, **kwargs)
        except TooHard:
            return reject()

    return passing_over


OPERATORS = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">=": lambda a, b: a >= b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    "<": lambda a, b: a < b,
}


@decided
def _compared(parts):
    (a, f), operator, (b, g) = parts
    return Condition.compare(a, operator, b), lambda v: OPERATORS[operator](f(v), g(v))


@decided
def _and(pair):
    (a, f), (b, g) = pair
    return a & b, lambda v: f(v) and g(v)


@decided
def _or(pair):
    (a, f), (b, g) = pair
    return a | b, lambda v: f(v) or g(v)


@decided
def _not(one):
    a, f = one
    return ~a, lambda v: not f(v)


def conditions(symbols=SYMBOLS, leaves: int = 3):
    """Pairs of a condition and the function that says where it holds.

    Divisors are few: a random `(H % 7 + W) % 5` is no size that a network has.
    """
    size = sizes(products=False, symbols=symbols, leaves=3, divisors=st.sampled_from((2, 3, 4)))
    bound = st.integers(0, 12).map(_constant)
    leaf = st.tuples(size, st.sampled_from(sorted(OPERATORS)), st.one_of(bound, size))
    return st.recursive(
        leaf.map(_compared),
        lambda c: st.one_of(st.tuples(c, c).map(_and), st.tuples(c, c).map(_or), c.map(_not)),
        max_leaves=leaves,
    )


def grid(symbols, most: int):
    """All assignments from 1 up to `most`."""
    found: list[Values] = [{}]
    for name in symbols:
        found = [{**v, name: n} for v in found for n in range(1, most + 1)]
    return found
