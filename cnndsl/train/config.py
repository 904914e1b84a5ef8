"""`config.json` of a run folder: what it must hold, and what it says in values of ours.

People edit it, disks damage it: each value is looked at before anything is done with it.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from cnndsl.record import Record
from cnndsl.train.data import Scale
from cnndsl.train.errors import TrainError, UsageError
from cnndsl.train.pixels import Range
from cnndsl.train.recipe import Recipe

VERSION = 3  # of config.json and of what a checkpoint says

_MOST_THREADS = 1024
_LARGEST = 1e30


class _Rule(Record):
    """What a value must be, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -_LARGEST < value < _LARGEST  # nan and infinity are not


def _is_count(value: object, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _list_of(words: str, holds: Callable[[Any], bool], *, or_null: bool = False) -> _Rule:
    def all_hold(value: object) -> bool:
        if value is None:
            return or_null
        return isinstance(value, list) and all(map(holds, cast("list[object]", value)))

    return _Rule(f"a list of {words}{' or null' * or_null}", all_hold)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_range(value: object) -> bool:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return len(items) == 2 and all(map(_is_number, items))


_DATA = {
    "name": _Rule("a text", _is_text),
    "shape": _list_of("whole numbers", lambda v: _is_count(v, 1)),
    "classes": _list_of("names", _is_text),
    "mean": _list_of("numbers", _is_number, or_null=True),
    "deviation": _list_of("numbers above zero", lambda v: _is_number(v) and v > 0, or_null=True),
    "resize": _Rule("true or false", _is_flag),
    "recolor": _Rule("true or false", _is_flag),
    "range": _Rule("two numbers", _is_range),
    "fingerprint": _Rule("a text", _is_text),
}
_WHOLE = {
    "recipe": _Rule("an object", lambda v: isinstance(v, dict)),
    "data": _Rule("an object", lambda v: isinstance(v, dict)),
    "set": _list_of("texts", _is_text),
    "threads": _Rule(
        f"a whole number from 1 to {_MOST_THREADS}",
        lambda v: _is_count(v, 1) and v <= _MOST_THREADS,
    ),
    "processes": _Rule("a whole number from 1 up", lambda v: _is_count(v, 1)),
    "versions": _Rule("an object", lambda v: isinstance(v, dict)),
}


def read(path: Path) -> dict[str, Any]:
    """What the file of a run says; raises `TrainError` unless each value is as it must be."""
    try:
        if path.exists() and not path.is_file():
            raise TrainError(f"`{path}` is no plain file", "train again: `--out`")
        config = cast("object", json.loads(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(
            f"there is no run in `{path.parent}`",
            f"train one: `cnndsl train FILE --out {path.parent}`",
        ) from error
    except (ValueError, RecursionError) as error:
        raise TrainError(f"`{path}` is not whole", "train again: `--out`") from error
    match config:
        case {"version": int(version)} if version != VERSION:
            raise TrainError(
                f"`{path.parent}` was made by another version of cnndsl (its format is {version}, "
                f"not {VERSION})",
                "use that version, or train again: `--out`",
            )
        case {"version": int()}:
            found = cast("dict[str, Any]", config)
        case _:
            raise TrainError(f"`{path}` describes no run", "train again: `--out`")
    _check(path, found)
    return found


def _check(path: Path, config: dict[str, Any]) -> None:
    _check_values(path, config, _WHOLE, "")
    data = config["data"]
    _check_values(path, data, _DATA, "data.")
    if (data["mean"] is None) != (data["deviation"] is None) or (
        data["mean"] is not None and len(data["mean"]) != len(data["deviation"])
    ):
        raise _damaged(path, "`data.mean` and `data.deviation` do not fit each other")
    unknown = sorted(config["recipe"].keys() ^ set(Recipe.__fields__))
    if unknown:
        raise _damaged(path, f"`recipe.{unknown[0]}` is missing or unknown")
    try:
        Recipe(**config["recipe"]).check()
    except UsageError as error:
        raise _damaged(path, f"in `recipe`, {error.message}") from error


def _check_values(
    path: Path, values: dict[str, Any], rules: Mapping[str, _Rule], inside: str
) -> None:
    for name, rule in rules.items():
        if name not in values:
            raise _damaged(path, f"`{inside}{name}` is missing")
        if not rule.holds(values[name]):
            shown = json.dumps(values[name])
            shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
            raise _damaged(path, f"`{inside}{name}` is {shown}, not {rule.words}")


def _damaged(path: Path, what: str) -> TrainError:
    return TrainError(
        f"`{path}` is damaged: {what}", "put back what it said, or train again: `--out`"
    )


def scale_of(data: Mapping[str, Any]) -> Scale | None:
    """How images were scaled, by the part `data` of a configuration; None: not by us."""
    if data["mean"] is None:
        return None
    return Scale(tuple(data["mean"]), tuple(data["deviation"]))


def range_of(data: Mapping[str, Any]) -> Range:
    """By what range pictures of 32-bit numbers were scaled."""
    return Range(*data["range"])
