"""The arguments of one foreign layer, and what is said of them. Knows no framework."""

from collections.abc import Callable

from cnndsl.syntax.foreign.call import (
    Unwritable,
    Value,
    count,
    shown,
    whole,
)


class Given:
    """The arguments of one call by their names, defaults filled in, and what is said of them."""

    def __init__(self, values: dict[str, Value]) -> None:
        """`values` holds every argument of the signature."""
        self._values = values
        self.used: set[str] = set()
        self.lacks: list[str] = []
        self.notes: list[str] = []

    def __getitem__(self, name: str) -> Value:
        self.used.add(name)
        return self._values[name]

    def get(self, name: str, default: Value = None) -> Value:
        """An argument that not every signature of the line has."""
        return self[name] if name in self._values else default

    def lack(self, what: str) -> None:
        """Say what the line cannot."""
        self.lacks.append(what)


Line = Callable[[Given], str]


def option(name: str, text: str, usual: str) -> str:
    """` name=text`, or nothing where it is what is usual."""
    return "" if text == usual else f" {name}={text}"


def numbers(value: Value) -> tuple[int, int]:
    """Height and width, known as numbers."""
    if isinstance(value, tuple) and len(value) == 2:
        return whole(value[0]), whole(value[1])
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    return whole(value), whole(value)


def same(size: Value, dilation: Value) -> tuple[str, str]:
    """A `pad` in front, and the value of `pad=`: for an even extent, one more below and right."""
    reach = [d * (k - 1) for k, d in zip(numbers(size), numbers(dilation), strict=True)]
    if not any(r % 2 for r in reach):
        return "", "same" if any(reach) else "0"
    (above, below), (left, right) = ((r // 2, r - r // 2) for r in reach)
    return f"pad {above} {below} {left} {right}; ", "0"


def factor(value: Value) -> str:
    """The factor by which an image grows, the same in both directions."""
    if isinstance(value, tuple) and len(set(value)) == 1:
        value = value[0]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, (tuple, float)) or value is None:
        raise Unwritable(f"`upsample` takes one whole factor, not `{shown(value)}`")
    return count(value)
