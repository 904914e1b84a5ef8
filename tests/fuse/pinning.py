"""Choices for all regions of a network, for tests."""

from cnndsl.check import check_source
from cnndsl.fuse.choice import Choice
from cnndsl.fuse.choices import Choices, Chosen, kernels, layers, title
from cnndsl.fuse.pins import Pin, Tile, TileOf
from cnndsl.fuse.regions import Region, parts
from cnndsl.fuse.ways import allowed, fixed_sides, roles
from cnndsl.graph.graph import Graph
from cnndsl.source import Source

# A first layer, a batchnorm, a residual, overlapping windows, a fully connected layer.
TEXT = """model Small
input 12 x 12 x 3
conv 8 3x3 pad=1; relu; pool max 2
conv 16 3x3 pad=1; batchnorm; relu as a
conv 16 3x3 pad=1; add a; relu
pool max 3 stride=2
flatten; fc 10; softmax
"""
TILE = Tile(16, 32, 16, 4, 2)


def graph_of(text: str = TEXT) -> tuple[Graph, Source]:
    source = Source("x.cnn", text)
    graph = check_source(source).graph
    assert graph is not None
    return graph, source


def regions(graph: Graph) -> list[Region]:
    return [part for part in parts(graph) if isinstance(part, Region)]


def pin_for(region: Region, choice: Choice | None, tile: Tile | None) -> Pin:
    names = kernels(region, choice) if tile is not None else ()
    tile = tile or TILE
    tiles = (TileOf(n, "fp32", 64, tile.replace(**fixed_sides(region, choice, n))) for n in names)
    return Pin(choice, tuple(tiles))


def choices(graph: Graph, number: int = 0, tile: Tile | None = TILE) -> Choices:
    """The ways of each region with that number, counted from the last of a shorter list."""
    found = []
    for region in regions(graph):
        pins = []
        for role in roles(region):
            ways = allowed(region, role)
            choice = ways[min(number, len(ways) - 1)] if ways else None
            pins.append((role, pin_for(region, choice, tile)))
        found.append(Chosen(title(region), layers(region), tuple(pins), ("told so",)))
    return Choices(tuple(found), (("gpu", "none"),))
