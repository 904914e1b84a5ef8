"""What choosing kernels raises. Imports no torch."""

from cnndsl.runtime.errors import HelpfulError


class TuneError(HelpfulError):
    """Kernels that cannot be measured here and now, or a model that has none to choose."""
