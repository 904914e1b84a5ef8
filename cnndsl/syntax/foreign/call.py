"""What the readers make of a foreign line, and how its values are written here."""

from typing import NamedTuple

from cnndsl.record import Record


class Name(Record):
    """A name that stands for a value, perhaps dotted: `num_classes`, `self.training`."""

    text: str


class Call(Record):
    """`nn.Conv2d(3, 16, 3, padding=1)`; `applied` are the values of a second pair of brackets."""

    name: str
    positional: "tuple[Value, ...]"
    named: "dict[str, Value]"
    applied: "tuple[Value, ...] | None" = None

    @property
    def last(self) -> str:
        """The name without what stands in front of its last dot."""
        return self.name.rpartition(".")[2]

    @property
    def owner(self) -> str:
        """What stands in front of the last dot."""
        return self.name.rpartition(".")[0]


Value = int | float | str | bool | None | tuple["Value", ...] | Name | Call


class Written(NamedTuple):
    """What a foreign line is here.

    `text` are statements joined by `; `, none where nothing has to be written. `lacks` are the
    parts that have no counterpart: where there are any, the text is not the same network.
    """

    text: str
    lacks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Unwritable(Exception):
    """A value that the language cannot say in this place; the text says why."""


def shown(value: Value) -> str:
    """The value as Python writes it."""
    match value:
        case Name(text):
            return text
        case Call():
            return f"{value.name}(…)"
        case tuple():
            inside = ", ".join(map(shown, value))
            return f"({inside},)" if len(value) == 1 else f"({inside})"
        case str():
            return f'"{value}"'
        case _:
            return repr(value)


def number(value: Value) -> str:
    """A number, or the name of one."""
    match value:
        case bool() | None:
            pass
        case int() | float():
            text = repr(value)
            if not text.startswith("-") and text[-1].isdigit():
                return text
        case Name(text) if text.isidentifier():
            return text
        case _:
            pass
    raise Unwritable(f"`{shown(value)}` is not a number here")


def count(value: Value) -> str:
    """A whole number, or the name of one."""
    if isinstance(value, float):
        raise Unwritable(f"`{shown(value)}` is not a whole number")
    return number(value)


def sides(value: Value) -> tuple[str, str]:
    """Height and width of a size."""
    if isinstance(value, tuple):
        if len(value) == 1:
            value *= 2
        if len(value) != 2:
            raise Unwritable(f"`{shown(value)}` is not a size of height and width")
        return count(value[0]), count(value[1])
    return count(value), count(value)


def window(value: Value) -> str:
    """The size of a filter: `3x3`."""
    if isinstance(value, Name):
        return count(value)
    height, width = sides(value)
    if not (height + width).isdigit():
        raise Unwritable(f"a size is written in numbers, not as `{shown(value)}`")
    return f"{height}x{width}"


def pair(value: Value) -> str:
    """A stride, a padding or the like: one number where both directions have the same."""
    height, width = sides(value)
    return height if height == width else window(value)


def flag(value: Value) -> str:
    """`yes` or `no`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    raise Unwritable(f"`{shown(value)}` is neither True nor False")


def whole(value: Value) -> int:
    """A whole number that is known."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise Unwritable(f"`{shown(value)}` is not known here: it has to be a number")
