"""Where the walk through a file is: the tensor at hand, and the scopes around it."""

from cnndsl.layers.types import TensorType
from cnndsl.record import Record
from cnndsl.source import Span


class Tensor(Record):
    """A value in the network: the path of the node that makes it, and its type."""

    path: str
    type: TensorType


class Place(Record):
    """Where a layer stands.

    `prefix` is the path of the scopes around it (`layer1.0.`), `uses` the block calls that lead
    there, the outermost first.
    """

    prefix: str = ""
    uses: tuple[Span, ...] = ()
