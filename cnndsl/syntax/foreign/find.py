"""Finds lines of other frameworks in a text that could not be read, and says what they are here.

Only what the parser has a complaint about is taken, so that no line of this language is. A text is
looked through once, with a bound on the words that are read in vain.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from cnndsl.diagnostics.model import Diagnostic, Edit, Fix
from cnndsl.source import Source
from cnndsl.syntax.foreign import keyed, python
from cnndsl.syntax.foreign.call import Call, Name, Unwritable, Value, Written, number, shown, window
from cnndsl.syntax.foreign.translate import translate
from cnndsl.syntax.foreign.words import OPTIONS, VALUES

_MOST_READ = 30_000  # words that are read in one text
_LOOKS = re.compile(
    r"[ \t]*+(?=[\[\])]|(?:import|from|class|def|return)\b|[A-Za-z_][\w.]*+[ \t]*+[=({:])"
)
_INPUT = re.compile(r"^[ \t]*+input\b", re.MULTILINE)
_WITH_WEIGHTS = ("conv ", "deconv ", "fc ", "batchnorm", "groupnorm ", "layernorm", "prelu")


class Region(NamedTuple):
    """A foreign line, or several, and what is said of it."""

    start: int
    end: int
    diagnostic: Diagnostic


class _Found(NamedTuple):
    end: int
    framework: str
    named: str  # what the message calls it
    written: Written
    needless: str = ""  # why nothing has to be written
    closes: bool = False  # whether it only closes what a line above opened


def regions(source: Source, spots: Sequence[int]) -> list[Region]:
    """The foreign lines of a text in which one of the `spots` lies, in order."""
    return _Search(source, sorted(spots)).run()


class _Search:
    def __init__(self, source: Source, spots: list[int]) -> None:
        self.source, self.text, self.spots = source, source.text, spots
        self.left = _MOST_READ
        self.opened = False  # whether a list of layers was opened, as by `Sequential([`
        self.found: list[Region] = []
        self.has_input = _INPUT.search(source.text) is not None

    def run(self) -> list[Region]:
        at = 0
        while at < len(self.text) and self.left > 0:
            line_end = self.text.find("\n", at)
            line_end = len(self.text) if line_end < 0 else line_end
            at = max(self._line(at, line_end), line_end + 1)
        return self.found

    def _line(self, start: int, line_end: int) -> int:
        """Look at one line; where the last region in it ends."""
        end = start
        looks = _LOOKS.match(self.text, start)
        if looks is not None:
            end = self._try(looks.end())
        # Further statements on the line, where the parser complains of them.
        n = bisect_left(self.spots, max(start, end))
        while n < len(self.spots) and self.spots[n] < line_end and self.left > 0:
            spot = self.spots[n]
            n += 1
            if spot < end:
                continue
            behind = max(self.text.rfind(sign, start, spot) for sign in ";{")
            looks = _LOOKS.match(self.text, behind + 1) if behind >= 0 else None
            if looks is not None:
                end = max(end, self._try(looks.end()))
        return end

    def _try(self, start: int) -> int:
        """Take what stands at a place, if it is foreign; where it ends, or `start`."""
        made = self._frame(start) or self._darknet(start) or self._caffe(start) or self._call(start)
        if made is None or not (made.closes or self._is_complained_of(start, made.end)):
            return start
        self.opened |= made.needless == _IN_A_LIST
        self.has_input |= made.written.text.startswith("input ")
        self.found.append(Region(start, made.end, self._diagnostic(start, made)))
        return made.end

    def _is_complained_of(self, start: int, end: int) -> bool:
        n = bisect_left(self.spots, start)
        return n < len(self.spots) and self.spots[n] < end

    # ── what may stand there ─────────────────────────────────────────────────────────────────────

    def _frame(self, start: int) -> _Found | None:
        """A line of Python around the layers."""
        for pattern, why in _FRAMES:
            if found := pattern.match(self.text, start):
                name = f"model {found[1]}" if found.re.groups else ""
                return _Found(found.end(), "Python", found[0], Written(name), why)
        if self.opened and (found := _CLOSER.match(self.text, start)):
            return _Found(found.end(), "Python", found[0], Written(""), _IN_A_LIST, closes=True)
        return None

    def _darknet(self, start: int) -> _Found | None:
        section = keyed.read_section(self.text, start)
        if section is None:
            return None
        self.left -= len(section.values)
        return _Found(section.end, "Darknet", f"[{section.name}]", keyed.darknet(section))

    def _caffe(self, start: int) -> _Found | None:
        message = keyed.read_message(self.text, start)
        if message is None:
            self.left -= keyed.MAX_WORDS if keyed.OPENER.match(self.text, start) else 0
            return None
        self.left -= len(message.values)
        named = message.values.get("type", message.name).strip('"')
        return _Found(message.end, "Caffe", named, keyed.caffe(message))

    def _call(self, start: int) -> _Found | None:
        statement, words = python.read(self.text, start)
        self.left -= words
        if statement is None or not isinstance(statement.value, Call):
            return None
        made = call(statement)
        if made is None:
            return None
        framework, named, written = made
        if not framework and written.text and self.text[start + len(named)] != "(":
            return None  # `fc ()`: brackets around an argument that is missing
        if written.text.startswith("input ") and self.has_input and "; " in written.text:
            written = written._replace(text=written.text.partition("; ")[2])
        return _Found(statement.end, framework, named, written)

    def _diagnostic(self, start: int, made: _Found) -> Diagnostic:
        span = self.source.span(start, made.end)
        return diagnostic(made, Edit(span, made.written.text))


def in_head(source: Source, start: int, end: int) -> Diagnostic | None:
    """What a call that could be read as a line of this language means: `Dropout(0.2)`."""
    statement, _ = python.read(source.text[start:end], 0)
    if statement is None or not isinstance(statement.value, Call) or start + statement.end < end:
        return None
    made = call(statement)
    if made is None or (not made[0] and made[2].text):
        return None
    framework, named, written = made
    found = _Found(end, framework, named, written)
    return diagnostic(found, Edit(source.span(start, end), written.text))


def call(statement: python.Statement) -> tuple[str, str, Written] | None:
    """The framework, the name and the line of a call; None for one that means nothing here."""
    value = statement.value
    if not isinstance(value, Call):
        return None
    made = translate(value, statement.target)
    if made is not None:
        framework, written = made
        return framework, value.name.replace("().", ""), _labelled(written, statement.target)
    if value.owner.split(".")[0] in ("self", "()") or _calls_itself(value):
        advice = "a layer stands where it is used: write those of `forward` in their order"
        return "PyTorch", value.name.replace("().", ""), Written("", (advice,))
    if value.owner:
        return None
    try:
        return "", value.name, Written(_without_brackets(value))
    except Unwritable:
        return None


def _calls_itself(value: Call) -> bool:
    """Whether a layer that stands elsewhere is called in it: `F.relu(self.conv1(x))`."""
    inside = [v for v in value.positional if isinstance(v, Call)]
    return any(v.owner.split(".")[0] == "self" or _calls_itself(v) for v in inside)


def _labelled(written: Written, target: str | None) -> Written:
    """`self.conv1 = nn.Conv2d(…)` gives its weights a name."""
    owner, _, name = (target or "").rpartition(".")
    line = written.text
    if owner != "self" or ";" in line or not line.startswith(_WITH_WEIGHTS):
        return written
    return written._replace(text=f"{line} as {name}")


def _without_brackets(value: Call) -> str:
    """`residual(64, stride=2)`: a layer or block of this language, called as in another."""
    words = [value.name, *map(_word, value.positional)]
    for name, given in value.named.items():
        option = OPTIONS.get(name, name)
        text = _word(given)
        words.append(f"{option}={VALUES.get(option, {}).get(text, text)}")
    if value.applied is not None:
        raise Unwritable("two pairs of brackets")
    return " ".join(words)


def _word(value: Value) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case str() if value.isidentifier():
            return value
        case tuple():
            return window(value)
        case Name() | int() | float():
            return number(value)
        case _:
            raise Unwritable(shown(value))


# ── messages ─────────────────────────────────────────────────────────────────────────────────────


def diagnostic(made: _Found, edit: Edit) -> Diagnostic:
    """What to say of a foreign line; `edit` writes ours in its place."""
    named, written = _short(made.named), made.written
    text = _short(written.text, 200)
    notes = tuple(_short(note, 200) for note in (*written.lacks, *written.notes)[:12])
    if made.needless:
        message = f"`{named}` is a line of Python, and nothing is needed here"
        if text:
            message = f"`{named}` is a line of Python; here this is `{text}`"
        advice = f"write `{text}`" if text else "delete it"
        return _e118(message, edit, (made.needless, *notes), Fix(advice, (edit,)))
    whose = f"`{named}` is {made.framework}'s" if made.framework else f"`{named}`"
    if not text:
        which = f"{whose}, and has" if made.framework else f"{whose} has"
        return _e118(f"{which} no line here", edit, (), *map(Fix, notes))
    if written.lacks:
        message = f"{whose}; the nearest line here is `{text}`"
        return _e118(message, edit, notes, Fix("write that if the network can do without the rest"))
    if not made.framework or text == named:
        message = f"arguments stand side by side, without brackets and commas: `{text}`"
        return _e118(message, edit, notes, Fix(f"write `{text}`", (edit,)))
    return _e118(f"{whose}; here this is `{text}`", edit, notes, Fix(f"write `{text}`", (edit,)))


def _e118(message: str, edit: Edit, notes: tuple[str, ...], *fixes: Fix) -> Diagnostic:
    return Diagnostic("E118", message, edit.span, notes=notes, fixes=fixes)


def _short(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


# ── lines around the layers ──────────────────────────────────────────────────────────────────────

_IN_A_LIST = "the layers stand on lines of their own, without brackets"
_FRAMES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), why)
    for pattern, why in (
        (
            r"(?:from[ \t]+[A-Za-z_][\w.]*+[ \t]+)?import[ \t]+[A-Za-z_*(][^\n;#]*+",
            "the layers are part of the language; blocks of another file come by `use`",
        ),
        (
            r"class[ \t]+([A-Za-z_]\w*+)[ \t]*+(?:\([^\n)]*+\))?+[ \t]*+:",
            "a file is one network, and `model` names it",
        ),
        (r"def[ \t]+\w++[ \t]*+\([^\n#;]*+", "the layers stand by themselves, in no function"),
        (r"super\([^\n)]*+\)\.__init__\([^\n)]*+\)", "there is nothing to set up"),
        (r"return[ \t]++[A-Za-z_]\w*+(?=[ \t]*+(?:[#;]|\r?\n|$))", "the last line is the result"),
        (
            r"(?:(?:[\w.]++[ \t]*+=|return)[ \t]*+)?(?:[A-Za-z_]\w*+\.)*+Sequential\("
            r"[ \t]*+\[?[ \t]*+(?:\)|(?=#|\r?\n|$))",
            _IN_A_LIST,
        ),
    )
)
_CLOSER = re.compile(r"[\])](?:[\]), \t]|\.to\([^\n)]*+\))*+(?=#|\r?\n|$)")
