"""Groups the layers of a network into regions, each of which one forward kernel computes.

A region is y = pool(activation(anchor(x) · scale + shift)); all but the anchor may be absent. What
no kernel computes stays alone and runs as PyTorch's operator. Knows the roles of layers and what
the kernels accept; knows neither their text nor any schedule.
"""

from collections import Counter
from typing import Literal

from cnndsl.graph.graph import Graph, Node
from cnndsl.layers.base import Affine, Anchor, Layer, Pointwise
from cnndsl.layers.conv import Conv
from cnndsl.layers.pool import Pool
from cnndsl.record import Record

# The kernel keeps in one byte which pixel of a window won; 0 says that none has a gradient.
MOST_POSITIONS_OF_A_MAXIMUM = 255
# For an average of ReLUs it keeps one bit for each pixel of the window, in a signed 32-bit integer.
MOST_POSITIONS_OF_LIVE_PIXELS = 31

# Where windows overlap, the kernel computes a pixel once for each window that holds it. On an H200
# (kernels.md: 790 TFLOP/s, 4.3 TB/s) a byte of traffic costs as much time as 184 operations. Apart,
# the convolution writes each value in bf16, the pool reads it, and their gradients do the same: 8
# bytes, 1472 operations, of which half are allowed, for no kernel reaches the peak. A recomputed
# value costs 2 operations for each term of its sum: 736 / 2 terms, times how often it is repeated.
MOST_REPEATED_TERMS = 368


class Region(Record):
    """Layers that share a kernel, by the part that each plays; `nodes` has them in order."""

    nodes: tuple[Node, ...]
    anchor: Node
    affine: Node | None = None
    activation: Node | None = None
    pool: Node | None = None

    @property
    def slope(self) -> Literal["none", "relu", "output", "input"]:
        """From what backward computes the slope of the activation."""
        layer = self.activation.layer if self.activation else None
        return layer.slope_from if isinstance(layer, Pointwise) else "none"

    @property
    def input(self) -> str:
        """The name of the tensor that it reads."""
        return self.anchor.inputs[0]

    @property
    def path(self) -> str:
        """The name of the tensor that it makes: that of its last node."""
        return self.nodes[-1].path


Part = Region | Node


def parts(graph: Graph) -> tuple[Part, ...]:
    """The network as regions and single layers, in an order in which it can be executed."""
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    readers.update([graph.result, *(path for _, path in graph.outputs)])
    # The one node that reads a tensor, where nothing else does.
    follower = {
        node.inputs[0]: node
        for node in graph.nodes
        if len(node.inputs) == 1 and readers[node.inputs[0]] == 1
    }
    found: list[Part] = []
    taken: set[str] = set()
    for node in graph.nodes:
        if node.path in taken:
            continue
        part = _grow(node, follower) if isinstance(node.layer, Anchor) else node
        found.append(part)
        taken |= {n.path for n in part.nodes} if isinstance(part, Region) else {node.path}
    return tuple(found)


def _grow(anchor: Node, follower: dict[str, Node]) -> Region:
    """The region of an anchor: as much of what follows as its kernel can take in."""
    region = Region((anchor,), anchor)
    while region.path in follower:
        grown = _take(region, follower[region.path])
        if grown is None:
            break
        region = grown
    return region


def _take(region: Region, node: Node) -> Region | None:
    """The region with one more layer; None where the kernel could not compute it."""
    longer = region.replace(nodes=(*region.nodes, node))
    match node.layer:
        case Affine() if region.nodes == (region.anchor,) and _is_conv(region):
            return longer.replace(affine=node)
        case Pointwise() as layer if region.activation is None:
            # A maximum and a rising function may change places: max(f(a), f(b)) = f(max(a, b)).
            pool = region.pool.layer if region.pool else None
            fits = pool is None or (_is_maximum(pool) and layer.slope_from != "input")
            return longer.replace(activation=node) if fits else None
        case Pool() as pool if region.pool is None:
            return longer.replace(pool=node) if _pool_fits(region, pool) else None
        case _:
            return None


def _pool_fits(region: Region, pool: Pool) -> bool:
    if not _is_conv(region):
        return False
    positions = pool.size.height * pool.size.width
    if _is_maximum(pool):
        accepted = positions <= MOST_POSITIONS_OF_A_MAXIMUM and region.slope != "input"
    else:
        fits_in_bits = positions <= MOST_POSITIONS_OF_LIVE_PIXELS
        accepted = region.slope == "none" or (region.slope == "relu" and fits_in_bits)
    return accepted and repeated_terms(region.anchor, pool) <= MOST_REPEATED_TERMS


def _is_conv(region: Region) -> bool:
    """The kernels of fully connected layers know neither scales nor windows."""
    return isinstance(region.anchor.layer, Conv)


def _is_maximum(layer: Layer) -> bool:
    return isinstance(layer, Pool) and layer.function == "max"


def repeated_terms(anchor: Node, pool: Pool) -> float:
    """Terms of a pixel's sum, times how often beyond the first the kernel computes the pixel."""
    geometry = pool.geometry
    positions = geometry.size.height * geometry.size.width
    times = positions / (geometry.stride.height * geometry.stride.width)
    weight = anchor.layer.weights(anchor.arrives)[0].shape
    terms = 1
    for dim in weight[1:]:
        terms *= dim.constant or 1
    return terms * max(0.0, times - 1)
