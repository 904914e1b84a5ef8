"""Fully connected layers."""

from typing import ClassVar

from cnndsl.layers.arguments import Count, Flag
from cnndsl.layers.base import Anchor, Weight, argument
from cnndsl.layers.types import VectorType
from cnndsl.sizes.dim import Dim


class FullyConnected(Anchor):
    """N weighted sums of all features: N·in + N parameters. PyTorch: `torch.nn.Linear`."""

    kind = "fc"
    kernel = "fc.py"
    accepts = (VectorType,)
    examples: ClassVar[tuple[str, ...]] = ("fc 120", "fc 10 bias=no")

    features: Dim = argument(Count())
    bias: bool = argument(Flag(), default=True)

    def output(self, x: VectorType) -> VectorType:
        """N features."""
        del x
        return VectorType(self.features)

    def weights(self, x: VectorType) -> tuple[Weight, ...]:
        """`weight` [N, in] and `bias` [N]."""
        weight = Weight("weight", (self.features, x.features))
        return (weight, Weight("bias", (self.features,))) if self.bias else (weight,)

    def macs(self, x: VectorType) -> Dim:
        """One a weight."""
        return self.features * x.features

    def module(self, x: VectorType) -> str:
        """`nn.Linear(…)`."""
        return f"nn.Linear({x.features}, {self.features}{'' if self.bias else ', bias=False'})"

    def torch(self, x: VectorType, module: str, value: str) -> str:
        """A call of the module."""
        del x
        return f"{module}({value})"
