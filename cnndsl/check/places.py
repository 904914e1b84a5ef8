"""Where the walk through a file is: the tensor at hand, and the scopes around it."""

from cnndsl.diagnostics.model import Label
from cnndsl.graph.graph import Call
from cnndsl.layers.types import TensorType
from cnndsl.record import Record

MOST_CALLS = 3  # that a message shows


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

    def labels(self) -> tuple[Label, ...]:
        """The calls that it is in, the outermost ones."""
        return tuple(Label(call.span, "in this call") for call in self.calls[:MOST_CALLS])
