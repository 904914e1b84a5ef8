"""Words and signs that are none: foreign characters, open strings, odd numbers (E101, E102, E105).

Knows what people type elsewhere and how it is written here; knows nothing of statements.
"""

import re

from cnndsl.diagnostics.model import Diagnostic, Edit, Fix
from cnndsl.source import Source, Span
from cnndsl.syntax.lex import Token

# Signs of print and of other languages, and what they are here.
_SIGNS = {
    "−": "-",
    "–": "-",
    "—": "-",
    "·": "*",
    "⋅": "*",
    "∗": "*",
    "→": "->",
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
    "&&": "and",
    "&": "and",
    "||": "or",
    "|": "or",
    "!": "not",
    "/": "//",
    "÷": "//",
    "＝": "=",
    "；": ";",
    "，": ",",
    "（": "(",
    "）": ")",
    "\u00a0": " ",
    "\u2009": " ",
    "\u202f": " ",
    "\u3000": " ",
    "\r": "\n",
}
_QUOTES = "'`“”„‟‘’«»"
_ADVICE = {
    "/": "division is `//`: it rounds down, as sizes do",
    ":": "blocks stand in `{ }`, and no `:` comes before them",
    "[": "shapes and lists have no brackets: `28 x 28 x 1`",
    "]": "shapes and lists have no brackets: `28 x 28 x 1`",
    ".": "a number starts with a digit, as in `0.5`; dots join the parts of a label",
    "^": "there are no powers; write the number",
    "\\": "a statement goes on inside `( )`, and needs no `\\`",
    "@": "there are no decorators; a label is given by `as NAME`",
    "$": "a name stands for its value as it is",
}


_SIZE = re.compile(r"\[[ ]*+([0-9]{1,6})[ ]*+,[ ]*+([0-9]{1,6})[ ]*+\]")


def bad_character(source: Source, token: Token) -> Diagnostic:
    """A character that the language does not use."""
    text = source.text
    start = token.start
    character = text[start]
    if character in _QUOTES:
        return _quotes(source, start)
    if character.isalnum():
        return _letters(source, start)
    if size := _SIZE.match(text, start):
        span = source.span(start, size.end())
        fix = Fix(f"write `{size[1]}x{size[2]}`", (Edit(span, f"{size[1]}x{size[2]}"),))
        return Diagnostic("E109", "a size has an `x` and no brackets", span, fixes=(fix,))
    written = text[start : start + 2] if text[start : start + 2] in _SIGNS else character
    span = source.span(start, start + len(written))
    if written in _SIGNS:
        return _sign(span, written, _SIGNS[written])
    advice = _ADVICE.get(character, "delete it; `#` starts a comment")
    delete = (Edit(span, ""),) if character in "\\$" else ()
    return Diagnostic(
        "E101",
        f"{_shown(character)} has no meaning here",
        span,
        fixes=(Fix(advice, delete),),
    )


def _sign(span: Span, written: str, meant: str) -> Diagnostic:
    named = _shown(written)
    message = f"{named} is not a sign of this language"
    match meant:
        case " ":
            message, fix = f"there is {named} here, which only looks like a blank", "use a blank"
        case "\n":
            message, fix = "there is a lone carriage return here", "end the line with a line feed"
        case _:
            fix = _ADVICE.get(written, f"write `{meant}`")
    if meant.isalpha():  # a word needs blanks around it, where there are none yet
        text = span.source.text
        meant = ("" if text[: span.start].endswith(" ") else " ") + meant
        meant += "" if text[span.end :].startswith(" ") else " "
    edit = Edit(span, meant)
    return Diagnostic("E101", message, span, fixes=(Fix(fix, (edit,)),))


def _quotes(source: Source, start: int) -> Diagnostic:
    """Typographic or single quotes: all of the line are replaced at once."""
    line_end = _line_end(source.text, start)
    edits = [
        Edit(source.span(i, i + 1), '"')
        for i in range(start, line_end)
        if source.text[i] in _QUOTES
    ]
    partner = edits[1].span.end if len(edits) > 1 else start + 1
    return Diagnostic(
        "E101",
        'a text stands in straight double quotes: `"…"`',
        source.span(start, partner),
        fixes=(Fix('write `"`', tuple(edits)),),
    )


def _letters(source: Source, start: int) -> Diagnostic:
    """Letters beyond ASCII: the whole word is shown."""
    end = start
    while end < len(source.text) and (source.text[end].isalnum() or source.text[end] == "_"):
        end += 1
    begin = start
    while begin > 0 and (source.text[begin - 1].isalnum() or source.text[begin - 1] == "_"):
        begin -= 1
    span = source.span(begin, end)
    return Diagnostic(
        "E101",
        f"the name `{span.text[:40]}` has a letter that names cannot have",
        span,
        fixes=(Fix("names are made of `A`-`Z`, `a`-`z`, `0`-`9` and `_`"),),
    )


def _shown(character: str) -> str:
    if character.isprintable() and not character.isspace():
        return f"`{character}`"
    return f"the character U+{ord(character[0]):04X}"


def open_string(source: Source, token: Token) -> Diagnostic:
    """A string without its second quote."""
    text = source.text[token.start : token.end]
    content = text.partition(" #")[0].rstrip()
    end = token.start + len(content)
    return Diagnostic(
        "E102",
        "this text has no closing quote on its line",
        source.span(token.start, end),
        fixes=(Fix('close it with `"`', (Edit(source.span(end, end), '"'),)),),
    )


def bad_number(source: Source, token: Token) -> Diagnostic:
    """Digits with something behind them that does not belong to a number."""
    span = source.span(token.start, token.end)
    word = span.text
    if fixed := spaced_dims(word):
        return letters_in_size(span, fixed)
    message = f"`{shortened(word)}` is not a number"
    if (unit := re.fullmatch(r"([0-9_.]+?)([A-Za-z]+)", word)) and unit[2].lower() in _UNITS:
        meant = unit[1] + _UNITS[unit[2].lower()]
        note = "units are `k` `M` `G` (powers of 1000) and `KiB` `MiB` `GiB`"
        fix = Fix(f"write `{meant}`", (Edit(span, meant),))
        return Diagnostic("E105", message, span, notes=(note,), fixes=(fix,))
    if re.fullmatch(r"[0-9]+X[0-9]+", word):
        fix = Fix(f"write `{word.lower()}`", (Edit(span, word.lower()),))
    elif re.fullmatch(r"[0-9]+x", word):
        fix = Fix(f"a size has two sides, `{word}{word[:-1]}`; a square has one number")
    elif re.fullmatch(r"[0-9_]+\.", word):
        fix = Fix(f"write `{word}0`", (Edit(span, word + "0"),))
    elif "_" in word and re.fullmatch(r"[0-9_]+", word):
        plain = re.sub("_+", "_", word).strip("_")
        fix = Fix(f"`_` stands between two digits: `{plain}`", (Edit(span, plain),))
    elif word.lower().startswith(("0x", "0b", "0o")):
        fix = Fix("write it in decimal digits")
    else:
        fix = Fix("put a blank between the number and what follows, or delete what is too much")
    return Diagnostic("E105", message, span, fixes=(fix,))


_UNITS = {
    "k": "k",
    "m": "M",
    "g": "G",
    "kb": "KiB",
    "mb": "MiB",
    "gb": "GiB",
    "kib": "KiB",
    "mib": "MiB",
    "gib": "GiB",
}


def long_number(source: Source, token: Token) -> Diagnostic:
    """More digits, or a larger exponent, than a number may have."""
    span = source.span(token.start, token.end)
    return Diagnostic(
        "E513",
        f"`{shortened(span.text)}` is too long or too large for a number",
        span,
        notes=("a number has at most 19 digits, and an exponent of at most ±299",),
        fixes=(Fix("write a smaller number"),),
    )


def spaced_dims(word: str) -> str | None:
    """`HxWx3` as it should stand, `H x W x 3`; None for a word that is no row of dims."""
    parts = re.split("[x×]", word)
    if len(parts) < 2 or word.lower().startswith("0x") or not all(map(_is_dim, parts)):
        return None
    if not all(part.isdigit() or part[0].isupper() or part in _DIMS for part in parts):
        return None  # a name with an `x` in it
    return " x ".join(parts)


_DIMS = ("height", "width", "channels")


def _is_dim(part: str) -> bool:
    return re.fullmatch(r"[0-9]+|[A-Za-z_][A-Za-z0-9_]*", part) is not None


def letters_in_size(span: Span, fixed: str) -> Diagnostic:
    """`HxWx3`, which is one word."""
    return Diagnostic(
        "E109",
        f"`{shortened(span.text)}` is one word, not a shape",
        span,
        notes=("only numbers can be joined without blanks: `28x28x1`",),
        fixes=(Fix(f"write `{fixed}`", (Edit(span, fixed),)),),
    )


def shortened(text: str) -> str:
    """A word for a message, which a file of one word must not fill."""
    return text if len(text) <= 40 else text[:37] + "…"


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end
