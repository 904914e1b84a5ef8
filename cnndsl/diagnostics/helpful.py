"""An error that says what would help. For what is no place in a `.cnn` file."""

from cnndsl.diagnostics.safe import MESSAGE, safe


class HelpfulError(Exception):
    """A sentence in `message`, and in `fixes` what would help; safe for a terminal to show."""

    def __init__(self, message: str, *fixes: str) -> None:
        """Keep both, each on one line."""
        super().__init__(message, *fixes)
        self.message = safe(message, MESSAGE)
        self.fixes = tuple(safe(fix, MESSAGE) for fix in fixes)

    def __str__(self) -> str:
        return "\n  help: ".join([self.message, *self.fixes])


class OutputError(HelpfulError):
    """A file that must not be written, because something would be lost."""
