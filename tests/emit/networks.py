"""Networks for tests, made without a parser: layers in a row."""

from cnndsl.graph.graph import INPUT, Constraint, Graph, Node
from cnndsl.layers.base import Layer
from cnndsl.layers.types import ImageType, TensorType, VectorType
from cnndsl.sizes.dim import Dim
from cnndsl.source import Source

SOURCE = Source("net.cnn", "input\n" + "layer\n" * 200)


def place(line: int):
    start = SOURCE.line_start(line)
    return SOURCE.span(start, start + 1)


def dim(size: int | str | Dim) -> Dim:
    if isinstance(size, Dim):
        return size
    return Dim.symbol(size) if isinstance(size, str) else Dim.of(size)


def typed(*sizes: int | str) -> TensorType:
    dims = [dim(size) for size in sizes]
    return ImageType(*dims) if len(dims) == 3 else VectorType(*dims)


def network(
    shape: tuple[int | str, ...],
    *layers: Layer | tuple[str, Layer],
    name: str = "Net",
    needs: tuple[str, ...] = (),
    classes: tuple[str, ...] = (),
) -> Graph:
    """A chain of layers; those without a label are named by kind and count."""
    nodes: list[Node] = []
    counts: dict[str, int] = {}
    at, current = INPUT, typed(*shape)
    for line, item in enumerate(layers, 2):
        label, layer = item if isinstance(item, tuple) else (None, item)
        counts[layer.kind] = counts.get(layer.kind, 0) + 1
        path = label or f"{layer.kind}{counts[layer.kind]}"
        output = layer.output(current)
        nodes.append(Node(path, layer, (at,), current, output, place(line), label is not None))
        at, current = path, output
    symbols = tuple(dict.fromkeys(size for size in shape if isinstance(size, str)))
    constraints = tuple(Constraint(text, text, place(3)) for text in needs)
    valid = " and ".join(needs) or "True"
    return Graph(
        name,
        typed(*shape),
        tuple(nodes),
        at,
        symbols,
        valid,
        constraints,
        classes=classes,
        place=place(1),
    )
