"""What the output goes to: its width, whether it wants colours, and messages for people on it.

Knows streams and the environment; knows nothing of any command.
"""

import os
import sys
from typing import TYPE_CHECKING, Literal, TextIO

from cnndsl.diagnostics.safe import MESSAGE, safe

# What draws messages is loaded with the first of them: a right file has none.
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnndsl.diagnostics.model import Diagnostic
    from cnndsl.diagnostics.style import Style

ColorChoice = Literal["auto", "always", "never"]

_USUAL = 100  # where there is no terminal
_WIDEST = 160  # wider lines are hard to read, however wide the window is


def width(stream: TextIO) -> int:
    """How many cells a line has: the terminal's, `COLUMNS`, or 100 where there is no terminal."""
    told = os.environ.get("COLUMNS", "")
    if told.isascii() and told.isdigit() and 0 < len(told) < 6 and int(told) > 0:
        return min(int(told), _WIDEST)
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):  # no terminal; no file at all
        return _USUAL
    return min(columns, _WIDEST) if columns else _USUAL


def style(color: ColorChoice, stream: TextIO) -> "Style":
    """The colours for a stream: `auto` means on a terminal, unless `NO_COLOR` is set."""
    from cnndsl.diagnostics.style import COLOURED, PLAIN

    match color:
        case "always":
            return COLOURED
        case "never":
            return PLAIN
        case "auto":
            wanted = stream.isatty() and os.environ.get("TERM") != "dumb"
            return COLOURED if wanted and not os.environ.get("NO_COLOR") else PLAIN


def show(diagnostics: "Sequence[Diagnostic]", color: ColorChoice, dropped: int = 0) -> None:
    """Print diagnostics, and how many there are, to standard error."""
    if not diagnostics and not dropped:
        return
    from cnndsl.diagnostics.render import report

    stream = sys.stderr
    text = report(diagnostics, width=width(stream), style=style(color, stream), dropped=dropped)
    stream.write(text)


def print_json(value: object) -> None:
    """Print a value as a line of JSON, in which a terminal finds nothing to obey either."""
    import json

    text = json.dumps(value, ensure_ascii=False)
    # All that is no ASCII stands in a string, where JSON takes these escapes.
    print("".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text))


def complain(message: str, *helps: str, color: ColorChoice = "auto") -> None:
    """Print an error that has no place in a source to standard error, with what to do about it."""
    paint = style(color, sys.stderr).paint
    lines = [paint("error", "error") + paint("strong", f": {safe(message, MESSAGE)}")]
    lines += [f"  = {paint('help', 'help')}: {safe(text, MESSAGE)}" for text in helps]
    sys.stderr.write("\n".join(lines) + "\n")
