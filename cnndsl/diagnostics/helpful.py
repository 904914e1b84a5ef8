"""An error that says what would help. For what is no place in a `.cnn` file."""


class HelpfulError(Exception):
    """A sentence in `message`, and in `fixes` what would help."""

    def __init__(self, message: str, *fixes: str) -> None:
        """Keep both."""
        super().__init__(message, *fixes)
        self.message = message
        self.fixes = fixes

    def __str__(self) -> str:
        return "\n  help: ".join([self.message, *self.fixes])


class OutputError(HelpfulError):
    """A file that must not be written, because something would be lost."""
