"""What the arguments of a layer may be: each kind names itself in messages and reads a value.

A value comes from the checker's evaluation: a `Dim`, a float, a bool, a string (also a bare word
such as `max`), or a `Pair` (a size). Knows nothing of the text it came from.
"""

import math
from typing import Any

from cnndsl.layers.types import TensorType
from cnndsl.record import Record
from cnndsl.sizes.dim import Dim


class Pair(Record):
    """Something for each of the two axes of an image: a size, a stride, a padding."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"

    @property
    def short(self) -> str:
        """As a `.cnn` file says it in an argument: one number where both are the same."""
        return str(self.height) if self.height == self.width else str(self)


class Labelled(Record):
    """Another tensor of the network: its label, and its type."""

    label: str
    type: TensorType


Value = Dim | float | bool | str | Pair | Labelled

Read = Any
"""What a kind makes of a value: each has a type of its own."""


class Refusal(Exception):
    """A value that an argument cannot take; the text says what it takes instead."""


class Kind:
    """A kind of argument. `what` completes the sentence "`stride` takes …"."""

    what: str = ""
    words: tuple[str, ...] = ()  # bare words that it understands
    meant: dict[str, str] = {}  # noqa: RUF012 (never changed): what other tools write for them

    def read(self, value: Value) -> Read:
        """The field's value, or `Refusal`."""
        raise Refusal(self.what)

    def write(self, value: Read) -> str:
        """The field's value as a `.cnn` file says it."""
        return str(value)

    def data(self, value: Read) -> object:
        """The field's value for JSON."""
        return value


class Count(Kind):
    """A whole number from `least` on, also one that depends on symbols."""

    def __init__(self, least: int = 1) -> None:
        """`least` is 1 for what must be there at all, 0 for places that are counted from 0."""
        self.least = least
        self.what = "a positive whole number" if least else "a whole number, 0 or more"

    def read(self, value: Value) -> Dim:
        """The number."""
        if not isinstance(value, Dim):
            raise Refusal(self.what)
        if value.constant is not None and value.constant < self.least:
            raise Refusal(self.what)
        return value

    def data(self, value: Dim) -> object:
        """An int, or the expression's text."""
        return value.constant if value.constant is not None else str(value)


class Whole(Count):
    """A whole number from `least` on that is known while checking."""

    def read(self, value: Value) -> Read:
        """The number."""
        number = super().read(value).constant
        if number is None:
            raise Refusal(f"{self.what}, and it must be known: give its `param` a value")
        return number

    def data(self, value: Read) -> object:
        """The number itself."""
        return value


class Size(Kind):
    """A number or `HxW`, at least `least` in each direction, known while checking."""

    def __init__(self, least: int = 1) -> None:
        """`least` is 1 for sizes and strides, 0 for paddings."""
        self.least = least
        kind = "a positive whole number" if least else "a whole number, 0 or more,"
        self.what = f"{kind} or a size such as `3x3`"

    def read(self, value: Value) -> Pair:
        """The pair; one number stands for both directions."""
        if isinstance(value, Dim):
            if value.constant is None:
                raise Refusal(f"{self.what}, and it must be known: give its `param` a value")
            value = Pair(value.constant, value.constant)
        if not isinstance(value, Pair) or min(value.height, value.width) < self.least:
            raise Refusal(self.what)
        return value

    def write(self, value: Pair) -> str:
        """`2`, or `2x1`."""
        return value.short

    def data(self, value: Pair) -> object:
        """`[2, 1]`."""
        return [value.height, value.width]


class WindowSize(Size):
    """The size of a window: always shown as `5x5`."""

    def write(self, value: Pair) -> str:
        """`5x5`."""
        return str(value)


class Padding(Size):
    """A size of zeros around the image, or `same`."""

    words = ("same",)
    meant = {  # noqa: RUF012 (never changed)
        "valid": "0",
        "VALID": "0",
        "none": "0",
        "None": "0",
        "SAME": "same",
        "half": "same",
    }

    def __init__(self) -> None:
        """From 0 on."""
        super().__init__(0)
        self.what = "a whole number, a size such as `1x0`, or `same`"

    def read(self, value: Value) -> Read:
        """A pair, or the word `same`, which the layer turns into numbers."""
        return value if value == "same" else super().read(value)

    def write(self, value: Read) -> str:
        """`same`, `2`, or `2x1`."""
        return value if value == "same" else super().write(value)

    def data(self, value: Read) -> object:
        """`"same"` or `[2, 1]`."""
        return value if value == "same" else super().data(value)


class Flag(Kind):
    """`yes` or `no`."""

    what = "`yes` or `no`"
    meant = {  # noqa: RUF012 (never changed)
        "true": "yes",
        "True": "yes",
        "on": "yes",
        "false": "no",
        "False": "no",
        "off": "no",
        "none": "no",
        "None": "no",
    }

    def read(self, value: Value) -> bool:
        """The boolean."""
        if not isinstance(value, bool):
            raise Refusal(self.what)
        return value

    def write(self, value: bool) -> str:
        """`yes` or `no`."""
        return "yes" if value else "no"


class Number(Kind):
    """A number, with or without a point, from `low` on and up to `high`."""

    def __init__(
        self, low: float = -math.inf, high: float = math.inf, *, positive: bool = False
    ) -> None:
        """Both bounds are allowed themselves, but `low` where it is 0 and `positive` says so."""
        self.low, self.high, self.positive = low, high, positive
        if positive:
            self.what = "a positive number" + (f" up to {high:g}" if high < math.inf else "")
        elif high < math.inf:
            self.what = f"a number between {low:g} and {high:g}"
        else:
            self.what = f"a number of at least {low:g}" if low > -math.inf else "a number"

    def read(self, value: Value) -> float:
        """The float."""
        if isinstance(value, Dim) and value.constant is not None:
            value = float(value.constant)
        if isinstance(value, bool) or not isinstance(value, float):
            raise Refusal(self.what)
        if not math.isfinite(value) or not self.low <= value <= self.high:
            raise Refusal(self.what)
        if self.positive and value == self.low:
            raise Refusal(self.what)
        return value

    def write(self, value: float) -> str:
        """The shortest text that reads back as the same number."""
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)


class Word(Kind):
    """One of a few words."""

    meant = {  # noqa: RUF012 (never changed)
        "average": "avg",
        "mean": "avg",
        "maximum": "max",
    }

    def __init__(self, *words: str) -> None:
        """The words, in the order in which messages name them."""
        self.words = words
        self.what = " or ".join(f"`{word}`" for word in words)

    def read(self, value: Value) -> str:
        """The word."""
        if value not in self.words:
            raise Refusal(self.what)
        return str(value)


class Like(Kind):
    """The label of an image whose height and width this one is to have."""

    what = "the label of an image above, such as `like enc1`"

    def read(self, value: Value) -> Labelled:
        """The tensor, which the checker has looked up."""
        if not isinstance(value, Labelled):
            raise Refusal(self.what)
        return value

    def write(self, value: Labelled) -> str:
        """Its label."""
        return value.label

    def data(self, value: Labelled) -> object:
        """Its label."""
        return value.label
