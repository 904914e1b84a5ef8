"""What programs share, cnndsl.rt: imported, or written at the end of a file that stands alone."""

import ast
import re
from collections.abc import Mapping, Sequence
from functools import cache

from cnndsl import assets
from cnndsl.emit import layout, share, splice
from cnndsl.emit.jobs import Family
from cnndsl.emit.prune import prune
from cnndsl.emit.settle import settle

PACKAGE = "cnndsl.rt"
VERSION = 2  # of the package, whose own number a test compares with it
# In an order in which each file finds what it runs when it is imported.
_FIRST = ("dispatch.py", "module.py", "shared.py", "replay.py", "rows.py", "cpu.py", "scale.py")
_OPERATORS: dict[Family, tuple[str, ...]] = {
    "conv": (
        *("windows.py", "conv_geometry.py", "conv_rows.py", "conv_library.py", "conv_second.py"),
        "conv_operator.py",
    ),
    "fc": ("fc_operator.py",),
    "norm": ("norm_operator.py",),
}
_EARLY = ("COUNTS",)
_LAST = ("image.py", "loss.py")


@cache
def names() -> frozenset[str]:
    """What a program may import from the package."""
    tree = ast.parse(read("__init__.py"))
    lists = (s.value for s in tree.body if isinstance(s, ast.Assign) and _name(s) == "__all__")
    return frozenset(ast.literal_eval(next(lists)))


def _name(statement: ast.Assign) -> str:
    return ast.unparse(statement.targets[0])


def read(name: str) -> str:
    """The text of one of its files."""
    return assets.read("rt", name)


def files(families: Sequence[Family]) -> tuple[str, ...]:
    """The files that a program with regions of these families may need."""
    return (*_FIRST, *(name for family in families for name in _OPERATORS[family]), *_LAST)


def statement(used: set[str]) -> ast.ImportFrom:
    """The import of all that is used, and of the question for the package's version."""
    found = sorted(used & names())
    found += ["requires"] if found else []
    return ast.ImportFrom(PACKAGE, [ast.alias(name) for name in found], 0)


def early(users: Sequence[str]) -> list[str]:
    """The values that kernels need where they are defined, if these texts use them."""
    parts = share.definitions(splice.bare(read("shared.py"))[0])
    return [parts[name] for name in _EARLY if name in splice.words(users)]


def text(switches: Mapping[Family, Mapping[str, object]], users: Sequence[str]) -> list[str]:
    """What these texts use, but for what is `early`, without what no region needs.

    `switches` are those that have one value in all regions of a family.
    """
    found: list[str] = []
    families: dict[str, Family] = {n: f for f, own in _OPERATORS.items() for n in own}
    for name in reversed(files(tuple(switches))):
        part, _ = splice.bare(read(name))
        if name in families:
            part = _settled(part, switches[families[name]])
        # The operators of a file are in its own namespace.
        roots = splice.words([*users, *found]) - {"NAMESPACE", *_EARLY}
        part = prune(part, [n for n in splice.definitions(part) if n in roots])
        part = _without_unread(part, [*users, *found])
        if part.strip():
            found.insert(0, part)
    return [layout.banner("what programs share"), *found] if found else []


def _without_unread(part: str, users: Sequence[str]) -> str:
    """The part without the properties that nothing reads, of its geometries."""
    for name in splice.properties(part):
        rest = splice.without_field(part, name)
        if not any(re.search(rf"\.{name}\b", text) for text in (rest, *users)):
            return _without_unread(rest, users)
    return part


def _settled(part: str, switches: Mapping[str, object]) -> str:
    part = settle(part, switches)
    if switches.get("geometry.tiles") is False:
        part = splice.without_field(part, "tiles")
    if switches.get("geometry.pixels") == 1:
        part = splice.without_field(splice.without_field(part, "size"), "pixels")
    return part
