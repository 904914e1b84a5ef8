"""Conditions as they are written: comparisons joined by `and`, `or`, `not`.

Knows how a condition reads, not whether it is true: `condition` turns a formula into the set that
it means. The text is an expression of the language, which Python evaluates to the same answer.
"""

from collections.abc import Iterable
from math import gcd
from typing import Literal, assert_never

from cnndsl.record import Record
from cnndsl.sizes.atoms import Floor
from cnndsl.sizes.dim import Dim

Operator = Literal["==", "!=", ">=", ">", "<=", "<"]

_NEGATED: dict[Operator, Operator] = {
    "==": "!=",
    "!=": "==",
    ">=": "<",
    "<": ">=",
    ">": "<=",
    "<=": ">",
}
_MIRRORED: dict[Operator, Operator] = {
    "==": "==",
    "!=": "!=",
    ">=": "<=",
    "<=": ">=",
    ">": "<",
    "<": ">",
}
_SIGNS: dict[Operator, str] = {"==": "=", "!=": "≠", ">=": "≥", "<=": "≤", ">": ">", "<": "<"}


class Compare(Record):
    """`left operator right`."""

    left: Dim
    operator: Operator
    right: Dim


class Between(Record):
    """`low <= middle <= high`."""

    low: int
    middle: Dim
    high: int


class Multiple(Record):
    """`value % divisor == 0`."""

    value: Dim
    divisor: int


class And(Record):
    """All of the parts; of none: always true."""

    parts: tuple["Formula", ...]


class Or(Record):
    """At least one of the parts; of none: never true."""

    parts: tuple["Formula", ...]


Formula = Compare | Between | Multiple | And | Or

ALWAYS = And(())
NEVER = Or(())


def both(parts: Iterable[Formula]) -> Formula:
    """The parts joined by `and`, without nesting and repetition."""
    flat: list[Formula] = []
    for part in parts:
        flat += part.parts if isinstance(part, And) else (part,)
    unique = tuple(dict.fromkeys(flat))
    return unique[0] if len(unique) == 1 else And(unique)


def either(parts: Iterable[Formula]) -> Formula:
    """The parts joined by `or`, without nesting and repetition."""
    flat: list[Formula] = []
    for part in parts:
        flat += part.parts if isinstance(part, Or) else (part,)
    unique = tuple(dict.fromkeys(flat))
    return unique[0] if len(unique) == 1 else Or(unique)


def negated(compare: Compare | Multiple) -> Compare:
    """The comparison that holds where this one does not."""
    if isinstance(compare, Multiple):
        return Compare(compare.value % compare.divisor, "!=", Dim.of(0))
    return compare.replace(operator=_NEGATED[compare.operator])


def shortest(formulas: Iterable[Formula]) -> list[Formula]:
    """The formulas with the easiest to read first: few comparisons, then few characters."""
    return sorted(set(formulas), key=lambda f: (len(write(f)) + 8 * comparisons(f), write(f)))


def comparisons(formula: Formula) -> int:
    """How many comparisons it is made of."""
    match formula:
        case And(parts) | Or(parts):
            return sum(comparisons(part) for part in parts)
        case _:
            return 1


def write(formula: Formula, *, pretty: bool = False) -> str:
    """The text of a formula; `pretty` is for messages, the other for programs and files."""
    match formula:
        case Compare(left, operator, right) if pretty:
            return f"{left.pretty()} {_SIGNS[operator]} {right.pretty()}"
        case Compare(left, operator, right):
            return f"{left} {operator} {right}"
        case Between(low, middle, high) if pretty:
            return f"{low} ≤ {middle.pretty()} ≤ {high}"
        case Between(low, middle, high):
            return f"{low} <= {middle} <= {high}"
        case Multiple(value, divisor) if pretty:
            return f"{value.pretty()} is {'even' if divisor == 2 else f'a multiple of {divisor}'}"
        case Multiple(value, divisor):
            return f"{value % divisor} == 0"
        case And(()):
            return "always" if pretty else "True"
        case Or(()):
            return "never" if pretty else "False"
        case And(parts):
            return " and ".join(_write_inside(part, Or, pretty=pretty) for part in parts)
        case Or(parts):
            return " or ".join(_write_inside(part, And, pretty=pretty) for part in parts)
        case _:
            assert_never(formula)


def _write_inside(part: Formula, other: type[And | Or], *, pretty: bool) -> str:
    text = write(part, pretty=pretty)
    return f"({text})" if isinstance(part, other) and part.parts else text


def balanced(difference: Dim, operator: Operator) -> Formula:
    """`difference operator 0` as a person would write it: `W - H - 1 >= 0` is `W > H`.

    What is subtracted moves to the other side, remainders stay together, and a lone symbol comes
    first.
    """
    if difference.constant is not None:
        return Compare(difference, operator, Dim.of(0))
    remainder = _remainder(difference)
    if remainder is not None:
        return _about_remainder(*remainder, operator)
    difference = difference // gcd(*(coefficient for _, coefficient in difference.terms))
    left, right = _sides(difference)
    if operator == ">=" and right.terms and right.terms[-1] == ((), 1) and len(right.terms) > 1:
        operator, right = ">", right - 1
    if _reads_better_mirrored(left, operator, right):
        left, right, operator = right, left, _MIRRORED[operator]
    return Compare(left, operator, right)


def _reads_better_mirrored(left: Dim, operator: Operator, right: Dim) -> bool:
    """Whether `right` should come first: numbers stand on the right, single names on the left."""
    if left.constant is not None or right.constant is not None:
        return left.constant is not None
    if _is_name(left) and _is_name(right):
        return operator in ("==", "!=") and str(right) < str(left)
    return _is_name(right) or (len(right.terms) == 1 < len(left.terms) and not _is_name(left))


def _is_name(dim: Dim) -> bool:
    return str(dim) in dim.symbols


def _sides(difference: Dim) -> tuple[Dim, Dim]:
    """What is added and what is subtracted, without tearing `x - 4*(x // 4)` apart."""
    left = right = Dim.of(0)
    for monomial, coefficient in difference.terms:
        match monomial:
            case (Floor(numerator=value, divisor=divisor),) if coefficient % divisor == 0:
                together = -coefficient // divisor * (value % divisor)
            case _:
                continue
        present = dict(difference.terms)
        if all(present.get(m) == n for m, n in together.terms if m):
            difference = difference - together
            left, right = (left + together, right) if coefficient < 0 else (left, right - together)
    return left + difference.positive_part(), right + (-difference).positive_part()


def _remainder(difference: Dim) -> tuple[Dim, int, int, int] | None:
    """`value`, `k`, `times` and `offset` where the size is `times*(value % k) + offset`."""
    for atom in difference.atoms:
        if not isinstance(atom, Floor):
            continue
        value, divisor = atom.numerator, atom.divisor
        coefficient = dict(difference.terms).get((atom,), 0)
        if coefficient == 0 or coefficient % divisor:
            continue
        times = -coefficient // divisor
        offset = (difference - times * (value % divisor)).constant
        if offset is not None:
            return value, divisor, times, offset
    return None


def _about_remainder(
    value: Dim, divisor: int, times: int, offset: int, operator: Operator
) -> Formula:
    """`times*(value % divisor) + offset operator 0`."""
    remainder = value % divisor
    if times < 0:
        times, offset, operator = -times, -offset, _MIRRORED[operator]
    bound, odd = divmod(-offset, times)
    # Of the four orders two are enough for whole numbers: <= and >=.
    if operator in (">", ">="):
        operator, bound, odd = ">=", bound + 1 if odd or operator == ">" else bound, 0
    elif operator in ("<", "<="):
        operator, bound, odd = "<=", bound - 1 if operator == "<" and not odd else bound, 0
    if (operator == "<=" and bound == 0) or (operator == ">=" and bound == divisor - 1):
        operator = "=="
    if operator in ("==", "!="):
        if odd or not 0 <= bound < divisor:
            return NEVER if operator == "==" else ALWAYS
        return _with_remainder(value, divisor, bound, operator)
    if operator == ">=":
        return ALWAYS if bound <= 0 else Compare(remainder, operator, Dim.of(bound))
    return ALWAYS if bound >= divisor - 1 else Compare(remainder, operator, Dim.of(bound))


def _with_remainder(value: Dim, divisor: int, bound: int, operator: Operator) -> Formula:
    """`value % divisor` is `bound` or is not, the value without its constant."""
    offset = dict(value.terms).get((), 0)
    value, bound = value - offset, (bound - offset) % divisor
    if operator == "==" and bound == 0:
        return Multiple(value, divisor)
    return Compare(value % divisor, operator, Dim.of(bound))
