"""Channels cut into groups: when that can be done, and how many a group has."""

from collections.abc import Iterator
from math import gcd

from cnndsl.layers.base import Claim, Suggestion, never
from cnndsl.layers.types import ImageType, VectorType
from cnndsl.sizes.dim import Dim

# How far from the number of groups that was asked for a better one is looked for.
NEAR = 1_000


def divide(groups: Dim, x: ImageType | VectorType, filters: Dim | None = None) -> Iterator[Claim]:
    """The groups divide the input's channels, and the filters where there are any.

    A number of groups must leave no remainder, for every value of the symbols. Groups that are a
    symbol have to divide as a formula, as `width` divides `2*width`: else even how many weights
    there are is no formula in the symbols.
    """
    channels, last = x.dims[-1], len(x.dims) - 1
    counts = [channels] if filters is None else [channels, filters]
    arriving = "input channels" if isinstance(x, ImageType) else "features"
    for count, what, about in ((channels, arriving, last), (filters, "filters", None)):
        if count is None or _proved(count, groups):
            continue
        number, have = groups.constant, count.constant
        if number is None:
            yield _undecided(groups, count, what)
            continue
        notes: tuple[str, ...] = ()
        if have is not None:
            notes = (f"{have} = {number}·{have // number} + {have % number}",)
        yield Claim(
            count % number,
            "==",
            Dim.of(0),
            "E306",
            f"{groups.pretty()} groups do not divide {count.pretty()} {what}",
            "groups",
            about,
            "does not divide",
            notes,
            _nearest(groups, counts),
        )


def divided(count: Dim, groups: Dim) -> Dim:
    """How many of `count` a group has, once `divide` holds."""
    whole = count.exact_quotient(groups)
    return whole if whole is not None else count // groups


def _proved(count: Dim, groups: Dim) -> bool:
    return count.exact_quotient(groups) is not None


def _undecided(groups: Dim, count: Dim, what: str) -> Claim:
    free = " and ".join(sorted(groups.symbols))
    return never(
        "E404",
        f"whether {groups.pretty()} groups divide {count.pretty()} {what}, and how many weights "
        f"that makes, cannot be told while {free} has no value",
        "groups",
        "free",
        (Suggestion(f"give it one: `param {min(groups.symbols)} = …`, or `--set`"),),
    )


def _nearest(groups: Dim, counts: list[Dim]) -> tuple[Suggestion, ...]:
    """The number nearest to `groups` that divides them all."""
    numbers = [count.constant for count in counts if count.constant is not None]
    wanted = groups.constant
    if wanted is None or len(numbers) < len(counts):
        return ()
    common = gcd(*numbers)
    near = (n for away in range(1, NEAR) for n in (wanted - away, wanted + away) if n >= 1)
    best = next((n for n in near if common % n == 0), common)
    return (Suggestion(f"use {best} group{'s' if best > 1 else ''}", "groups", str(best)),)
