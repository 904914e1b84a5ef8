"""Source lines with marks under them: `^^^^` and `----`, captions, brackets around many lines.

Knows how to draw marks on the lines of one source; knows nothing of diagnostics. What it draws is
bounded by the number of marks and the width, whatever the source is like: lines far apart are
left out (`…`), and of a line that is too long only the part around its marks is shown.
"""

from cnndsl.diagnostics.style import Role, Row, Style, cells
from cnndsl.record import Record
from cnndsl.source import Source, Span

# How many lines inside a bracket are shown in full.
_INSIDE = 4


class Mark(Record):
    """A place to be marked: from a line and column up to, not with, another. Columns from 0."""

    line: int
    start: int
    last_line: int
    end: int
    message: str
    role: Role
    sign: str

    @property
    def is_bracket(self) -> bool:
        """Whether it spans several lines."""
        return self.last_line > self.line


def mark(span: Span, message: str, role: Role, sign: str) -> Mark:
    """The mark for a span, wherever it lies: at the end of the file, over a line end, beyond."""
    source, size = span.source, len(span.source.text)
    start = min(max(span.start, 0), size)
    end = min(max(span.end, start), size)
    line, column = source.position(start)
    last, end_column = source.position(end)
    if last > line and end_column == 1:
        # It ends with a line end: nobody wants to see the mark on the line below.
        last -= 1
        end_column = len(source.line(last)) + 1
    first_width, last_width = len(source.line(line)), len(source.line(last))
    return Mark(
        line,
        min(column - 1, first_width),
        last,
        min(end_column - 1, last_width),
        message,
        role,
        sign,
    )


class Snippet:
    """The lines of a source that some marks need, drawn with them."""

    def __init__(self, source: Source, marks: list[Mark], room: int) -> None:
        """Take the marks, the main one first; `room` is how many cells a source line may fill."""
        self._source = source
        self._single = [m for m in marks if not m.is_bracket]
        self._brackets = sorted(
            (m for m in marks if m.is_bracket), key=lambda m: (m.line, -m.last_line)
        )
        self._lanes = _lanes(self._brackets)
        self._margin = 2 * (max(self._lanes, default=-1) + 1)
        self._room = max(room - self._margin, 20)
        self._open: set[int] = set()  # the brackets (their indices) at whose inside we are
        self._rows: list[tuple[int | None, Row | None]] = []

    @property
    def last_line(self) -> int:
        """The greatest line number that is shown."""
        return max(m.last_line for m in (*self._single, *self._brackets))

    def draw(self, gutter: int, style: Style) -> list[str]:
        """The finished lines, with line numbers `gutter` wide."""
        before = 0
        for line in self._lines():
            if before and line > before + 1:
                self._rows.append((None, self._blank()))
            self._line(line)
            before = line
        return [_with_gutter(n, row, gutter, style) for n, row in self._rows]

    def _lines(self) -> list[int]:
        wanted = {m.line for m in self._single}
        for bracket in self._brackets:
            inside = range(bracket.line + 1, bracket.last_line)
            wanted |= {bracket.line, bracket.last_line}
            wanted |= set(inside if len(inside) <= _INSIDE else inside[:1])
        # A gap of one line is no shorter than the line.
        wanted |= {n + 1 for n in wanted if n + 2 in wanted}
        return sorted(wanted)

    def _blank(self) -> Row:
        """A row with the sides of the brackets that are open."""
        row = Row()
        for index in self._open:
            row.put(2 * self._lanes[index], "|", self._brackets[index].role)
        return row

    def _line(self, line: int) -> None:
        text = self._source.line(line)
        single = [m for m in self._single if m.line == line]
        starting = [i for i, m in enumerate(self._brackets) if m.line == line]
        ending = [i for i, m in enumerate(self._brackets) if m.last_line == line]
        ending.sort(key=lambda i: -self._lanes[i])  # the inner ones first: no side is crossed
        points = [(m.start, m.end) for m in single]
        points += [(self._brackets[i].start, self._brackets[i].start + 1) for i in starting]
        points += [(max(self._brackets[i].end - 1, 0), self._brackets[i].end) for i in ending]
        view = _View(text, points, self._room)

        row = self._blank()
        row.put(self._margin, view.shown)
        below: list[int] = []
        for index in starting:
            bracket = self._brackets[index]
            if text[: bracket.start].strip():
                below.append(index)
            else:
                row.put(2 * self._lanes[index], "/", bracket.role)
                self._open.add(index)
        self._rows.append((line, row))
        self._underline([(view.cell(m.start), view.cell(m.end), m) for m in single])
        for index in below:
            bracket = self._brackets[index]
            corner = self._blank()
            self._arm(corner, index, view.cell(bracket.start))
            self._rows.append((0, corner))
            self._open.add(index)
        for index in ending:
            bracket = self._brackets[index]
            corner = self._blank()
            self._arm(corner, index, view.cell(max(bracket.end - 1, 0)))
            corner.put(corner.width + 1, bracket.message, bracket.role)
            self._rows.append((0, corner))
            self._open.discard(index)

    def _arm(self, row: Row, index: int, cell: int) -> None:
        """The line from a bracket's side to the place where it starts or ends."""
        bracket = self._brackets[index]
        for column in range(2 * self._lanes[index] + 1, self._margin + cell):
            row.put(column, "_", bracket.role)
        for other in self._open:
            if self._lanes[other] > self._lanes[index]:
                row.put(2 * self._lanes[other], "|", self._brackets[other].role)
        row.put(self._margin + cell, bracket.sign, bracket.role)

    def _underline(self, marks: list[tuple[int, int, Mark]]) -> None:
        """The signs under a line; the last one's caption behind it, the others hang below."""
        if not marks:
            return
        main = marks[0][2]
        placed = [
            (self._margin + a, self._margin + max(b, a + 1), m)
            for a, b, m in sorted(marks, key=lambda p: (p[2].sign == main.sign, p[0] - p[1]))
        ]
        row = self._blank()
        for start, end, m in placed:
            row.put(start, m.sign * (end - start), m.role)
        last = max(placed, key=lambda p: (p[1], p[2].sign == "^", p[0]))
        if last[2].message:
            row.put(last[1] + 1, last[2].message, last[2].role)
        self._rows.append((0, row))

        hanging = sorted(
            ((a, m) for a, _, m in placed if m is not last[2] and m.message),
            key=lambda p: -p[0],
        )
        if hanging:
            self._rows.append((0, self._bars(hanging)))
        for n, (start, m) in enumerate(hanging):
            row = self._bars([p for p in hanging[n + 1 :] if p[0] != start])
            row.put(start, m.message, m.role)
            self._rows.append((0, row))

    def _bars(self, hanging: list[tuple[int, Mark]]) -> Row:
        row = self._blank()
        for start, m in hanging:
            row.put(start, "|", m.role)
        return row


def _with_gutter(number: int | None, row: Row | None, gutter: int, style: Style) -> str:
    """A row behind its line number (0: none; `None`: lines were left out)."""
    label = str(number) if number else ""
    bar = "…" if number is None else "|"
    left = style.paint("gutter", f"{label:>{gutter}} {bar}")
    right = row.text(style) if row else ""
    return f"{left} {right}" if right else left


def _lanes(brackets: list[Mark]) -> list[int]:
    """A lane for each bracket, so that those which share a line have different ones."""
    lanes: list[int] = []
    for n, bracket in enumerate(brackets):
        taken = {
            lanes[k] for k, other in enumerate(brackets[:n]) if other.last_line >= bracket.line
        }
        lanes.append(next(i for i in range(n + 1) if i not in taken))
    return lanes


class _View:
    """The part of a line that is shown, and which cell each of its characters is at."""

    def __init__(self, text: str, points: list[tuple[int, int]], room: int) -> None:
        self._first, last = _window(text, points, room)
        part = text[self._first : last]
        self._left = "…" if self._first else ""
        self._cells = [len(self._left)]
        for character in part:
            self._cells.append(self._cells[-1] + cells(character))
        self.shown = self._left + part + ("…" if last < len(text) else "")

    def cell(self, column: int) -> int:
        """Where a character stands; what is left out is at the `…` of its side."""
        if column < self._first:
            return 0
        return self._cells[min(column - self._first, len(self._cells) - 1)]


def _window(text: str, points: list[tuple[int, int]], room: int) -> tuple[int, int]:
    """The first and one past the last character to show: all, or what surrounds the points."""
    if len(text) <= room and cells(text) <= room:
        return 0, len(text)
    room -= 2  # for the `…` at either side
    start, end = points[0] if points else (0, 1)
    lowest, highest = min((a for a, _ in points), default=0), max((b for _, b in points), default=1)
    if highest - lowest <= room and cells(text[lowest:highest]) <= room:
        start, end = lowest, highest
    start = min(start, max(len(text) - 1, 0))
    # Characters that take no cell (combining ones) may be a million: characters are limited too.
    first = last = start
    free, most = room, 2 * room
    while last < min(end, len(text), start + most) and cells(text[last]) <= free:
        free -= cells(text[last])
        last += 1
    grown = True
    while grown and last - first < most:  # to both sides in turn: the marks stand in the middle
        grown = False
        if first > 0 and cells(text[first - 1]) <= free:
            first -= 1
            free -= cells(text[first])
            grown = True
        if last < len(text) and cells(text[last]) <= free:
            free -= cells(text[last])
            last += 1
            grown = True
    return first, last
