"""The checked network as data: nodes in execution order, each with its layer and its output."""

from cnndsl.layers.base import Layer
from cnndsl.layers.types import TensorType, show
from cnndsl.record import Record
from cnndsl.source import Span

INPUT = "input"  # the name under which nodes read the network's input
_LONGEST = 80  # characters of a name in a `repr`


class Call(Record):
    """One use of a block: its name, the words that call it, and its number among all calls.

    A call in a `repeat` has one place and, each time, another number.
    """

    name: str
    span: Span
    number: int


class Node(Record):
    """One layer in its place.

    `path` is its name after blocks and repeats are expanded (`layer1.0.conv1`); `inputs` name the
    nodes that it reads, or `input`; `arrives` and `output` are the types before and after it;
    `calls` are the uses of blocks that lead here, the outermost first.
    """

    path: str
    layer: Layer
    inputs: tuple[str, ...]
    arrives: TensorType
    output: TensorType
    span: Span
    labelled: bool = False
    calls: tuple[Call, ...] = ()


class Constraint(Record):
    """A condition on the symbols that the network needs, and the place that needs it.

    `text` is an expression of the language, which Python evaluates to the same value; `reason` says
    in words what fails when it does not hold.
    """

    text: str
    reason: str
    span: Span


class Graph(Record):
    """A whole network.

    `source` is the input's type; `result` names the node whose output is the network's; `symbols`
    are the free sizes in order of their appearance; `valid` is the exact condition on them in
    lowest terms (`True` where there is none), and `constraints` its parts, `example` values that
    meet it; `classes` the names of the last layer's outputs; `place` is that of the `input`;
    `outputs` are the labels that are returned too, each with the node that makes its tensor;
    `takes_bytes` says that images come as bytes, which are scaled first; `promised` has each symbol
    of which every valid value, divided by the first number, leaves the second.
    """

    name: str
    source: TensorType
    nodes: tuple[Node, ...]
    result: str
    symbols: tuple[str, ...] = ()
    valid: str = "True"
    constraints: tuple[Constraint, ...] = ()
    example: tuple[tuple[str, int], ...] = ()
    classes: tuple[str, ...] = ()
    place: Span | None = None
    outputs: tuple[tuple[str, str], ...] = ()
    takes_bytes: bool = False
    promised: tuple[tuple[str, int, int], ...] = ()

    def __repr__(self) -> str:
        """One line, whatever the size of the network; its parts are in its fields."""
        name = self.name if len(self.name) <= _LONGEST else f"{self.name[:_LONGEST]}…"
        layers = "1 layer" if len(self.nodes) == 1 else f"{len(self.nodes):,} layers"
        return f"<Graph {name}: {show(self.source)}, {layers}>"

    def node(self, path: str) -> Node:
        """The node of that name; `KeyError` where there is none."""
        for node in self.nodes:
            if node.path == path:
                return node
        raise KeyError(path)
