"""What is counted on a network: parameters, multiply-accumulates, bytes, receptive fields.

All counts are for one image; values are 32-bit floats, but for images that come as bytes.
"""

from collections.abc import Sequence

from cnndsl.graph.graph import INPUT, Node
from cnndsl.layers.base import ZERO, Merge
from cnndsl.layers.types import FLOAT_BYTES, ImageType, TensorType, elements, is_known
from cnndsl.record import Record
from cnndsl.sizes.dim import Dim

# A parameter in training: its value, its gradient, and the two moments that Adam keeps.
COPIES_IN_TRAINING = 4


class ReceptiveField(Record):
    """The input pixels that one output pixel sees, (height, width) each.

    Output pixel i sees input pixels i·stride + offset up to i·stride + offset + size − 1. Source:
    Araujo, Norris and Sim, Computing receptive fields of convolutional neural networks (2019).
    """

    size: tuple[Dim, Dim]
    stride: tuple[int, int]
    offset: tuple[int, int]


class Facts(Record):
    """What is counted on one node. `bytes` are those of its output."""

    params: Dim
    buffers: Dim
    macs: Dim
    bytes: Dim
    receptive_field: ReceptiveField | None


class Totals(Record):
    """What is counted on the network.

    `training_bytes` is what training on one image needs at least: each parameter four times (its
    value, its gradient, and Adam's two moments), the buffers, the input and every layer's output.
    An input of bytes is there twice, as it comes and scaled, with a mean and a deviation a channel.
    """

    params: Dim
    buffers: Dim
    macs: Dim
    weight_bytes: Dim
    training_bytes: Dim
    receptive_field: ReceptiveField | None


class Tally:
    """Counts the nodes of a network, each once, however often it is asked while that grows."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self.facts: dict[str, Facts] = {}
        """Those of every node whose input and output are known, by its path."""
        self._fields: dict[str, ReceptiveField | None] = {}
        self._last_field: ReceptiveField | None = None
        self._totals: Totals | None = None
        self._seen = 0
        self._sums = Facts(ZERO, ZERO, ZERO, ZERO, None)
        self._to_sum: list[Facts] = []  # what is not in the sums yet

    def take(self, source: TensorType, nodes: Sequence[Node]) -> None:
        """Count the nodes behind those that were counted before; `source` is the input's type."""
        one = Dim.of(1)
        is_image = isinstance(source, ImageType)
        self._fields[INPUT] = ReceptiveField((one, one), (1, 1), (0, 0)) if is_image else None
        for node in nodes[self._seen :]:
            self._totals = None
            self._count(node)
            self._seen += 1

    def _count(self, node: Node) -> None:
        self._fields[node.path] = None
        if not is_known(node.arrives) or not is_known(node.output):
            return
        # Of what `like` names, only the size is read.
        read = node.inputs if isinstance(node.layer, Merge) else node.inputs[:1]
        field = _receptive_field(node, _together([self._fields[name] for name in read]))
        self._fields[node.path] = field
        if isinstance(node.output, ImageType):
            self._last_field = field
        weights = node.layer.weights(node.arrives)
        counted = self.facts[node.path] = Facts(
            Dim.sum(w.count for w in weights if w.trained),
            Dim.sum(w.count for w in weights if not w.trained),
            node.layer.macs(node.arrives),
            elements(node.output) * FLOAT_BYTES,
            field,
        )
        self._to_sum.append(counted)

    def totals(self, source: TensorType, takes_bytes: bool = False) -> Totals:
        """The sums; the receptive field is that of the last image in the network, if it has one."""
        if self._totals is None:
            self._totals = self._all(source, takes_bytes)
        return self._totals

    def _all(self, source: TensorType, takes_bytes: bool) -> Totals:
        each = (self._sums, *self._to_sum)
        self._to_sum = []
        self._sums = Facts(
            Dim.sum(f.params for f in each),
            Dim.sum(f.buffers for f in each),
            Dim.sum(f.macs for f in each),
            Dim.sum(f.bytes for f in each),
            None,
        )
        params, buffers = self._sums.params, self._sums.buffers
        activations = self._sums.bytes + elements(source) * FLOAT_BYTES
        if takes_bytes:
            buffers += source.dims[-1] * 2
            activations += elements(source)
        return Totals(
            params,
            buffers,
            self._sums.macs,
            (params + buffers) * FLOAT_BYTES,
            params * (FLOAT_BYTES * COPIES_IN_TRAINING) + buffers * FLOAT_BYTES + activations,
            self._last_field,
        )


def _receptive_field(node: Node, before: ReceptiveField | None) -> ReceptiveField | None:
    if before is None or not isinstance(node.output, ImageType):
        return None
    step = node.layer.step(node.arrives)
    if step is None or before.stride[0] % step.finer[0] or before.stride[1] % step.finer[1]:
        return None  # one pixel further is no whole number of input pixels further
    height, width = step.extent
    down, across = before.stride[0] // step.finer[0], before.stride[1] // step.finer[1]
    return ReceptiveField(
        (before.size[0] + (height - 1) * down, before.size[1] + (width - 1) * across),
        (down * step.stride[0], across * step.stride[1]),
        (before.offset[0] - step.before[0] * down, before.offset[1] - step.before[1] * across),
    )


def _together(fields: Sequence[ReceptiveField | None]) -> ReceptiveField | None:
    """What one pixel sees through several inputs; None where they move by different strides."""
    known = [field for field in fields if field is not None]
    if not known or len(known) < len(fields) or len({field.stride for field in known}) > 1:
        return None
    height = _span([(field.offset[0], field.size[0]) for field in known])
    width = _span([(field.offset[1], field.size[1]) for field in known])
    if height is None or width is None:
        return None
    return ReceptiveField((height[1], width[1]), known[0].stride, (height[0], width[0]))


def _span(spans: Sequence[tuple[int, Dim]]) -> tuple[int, Dim] | None:
    """From the first pixel of all to the last; None where symbols leave open which that is."""
    first = min(offset for offset, _ in spans)
    ends = {offset + size for offset, size in spans}
    if len(ends) == 1:
        return first, ends.pop() - first
    numbers = [end.constant for end in ends]
    known = [number for number in numbers if number is not None]
    return (first, Dim.of(max(known) - first)) if len(known) == len(numbers) else None
