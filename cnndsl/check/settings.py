"""Values from outside, by `--set` or from Python, as values of the language."""

from collections.abc import Mapping
from typing import cast

from cnndsl.layers.arguments import Pair, Value
from cnndsl.sizes.dim import Dim


def read_settings(settings: Mapping[str, object]) -> dict[str, Value]:
    """Python values as values of the language; `TypeError` for what the language does not have."""
    return {name: _read(name, value) for name, value in settings.items()}


def parse_setting(text: str) -> tuple[str, Value]:
    """`NAME=VALUE` from the command line; `ValueError` says what is wrong."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier() or not name.isascii() or not value:
        raise ValueError(f"`{text}` is not of the form NAME=VALUE, such as `width=64`")
    return name, _parse(value)


def _parse(text: str) -> Value:
    if text in ("yes", "no"):
        return text == "yes"
    digits = text.replace("_", "")
    if _is_whole(digits):
        return Dim.of(int(digits))
    height, by, width = digits.partition("x")
    if by and _is_whole(height) and _is_whole(width):
        return Pair(int(height), int(width))
    try:
        return float(text)
    except ValueError:
        return text


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 19


def _read(name: str, value: object) -> Value:
    match value:
        case bool() | float() | str() | Dim() | Pair():
            return value
        case int():
            return Dim.of(value)
        case (int(), int()):
            height, width = cast("tuple[int, int]", value)
            return Pair(height, width)
        case _:
            raise TypeError(f"{name}: a {type(value).__name__} is no value of the language")
