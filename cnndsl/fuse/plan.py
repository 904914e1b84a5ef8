"""What a region costs beside its arithmetic: launches, and what backward needs kept.

Counts for one image, in 32-bit floats. Knows what the kernels keep; knows nothing of their text.
"""

from cnndsl.fuse.regions import Region
from cnndsl.layers.pool import Pool
from cnndsl.layers.types import FLOAT_BYTES, TensorType, elements, show
from cnndsl.record import Record
from cnndsl.sizes.dim import Dim

BITS_OF_A_BYTE = 8
FORWARD_LAUNCHES = 1


class Kept(Record):
    """A tensor that backward reads again: what it is, its type, and the bytes of a value."""

    what: str
    type: TensorType
    value_bytes: int

    @property
    def bytes(self) -> Dim:
        """How much memory it takes."""
        return elements(self.type) * self.value_bytes


class Plan(Record):
    """The launches of a region, and what it keeps between forward and backward."""

    kept: tuple[Kept, ...]
    gradients: tuple[str, ...]  # each one launch

    @property
    def bytes(self) -> Dim:
        """All that is kept for one image."""
        total = Dim.of(0)
        for kept in self.kept:
            total = total + kept.bytes
        return total

    def sentences(self) -> list[str]:
        """The same in words."""
        kept = "; ".join(f"{k.what}, {show(k.type)}" for k in self.kept)
        return [
            f"forward: {FORWARD_LAUNCHES} launch; "
            f"backward: {len(self.gradients)}, for the gradients of {_listed(self.gradients)}",
            f"kept for backward: {kept}",
        ]


def plan(region: Region) -> Plan:
    """What the kernels of a region keep and launch."""
    arrives, leaves = region.anchor.arrives, region.nodes[-1].output
    kept = [Kept("the input", arrives, FLOAT_BYTES)]
    pool = region.pool.layer if region.pool else None
    if isinstance(pool, Pool) and pool.function == "max":
        kept.append(Kept("a byte an output (which pixel of the window won)", leaves, 1))
    elif isinstance(pool, Pool) and region.slope == "relu":
        positions = pool.size.height * pool.size.width
        size = 1 if positions <= BITS_OF_A_BYTE else FLOAT_BYTES
        kept.append(Kept("a bit a pixel of the windows (which are above 0)", leaves, size))
    if region.slope == "input":
        kept.append(Kept("the input of the activation", leaves, FLOAT_BYTES))
    if region.slope == "output" or (region.slope == "relu" and pool is None):
        kept.append(Kept("the output", leaves, FLOAT_BYTES))
    has_bias = any(w.name == "bias" for w in region.anchor.layer.weights(arrives))
    names = ["input", "weight"]
    if has_bias or region.affine:
        names.append("bias")
    return Plan(tuple(kept), tuple(names))


def _listed(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
