"""What was measured for a whole network, as a file that people read, keep and commit.

    {"version": 1, "made": {"gpu": "NVIDIA H200", …}, "regions": [{"region": "conv1 + relu1", …}],
     "sha256": …}

A file is taken only whole, unchanged, and for the network that it was made for. Knows regions and
JSON; knows nothing of how anything is measured.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from os import PathLike
from pathlib import Path
from typing import Any, cast

from cnndsl.diagnostics.helpful import HelpfulError
from cnndsl.diagnostics.safe import safe
from cnndsl.fuse.choice import TAPS, WAYS, Choice, Taps, Way
from cnndsl.fuse.pins import DTYPES, KERNELS, ROLES, Kernel, Pin, Role, Tile, TileOf
from cnndsl.fuse.regions import Part, Region
from cnndsl.fuse.ways import allowed, fixed_sides, roles
from cnndsl.layers.conv import Conv
from cnndsl.layers.types import show
from cnndsl.record import Record

VERSION = 1
MOST_BYTES = 16 * 2**20
_AGAIN = "make it anew: `cnndsl bench FILE --pin OUT.json`, on the GPU that it is for"


class ChoicesError(HelpfulError):
    """A file of choices that is damaged, or was made for something else."""


class Chosen(Record):
    """A region, its layers as text, what was chosen, and in words why."""

    region: str
    layers: tuple[str, ...]
    pins: tuple[tuple[Role, Pin], ...]
    why: tuple[str, ...] = ()


class Choices(Record):
    """What was measured for a network; `made` says on what. Without regions the rules choose."""

    regions: tuple[Chosen, ...] = ()
    made: tuple[tuple[str, str], ...] = ()


NONE = Choices()


def title(region: Region) -> str:
    """`conv1 + relu1 + pool1`."""
    return " + ".join(node.path for node in region.nodes)


def layers(region: Region) -> tuple[str, ...]:
    """All that decides whether a choice is about this region."""
    first = f"reads {show(region.arrives)}"
    return (first, *(f"{n.layer.write()} -> {show(n.output)}" for n in region.nodes))


# ── on a network ─────────────────────────────────────────────────────────────────────────────────


def pinned(parts: Sequence[Part], choices: Choices) -> tuple[Part, ...]:
    """The regions with what was chosen for them; `ChoicesError` where that is for others."""
    known = {chosen.region: chosen for chosen in choices.regions}
    found: list[Part] = []
    for part in parts:
        chosen = known.pop(title(part), None) if isinstance(part, Region) else None
        if isinstance(part, Region) and chosen is not None:
            _check(part, chosen)
            found.append(part.replace(pins=chosen.pins))
        else:
            found.append(part)
    if known:
        raise ChoicesError(
            f"there are choices for `{next(iter(known))}`, which is no region of this network",
            "give the file that was made for it, or leave it out",
            _AGAIN,
        )
    return tuple(found)


def _check(region: Region, chosen: Chosen) -> None:
    name = chosen.region
    for made, now in zip_longest(chosen.layers, layers(region), fillvalue="nothing"):
        if made != now:
            raise ChoicesError(
                f"the choices for `{name}` were made for `{made}`, and now it is `{now}`", _AGAIN
            )
    if tuple(role for role, _ in chosen.pins) != roles(region):
        raise ChoicesError(f"the choices for `{name}` are not all there", _AGAIN)
    for role, pin in chosen.pins:
        ways = allowed(region, role)
        if (pin.choice is None) != (not ways) or (ways and pin.choice not in ways):
            raise ChoicesError(f"the kernels of `{name}` cannot go the ways chosen for it", _AGAIN)
        for tile in pin.tiles:
            if tile.kernel not in kernels(region, pin.choice):
                raise ChoicesError(
                    f"`{name}` has a tile for the kernel `{tile.kernel}`, which is not launched",
                    _AGAIN,
                )
            sides = fixed_sides(region, pin.choice, tile.kernel)
            if any(getattr(tile.tile, side) != size for side, size in sides.items()):
                raise ChoicesError(
                    f"the kernel `{tile.kernel}` of `{name}` computes nothing right with "
                    f"{tile.tile}",
                    _AGAIN,
                )


def kernels(region: Region, choice: Choice | None) -> tuple[Kernel, ...]:
    """Those of its kernels that multiply in tiles, if it goes these ways."""
    if choice is None:
        return ("forward", "input_gradient", "weight_gradient")
    is_fused = isinstance(region.anchor.layer, Conv) or choice.forward == "fused"
    found: list[Kernel] = ["forward"] * is_fused
    if choice.forward == "staged":
        found.append("stage")
    if choice.backward == "fused":
        found.extend(("input_gradient", "weight_gradient"))
    return tuple(found)


# ── as a file ────────────────────────────────────────────────────────────────────────────────────


def write(choices: Choices) -> str:
    """The file's text."""
    content = {
        "version": VERSION,
        "made": dict(choices.made),
        "regions": [_as_json(chosen) for chosen in choices.regions],
    }
    return json.dumps({**content, "sha256": _digest(content)}, indent=1, ensure_ascii=False) + "\n"


def is_choices(head: bytes) -> bool:
    """Whether a file begins as `write` begins one."""
    return re.match(rb'\{\s*"version": \d+,\s*"made": \{', head) is not None


def load(path: str | PathLike[str]) -> Choices:
    """What the file at `path` says. Raises `ChoicesError`, also where there is none."""
    name = os.fspath(path)
    if Path(name).exists() and not Path(name).is_file():  # to open a pipe would wait for ever
        raise ChoicesError(f"`{safe(name)}` is not a file", "give the file of choices itself")
    try:
        with Path(name).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        why = error.strerror or str(error)
        raise ChoicesError(f"`{name}` cannot be read: {why}", _AGAIN) from error
    if len(content) > MOST_BYTES:
        raise ChoicesError(f"`{name}` has more than {MOST_BYTES:,} bytes, too many for choices")
    return read(content.decode(errors="replace"), name)


def read(text: str, name: str) -> Choices:
    """What `write` wrote; `name` is what messages call the file. Raises `ChoicesError`."""
    try:
        found = cast("object", json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ChoicesError(f"`{name}` is no file of choices: it is not JSON", _AGAIN) from error
    match found:
        case {"version": 1, "made": {}, "regions": list(), "sha256": str(digest)}:
            content = cast("dict[str, Any]", found)
        case {"version": int(version), "made": {}} if version != VERSION:
            raise ChoicesError(
                f"`{name}` was made by another version of cnndsl (its format is {version}, not 1)",
                _AGAIN,
            )
        case _:
            raise ChoicesError(f"`{name}` is no file of choices", _AGAIN)
    if digest != _digest({key: content[key] for key in ("version", "made", "regions")}):
        raise ChoicesError(
            f"`{name}` is damaged, or was changed after it was made: its `sha256` is that of "
            "another content",
            _AGAIN,
        )
    try:
        regions = tuple(_as_chosen(item) for item in content["regions"])
        made = tuple((str(key), str(value)) for key, value in content["made"].items())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ChoicesError(f"`{name}` holds a choice that says nothing: {error}", _AGAIN) from error
    return Choices(regions, made)


def _digest(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _as_json(chosen: Chosen) -> dict[str, object]:
    return {
        "region": chosen.region,
        "layers": list(chosen.layers),
        "pins": {role: pin_as_json(pin) for role, pin in chosen.pins},
        "why": list(chosen.why),
    }


def pin_as_json(pin: Pin) -> dict[str, object]:
    """A pin as values that JSON takes."""
    ways = {} if pin.choice is None else _fields(pin.choice)
    tiles = [
        {"kernel": t.kernel, "dtype": t.dtype, "images": t.images, **_fields(t.tile)}
        for t in pin.tiles
    ]
    return {**ways, "tiles": tiles}


def _fields(record: Record) -> dict[str, object]:
    return dict(zip(record.__fields__, record.values(), strict=True))


def _as_chosen(item: Mapping[str, Any]) -> Chosen:
    pins: list[tuple[Role, Pin]] = []
    for role, value in item["pins"].items():
        pins.append((cast("Role", _word(role, ROLES)), pin_of_json(value)))
    return Chosen(_text(item["region"]), _texts(item["layers"]), tuple(pins), _texts(item["why"]))


def pin_of_json(value: Mapping[str, Any]) -> Pin:
    """What `pin_as_json` gave; `KeyError`, `TypeError` or `ValueError` for anything else."""
    choice = None
    if "taps" in value:
        both = ("forward", "backward")
        ways: list[Way] = [cast("Way", _word(value[name], WAYS)) for name in both]
        choice = Choice(cast("Taps", _word(value["taps"], TAPS)), *ways)
    return Pin(choice, tuple(_tile_of(item) for item in value["tiles"]))


def _tile_of(item: Mapping[str, Any]) -> TileOf:
    tile = Tile(*(_number(item[name]) for name in Tile.__fields__))
    if not tile.is_possible:
        raise ValueError(f"no kernel has a tile of {tile}")
    kernel = cast("Kernel", _word(item["kernel"], KERNELS))
    return TileOf(kernel, _word(item["dtype"], DTYPES), _number(item["images"]), tile)


def _word(value: object, words: tuple[str, ...]) -> str:
    if isinstance(value, str) and value in words:
        return value
    raise ValueError(f"{value!r} is none of {', '.join(words)}")


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
        raise ValueError(f"{value!r} is no number of that kind")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _texts(values: object) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TypeError(f"{values!r} is no list")
    return tuple(_text(value) for value in cast("list[object]", values))
