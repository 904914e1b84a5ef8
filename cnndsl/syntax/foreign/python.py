"""Reads one statement of Python such as `x = F.relu(self.conv1(x))`. Never raises for any text.

Knows names, numbers, texts, tuples, calls and sums of numbers: what the line of a layer is made of.
A statement is read up to its end and no further; what is longer than `MAX_TOKENS` is no layer.
"""

import re
from typing import NamedTuple, NoReturn

from cnndsl.syntax.foreign.call import Call, Name, Value

MAX_TOKENS = 400
_DEEPEST = 12  # brackets in each other
_DIGITS = 18  # of a number, and of what sums of numbers come to

_TOKEN = re.compile(
    r"""(?P<blank>[ \t]+)
    |(?P<end>\r?\n|;|\}|\#|$)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*+(?:\.[A-Za-z_][A-Za-z0-9_]*+)*+)
    |(?P<real>(?:[0-9]++\.[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?+|[0-9]++[eE][+-]?[0-9]++)
    |(?P<whole>[0-9]++)
    |(?P<text>'[^'\r\n]*+'|"[^"\r\n]*+")
    |(?P<sign>//|[()\[\],=+\-*.:])
    """,
    re.VERBOSE,
)
_BLANKS = re.compile(r"(?:[ \t\r\n]++|#[^\n]*+)*+")
_CLOSING = {"(": ")", "[": "]"}


class Statement(NamedTuple):
    """`targets = value`, with the name in front of `=` if there is one, and where it ends."""

    target: str | None
    value: Value
    end: int


class _Unread(Exception):
    """What stands there is no such statement."""


def read(text: str, start: int) -> tuple[Statement | None, int]:
    """The statement that starts at `start`, or None; and how many words were looked at."""
    reader = _Reader(text, start)
    try:
        return reader.statement(), reader.count
    except _Unread:
        return None, reader.count


class _Reader:
    """One word ahead of what was read."""

    def __init__(self, text: str, start: int) -> None:
        self.text = text
        self.at = self.last = start  # behind the word ahead, and behind the one before it
        self.depth = self.count = 0
        self.kind = self.word = ""
        self._advance()

    def _fail(self) -> NoReturn:
        raise _Unread

    def _advance(self) -> str:
        """Take the word ahead; look at the next."""
        taken = self.word
        self.last = self.at
        self.count += 1
        if self.depth:
            skipped = _BLANKS.match(self.text, self.at)
            self.at = skipped.end() if skipped else self.at
        found = _TOKEN.match(self.text, self.at)
        if found and found.lastgroup == "blank":
            found = _TOKEN.match(self.text, found.end())
        if found is None or self.count > MAX_TOKENS:
            self.kind, self.word = "bad", ""
            return taken
        self.kind, self.word = found.lastgroup or "", found[0]
        if self.kind != "end":
            self.at = found.end()
        return taken

    def _take(self, sign: str) -> None:
        if not self._is(sign):
            self._fail()
        self._advance()

    def _is(self, *signs: str) -> bool:
        return self.kind == "sign" and self.word in signs

    def statement(self) -> Statement:
        target: str | None = None
        value = self._value()
        while self._is("="):
            if not isinstance(value, Name):
                self._fail()
            target = value.text
            self._advance()
            value = self._value()
        if self._is(","):
            self._advance()
        if self.kind != "end":
            self._fail()
        return Statement(target, value, self.last)

    # ── values ───────────────────────────────────────────────────────────────────────────────────

    def _value(self) -> Value:
        """A value, or numbers with signs between them."""
        value = self._term()
        while self._is("+", "-"):
            sign = self._advance()
            value = _computed(sign, value, self._term())
        return value

    def _term(self) -> Value:
        value = self._factor()
        while self._is("*", "//"):
            sign = self._advance()
            value = _computed(sign, value, self._factor())
        return value

    def _factor(self) -> Value:
        if self._is("-"):
            self._advance()
            value = self._factor()
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                self._fail()
            return -value
        match self.kind:
            case "name":
                return self._name()
            case "whole":
                return self._whole()
            case "real":
                return float(self._advance())
            case "text":
                return self._advance()[1:-1]
            case "sign" if self.word in _CLOSING:
                return self._behind(self._bracket())
            case _:
                raise _Unread

    def _whole(self) -> int:
        if len(self.word) > _DIGITS:
            self._fail()
        return int(self._advance())

    def _name(self) -> Value:
        word = self._advance()
        if word in ("True", "False"):
            return word == "True"
        return None if word == "None" else self._behind(Name(word))

    def _behind(self, value: Value) -> Value:
        """Calls of what was read, and of the methods of what came out."""
        while self._is("(", "."):
            if self._is("(") and isinstance(value, Name):
                value = Call(value.text, *self._arguments())
            elif self._is("(") and isinstance(value, Call) and value.applied is None:
                positional, named = self._arguments()
                if named:
                    self._fail()
                value = value.replace(applied=positional)
            elif self._is(".") and isinstance(value, Call):
                self._advance()
                method = self._word()
                positional, named = self._arguments()
                value = Call(f"().{method}", (value, *positional), named)
            else:
                self._fail()
        return value

    def _word(self) -> str:
        if self.kind != "name":
            self._fail()
        return self._advance()

    def _bracket(self) -> Value:
        """`(3, 3)` and `[3, 3]` are tuples; `(3)` is a number."""
        closing = _CLOSING[self.word]
        is_list = self.word == "["
        with_comma = False
        values: list[Value] = []
        self._open()
        while not self._is(closing):
            values.append(self._value())
            if self._is(","):
                with_comma = True
                self._advance()
            elif not self._is(closing):
                self._fail()
        self._close(closing)
        return values[0] if len(values) == 1 and not is_list and not with_comma else tuple(values)

    def _arguments(self) -> tuple[tuple[Value, ...], dict[str, Value]]:
        positional: list[Value] = []
        named: dict[str, Value] = {}
        if not self._is("("):
            self._fail()
        self._open()
        while not self._is(")"):
            value = self._value()
            if self._is("="):
                if not isinstance(value, Name) or value.text in named:
                    self._fail()
                self._advance()
                named[value.text] = self._value()
            elif named:
                self._fail()
            else:
                positional.append(value)
            if self._is(","):
                self._advance()
            elif not self._is(")"):
                self._fail()
        self._close(")")
        return tuple(positional), named

    def _open(self) -> None:
        self.depth += 1
        if self.depth > _DEEPEST:
            self._fail()
        self._advance()

    def _close(self, closing: str) -> None:
        self.depth -= 1
        self._take(closing)


def _computed(sign: str, left: Value, right: Value) -> Value:
    """The number that two come to."""
    if isinstance(left, bool) or isinstance(right, bool):
        raise _Unread
    if not isinstance(left, (int, float)) or not isinstance(right, (int, float)):
        raise _Unread
    match sign:
        case "+":
            made = left + right
        case "-":
            made = left - right
        case "*":
            made = left * right
        case _ if right != 0:
            made = left // right
        case _:
            raise _Unread
    if abs(made) >= 10**_DIGITS:
        raise _Unread
    return made
