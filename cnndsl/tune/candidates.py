"""What can be tried for a region: its ways, and tiles near those that the kernels' rules choose.

A short list: each is compiled, checked and timed. Knows what a tile may be; a candidate that is
too large for a GPU shows when it is compiled.
"""

from collections.abc import Iterable, Iterator, Mapping

from cnndsl.fuse.choice import Choice
from cnndsl.fuse.pins import MOST_SIDE, Kernel, Tile
from cnndsl.fuse.ways import allowed, fixed_sides, power_of_two
from cnndsl.layers.conv import Conv
from cnndsl.tune.device import Subject
from cnndsl.tune.task import Candidate, Direction, Task

# Below this, a tile has too little for 8 warps to share.
VALUES_OF_MANY_WARPS = 64 * 128
LEAST_COLUMNS = 32
STAGES = (2, 3, 4)


def ways(task: Task, direction: Direction) -> tuple[Choice | None, ...]:
    """The choices that differ in this direction; the rule's is the first."""
    found: dict[tuple[str, str], Choice] = {}
    for choice in allowed(task.region, task.role):
        way = choice.forward if direction == "forward" else choice.backward
        # The library knows no taps.
        found.setdefault((way, "" if way == "library" else choice.taps), choice)
    return tuple(found.values()) or (None,)


def candidates(task: Task, direction: Direction, subject: Subject) -> tuple[Candidate, ...]:
    """All that is tried in a direction: each way, with the rule's tiles and one other at a time."""
    found: list[Candidate] = []
    for choice in ways(task, direction):
        found.append(Candidate(direction, choice))
        for kernel, tile in subject.tiles(choice, direction).items():
            found += [
                Candidate(direction, choice, ((kernel, other),))
                for other in neighbours(task, kernel, tile, choice)
            ]
    return tuple(found)


def combined(found: Iterable[Candidate], times: Mapping[Candidate, float]) -> list[Candidate]:
    """For each way whose kernels each have a better tile, all of these at once."""
    best: dict[tuple[Direction, Choice | None], dict[Kernel, tuple[float, Tile]]] = {}
    plain = {(c.direction, c.choice): times[c] for c in times if not c.tiles}
    for candidate in found:
        if len(candidate.tiles) != 1 or candidate not in times:
            continue
        (kernel, tile) = candidate.tiles[0]
        way = (candidate.direction, candidate.choice)
        if times[candidate] < plain.get(way, float("inf")):
            rows = best.setdefault(way, {})
            rows[kernel] = min(rows.get(kernel, (float("inf"), tile)), (times[candidate], tile))
    return [
        Candidate(direction, choice, tuple((kernel, tile) for kernel, (_, tile) in rows.items()))
        for (direction, choice), rows in best.items()
        if len(rows) > 1
    ]


def neighbours(task: Task, kernel: Kernel, tile: Tile, choice: Choice | None) -> tuple[Tile, ...]:
    """Tiles that differ from this one in one thing."""
    fixed = fixed_sides(task.region, choice, kernel)
    found: dict[Tile, None] = {}
    for name, most in _sides(task, kernel, tile):
        least = LEAST_COLUMNS if name == "columns" else 16
        side = getattr(tile, name)
        sizes = [s for s in (side // 2, side * 2) if least <= s <= most]
        found |= dict.fromkeys(tile.replace(**{name: s}) for s in sizes if name not in fixed)
    found |= dict.fromkeys(tile.replace(stages=s) for s in STAGES)
    if tile.rows * tile.columns >= VALUES_OF_MANY_WARPS:
        found |= dict.fromkeys(tile.replace(warps=w) for w in (4, 8))
    return tuple(t for t in found if t != tile and t.is_possible)


def _sides(task: Task, kernel: Kernel, tile: Tile) -> Iterator[tuple[str, int]]:
    """Each side of a tile, and the most that makes sense: no more than there is."""
    layer = task.region.anchor.layer
    rows = MOST_SIDE
    if isinstance(layer, Conv) and kernel in ("forward", "stage", "weight_gradient"):
        rows = max(tile.rows, min(128, power_of_two(layer.filters.constant or MOST_SIDE)))
    yield "rows", min(rows, 128)
    yield "columns", MOST_SIDE
    yield "terms", 128
