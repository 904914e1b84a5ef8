"""Brings lines that became too long, by longer names, into a form that the formatter leaves alone.

The form is one argument a line behind a trailing comma, which is right at any width. Lines without
a call are for the writer of a kernel file to keep short. Knows brackets; knows nothing of kernels.
"""

import io
import keyword
import re
import tokenize
from functools import lru_cache
from itertools import pairwise

from cnndsl.emit.layout import WIDTH, indent
from cnndsl.record import Record


class _Call(Record):
    """Brackets on one line, with the places of the commas between their arguments."""

    opening: int
    closing: int
    commas: tuple[int, ...]


# What may stand behind the closing bracket for the line to be a plain call, header or element.
_ENDS = re.compile(r"(,|:| -> .*:)?$")


# Between the definitions of a file.
_GAP = re.compile(r"\n\n\n(?=\S)")


def fit(text: str) -> str:
    """The text with its long calls and definitions spread over several lines."""
    return "\n\n\n".join(_fitted(part) for part in _GAP.split(text))


@lru_cache(maxsize=1024)
def _fitted(text: str) -> str:
    if not any(_is_long(line) for line in text.split("\n")):
        return text
    while True:
        calls = _calls(text)
        lines = text.split("\n")
        spread = [
            _spread(line, calls[number]) if _is_long(line) and number in calls else line
            for number, line in enumerate(lines, 1)
        ]
        if spread == lines:
            return text
        text = "\n".join(spread)


def _is_long(line: str) -> bool:
    return len(line) > WIDTH and "#" not in line


def _spread(line: str, call: _Call) -> str:
    margin = len(line) - len(line.lstrip())
    places = [call.opening, *call.commas, call.closing]
    arguments = [line[a + 1 : b].strip() for a, b in pairwise(places)]
    inside = "".join(indent(f"{argument},\n", margin + 4) for argument in arguments if argument)
    return f"{line[: call.opening + 1]}\n{inside}{' ' * margin}{line[call.closing :]}"


def _calls(text: str) -> dict[int, _Call]:
    """For each line the call, definition or tuple that ends it, if it also begins there."""
    found: dict[int, _Call] = {}
    open_: list[tuple[int, int, bool, list[int]]] = []  # line, column, is a call, commas
    before = ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        line, column = token.start
        if token.type != tokenize.OP:
            if token.string == "for" and open_:
                open_[-1] = (*open_[-1][:2], False, [])  # a generator takes no comma
        elif token.string in "([{":
            # Behind a keyword (`not (…)`) a comma would make a tuple.
            is_name = before.isidentifier() and not keyword.iskeyword(before)
            is_call = token.string == "(" and (is_name or before in ")]")
            open_.append((line, column, is_call, []))
        elif token.string in ")]}":
            first, start, is_call, commas = open_.pop()
            outermost = not open_ or open_[-1][0] != line
            is_list = (is_call and column > start + 1) or (bool(commas) and token.string == ")")
            if is_list and outermost and first == line and _ENDS.match(token.line, column + 1):
                found[line] = _Call(start, column, tuple(commas))
        elif token.string == "," and open_:
            open_[-1][3].append(column)
        before = token.string
    return found
