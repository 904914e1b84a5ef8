"""Channels cut into groups: when that can be done, and how many a group has."""

from collections.abc import Iterator
from math import gcd

from cnndsl.layers.base import Claim, Suggestion
from cnndsl.layers.types import ImageType, VectorType
from cnndsl.sizes.dim import Dim

# How far from the number of groups that was asked for a better one is looked for.
NEAR = 1_000


def divide(groups: Dim, x: ImageType | VectorType, filters: Dim | None = None) -> Iterator[Claim]:
    """The groups divide the input's channels, and the filters where there are any.

    For numbers they must leave no remainder. Symbols are no numbers yet: `filters` of `2*width` in
    `width` groups are proved to divide, and where nothing is proved, both must be the same.
    """
    channels, last = x.dims[-1], len(x.dims) - 1
    counts = [channels] if filters is None else [channels, filters]
    arriving = "input channels" if isinstance(x, ImageType) else "features"
    for count, what, about in ((channels, arriving, last), (filters, "filters", None)):
        if count is None or _proved(count, groups):
            continue
        number, have = groups.constant, count.constant
        notes: tuple[str, ...] = ()
        if number is not None and have is not None:
            notes = (f"{have} = {number}·{have // number} + {have % number}",)
        yield Claim(
            count % number if number is not None else count - groups,
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
    if whole is not None:
        return whole
    # Without a number and without a proof, the claim is that both are the same.
    return count // groups if groups.constant is not None else Dim.of(1)


def _proved(count: Dim, groups: Dim) -> bool:
    return count.exact_quotient(groups) is not None


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
