"""Channels cut into groups: when that can be done, and how many a group has."""

from collections.abc import Iterator
from math import gcd

from cnndsl.layers.base import Claim, Suggestion, never
from cnndsl.layers.types import ImageType, VectorType
from cnndsl.sizes.counted import counted
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
    arriving = "input channel" if isinstance(x, ImageType) else "feature"
    for count, what, about in ((channels, arriving, last), (filters, "filter", None)):
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
            f"{counted(groups, 'group')} do not divide {counted(count, what)}",
            "groups",
            about,
            "does not divide",
            notes,
            _advice(groups, counts),
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
        f"whether {groups.pretty()} groups divide {counted(count, what)}, and how many weights "
        f"that makes, cannot be told while {free} has no value",
        "groups",
        "free",
        (Suggestion(f"give it one: `param {min(groups.symbols)} = …`, or `--set`"),),
    )


def _advice(groups: Dim, counts: list[Dim]) -> tuple[Suggestion, ...]:
    """Numbers of groups that divide; no edit makes them so, for it would change the weights."""
    numbers = [count.constant for count in counts if count.constant is not None]
    wanted = groups.constant
    if wanted is None or len(numbers) < len(counts):
        return ()
    both = " and ".join(map(str, dict.fromkeys(numbers)))
    common = gcd(*numbers)
    near = (n for away in range(1, NEAR) for n in (wanted - away, wanted + away) if n >= 1)
    best = next((n for n in near if common % n == 0), common)
    found = [Suggestion(f"the nearest number of groups that divides {both} is {best}")]
    if common == 1:
        found = [Suggestion(f"1 is the only number of groups that divides {both}")]
    if len(numbers) == 2 and wanted == numbers[1]:
        channels = numbers[0]
        filters = max(1, round(wanted / channels)) * channels
        found.insert(
            0,
            Suggestion(
                "for a depthwise convolution, use one group for each input channel, and a multiple "
                f"of them as filters: {filters} filters with `groups={channels}`"
            ),
        )
    return tuple(found)
