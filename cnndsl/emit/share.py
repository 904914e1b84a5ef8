"""Says once what the kernels of several regions have in common.

Two functions are one where their texts are, with what they call. Knows Python's definitions; knows
nothing of what they compute.
"""

import ast
from functools import lru_cache

from cnndsl.emit import splice
from cnndsl.emit.lines import Lines, parsed, walk
from cnndsl.record import Record


class Taken(Record):
    """The kernels of one signature: the text of those that are new, and by what all are called.

    `names` tells for each definition its name in the file, `regions` the numbers of the sections in
    which those that are not new stand.
    """

    text: str
    names: dict[str, str]
    regions: frozenset[int]


class Library:
    """All definitions of a file that were written so far."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        """Begin with none."""
        self._known: dict[str, tuple[str, int]] = {}

    def take(self, text: str, start: str, prefix: str, region: int) -> Taken:
        """Write the definitions of a text into the section of a region, as far as they are new.

        Their names begin with `start`; new ones get `prefix` in its place.
        """
        parts = definitions(text)
        names: dict[str, str] = {}
        new: list[str] = []
        regions: set[int] = set()
        for name in _callees_first(parts):
            # Its own name stays for now: it is no part of what the text does.
            key = splice.rename(parts[name], {n: f for n, f in names.items() if n != name})
            if key in self._known:
                names[name], where = self._known[key]
                regions.add(where)
            else:
                names[name] = f"{prefix}_{name.removeprefix(start)}"
                self._known[key] = names[name], region
                new.append(name)
        written = [splice.rename(part, names) for name, part in parts.items() if name in new]
        return Taken("\n\n\n".join(written), names, frozenset(regions - {region}))


def definitions(text: str) -> dict[str, str]:
    """The text of each definition, with its decorators and the comments above it."""
    source = Lines(text)
    found: dict[str, str] = {}
    last = 0
    for name, statement in zip(splice.definitions(text), source.tree.body, strict=True):
        end = statement.end_lineno or statement.lineno
        found[name] = source.text[source.starts[last] : source.starts[end]].strip("\n")
        last = end
    return found


@lru_cache(maxsize=1024)
def _names(text: str) -> tuple[str, ...]:
    return tuple(n.id for n in walk(parsed(text)) if isinstance(n, ast.Name))


def _callees_first(parts: dict[str, str]) -> list[str]:
    """The names in an order in which each stands behind those that it uses."""
    uses = {name: [n for n in _names(part) if n in parts] for name, part in parts.items()}
    found: dict[str, None] = {}
    waiting = list(reversed(parts))
    while waiting:
        name = waiting[-1]
        missing = [n for n in uses[name] if n not in found and n != name]
        if missing and name not in found:
            waiting += missing
        else:
            found.setdefault(waiting.pop())
    return list(found)
