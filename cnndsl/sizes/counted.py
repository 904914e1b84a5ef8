"""Numbers with their noun, as messages say them: `1 pixel`, `28 pixels`, `H / 2 pixels`."""

from cnndsl.sizes.dim import Dim


def counted(count: Dim | int, noun: str) -> str:
    """The count and the noun, in the plural unless the count is 1."""
    dim = count if isinstance(count, Dim) else Dim.of(count)
    return f"{dim.pretty()} {noun if dim.constant == 1 else f'{noun}s'}"
