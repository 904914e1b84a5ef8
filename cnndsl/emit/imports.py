"""The imports of an emitted file: those that its parts need, sorted as ruff sorts them."""

import ast
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache

from cnndsl.emit.layout import WIDTH, call
from cnndsl.emit.lines import parsed

Import = ast.Import | ast.ImportFrom


def write(found: Iterable[Import], used: set[str]) -> str:
    """Import statements for the names in `used`; what nothing uses is left out."""
    plain: set[tuple[str, str | None]] = set()
    members: dict[str, set[str]] = {}
    for statement in found:
        for alias in statement.names:
            if (alias.asname or alias.name).split(".")[0] not in used:
                continue
            if isinstance(statement, ast.ImportFrom):
                members.setdefault(statement.module or "", set()).add(alias.name)
            else:
                plain.add((alias.name, alias.asname))
    sections: list[str] = []
    if future := sorted(members.pop("__future__", ())):
        sections.append(f"from __future__ import {', '.join(future)}")
    for standard in (True, False):
        lines = [
            f"import {name} as {other}" if other else f"import {name}"
            for name, other in sorted(plain, key=str)
            if _is_standard(name) == standard
        ]
        lines += [
            _from(module, sorted(names, key=_member))
            for module, names in sorted(members.items())
            if _is_standard(module) == standard
        ]
        if lines:
            sections.append("\n".join(lines))
    return "\n\n".join(sections)


def _from(module: str, names: Sequence[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    return line if len(line) <= WIDTH else call(f"from {module} import ", names)


@lru_cache(maxsize=64)
def statements(text: str) -> tuple[Import, ...]:
    """The imports in a text."""
    return tuple(s for s in parsed(text).body if isinstance(s, ast.Import | ast.ImportFrom))


def _is_standard(module: str) -> bool:
    return module.split(".")[0] in sys.stdlib_module_names


def _member(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name
