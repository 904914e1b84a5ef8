"""Functions of single values.

Each says what it computes three times: as a formula, as PyTorch's function, and as the Triton text
that a fused kernel takes in. In that text NaN stays NaN, a NaN's gradient is not lost, and large
values do not overflow on the way to a small result; `tl.maximum`, which drops NaN, is not used.
"""

from typing import ClassVar

from cnndsl.layers.arguments import Number
from cnndsl.layers.base import Opaque, Pointwise, Weight, argument
from cnndsl.layers.types import ImageType, TensorType, VectorType


class Relu(Pointwise):
    """max(x, 0). PyTorch: `F.relu`."""

    kind = "relu"
    slope_from = "relu"
    examples: ClassVar[tuple[str, ...]] = ("relu",)

    def triton(self, x: str) -> str:
        """NaN is not <= 0."""
        return f"tl.where({x} <= 0, 0.0, {x})"

    def triton_gradient(self, saved: str, gradient: str) -> str:
        """NaN is alive."""
        return f"tl.where({saved} <= 0, 0.0, {gradient})"


class Relu6(Pointwise):
    """min(max(x, 0), 6). Source: Howard et al., MobileNets (2017). PyTorch: `F.relu6`."""

    kind = "relu6"
    slope_from = "output"
    examples: ClassVar[tuple[str, ...]] = ("relu6",)

    def triton(self, x: str) -> str:
        """Cut off at both ends."""
        return f"tl.where({x} <= 0, 0.0, tl.where({x} >= 6, 6.0, {x}))"

    def triton_gradient(self, saved: str, gradient: str) -> str:
        """Between the ends, as PyTorch has it."""
        return f"tl.where(({saved} <= 0) | ({saved} >= 6), 0.0, {gradient})"


class LeakyRelu(Pointwise):
    """x where x > 0, else slope·x. Source: Maas et al. (2013). PyTorch: `F.leaky_relu`."""

    kind = "leaky_relu"
    slope_from = "output"
    examples: ClassVar[tuple[str, ...]] = ("leaky_relu", "leaky_relu 0.2")

    slope: float = argument(Number(0.0), default=0.01, way="either")

    def triton(self, x: str) -> str:
        """A factor on one side."""
        return f"tl.where({x} > 0, {x}, {self.slope!r} * {x})"

    def triton_gradient(self, saved: str, gradient: str) -> str:
        """The output has the sign of the input."""
        return f"tl.where({saved} > 0, {gradient}, {self.slope!r} * {gradient})"

    def torch(self, x: TensorType, module: str, value: str) -> str:
        """A call of the function."""
        del x, module
        return f"F.leaky_relu({value}, {self.slope!r})"

    @property
    def function(self) -> str:
        """The function in PyTorch, without a call."""
        return f"partial(F.leaky_relu, negative_slope={self.slope!r})"


class Gelu(Pointwise):
    """x·Φ(x), with Φ the normal distribution function (1 + erf(x/√2))/2; no approximation.

    Source: Hendrycks and Gimpel (2016). PyTorch: `F.gelu`.
    """

    kind = "gelu"
    slope_from = "input"
    rises = False
    examples: ClassVar[tuple[str, ...]] = ("gelu",)

    def triton(self, x: str) -> str:
        """0.7071… is 1/√2."""
        return f"0.5 * {x} * (1 + tl.erf({x} * 0.7071067811865476))"

    def triton_gradient(self, saved: str, gradient: str) -> str:
        """Φ(x) + x·φ(x), with φ(x) = exp(−x²/2)/√(2π); 0.3989… is 1/√(2π)."""
        density = f"{gradient} * {saved} * 0.3989422804014327, tl.exp(-0.5 * {saved} * {saved})"
        rising = f"0.5 + 0.5 * tl.erf({saved} * 0.7071067811865476)"
        return f"tl.fma({density}, {gradient} * ({rising}))"


class Silu(Pointwise):
    """x·σ(x), also called swish. Source: Elfwing et al. (2017). PyTorch: `F.silu`."""

    kind = "silu"
    slope_from = "input"
    rises = False
    examples: ClassVar[tuple[str, ...]] = ("silu",)

    def triton(self, x: str) -> str:
        """The definition."""
        return f"{x} * tl.sigmoid({x})"

    def triton_gradient(self, saved: str, gradient: str) -> str:
        """σ(x)·(1 + x·(1 − σ(x))), where 1 − σ(x) is σ(−x)."""
        return f"{gradient} * tl.sigmoid({saved}) * (1 + {saved} * tl.sigmoid(-{saved}))"


class Sigmoid(Pointwise):
    """σ(x) = 1/(1 + exp(−x)). PyTorch: `torch.sigmoid`."""

    kind = "sigmoid"
    slope_from = "output"
    examples: ClassVar[tuple[str, ...]] = ("sigmoid",)

    def triton(self, x: str) -> str:
        """Triton has it."""
        return f"tl.sigmoid({x})"

    def triton_gradient(self, saved: str, gradient: str) -> str:
        """y·(1 − y)."""
        return f"{gradient} * {saved} * (1 - {saved})"

    @property
    def function(self) -> str:
        """The function in PyTorch, without a call."""
        return "torch.sigmoid"

    @property
    def inverse(self) -> str:
        """log(y/(1 − y))."""
        return "torch.logit"


class Tanh(Pointwise):
    """(exp(x) − exp(−x))/(exp(x) + exp(−x)). PyTorch: `torch.tanh`."""

    kind = "tanh"
    slope_from = "output"
    examples: ClassVar[tuple[str, ...]] = ("tanh",)

    def triton(self, x: str) -> str:
        """1 − 2/(1 + exp(2x)); near 0, where that cancels, a quotient of polynomials (Padé)."""
        x2 = f"{x} * {x}"
        above = f"{x} * (135135 + {x2} * (17325 + {x2} * (378 + {x2})))"
        below = f"135135 + {x2} * (62370 + {x2} * (3150 + 28 * {x2}))"
        near = f"tl.fdiv({above}, {below})"
        return f"tl.where(tl.abs({x}) < 0.5, {near}, 1 - 2 / (1 + tl.exp(2 * {x})))"

    def triton_gradient(self, saved: str, gradient: str) -> str:
        """1 − y²."""
        return f"{gradient} * (1 - {saved} * {saved})"

    @property
    def function(self) -> str:
        """The function in PyTorch, without a call."""
        return "torch.tanh"

    @property
    def inverse(self) -> str:
        """artanh(y)."""
        return "torch.atanh"


class HardSwish(Pointwise):
    """x·min(max(x + 3, 0), 6)/6.

    Source: Howard et al., Searching for MobileNetV3 (2019). PyTorch: `F.hardswish`.
    """

    kind = "hardswish"
    slope_from = "input"
    rises = False
    examples: ClassVar[tuple[str, ...]] = ("hardswish",)

    def triton(self, x: str) -> str:
        """Divided by 6 before it is multiplied by x, which cannot overflow."""
        return f"{x} * tl.where({x} <= -3, 0.0, tl.where({x} >= 3, 1.0, ({x} + 3) / 6))"

    def triton_gradient(self, saved: str, gradient: str) -> str:
        """x/3 + 1/2 between the bends; at the bends as PyTorch has it."""
        beyond = f"tl.where({saved} >= 3, {gradient}, {gradient} * ({saved} / 3 + 0.5))"
        return f"tl.where({saved} <= -3, 0.0, {beyond})"


class HardSigmoid(Pointwise):
    """min(max(x + 3, 0), 6)/6. Source: as hardswish. PyTorch: `F.hardsigmoid`."""

    kind = "hardsigmoid"
    slope_from = "input"
    examples: ClassVar[tuple[str, ...]] = ("hardsigmoid",)

    def triton(self, x: str) -> str:
        """Cut off at both ends."""
        return f"tl.where({x} <= -3, 0.0, tl.where({x} >= 3, 1.0, ({x} + 3) / 6))"

    def triton_gradient(self, saved: str, gradient: str) -> str:
        """1/6 between the ends; 0 for NaN, as in PyTorch."""
        return f"tl.where(({saved} > -3) & ({saved} < 3), {gradient} / 6, 0.0)"


class Elu(Pointwise):
    """x where x > 0, else exp(x) − 1. Source: Clevert et al. (2015). PyTorch: `F.elu`."""

    kind = "elu"
    slope_from = "input"
    examples: ClassVar[tuple[str, ...]] = ("elu",)

    def triton(self, x: str) -> str:
        """Near 0, where exp(x) − 1 cancels, a quotient of polynomials (Padé)."""
        above = f"2 * {x} * (15120 + {x} * {x} * (420 + {x} * {x}))"
        below = f"30240 - {x} * (15120 - {x} * (3360 - {x} * (420 - {x} * (30 - {x}))))"
        near = f"tl.fdiv({above}, {below})"
        return f"tl.where({x} > 0, {x}, tl.where({x} > -0.3, {near}, tl.exp({x}) - 1))"

    def triton_gradient(self, saved: str, gradient: str) -> str:
        """exp(x) below 0. From the output it would be y + 1, which is 0 once y rounds to -1."""
        return f"tl.where({saved} <= 0, {gradient} * tl.exp({saved}), {gradient})"


class PRelu(Opaque):
    """x where x > 0, else a learned factor of the channel times x: C weights, 0.25 to begin with.

    Source: He et al. (2015). PyTorch: `torch.nn.PReLU`.
    """

    kind = "prelu"
    accepts = (ImageType, VectorType)
    examples: ClassVar[tuple[str, ...]] = ("prelu",)

    def weights(self, x: ImageType | VectorType) -> tuple[Weight, ...]:
        """`weight` [C]."""
        return (Weight("weight", (x.dims[-1],)),)

    def module(self, x: ImageType | VectorType) -> str:
        """`nn.PReLU(C)`."""
        return f"nn.PReLU({x.dims[-1]})"

    def torch(self, x: ImageType | VectorType, module: str, value: str) -> str:
        """A call of the module."""
        del x
        return f"{module}({value})"


class Softmax(Opaque):
    """exp(xᵢ) / Σ exp(xⱼ), over the channels of an image or the features of a vector."""

    kind = "softmax"
    accepts = (ImageType, VectorType)
    examples: ClassVar[tuple[str, ...]] = ("softmax",)

    def torch(self, x: TensorType, module: str, value: str) -> str:
        """PyTorch's dimension 1 holds channels as well as features."""
        del x, module
        return f"F.softmax({value}, 1)"
