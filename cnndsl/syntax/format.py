"""The one canonical layout of a file: `cnndsl fmt`. Keeps every comment and the meaning.

Works on the tokens, so it knows the words of the language, but nothing of what they mean:

- four blanks a level; at most one empty line in a row, none at the ends of a body;
- a body that stands on one line stays there if it fits; else its statements get their own;
- arguments are one blank apart, and have none inside: `pad=same`, `take 0 channels//2`;
- operators elsewhere have blanks: `require H % 32 == 0`; a shape is `28 x 28 x 1`, a size `5x5`;
- in one body the `->` stand below each other, and so do the comments behind statements.
"""

from cnndsl.diagnostics.model import Sink
from cnndsl.source import Source
from cnndsl.syntax.layout import settle
from cnndsl.syntax.lex import Token
from cnndsl.syntax.limits import tokens_of
from cnndsl.syntax.spacing import Written, written

WIDTH = 100
_INDENT = 4
_STOP = 8  # columns are multiples of this, so that one longer line moves the others seldom
_SHORT = 16  # a body that stays on the line of its head where others of the statement do not
_WIDEST = 56  # longer lines do not push what is aligned behind them


def format_text(source: Source) -> str:
    """The canonical text of a source that `parse` reads without a mistake."""
    tokens, _ = settle(source, tokens_of(source.text), Sink())
    formatter = _Formatter(source.text, tokens)
    formatter.statements(_Body(0))
    return formatter.result()


class _Body:
    """The statements between two braces, whose lines are aligned with each other."""

    def __init__(self, depth: int) -> None:
        self.depth = depth


class _Line:
    """A line to be: its text, what stands behind `->`, and its comment."""

    def __init__(self, body: _Body, text: str) -> None:
        self.body = body
        self.text = text
        self.shape = ""
        self.comment = ""
        self.is_aligned = True

    @property
    def is_statement(self) -> bool:
        return bool(self.text) and not self.text.startswith("#")


class _Formatter:
    """Walks the tokens once; nested bodies recurse, at most as deep as files may nest."""

    def __init__(self, text: str, tokens: list[Token]) -> None:
        self.text = text
        self.tokens = [t for t in tokens if t.kind != "_NL"]
        # Whether a statement begins at a token: behind a line end that counts.
        ends = {tokens[i + 1].start for i, t in enumerate(tokens) if t.kind == "_NL"}
        self.begins = [t.start in ends for t in self.tokens]
        self.next = 0
        self.lines: list[_Line] = []
        self.partner = _partners(self.tokens)

    # ── what stands between tokens ───────────────────────────────────────────────────────────────

    def _gap(self, position: int) -> list[str]:
        """The lines of the space in front of a token: each empty, `;` or a comment."""
        start = self.tokens[position - 1].end if position else 0
        rows = self.text[start : self.tokens[position].start].split("\n")
        return [row.strip() for row in rows]

    def _take_gap(self, body: _Body) -> None:
        """Keep the comments and the empty lines in front of the next token."""
        rows = self._gap(self.next)
        if self.next:
            if comment := _comment(rows[0]):
                self.lines[-1].comment = comment
            rows = rows[1:]
        is_last = self.tokens[self.next].kind in ("RBRACE", "$END")
        for i, row in enumerate(rows):
            if comment := _comment(row):
                self.lines.append(_Line(body, comment))
            elif i < len(rows) - 1 and self._may_be_empty(body):
                self.lines.append(_Line(body, ""))
        if is_last and self.lines and not self.lines[-1].text and self.lines[-1].body is body:
            self.lines.pop()

    def _may_be_empty(self, body: _Body) -> bool:
        """Whether an empty line may follow: not another one, nor at the start of a body."""
        return bool(self.lines) and self.lines[-1].body is body and self.lines[-1].text != ""

    # ── statements ───────────────────────────────────────────────────────────────────────────────

    def statements(self, body: _Body) -> None:
        """Lay out statements up to the `}` that ends them, which is left to the caller."""
        while True:
            rows = self._gap(self.next)
            joined = len(rows) == 1 and ";" in rows[0]
            self._take_gap(body)
            if self.tokens[self.next].kind in ("RBRACE", "$END"):
                return
            index = len(self.lines)
            self._statement(body)
            if joined and index:
                self._join(index)

    def _join(self, index: int) -> None:
        """Put the statement on a line behind the one it stood behind, if both are short."""
        before = self.lines[index - 1]
        if len(self.lines) != index + 1 or before.comment or not before.is_statement:
            return
        line = self.lines[index]
        text = f"{_whole(before)}; {_whole(line)}"
        if _INDENT * line.body.depth + len(text) <= WIDTH and not text.startswith("}"):
            before.text, before.shape, before.is_aligned = text, "", False
            self.lines.pop()

    def _statement(self, body: _Body) -> None:
        """One statement, on as many lines as it needs."""
        first, end = self.next, self._end_of_statement()
        self._take_inner_comments(body, first, end)
        pieces = written(self.text, self.tokens[first:end])
        if self._fits_on_a_line(first, end, pieces, body):
            line = _Line(body, "".join(p.text for p in pieces if not p.is_shape).rstrip())
            line.shape = "".join(p.text for p in pieces if p.is_shape).strip()
            if any(p.token.kind == "LBRACE" for p in pieces):
                # A `->` may stand in the middle, behind a statement of a body.
                line.text, line.shape = "".join(p.text for p in pieces).rstrip(), ""
                line.is_aligned = False
            self.lines.append(line)
            self.next = end
            return
        self._on_lines(body, first, end, pieces)

    def _end_of_statement(self) -> int:
        """One past the last token of the statement that begins here."""
        position = self.next
        while True:
            position = self.partner.get(position, position) + 1
            kind = self.tokens[position].kind
            if kind in ("RBRACE", "$END") or self.begins[position]:
                return position

    def _take_inner_comments(self, body: _Body, first: int, end: int) -> None:
        """Put the comments between the words of a statement, not of its bodies, in front of it."""
        position = first
        while (position := self.partner.get(position, position) + 1) < end:
            comments = filter(None, map(_comment, self._gap(position)))
            self.lines += [_Line(body, comment) for comment in comments]

    def _fits_on_a_line(self, first: int, end: int, pieces: list[Written], body: _Body) -> bool:
        """Whether every body in a statement stood on one line, and all fits on one."""
        for opener in range(first, end):
            if (closer := self.partner.get(opener)) is not None and closer > opener + 1:
                inside = self.text[self.tokens[opener].end : self.tokens[closer].start]
                if "\n" in inside:
                    return False
            elif closer is not None and _has_comment(self._gap(closer)):
                return False
        if all(p.token.kind != "LBRACE" for p in pieces):
            return True
        return _INDENT * body.depth + len("".join(p.text for p in pieces)) <= WIDTH

    def _on_lines(self, body: _Body, first: int, end: int, pieces: list[Written]) -> None:
        """A statement whose bodies get lines of their own, unless they stood on one."""
        text = ""
        position = first
        stood = any("\n" in self._inside(i) for i in range(first, end) if i in self.partner)
        # All on one line before, a statement gets bodies that look alike; but for very short ones.
        room = WIDTH // 2 if stood else _SHORT
        while position < end:
            closer = self.partner.get(position)
            text += pieces[position - first].text
            if closer is None or self._is_short(position, closer, room):
                position += 1
                continue
            self.lines.append(_Line(body, text.rstrip()))
            self.lines[-1].is_aligned = False
            self.next = position + 1
            self.statements(_Body(body.depth + 1))
            text = "}"
            if closer + 1 < end:
                text += " "
            position = closer + 1
        self.lines.append(_Line(body, text.rstrip()))
        self.lines[-1].is_aligned = False
        self.next = end

    def _is_short(self, opener: int, closer: int, room: int) -> bool:
        """Whether a body can stay on the line of its head."""
        if closer == opener + 1:
            return not _has_comment(self._gap(closer))
        inside = self._inside(opener)
        return "\n" not in inside and len(inside) <= room

    def _inside(self, opener: int) -> str:
        """What stands between a brace and its partner."""
        closer = self.partner[opener]
        return self.text[self.tokens[opener].end : self.tokens[closer].start]

    # ── the text ─────────────────────────────────────────────────────────────────────────────────

    def result(self) -> str:
        """All lines, aligned."""
        while self.lines and not self.lines[-1].text:
            self.lines.pop()
        groups: dict[int, list[_Line]] = {}
        for line in self.lines:
            if line.is_statement and line.is_aligned:
                groups.setdefault(id(line.body), []).append(line)
        for group in groups.values():
            _align_shapes(group)
            _align_comments(group)
        return "".join(_finished(line) + "\n" for line in self.lines)


def _partners(tokens: list[Token]) -> dict[int, int]:
    """Where each `{` closes."""
    partner: dict[int, int] = {}
    opened: list[int] = []
    for i, token in enumerate(tokens):
        if token.kind == "LBRACE":
            opened.append(i)
        elif token.kind == "RBRACE" and opened:
            partner[opened.pop()] = i
    return partner


def _comment(row: str) -> str:
    """The comment in a row of a gap, if there is one."""
    start = row.find("#")
    return row[start:] if start >= 0 else ""


def _has_comment(rows: list[str]) -> bool:
    return any(map(_comment, rows))


def _whole(line: _Line) -> str:
    return f"{line.text} {line.shape}" if line.shape else line.text


def _align_shapes(group: list[_Line]) -> None:
    """Put the `->` of a body below each other."""
    with_shape = [line for line in group if line.shape]
    column = _column([len(line.text) + 1 for line in with_shape])
    for line in with_shape:
        line.text = line.text.ljust(max(column, len(line.text) + 1)) + line.shape
        line.shape = ""


def _align_comments(group: list[_Line]) -> None:
    """Put the comments behind the statements of a body below each other."""
    with_comment = [line for line in group if line.comment]
    column = _column([len(line.text) + 2 for line in with_comment])
    for line in with_comment:
        line.text = line.text.ljust(max(column, len(line.text) + 2)) + line.comment
        line.comment = ""


def _column(least: list[int]) -> int:
    """Where to put what is aligned, so that it clears all lines but very long ones."""
    widest = max((width for width in least if width <= _WIDEST), default=0)
    return -(-widest // _STOP) * _STOP


def _finished(line: _Line) -> str:
    text = _whole(line) + (f"  {line.comment}" if line.comment else "")
    return " " * (_INDENT * line.body.depth) + text if text else ""
