"""A diagnostic as text for people, in the form of the language's reference.

Knows the layout of a message: header, place, marked lines, notes, help. Knows nothing of the
terminal: the width and the colours are given. What it writes is bounded and has no control
characters, whatever names and texts the source contains.
"""

from collections.abc import Iterable, Sequence

from cnndsl.diagnostics.model import Diagnostic, Edit, Fix, Severity
from cnndsl.diagnostics.safe import MESSAGE, safe
from cnndsl.diagnostics.snippet import Mark, Snippet, mark
from cnndsl.diagnostics.style import PLAIN, Role, Row, Style
from cnndsl.source import Source, Span, expand

WIDTH = 100  # where no terminal says otherwise
_LABELS = 12  # second places shown for a diagnostic
_EDITED = 4  # lines shown of what a fix would write


def render(diagnostic: Diagnostic, *, width: int = WIDTH, style: Style = PLAIN) -> str:
    """The text of one diagnostic, without a line end at the end."""
    room = max(width, 40) - 8
    groups = _groups(diagnostic)
    snippets = [(span, Snippet(span.source, marks, room)) for span, marks in groups]
    drawings = [_drawing(diagnostic, fix) for fix in diagnostic.fixes]
    numbers = [s.last_line for _, s in snippets]
    numbers += [number for drawing in drawings for number, _ in drawing]
    gutter = len(str(max(numbers)))

    role: Role = diagnostic.severity
    header = style.paint(role, f"{diagnostic.severity}[{diagnostic.code}]")
    lines = [header + style.paint("strong", f": {safe(diagnostic.message, MESSAGE)}")]
    for n, (span, snippet) in enumerate(snippets):
        if n:
            lines.append(_rule(gutter, style))
        arrow = style.paint("gutter", " " * gutter + (":::" if n else "-->"))
        lines.append(f"{arrow} {safe(span.source.name)}:{span.line}:{span.column}")
        lines.append(_rule(gutter, style))
        lines += snippet.draw(gutter, style)
    if diagnostic.notes or diagnostic.fixes or len(diagnostic.labels) > _LABELS:
        lines.append(_rule(gutter, style))
    lines += _notes(diagnostic, gutter, style)
    for fix, drawing in zip(diagnostic.fixes, drawings, strict=True):
        lines += _bullet(style.paint("help", "help"), fix.message, gutter, style)
        lines += _edited(drawing, gutter, room, style)
    return "\n".join(lines)


def report(
    diagnostics: Sequence[Diagnostic], *, width: int = WIDTH, style: Style = PLAIN, dropped: int = 0
) -> str:
    """All of them, a blank line between two, and how many there are; nothing for none."""
    if not diagnostics:
        return ""
    parts = [render(d, width=width, style=style) for d in diagnostics]
    return "\n\n".join([*parts, summary(diagnostics, style=style, dropped=dropped)]) + "\n"


def summary(diagnostics: Iterable[Diagnostic], *, style: Style = PLAIN, dropped: int = 0) -> str:
    """Such as `2 errors, 1 warning`; `dropped` is how many more a `Sink` has only counted."""
    severities = [d.severity for d in diagnostics]
    counted = [
        style.paint(severity, _count(severities.count(severity), severity))
        for severity in ("error", "warning")
        if severity in severities
    ]
    text = ", ".join(counted)
    if dropped:
        text += f" (and {dropped} more, not shown: mend these first)"
    return text


def _count(number: int, severity: Severity) -> str:
    return f"{number} {severity}" + ("" if number == 1 else "s")


def _rule(gutter: int, style: Style) -> str:
    return style.paint("gutter", " " * gutter + " |")


def _groups(diagnostic: Diagnostic) -> list[tuple[Span, list[Mark]]]:
    """The marks by source, the main one's first; with the place that stands for each group."""
    main = mark(diagnostic.span, safe(diagnostic.caption, MESSAGE), diagnostic.severity, "^")
    groups: list[tuple[Span, list[Mark]]] = [(diagnostic.span, [main])]
    for label in diagnostic.labels[:_LABELS]:
        made = mark(label.span, safe(label.message, MESSAGE), "label", "-")
        for span, marks in groups:
            if span.source is label.span.source:
                marks.append(made)
                break
        else:
            groups.append((label.span, [made]))
    return groups


def _notes(diagnostic: Diagnostic, gutter: int, style: Style) -> list[str]:
    hidden = len(diagnostic.labels) - _LABELS
    notes = [*diagnostic.notes, *([f"and {hidden} more places"] if hidden > 0 else [])]
    return [line for note in notes for line in _bullet("", note, gutter, style)]


def _bullet(word: str, message: str, gutter: int, style: Style) -> list[str]:
    """`= word: message`; further lines of the message stand under its first."""
    first, *others = message.split("\n") if len(message) <= MESSAGE else [message]
    sign = style.paint("gutter", " " * gutter + " =")
    lines = [f"{sign} {word}: {safe(first, MESSAGE)}" if word else f"{sign} {safe(first, MESSAGE)}"]
    return lines + [f"{' ' * (gutter + 3)}{safe(other, MESSAGE)}".rstrip() for other in others]


# ── what a fix would write ───────────────────────────────────────────────────────────────────────

# A line number, and what to draw there: pieces of text, each with whether the fix wrote it.
_Drawn = tuple[int, list[tuple[str, bool]]]


def _drawing(diagnostic: Diagnostic, fix: Fix) -> list[_Drawn]:
    """The lines as a fix would leave them, where its message does not say it already."""
    if not fix.edits or all(_is_said(edit, fix.message) for edit in fix.edits):
        return []
    source = diagnostic.span.source
    edits = sorted(fix.edits, key=lambda e: (e.span.start, e.span.end))
    if any(e.span.source is not source for e in edits):
        return []
    first = source.position(edits[0].span.start)[0]
    last = source.position(edits[-1].span.end)[0]
    if last - first >= _EDITED or any(len(e.text) > MESSAGE for e in edits):
        return []
    return _apply(source, edits, first, last)


def _is_said(edit: Edit, message: str) -> bool:
    lines = (edit.text.strip() or edit.span.text.strip()).splitlines()
    return all(line.strip() in message for line in lines)


def _apply(source: Source, edits: list[Edit], first: int, last: int) -> list[_Drawn]:
    pieces: list[tuple[str, bool]] = []
    at = source.line_start(first)
    for edit in edits:
        if edit.span.start < at:
            return []  # they overlap: there is no one text to show
        pieces += [(source.text[at : edit.span.start], False), (edit.text, True)]
        at = edit.span.end
    end = source.line_start(last) + len(source.line(last))
    pieces.append((source.text[at : max(at, end)], False))

    lines: list[list[tuple[str, bool]]] = [[]]
    for text, new in pieces:
        head, *tail = text.split("\n")
        lines[-1].append((head.rstrip("\r"), new))
        lines += [[(part.rstrip("\r"), new)] for part in tail]
    if len(lines) > _EDITED:
        return []
    return [
        (first + n, line) for n, line in enumerate(lines) if any(new and text for text, new in line)
    ]


def _edited(drawing: list[_Drawn], gutter: int, room: int, style: Style) -> list[str]:
    lines: list[str] = []
    for number, pieces in drawing:
        shown, signs = Row(), Row()
        for n, (text, new) in enumerate(pieces):
            start = shown.width
            is_last = n == len(pieces) - 1
            part = text if new else _cropped(text, room // 3, n == 0, is_last)
            part = part if len(part) <= room else f"{part[:room]}…"
            shown.put(start, expand(part), "help" if new else "")
            if new:
                signs.put(start, "+" * (shown.width - start), "help")
        bar = style.paint("gutter", f"{number:>{gutter}} |")
        lines.append(f"{bar} {shown.text(style)}".rstrip())
        lines.append(f"{_rule(gutter, style)} {signs.text(style)}".rstrip())
    return lines


def _cropped(text: str, room: int, is_first: bool, is_last: bool) -> str:
    """What is near the edits of a piece of a line beside them."""
    if len(text) <= room:
        return text
    left = "" if is_first else text[: room if is_last else room // 2]
    right = "" if is_last else text[-(room if is_first else room // 2) :]
    return f"{left}…{right}"
