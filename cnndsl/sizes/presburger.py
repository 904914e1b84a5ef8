"""isl, as far as sizes need it: from a size to a set, from a set back to sizes, within a budget.

The only importer of islpy. A set here has one dimension a symbol, in the order of a tuple of names
that its owner keeps, and only positive members. Knows nothing of how conditions read.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import assert_never

import islpy as isl

from cnndsl.sizes.atoms import Symbol
from cnndsl.sizes.dim import Dim
from cnndsl.sizes.formula import Operator
from cnndsl.sizes.limits import MAX_OPERATIONS, Account, TooHard, current_account
from cnndsl.sizes.lock import ISL

Set = isl.Set
Inequality = tuple[Dim, bool]
"""A size that has to be 0 (True) or at least 0 (False)."""

_DIM = isl.dim_type.set
_DIV = isl.dim_type.div
_INPUT = isl.dim_type.in_
_CONTEXT = isl.Context()
_CONTEXT.set_on_error(1)  # report errors as exceptions, and print nothing


class _Spending:
    """Whose budget is open. Read and written by the thread that holds `ISL`."""

    depth = 0
    account: Account | None = None  # the one that was last spent from


@contextmanager
def budget(max_operations: int = MAX_OPERATIONS) -> Generator[None]:
    """Let all that happens inside take so many operations of isl together; `TooHard` past them.

    Inside another budget it changes nothing. Every question about a condition opens one of its
    own where there is none, so nothing ever runs without bound; questions inside one
    `limits.one_account` share theirs.
    """
    account = current_account()
    if account is not None:
        account.hold_isl()
    with ISL:
        outermost = _Spending.depth == 0
        if outermost:
            if account is None or account is not _Spending.account:
                _CONTEXT.reset_operations()
            _Spending.account = account
            _CONTEXT.set_max_operations(max_operations)
        _Spending.depth += 1
        try:
            yield
        except isl.Error as error:
            if not _is_spent():
                raise
            raise TooHard("a question about sizes takes more operations than allowed") from error
        finally:
            _Spending.depth -= 1
            if outermost:
                _CONTEXT.set_max_operations(0)


def _is_spent() -> bool:
    try:
        isl.Space.set_alloc(_CONTEXT, 0, 1)
    except isl.Error:
        return True
    return False


@cache
def positive(count: int) -> isl.Set:
    """All positive values of so many symbols."""
    full = isl.Set.universe(isl.Space.set_alloc(_CONTEXT, 0, count))
    for position in range(count):
        full = full.lower_bound_val(_DIM, position, _value(1))
    return full


def compared(difference: Dim, operator: Operator, symbols: Sequence[str]) -> isl.Set:
    """The positive values of `symbols` for which `difference operator 0`."""
    local = isl.LocalSpace.from_space(isl.Space.set_alloc(_CONTEXT, 0, len(symbols)))
    positions = {name: position for position, name in enumerate(symbols)}
    left, zero = _affine(difference, local, positions), isl.Aff.zero_on_domain(local)
    match operator:
        case "==":
            found = left.eq_set(zero)
        case "!=":
            found = left.ne_set(zero)
        case ">=":
            found = left.ge_set(zero)
        case ">":
            found = left.gt_set(zero)
        case "<=":
            found = left.le_set(zero)
        case "<":
            found = left.lt_set(zero)
        case _:
            assert_never(operator)
    return found.intersect(positive(len(symbols))).coalesce()


def _affine(dim: Dim, local: isl.LocalSpace, positions: dict[str, int]) -> isl.Aff:
    total = isl.Aff.zero_on_domain(local)
    for monomial, coefficient in dim.terms:
        match monomial:
            case ():
                total = total.add_constant_val(_value(coefficient))
            case (Symbol(name=name),):
                total = total.add_coefficient_val(_INPUT, positions[name], _value(coefficient))
            case (floor,) if not isinstance(floor, Symbol):
                inner = _affine(floor.numerator, local, positions)
                inner = inner.scale_down_val(_value(floor.divisor)).floor()
                total = total.add(inner.scale_val(_value(coefficient)))
            case _:
                raise AssertionError(f"{dim} is not linear")
    return total


def _value(number: int) -> isl.Val:
    return isl.Val(str(number), _CONTEXT)  # its own conversion of int stops at 64 bits


def _integer(value: isl.Val) -> int:
    return int(str(value))


def with_symbols(of: isl.Set, old: Sequence[str], new: Sequence[str]) -> isl.Set:
    """The set over more symbols, on which it puts no condition."""
    for position, name in enumerate(new):
        if name not in old:
            of = of.insert_dims(_DIM, position, 1).lower_bound_val(_DIM, position, _value(1))
    return of


def onto(of: isl.Set, positions: Sequence[int]) -> isl.Set:
    """What the set says about some of its symbols: the values that can be extended to a member."""
    for position in range(of.dim(_DIM) - 1, -1, -1):
        if position not in positions:
            of = of.project_out(_DIM, position, 1)
    return of.coalesce()


def smallest(of: isl.Set) -> tuple[int, ...] | None:
    """The lexicographically smallest member; None where there are no members."""
    if of.is_empty():
        return None
    point = of.lexmin().sample_point()
    count = of.dim(_DIM)
    return tuple(_integer(point.get_coordinate_val(_DIM, position)) for position in range(count))


def bounds(of: isl.Set, position: int) -> tuple[int, int | None]:
    """The smallest and the largest value of a symbol in a set that is not empty."""
    low, high = of.dim_min_val(position), of.dim_max_val(position)
    return _integer(low), None if high.is_infty() else _integer(high)


def box(lows: Sequence[int], highs: Sequence[int | None]) -> isl.Set:
    """The sizes between these bounds."""
    full = positive(len(lows))
    for position, (low, high) in enumerate(zip(lows, highs, strict=True)):
        full = full.lower_bound_val(_DIM, position, _value(low))
        if high is not None:
            full = full.upper_bound_val(_DIM, position, _value(high))
    return full


def cases(of: isl.Set, symbols: Sequence[str]) -> tuple[tuple[Inequality, ...], ...]:
    """The set as cases, of which one has to hold; each a list of sizes that must all be as told."""
    return tuple(_case(basic, symbols) for basic in of.compute_divs().get_basic_sets())


def most_divisions(of: isl.Set) -> int:
    """How many divisions its hardest case needs."""
    return max((basic.dim(_DIV) for basic in of.get_basic_sets()), default=0)


def separate(of: isl.Set) -> tuple[isl.Set, ...]:
    """Its cases that have members, each a set of its own, by their smallest members."""
    pieces = [(smallest(basic.to_set()), basic.to_set()) for basic in of.get_basic_sets()]
    filled = [(first, piece) for first, piece in pieces if first is not None]
    return tuple(piece for _, piece in sorted(filled, key=lambda pair: pair[0]))


def equalities(of: isl.Set, symbols: Sequence[str]) -> tuple[Dim, ...]:
    """Sizes that are 0 for all members."""
    hull = of.affine_hull().to_set()
    return tuple(dim for case in cases(hull, symbols) for dim, is_zero in case if is_zero)


def _case(basic: isl.BasicSet, symbols: Sequence[str]) -> tuple[Inequality, ...]:
    names = [Dim.symbol(name) for name in symbols]
    divisions: list[Dim] = []
    for position in range(basic.dim(_DIV)):
        division = basic.get_div(position)
        divisor = division.get_denominator_val()
        numerator = Dim.of(_integer(division.get_constant_val().mul(divisor)))
        for kind, dims in ((_INPUT, names), (_DIV, divisions)):
            for i, dim in enumerate(dims):
                coefficient = division.get_coefficient_val(kind, i).mul(divisor)
                numerator = numerator + dim * _integer(coefficient)
        divisions.append(numerator // _integer(divisor))
    found: list[Inequality] = []
    for constraint in basic.get_constraints():
        total = Dim.of(_integer(constraint.get_constant_val()))
        for kind, dims in ((_DIM, names), (_DIV, divisions)):
            for i, dim in enumerate(dims):
                total = total + dim * _integer(constraint.get_coefficient_val(kind, i))
        found.append((total, constraint.is_equality()))
    return tuple(found)
