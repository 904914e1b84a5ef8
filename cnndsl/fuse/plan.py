"""What a region costs beside its arithmetic: launches, and what backward needs kept.

Counts for one image, in 32-bit floats. Knows what the kernels keep; knows nothing of their text.
"""

from collections.abc import Sequence

from cnndsl.fuse.regions import Part, Region
from cnndsl.graph.graph import INPUT, Node
from cnndsl.layers.pool import Pool
from cnndsl.layers.types import FLOAT_BYTES, TensorType, elements, show
from cnndsl.record import Record
from cnndsl.sizes.dim import Dim

BITS_OF_A_BYTE = 8
# Training with a batchnorm; all else is one launch forward.
WINNERS = "a byte an output (which pixel of the window won)"
TRAINING = ("the sums", "their statistics", "what follows")


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
    """The launches of a region in training, and what it keeps between forward and backward.

    `forward` and `gradients` say what each launch makes; in inference there is one forward.
    """

    kept: tuple[Kept, ...]
    forward: tuple[str, ...]
    gradients: tuple[str, ...]

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
        backward = f"{len(self.gradients)}, for the gradients of {_listed(self.gradients)}"
        if len(self.forward) == 1:
            return [f"forward: 1 launch; backward: {backward}", f"kept for backward: {kept}"]
        return [
            f"forward in inference: 1 launch; in training: {len(self.forward)}, for "
            f"{_listed(self.forward)}",
            f"backward in training: {backward}",
            f"kept for backward in training: {kept}",
        ]


class Step(Record):
    """The launches of all regions in one step of training."""

    forward: int
    backward: int

    def sentence(self) -> str:
        """The same in words."""
        return f"a step of training: {self.forward} launches forward, {self.backward} backward"


def step(parts: Sequence[Part]) -> Step:
    """Count them; the gradient of the network's input is not asked for."""
    regions = [part for part in parts if isinstance(part, Region)]
    plans = [plan(region) for region in regions]
    unasked = sum(region.inputs[0] == INPUT for region in regions)
    return Step(sum(len(p.forward) for p in plans), sum(len(p.gradients) for p in plans) - unasked)


def plan(region: Region) -> Plan:
    """What the kernels of a region keep and launch."""
    if region.affine is not None:
        return _normalised(region, region.affine)
    arrives, leaves = region.anchor.arrives, region.nodes[-1].output
    kept = [Kept("the input", arrives, FLOAT_BYTES)]
    pool = region.pool.layer if region.pool else None
    if isinstance(pool, Pool) and pool.function == "max":
        kept.append(Kept(WINNERS, leaves, 1))
    elif isinstance(pool, Pool) and region.slope == "relu":
        positions = pool.size.height * pool.size.width
        size = 1 if positions <= BITS_OF_A_BYTE else FLOAT_BYTES
        kept.append(Kept("a bit a pixel of the windows (which are above 0)", leaves, size))
    if region.slope == "input":
        kept.append(Kept("the input of the activation", leaves, FLOAT_BYTES))
    if region.slope == "output" or (region.slope == "relu" and pool is None):
        kept.append(Kept("the output", leaves, FLOAT_BYTES))
    names = ["input", "weight", *_sums(region)]
    return Plan(tuple(kept), ("the output",), tuple(names))


def _normalised(region: Region, affine: Node) -> Plan:
    """The same where a batchnorm is in training: slopes follow from what it was given."""
    kept = [
        Kept("the input", region.anchor.arrives, FLOAT_BYTES),
        Kept("the sums", affine.arrives, FLOAT_BYTES),
    ]
    pool = region.pool
    if pool is not None and isinstance(pool.layer, Pool) and pool.layer.function == "max":
        kept.append(Kept(WINNERS, pool.output, 1))
    if region.merge is not None and region.activation is not None:
        kept.append(Kept("the residual", region.merge.output, FLOAT_BYTES))
    first = "batchnorm"
    if region.merge is not None and region.activation is not None:
        first += " with residual"
    names = [first, "sums", "input", "weight", *_sums(region)]
    return Plan(tuple(kept), TRAINING, tuple(names))


def _sums(region: Region) -> list[str]:
    """What the kernel of the bias's gradient makes, where there is one."""
    layer = region.anchor.layer
    found: list[str] = []
    if any(w.name == "bias" for w in layer.weights(region.anchor.arrives)):
        found.append("bias")
    if region.merge is not None and region.activation is not None and region.affine is None:
        found = [" with ".join([*found, "residual"])]
    return found


def _listed(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
