"""What compiling, reading weights and exporting raise. Imports no torch: naming them is cheap."""

from collections.abc import Sequence

from cnndsl.diagnostics.helpful import HelpfulError
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


class WeightsError(HelpfulError):
    """A file of weights that cannot be read or does not fit."""


class ExportError(HelpfulError):
    """A model that `torch.export` or ONNX cannot express."""
