"""Where the walk through a file is: the tensor at hand, and the scopes around it."""

from cnndsl.graph.graph import Call
from cnndsl.layers.types import TensorType
from cnndsl.record import Record


class Tensor(Record):
    """A value in the network: the path of the node that makes it, and its type."""

    path: str
    type: TensorType


class Place(Record):
    """Where a layer stands.

    `prefix` is the path of the scopes around it (`layer1.0.`), `calls` the uses of blocks that
    lead there, the outermost first.
    """

    prefix: str = ""
    calls: tuple[Call, ...] = ()
