"""The committed tables of what the kernels' machine code uses, and what counts as worse."""

from collections.abc import Iterable, Mapping
from typing import Any

COLUMNS = ("registers", "spills", "shared_bytes", "mma", "tma", "instructions")
# A compiler of another version moves these a little; a rise above this is looked at by somebody.
MOST_RISE = 1.2

Row = tuple[str, ...]
Key = tuple[str, str, str, str]


def table(usages: Iterable[Mapping[str, Any]]) -> str:
    """A Markdown table, a kernel of a region and type a line."""
    rows = {key(usage): tuple(str(usage[column]) for column in COLUMNS) for usage in usages}
    head = ("region", "dtype", "kernel", "configuration", *COLUMNS)
    cells = [head, *((*names, *values) for names, values in sorted(rows.items()))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| "
        + " | ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"


def rows(text: str) -> dict[Key, Row]:
    """What a table says, by region, type, kernel and configuration."""
    found: dict[Key, Row] = {}
    for line in text.splitlines()[2:]:
        a, b, c, d, *values = (cell.strip() for cell in line.strip("|").split("|"))
        found[a, b, c, d] = tuple(values)
    return found


def key(usage: Mapping[str, Any]) -> Key:
    """What tells a line of the table from the others."""
    config = {k.removeprefix("BLOCK_").lower(): v for k, v in usage["config"].items()}
    words = ", ".join(f"{name} {value}" for name, value in config.items())
    return usage["region"], usage["dtype"], usage["kernel"], words


def worse(before: str, now: str) -> list[str]:
    """How a table is worse than the one before: what rose, was lost, or is not in both."""
    old, new = rows(before), rows(now)
    found = [f"{' '.join(k)}: is gone" for k in old.keys() - new.keys()]
    found += [f"{' '.join(k)}: is new" for k in new.keys() - old.keys()]
    for k in old.keys() & new.keys():
        for column, a, b in zip(COLUMNS, old[k], new[k], strict=True):
            lost = column in ("mma", "tma") and a not in ("fma", "False") and a != b
            rose = column not in ("mma", "tma") and int(b) > MOST_RISE * int(a)
            if lost or rose:
                found.append(f"{' '.join(k)}: {column} was {a}, is {b}")
    return sorted(found)
