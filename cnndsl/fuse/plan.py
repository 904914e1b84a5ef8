"""What a region costs beside its arithmetic: launches, and what backward needs kept.

Counts for one image, in 32-bit floats. Knows what the kernels keep; knows nothing of their text.
"""

from collections.abc import Sequence

from cnndsl.fuse.choice import Choice
from cnndsl.fuse.regions import Part, Region
from cnndsl.fuse.ways import chosen as ways
from cnndsl.fuse.ways import pool_of
from cnndsl.graph.graph import INPUT, Node
from cnndsl.layers.fc import FullyConnected
from cnndsl.layers.pool import Pool
from cnndsl.layers.types import FLOAT_BYTES, TensorType, elements, show
from cnndsl.record import Record
from cnndsl.sizes.dim import Dim

BITS_OF_A_BYTE = 8
# Training with a batchnorm; all else is one launch forward.
WINNERS = "a byte an output (which pixel of the window won)"
# The name of the product that a library makes forward, and of an image of few channels, laid out.
OUTPUT, ROWS = "output", "rows of the image"
BEHIND = ", behind a product of PyTorch's library"
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

    `inference`, `forward` (in training) and `gradients` say what each launch makes. `products` are
    left to PyTorch's library: the convolution itself, the gradients of its input and its weight;
    `convolves` says whether in inference the library makes the convolution.
    """

    kept: tuple[Kept, ...]
    inference: tuple[str, ...]
    forward: tuple[str, ...]
    gradients: tuple[str, ...]
    products: tuple[str, ...] = ()
    convolves: bool = False

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
        backward = _made(self.gradients, "the gradient")
        products = [name for name in self.products if name != OUTPUT]
        if products:
            backward += f"; PyTorch's library multiplies for those of {_listed(products)}"
        inference = _made(self.inference) + BEHIND * self.convolves
        training = _made(self.forward) + BEHIND * (OUTPUT in self.products)
        lines, when = [f"forward: {training}"], ""
        if inference != training:
            lines = [f"forward in inference: {inference}", f"forward in training: {training}"]
            when = " in training"
        return [*lines, f"backward{when}: {backward}", f"kept for backward{when}: {kept}"]


def _counted(count: int, what: str = "launch", many: str = "launches") -> str:
    return f"{count} {what if count == 1 else many}"


def _made(launches: Sequence[str], of: str = "") -> str:
    """How many, and what each makes; of a single one forward that is known."""
    count = _counted(len(launches))
    if of and launches:
        return f"{count}, for {of}{'s' * (len(launches) > 1)} of {_listed(launches)}"
    return f"{count}, for {_listed(launches)}" if len(launches) > 1 else count


class Step(Record):
    """The launches of all regions in one step of training, and the products of a library."""

    forward: int
    backward: int
    products: int

    def sentence(self) -> str:
        """The same in words."""
        text = f"a step of training: {_counted(self.forward)} forward, {self.backward} backward"
        products = _counted(self.products, "product", "products")
        return text + f"; {products} of PyTorch's library" * (self.products > 0)


def step(parts: Sequence[Part]) -> Step:
    """Count them; the gradient of the network's input is not asked for."""
    forward = backward = products = 0
    for region in (part for part in parts if isinstance(part, Region)):
        found = plan(region)
        unasked = "input" if region.inputs[0] == INPUT else ""
        forward += len(found.forward)
        backward += sum(name != unasked for name in found.gradients)
        products += sum(name != unasked for name in found.products)
    return Step(forward, backward, products)


def plan(region: Region) -> Plan:
    """What the kernels of a region keep and launch."""
    if region.affine is not None:
        return _normalised(region, region.affine)
    leaves = region.nodes[-1].output
    kept = [Kept("the input", region.arrives, FLOAT_BYTES)]
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
    chosen = ways(region, "whole")
    forward = (*_before(chosen), "the output")
    if _is_bare(region, chosen):
        forward = ()
    gradients, products = _gradients(region, chosen, region.pool, region.slope)
    return Plan(tuple(kept), forward, forward, gradients, products, OUTPUT in products)


def _is_bare(region: Region, chosen: Choice | None) -> bool:
    """Whether a library's product is all that there is: it adds the bias of an `fc`."""
    is_fc = isinstance(region.anchor.layer, FullyConnected)
    return is_fc and region.slope == "none" and bool(chosen) and chosen.forward == "library"


def _normalised(region: Region, affine: Node) -> Plan:
    """The same where a batchnorm is in training: slopes follow from what it was given."""
    kept = [
        Kept("the input", region.arrives, FLOAT_BYTES),
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
    alone, chosen = ways(region, "whole"), ways(region, "sums")
    pool = pool_of(region, "sums")
    gradients, products = _gradients(region, chosen, pool, "none")
    return Plan(
        tuple(kept),
        (*_before(alone), "the output"),
        (*_before(chosen), *TRAINING),
        (first, "sums", *gradients),
        products,
        alone is not None and alone.forward == "library",
    )


def _before(chosen: Choice | None) -> list[str]:
    """What is launched before the kernel that does all the rest."""
    if chosen is None or chosen.forward == "library":
        return []
    rows = [ROWS] if chosen.taps == "rows" else []
    return [*rows, "the convolution"] if chosen.forward == "staged" else rows


def _gradients(
    region: Region, chosen: Choice | None, pool: Node | None, slope: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The launches of the gradients, and the products that are left to a library."""
    output = [OUTPUT] if chosen and chosen.forward == "library" else []
    if chosen and chosen.backward == "library":
        return tuple(_one_pass(region, pool, slope)), (*output, "input", "weight")
    rows = [ROWS] if chosen and chosen.taps == "rows" else []
    return ("input", "weight", *rows, *_sums(region)), tuple(output)


def _one_pass(region: Region, pool: Node | None, slope: str) -> list[str]:
    """What the pass makes that writes the gradient of the product, if there is one."""
    if isinstance(region.anchor.layer, FullyConnected):
        return ["sums"] if slope != "none" else []
    sums = _sums(region)
    if pool is not None or slope != "none":
        return [" with ".join(["convolution", *sums])]
    return sums


def _sums(region: Region) -> list[str]:
    """What the kernel of the bias's gradient makes, where there is one."""
    layer = region.anchor.layer
    found: list[str] = []
    if any(w.name == "bias" for w in layer.weights(region.anchor.arrives)):
        found.append("bias")
    if region.merge is not None and region.activation is not None and region.affine is None:
        found = [" with ".join([*found, "residual"])]
    return found


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
