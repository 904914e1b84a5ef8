"""From a foreign call to the line that it stands for, by the rows of `table`."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from cnndsl.syntax.foreign.call import (
    Call,
    Name,
    Unwritable,
    Value,
    Written,
    count,
    flag,
    number,
    pair,
    shown,
    window,
)
from cnndsl.syntax.foreign.given import Given
from cnndsl.syntax.foreign.python import read
from cnndsl.syntax.foreign.table import FOLLOWS, HARMLESS, MISSING, ROWS, Row

_WRITERS: Mapping[str, Callable[[Value], str]] = {
    "count": count,
    "flag": flag,
    "number": number,
    "pair": pair,
    "window": window,
}
# What the tensor is called that a line changes.
_CURRENT = frozenset({"x", "out", "output", "h", "net", "inputs", "input", "inp", "y", "z"})
_DEEPEST = 8  # calls in each other


class Signature:
    """The arguments of one row, read off its text."""

    def __init__(self, row: Row) -> None:
        """A signature is a call whose arguments without a default are bare names."""
        statement, _ = read(row.signature, 0)
        if statement is None or not isinstance(statement.value, Call):
            raise ValueError(f"this is no signature: {row.signature}")
        call = statement.value
        self.name = call.name
        self.required = tuple(shown(value) for value in call.positional)
        self.defaults = dict(call.named)
        self.names = (*self.required, *self.defaults)

    def bind(self, call: Call) -> dict[str, Value] | None:
        """The value of each argument, where the call fits."""
        values = dict(zip(self.names, call.positional, strict=False))
        if len(call.positional) > len(self.names) or any(
            name in values or name not in self.names for name in call.named
        ):
            return None
        values |= call.named
        if any(name not in values and name != "input" for name in self.required):
            return None
        return {**self.defaults, **values}


@lru_cache(maxsize=1)
def _rows() -> Mapping[str, list[tuple[Row, Signature]]]:
    """The rows by the name of their layer in small letters."""
    found: dict[str, list[tuple[Row, Signature]]] = {}
    for row in ROWS:
        signature = Signature(row)
        found.setdefault(signature.name.lower(), []).append((row, signature))
    return found


@lru_cache(maxsize=1)
def _missing() -> Mapping[str, str]:
    return {name.lower(): advice for name, advice in MISSING.items()}


def translate(call: Call, target: str | None = None, depth: int = 0) -> tuple[str, Written] | None:
    """The framework and the line; None for a call that no row knows."""
    if depth > _DEEPEST:
        return None
    if call.owner and (call.owner in _CURRENT or call.owner == target):
        # x.view(…)
        call = Call(f"().{call.last}", (Name(call.owner), *call.positional), call.named)
    inner = call.positional[0] if call.positional else None
    if call.last in ("add", "append") and call.owner and isinstance(inner, Call):
        return translate(inner, target, depth + 1)  # model.add(…)
    if call.last == "Sequential":
        return _in_a_row(call, depth)
    word = call.last.lower()
    if call.last in MISSING or (call.owner and word in _missing() and word not in _rows()):
        advice = _missing()[word]
        return "", Written("", (advice,))
    rows = _suitable(call)
    if not rows:
        return None
    made = [(row, *_line(row, signature, call)) for row, signature in rows]
    made = [entry for entry in made if entry[1] is not None] or made
    row, written, _ = made[0]
    if written is None:
        return row.framework, Written("", made[0][2])
    others = {entry[1].text for entry in made if entry[1] is not None}
    if len(others) > 1:
        both = " or ".join(f"`{text}`" for text in sorted(others))
        return "", Written("", (f"this is {both}, as PyTorch or Keras is meant",))
    return row.framework, _behind_input(call, written, target, depth)


def _suitable(call: Call) -> list[tuple[Row, Signature]]:
    """The rows that the call may mean: by its framework, its name, and its arguments."""
    rows = _rows().get(call.last.lower(), [])
    framework = _framework(call.owner)
    rows = [row for row in rows if framework in ("", row[0].framework)] or rows
    exact = [row for row in rows if row[1].name == call.last]
    rows = exact or rows
    fitting = [row for row in rows if row[1].bind(call) is not None]
    return fitting or rows[:1]


def _framework(owner: str) -> str:
    parts = owner.split(".")
    if "keras" in parts or "layers" in parts or parts[0] == "tf":
        return "Keras"
    return "PyTorch" if parts[0] in ("nn", "torch", "F", "()") else ""


def _line(row: Row, signature: Signature, call: Call) -> tuple[Written | None, tuple[str, ...]]:
    """The line of a row, or why there is none."""
    values = signature.bind(call)
    if values is None:
        return None, _unfit(signature, call)
    given = Given(values)
    try:
        text = given_line(row, given)
    except Unwritable as why:
        return None, (str(why),)
    lacks, notes = [*given.lacks], [*given.notes]
    for name, value in values.items():
        if name in given.used or name in HARMLESS or value == signature.defaults.get(name, ...):
            continue
        if name in FOLLOWS:
            notes.append(
                f"`{name}`, {shown(value)}, is not written: it follows from the line above"
            )
        else:
            lacks.append(f"there is no `{name}={shown(value)}` here")
    if row.note:
        notes.append(row.note)
    return Written(text, tuple(lacks), tuple(notes)), ()


def _unfit(signature: Signature, call: Call) -> tuple[str, ...]:
    """Which arguments of a call its signature does not have, or lacks."""
    unknown = [name for name in call.named if name not in signature.names]
    if unknown:
        return tuple(f"`{call.last}` has no `{name}=` that is known here" for name in unknown)
    given = {*signature.names[: len(call.positional)], *call.named}
    lacking = [name for name in signature.required if name not in given]
    if lacking:
        return (f"`{call.last}` needs {' and '.join(f'`{name}`' for name in lacking)}",)
    return (f"`{call.last}` has too many arguments",)


_PIECE = re.compile(r" ?(?:[a-z_]+=)?\{([a-z_]+):([a-z]+)(?:\|([^}]*))?\}")


def given_line(row: Row, given: Given) -> str:
    """A row's line with the values of the arguments put in."""
    if not isinstance(row.line, str):
        return row.line(given)

    def put(piece: re.Match[str]) -> str:
        name, kind, usual = piece.groups()
        text = _WRITERS[kind](given[name])
        if text == usual:
            return ""
        return piece[0][: piece[0].index("{")] + text

    return _PIECE.sub(put, row.line)


def _behind_input(call: Call, written: Written, target: str | None, depth: int) -> Written:
    """The line behind that of what the call reads: `F.relu(F.max_pool2d(x, 2))`."""
    reads: Iterable[Value] = call.applied or ()
    rows = [s for _, s in _suitable(call) if s.required[:1] == ("input",)]
    if rows and (call.positional or "input" in call.named):
        reads = (call.named["input"] if "input" in call.named else call.positional[0],)
    for value in reads:
        match value:
            case Name(text) if text == target or text in _CURRENT or target is None:
                continue
            case Call():
                inner = translate(value, target, depth + 1)
                if inner is not None and inner[1].text:
                    before = inner[1]
                    written = Written(
                        f"{before.text}; {written.text}",
                        before.lacks + written.lacks,
                        before.notes + written.notes,
                    )
                    continue
            case _:
                pass
        what = f"`{shown(value)}`"
        written = written._replace(
            lacks=(*written.lacks, f"it reads {what}: put the lines of that above this one")
        )
    return written


def _in_a_row(call: Call, depth: int) -> tuple[str, Written] | None:
    """`nn.Sequential(…)` and `Sequential([…])` on one line."""
    values = call.positional
    if len(values) == 1 and isinstance(values[0], tuple):
        values = values[0]
    if not values or call.named:
        return None
    framework, texts = "", list[str]()
    lacks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    for value in values:
        made = translate(value, None, depth + 1) if isinstance(value, Call) else None
        if made is None:
            lacks += (f"what is `{shown(value)}`?",)
            continue
        framework = framework or made[0]
        texts += [made[1].text] if made[1].text else []
        lacks += made[1].lacks
        notes += made[1].notes
    return framework, Written("; ".join(texts), lacks, tuple(dict.fromkeys(notes)))
