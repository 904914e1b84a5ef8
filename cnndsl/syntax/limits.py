"""How much of a text is read, so that no file can hang the checker: codes E510 to E513.

Each limit is far above what a network needs: the whole of ResNet-152 is 600 tokens.
"""

import re
from collections.abc import Iterator

from cnndsl.diagnostics.model import Diagnostic, Fix
from cnndsl.source import Source
from cnndsl.syntax.lex import UNIT_LETTERS, Token, lexicon

MAX_BYTES = 1 << 20
MAX_TOKENS = 40_000
MAX_NESTING = 64
MAX_OPERATORS = 64  # in one statement: they nest the tree too
MAX_DIGITS = 19

# NUL, signs that turn the direction of writing (a line could read otherwise than it is), and
# halves of characters, which no UTF-8 holds.
_FORBIDDEN = re.compile("[\0\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_OPERATORS = frozenset({"PLUS", "MINUS", "TIMES", "OVER", "MODULO", "AND", "OR", "NOT"})


def unfit_text(source: Source) -> Diagnostic | None:
    """Why a text is not even cut into tokens."""
    text = source.text
    if len(text) > MAX_BYTES // 4:
        size = len(text.encode("utf-8", "surrogatepass"))
        if size > MAX_BYTES:
            return too_large(source, size)
    if found := _FORBIDDEN.search(text):
        return _forbidden(source, found.start())
    return None


def too_large(source: Source, size: int | None) -> Diagnostic:
    """A file of `size` bytes (None: unknown, but too many)."""
    known = "" if size is None else f": it has {size:,} bytes"
    return Diagnostic(
        "E510",
        f"this file is larger than 1 MiB{known}",
        source.span(0, 0),
        fixes=(Fix("repeated parts go into a `block` or a `repeat`"),),
    )


def _forbidden(source: Source, place: int) -> Diagnostic:
    character = source.text[place]
    span = source.span(place, place + 1)
    if "\ud800" <= character <= "\udfff":
        return Diagnostic("E115", "this text holds half a character, which is no UTF-8", span)
    name = "NUL" if character == "\0" else f"U+{ord(character):04X}"
    why = "is not text" if character == "\0" else "would hide how the line really reads"
    return Diagnostic(
        "E116",
        f"there is an invisible character {name} here, which {why}",
        span,
        fixes=(Fix("delete it"),),
    )


def too_many_tokens(source: Source, tokens: list[Token]) -> Diagnostic | None:
    """More words and signs than a file may have: at the first of them."""
    if len(tokens) <= MAX_TOKENS:
        return None
    first = tokens[MAX_TOKENS]
    return Diagnostic(
        "E511",
        f"this file has more than {MAX_TOKENS:,} words and signs",
        source.span(first.start, first.end),
        fixes=(Fix("repeated parts go into a `block` or a `repeat`"),),
    )


def too_deep(source: Source, tokens: list[Token]) -> Diagnostic | None:
    """Brackets, `else if` or operators inside each other, deeper than a tree may be."""
    for token, limit, what, fix in _excess(tokens):
        return Diagnostic(
            "E512",
            f"{what}, more than {limit}",
            source.span(token.start, token.end),
            fixes=(Fix(fix),),
        )
    return None


def _excess(tokens: list[Token]) -> Iterator[tuple[Token, int, str, str]]:
    depth = operators = 0
    open_brackets: list[str] = []
    chains = [0]  # how many `else if` hang on each other, at each level
    before = ""
    for token in tokens:
        kind = token.kind
        if kind in ("LPAR", "LBRACE"):
            open_brackets.append(kind)
            chains.append(0)
            depth += 1
        elif kind in ("RPAR", "RBRACE"):
            for _ in range(_closed_by(kind, open_brackets)):
                open_brackets.pop()
                depth -= 1 + chains.pop()
        elif kind == "IF" and before == "ELSE":
            chains[-1] += 1
            depth += 1
        elif kind in _OPERATORS:
            operators += 1
        if kind == "_NL":
            depth -= chains[-1]
            chains[-1] = 0
        if kind in ("_NL", "LBRACE", "RBRACE"):
            operators = 0
        if depth > MAX_NESTING:
            yield token, MAX_NESTING, "too many levels stand inside each other", "use a `block`"
        if operators > MAX_OPERATORS:
            fix = "give parts of it names with `let`"
            yield token, MAX_OPERATORS, "too many operators stand in one statement", fix
        before = kind


def _closed_by(closer: str, open_brackets: list[str]) -> int:
    """How many brackets a closer ends: a `}` also ends each `(` that was left open inside."""
    if closer == "RPAR":
        return 1 if open_brackets and open_brackets[-1] == "LPAR" else 0
    if "LBRACE" not in open_brackets:
        return 0
    return open_brackets[::-1].index("LBRACE") + 1


def tokens_of(text: str) -> list[Token]:
    """The tokens of a text, at most one more than the limit; too long numbers are renamed."""
    known = lexicon()
    words, kinds = known.words, known.kinds
    found: list[Token] = []
    for match in known.pattern.finditer(text):
        kind = kinds[match.lastindex or 0]
        if kind == "NAME":
            kind = words.get(match.group(), "NAME")
        elif kind in ("INTEGER", "REAL", "SIZE", "SHAPE") and not _fits(match.group(), kind):
            kind = "LONG_NUMBER"
        if kind:
            found.append(Token(kind, match.start(), match.end()))
            if len(found) > MAX_TOKENS:
                break
    return found


def _fits(text: str, kind: str) -> bool:
    """Whether a number is short enough, and one that a float can hold."""
    if kind == "REAL":
        digits = text.rstrip(UNIT_LETTERS).replace("_", "")
        mantissa = digits.partition("e")[0]
        if len(mantissa) > MAX_DIGITS + 1 or len(digits) > len(mantissa) + 5:
            return False
        value = float(digits)
        is_lost = value == 0.0 and mantissa.strip("0.") != ""
        # With a unit it is a whole number, and those have no exponents of three digits.
        return not is_lost and value < (1e300 if text[-1].isdigit() else 1e19)
    if len(text) <= MAX_DIGITS:
        return True
    return all(len(digits) <= MAX_DIGITS for digits in re.findall("[0-9]+", text.replace("_", "")))
