"""Which line ends count, and which brackets belong together: what the grammar cannot see.

Takes the tokens as they were cut and gives those that the grammar reads. Brackets that have no
partner are told apart here, so that the opener is blamed and not the end of the file: an unclosed
`(` ends with its line, an unclosed `{` where the indentation falls back.
"""

from cnndsl.diagnostics.model import Sink
from cnndsl.source import Source
from cnndsl.syntax.lex import Token, lexicon


def settle(source: Source, tokens: list[Token], sink: Sink) -> tuple[list[Token], int]:
    """The tokens for the grammar, `$END` last, and how many `}` were missing and are there now."""
    end = len(source.text)
    read = _line_ends(_parentheses(tokens))
    opened, stray = _unmatched(read)
    if opened:
        read = _close_blocks(source, read, len(opened), sink)
    elif stray:
        read = [t._replace(kind="STRAY_BRACE") if i in stray else t for i, t in enumerate(read)]
    return [*read, Token("$END", end, end)], len(opened)


# ── parentheses ──────────────────────────────────────────────────────────────────────────────────


def _parentheses(tokens: list[Token]) -> list[Token]:
    """Drop the line ends inside `( )`; rename a `(` or `)` that has no partner."""
    read: list[Token] = []
    closing = -1  # where the outermost open parenthesis closes
    for i, token in enumerate(tokens):
        kind = token.kind
        if i <= closing:
            if kind != "_NL":
                read.append(token)
        elif kind == "LPAR":
            closing = _partner(tokens, i)
            read.append(token if closing > i else token._replace(kind="UNCLOSED"))
        elif kind == "RPAR":
            read.append(token._replace(kind="STRAY_PAREN"))
        else:
            read.append(token)
    return read


def _partner(tokens: list[Token], opener: int) -> int:
    """Where the `)` of a `(` is; -1 where a brace or a new statement shows that there is none."""
    depth = 0
    starters = lexicon().starters
    for i in range(opener, len(tokens)):
        kind = tokens[i].kind
        if kind == "LPAR":
            depth += 1
        elif kind == "RPAR":
            depth -= 1
            if depth == 0:
                return i
        elif kind in ("LBRACE", "RBRACE"):
            return -1
        elif kind == "_NL" and i + 2 < len(tokens) and tokens[i + 1].kind in starters:
            following = tokens[i + 2].kind
            if following in ("NAME", "INTEGER", "STRING", "SIZE", "SHAPE"):
                return -1
    return -1


def _line_ends(tokens: list[Token]) -> list[Token]:
    """Drop a line end before `{`, and one between `}` and `else`."""
    read: list[Token] = []
    for i, token in enumerate(tokens):
        if token.kind == "_NL" and i + 1 < len(tokens):
            following = tokens[i + 1].kind
            if following == "LBRACE" and read:
                continue
            if following == "ELSE" and read and read[-1].kind == "RBRACE":
                continue
        read.append(token)
    return read


# ── braces ───────────────────────────────────────────────────────────────────────────────────────


def _unmatched(tokens: list[Token]) -> tuple[list[int], set[int]]:
    """The positions of each `{` and each `}` without a partner."""
    opened: list[int] = []
    stray: set[int] = set()
    for i, token in enumerate(tokens):
        if token.kind == "LBRACE":
            opened.append(i)
        elif token.kind == "RBRACE":
            if opened:
                opened.pop()
            else:
                stray.add(i)
    return opened, stray


def _close_blocks(source: Source, tokens: list[Token], missing: int, sink: Sink) -> list[Token]:
    """Put a `}` where each open block most likely ends, and report its `{`."""
    guess = _Guess(source, tokens)
    guess.run(by_indentation=True)
    if len(guess.unclosed) != missing:  # the indentation tells another story than the braces
        guess = _Guess(source, tokens)
        guess.run(by_indentation=False)
    for opener, place in guess.unclosed:
        from cnndsl.syntax import errors  # noqa: PLC0415 (most files have no mistakes)

        sink.add(errors.unclosed_brace(source, opener, place))
    return guess.read


class _Guess:
    """One way to close the open blocks."""

    def __init__(self, source: Source, tokens: list[Token]) -> None:
        self.source = source
        self.tokens = tokens
        self.read: list[Token] = []
        self.unclosed: list[tuple[Token, int]] = []  # the `{`, and where its `}` would stand
        self.open: list[tuple[Token, int, int]] = []  # `{`, its line, that line's indentation

    def run(self, *, by_indentation: bool) -> None:
        """Fill `read` and `unclosed`."""
        last_line = 0
        for token in self.tokens:
            line, column = self.source.position(token.start)
            if line > last_line and token.kind != "_NL" and by_indentation:
                self._begin_line(token, line, column)
            if token.kind != "_NL":
                last_line = line
            if token.kind == "LBRACE":
                self.open.append((token, line, _indentation(self.source, line)))
            elif token.kind == "RBRACE":
                if not self.open:
                    token = token._replace(kind="STRAY_BRACE")
                else:
                    self.open.pop()
            self.read.append(token)
        while self.open:
            self._close(len(self.source.text))

    def _begin_line(self, token: Token, line: int, column: int) -> None:
        """Close the blocks that the first token of a line leaves by standing further left."""
        place = self.source.line_start(line)
        if token.kind == "RBRACE":
            levels = [indentation for _, _, indentation in self.open]
            while len(self.open) > 1 and levels[-1] > column and column in levels[:-1]:
                levels.pop()
                self._close(place)
        elif token.kind not in ("LBRACE", "ELSE"):
            while self.open and self.open[-1][1] < line and column <= self.open[-1][2]:
                self._close(place)

    def _close(self, place: int) -> None:
        """End the innermost block before `place`."""
        opener, _, _ = self.open.pop()
        self.unclosed.append((opener, place))
        if self.read[-1].kind == "_NL":
            self.read.insert(len(self.read) - 1, Token("RBRACE", place, place))
        else:
            self.read.append(Token("RBRACE", place, place))


def _indentation(source: Source, line: int) -> int:
    """The column at which the text of a line begins."""
    text = source.line(line)
    return len(text) - len(text.lstrip()) + 1
