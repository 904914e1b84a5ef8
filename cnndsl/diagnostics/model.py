"""What a diagnostic is: data only. Rendering is in `render` and `machine`.

Knows places in sources; knows nothing of syntax, layers or terminals.
"""

from collections.abc import Collection, Generator
from contextlib import contextmanager
from typing import Literal

from cnndsl.record import Record
from cnndsl.source import Span

Severity = Literal["error", "warning"]


class Label(Record):
    """A second place that belongs to the story, and what it has to do with it."""

    span: Span
    message: str


class Edit(Record):
    """Put `text` in place of what stands at `span`; an empty span inserts."""

    span: Span
    text: str


class Fix(Record):
    """One way to mend it: a sentence, and the edits that do it (none: advice only)."""

    message: str
    edits: tuple[Edit, ...] = ()


class Diagnostic(Record):
    """One mistake.

    `code` is stable (`E304`); `message` is one sentence in the user's terms; `span` is the place
    of the caret line and `caption` the words behind the carets; `labels` are other places, `notes`
    hold the computed numbers, `fixes` what would help, the best first.
    """

    code: str
    message: str
    span: Span
    caption: str = ""
    labels: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    fixes: tuple[Fix, ...] = ()

    @property
    def severity(self) -> Severity:
        """`W…` codes are warnings, all others errors."""
        return "warning" if self.code.startswith("W") else "error"


_OF_SIZES = ("E3", "W6")  # how the codes begin of what is said of sizes


class Sink:
    """Collects diagnostics; drops exact repetitions and, past `limit`, counts only."""

    __slots__ = ("_calls", "_codes", "_items", "_seen", "dropped", "limit")

    def __init__(self, limit: int = 200) -> None:
        """Keep at most `limit` diagnostics."""
        self._items: list[Diagnostic] = []
        self._seen: set[tuple[str, int, int, str, str]] = set()
        self._codes: Collection[str] | None = None
        self._calls: tuple[Label, ...] = ()
        self.limit = limit
        self.dropped = 0

    def add(self, diagnostic: Diagnostic) -> None:
        """Take one in."""
        if self._codes is not None and diagnostic.code not in self._codes:
            return
        span = diagnostic.span
        key = (diagnostic.code, span.start, span.end, span.source.name, diagnostic.message)
        if key in self._seen:
            return
        if self.is_full:
            self.dropped += 1
            return
        self._seen.add(key)
        if self._calls and diagnostic.code.startswith(_OF_SIZES):
            labels = (*self._calls, *(la for la in diagnostic.labels if la not in self._calls))
            diagnostic = diagnostic.replace(labels=labels)
        self._items.append(diagnostic)

    @contextmanager
    def called(self, calls: tuple[Label, ...]) -> Generator[None]:
        """Show these calls with what is said of sizes inside, which depends on them."""
        before, self._calls = self._calls, calls
        try:
            yield
        finally:
            self._calls = before

    @contextmanager
    def only(self, codes: Collection[str]) -> Generator[None]:
        """Take in these codes only, inside."""
        before, self._codes = self._codes, codes
        try:
            yield
        finally:
            self._codes = before

    def count(self) -> None:
        """Count one that nobody will read, and that is not made for that."""
        if self._codes is None:
            self.dropped += 1

    @property
    def is_full(self) -> bool:
        """Whether what comes now is counted only."""
        return len(self._items) >= self.limit

    @property
    def failed(self) -> bool:
        """Whether any of them is an error."""
        return any(d.severity == "error" for d in self._items)

    def sorted(self) -> tuple[Diagnostic, ...]:
        """All of them in the order of their places."""
        return tuple(sorted(self._items, key=lambda d: (d.span.source.name, d.span.start, d.code)))
