"""The one exception that compiling a model raises. Imports no torch, so that naming it is cheap."""

from collections.abc import Sequence

from cnndsl.diagnostics.model import Diagnostic
from cnndsl.diagnostics.render import report


class CheckError(Exception):
    """A model with errors. `diagnostics` has every one; the text shows them as `check` does."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        """Keep them in the order of their places."""
        super().__init__(diagnostics)
        self.diagnostics = tuple(diagnostics)

    def __str__(self) -> str:
        return "\n" + report(self.diagnostics).rstrip("\n")
