"""Groups the layers of a network into regions, each of which one forward kernel computes.

A region is y = pool(activation(anchor(x) · scale + shift + residual)); all but the anchor may be
absent, and scale and shift may stand behind a pool. A fully connected layer may flatten its x. What
no kernel computes stays alone and runs as PyTorch's operator. Knows the roles of layers and what
the kernels accept; knows neither their text nor any schedule.
"""

from collections import Counter
from typing import Literal

from cnndsl.fuse.pins import Pin, Role
from cnndsl.graph.graph import INPUT, Graph, Node
from cnndsl.layers.activations import Sigmoid
from cnndsl.layers.base import Affine, Anchor, Layer, Pointwise
from cnndsl.layers.conv import Conv
from cnndsl.layers.fc import FullyConnected
from cnndsl.layers.merge import Add
from cnndsl.layers.pool import Pool
from cnndsl.layers.reshape import Flatten, Skip
from cnndsl.layers.types import TensorType, VectorType
from cnndsl.record import Record

# The kernel keeps in one byte which pixel of a window won; 0 says that none has a gradient.
MOST_POSITIONS_OF_A_MAXIMUM = 255
# For an average of ReLUs it keeps one bit for each pixel of the window, in a signed 32-bit integer.
MOST_POSITIONS_OF_LIVE_PIXELS = 31

# Measured on an H200, forward and backward: of 120 x 400 weights the kernels take two thirds of the
# library's time, of 1000 x 2048 as much, of 4096 x 4096 twice as much.
MOST_WEIGHTS_OF_FC = 2**21


class Region(Record):
    """Layers that share a kernel, by the part that each plays; `nodes` has them in order.

    Before its anchor may stand a `flatten`: the kernel reads the image where it lies, with channels
    innermost, where PyTorch would copy it into another order first. `merge` adds the tensor named
    `residual`, which is there before the region is computed. Training computes a region with an
    `affine` in three steps: the sums, with statistics of each tile; the statistics of the batch;
    the rest. `pins` are what was measured to be best for it.
    """

    nodes: tuple[Node, ...]
    anchor: Node
    affine: Node | None = None
    merge: Node | None = None
    residual: str | None = None
    activation: Node | None = None
    pool: Node | None = None
    pins: tuple[tuple[Role, Pin], ...] = ()

    @property
    def slope(self) -> Literal["none", "relu", "output", "input"]:
        """From what backward computes the slope of the activation."""
        layer = self.activation.layer if self.activation else None
        return layer.slope_from if isinstance(layer, Pointwise) else "none"

    @property
    def rises(self) -> bool:
        """Whether its activation, if there is one, may change places with a maximum."""
        layer = self.activation.layer if self.activation else None
        return not isinstance(layer, Pointwise) or layer.rises

    @property
    def pools_first(self) -> bool:
        """Whether what is normalised is pooled already."""
        if self.affine is None or self.pool is None:
            return False
        return self.nodes.index(self.pool) < self.nodes.index(self.affine)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the tensors that it reads: that of its first layer, then a residual."""
        first = self.nodes[0].inputs[0]
        return (first,) if self.residual is None else (first, self.residual)

    @property
    def arrives(self) -> TensorType:
        """The type of what it reads first."""
        return self.nodes[0].arrives

    @property
    def path(self) -> str:
        """The name of the tensor that it makes: that of its last node."""
        return self.nodes[-1].path


Part = Region | Node


def parts(graph: Graph) -> tuple[Part, ...]:
    """The network as regions and single layers, in an order in which it can be executed."""
    nodes = _without_skips(graph)
    readers = Counter(name for node in nodes for name in node.inputs)
    readers.update([graph.result, *(path for _, path in graph.outputs)])
    # The one node that reads a tensor, where nothing else does.
    follower = {name: node for node in nodes for name in node.inputs if readers[name] == 1}
    last = nodes[-1] if nodes else None
    if last is not None and last.path == graph.result and isinstance(last.layer, Sigmoid):
        follower.pop(last.inputs[0], None)  # a loss takes what comes before it
    found: list[Part] = []
    taken: set[str] = set()
    made = {INPUT}
    for node in nodes:
        if node.path in taken:
            continue
        start = _start(node, follower)
        part = node if start is None else _grow(start, follower, made)
        found.append(part)
        made.add(part.path)
        taken |= {n.path for n in part.nodes} if isinstance(part, Region) else {node.path}
    return tuple(found)


def alone(graph: Graph) -> tuple[Part, ...]:
    """The network as single layers: as PyTorch runs one that is written by hand."""
    return tuple(_without_skips(graph))


def _start(node: Node, follower: dict[str, Node]) -> Region | None:
    """The region that a node begins: as an anchor, or as the image that its one reader flattens."""
    if _has_kernels(node):
        return Region((node,), node)
    reader = follower.get(node.path)
    if reader is None or not _flattens(node) or not _has_kernels(reader):
        return None
    return Region((node, reader), reader)


def _flattens(node: Node) -> bool:
    """Say whether values change places; of one pixel or one channel, both orders are the same."""
    sizes = [dim.constant for dim in node.arrives.dims]
    if not isinstance(node.layer, Flatten) or None in sizes:
        return False
    *_, channels = sizes
    return channels != 1 and sizes[:-1] != [1, 1]


def _has_kernels(node: Node) -> bool:
    """Say whether it begins a region; a library reads the weights of a large `fc` faster."""
    if not isinstance(node.layer, FullyConnected) or not isinstance(node.arrives, VectorType):
        return isinstance(node.layer, Anchor)
    weights = node.layer.weights(node.arrives)[0].count.constant
    return weights is not None and weights <= MOST_WEIGHTS_OF_FC


def _without_skips(graph: Graph) -> list[Node]:
    """The nodes, where all read what a `skip` reads; it stays where it is asked for itself."""
    wanted = {graph.result, *(path for _, path in graph.outputs)}
    read: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        inputs = tuple(read.get(name, name) for name in node.inputs)
        if isinstance(node.layer, Skip) and node.path not in wanted:
            read[node.path] = inputs[0]
        else:
            nodes.append(node if inputs == node.inputs else node.replace(inputs=inputs))
    return nodes


def _grow(region: Region, follower: dict[str, Node], made: set[str]) -> Region:
    """The region with as much of what follows as its kernel can take in."""
    while region.path in follower:
        grown = _take(region, follower[region.path], made)
        if grown is None:
            break
        region = grown
    return region


def _take(region: Region, node: Node, made: set[str]) -> Region | None:
    """The region with one more layer; None where the kernel could not compute it."""
    longer = region.replace(nodes=(*region.nodes, node))
    match node.layer:
        case Affine() if _affine_fits(region):
            return longer.replace(affine=node)
        case Add() if _merge_fits(region):
            # The branch that is computed last takes the merge in: only then the other is there.
            others = [name for name in node.inputs if name != region.path]
            fits = len(node.inputs) == 2 and len(others) == 1 and others[0] in made
            return longer.replace(merge=node, residual=others[0]) if fits else None
        case Pointwise() if region.activation is None:
            # A maximum and a rising function may change places: max(f(a), f(b)) = f(max(a, b)).
            # So the kernel applies all functions behind it.
            fits = region.pool is None or is_maximum(region.pool.layer)
            return longer.replace(activation=node) if fits else None
        case Pool() as pool if region.pool is None and region.merge is None:
            return longer.replace(pool=node) if _pool_fits(region, pool) else None
        case _:
            return None


def _affine_fits(region: Region) -> bool:
    """Behind the sums, or behind a maximum of sums: a negative scale would turn their order."""
    if not _is_conv(region):
        return False
    is_pooled = region.pool is not None and is_maximum(region.pool.layer)
    return len(region.nodes) == 1 or (len(region.nodes) == 2 and is_pooled)


def _merge_fits(region: Region) -> bool:
    return _is_conv(region) and region.activation is None and region.pool is None


def _pool_fits(region: Region, pool: Pool) -> bool:
    if not _is_conv(region):
        return False
    positions = pool.size.height * pool.size.width
    if is_maximum(pool):
        accepted = positions <= MOST_POSITIONS_OF_A_MAXIMUM and region.rises
    else:
        fits_in_bits = positions <= MOST_POSITIONS_OF_LIVE_PIXELS
        accepted = region.slope == "none" or (region.slope == "relu" and fits_in_bits)
    return accepted


def _is_conv(region: Region) -> bool:
    """The kernels of fully connected layers know neither scales nor windows."""
    return isinstance(region.anchor.layer, Conv)


def is_maximum(layer: Layer) -> bool:
    """Say whether it takes the maximum of windows."""
    return isinstance(layer, Pool) and layer.function == "max"
