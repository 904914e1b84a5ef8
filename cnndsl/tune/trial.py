"""The tensors of a trial, and what a region's own operators make of them.

Whole numbers, few enough that no sum leaves what 16 bits hold exactly: so ties are many, and what
is wrong is wrong by one or more. Knows how a region's operators are called; knows no kernels.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from cnndsl.record import Record
from cnndsl.tune.built import RT, Built, Operators
from cnndsl.tune.task import Task

Untyped = Any
# The spread of a sum of whole numbers: 16 bits hold up to 256 of them exactly.
SPREAD = 16.0


class Given(Record):
    """What a region reads, and the gradient that comes back; None for what it has no use for.

    `needs` are the gradients that are asked for: of x, weight, bias and, for a convolution, scale.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    scale: Tensor | None
    residual: Tensor | None
    gradient: Tensor
    needs: tuple[bool, ...]

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """All of them."""
        return (self.x, self.weight, self.bias, self.scale, self.residual, self.gradient)

    def on_meta(self) -> "Given":
        """The same without memory."""
        found: Untyped = (None if t is None else t.to("meta") for t in self.tensors)
        return Given(*found, needs=self.needs)


class Forward(Record):
    """What forward gives, as its operator does: y, then what is kept, empty where nothing is."""

    y: Tensor
    kept: tuple[Tensor, ...]


class Draw:
    """Draws tensors, the same each time; of `whole` numbers, or such as training has."""

    def __init__(self, device: torch.device, dtype: torch.dtype, whole: bool) -> None:
        """Begin anew."""
        self._device, self._dtype, self._whole = device, dtype, whole
        self._generator = torch.Generator(device).manual_seed(0)

    def __call__(self, *shape: int, keep: float = 1.0) -> Tensor:
        """A tensor; of whole numbers, a share of `keep` is not set to zero."""
        place: Untyped = {"generator": self._generator, "device": self._device}
        if self._whole:
            found = torch.randint(-1, 2, shape, **place).float()
            found *= torch.rand(shape, **place) < keep
        else:
            found = torch.randn(shape, **place)
        found = found.to(self._dtype)
        return found.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else found


def given(task: Task, built: Built, images: int, draw: Draw) -> Given:
    """The tensors of a task."""
    g = built.geometry
    if not task.is_conv or task.size is None:
        keep = min(1.0, SPREAD**2 / (g.features * 4 / 9))
        x = draw(images, *RT.fc_shape(g))
        weight = draw(g.outputs, g.features, keep=keep)
        bias = draw(g.outputs) if g.bias else None
        needs = (task.needs_input_gradient, True, g.bias)
        return Given(x, weight, bias, None, None, draw(images, g.outputs), needs)
    terms = g.channels // g.groups * g.kernel[0] * g.kernel[1]
    keep = min(1.0, SPREAD**2 / (terms * 4 / 9))
    x = draw(images, g.channels, *task.size)
    weight = draw(g.filters, g.channels // g.groups, *g.kernel, keep=keep)
    sizes = RT.conv_sizes(g, *task.size)
    shape = (images, g.filters, sizes.out_height, sizes.out_width)
    scale = None
    if g.scale != "none":
        scale = torch.where(draw(g.filters) < 0, -1.0, 1.0).to(x.dtype)
    bias = draw(g.filters) if g.bias else None
    residual = draw(*shape) if g.residual else None
    needs = (task.needs_input_gradient, True, g.bias, scale is not None)
    return Given(x, weight, bias, scale, residual, draw(*shape), needs)


# ── by operators of ours ─────────────────────────────────────────────────────────────────────────


def forward(operators: Operators, built: Built, tensors: Given) -> Forward:
    """Run the forward operator."""
    read = tensors.tensors[:5] if built.text.is_conv else tensors.tensors[:3]
    y, *kept = cast("Sequence[Tensor]", operators.forward(*read))
    return Forward(y, tuple(kept))


def backward(operators: Operators, built: Built, tensors: Given, made: Forward) -> Sequence[Tensor]:
    """Run the backward operator on what forward has made."""
    t, slope = tensors, built.geometry.activation
    if not built.text.is_conv:
        saved = {"none": None, "input": made.kept[0]}.get(slope, made.y)
        return operators.backward(t.gradient, saved, t.x, t.weight, list(t.needs))
    code, before, _ = made.kept
    saved = before if slope == "input" else None
    if RT.conv_keeps_output(built.geometry):
        saved = made.y
    size = [t.x.shape[0], *t.x.shape[2:]]
    winner = code if code.numel() else None
    return operators.backward(
        t.gradient, winner, saved, t.x, t.weight, t.scale, size, list(t.needs)
    )


def results(task: Task, made: Forward) -> tuple[Tensor | None, ...]:
    """What of forward is compared: y, and the statistics, merged as training merges them."""
    if task.role != "sums":
        return (made.y,)
    sums = made.kept[2].double()
    count, mean, squares = sums[:, 0], sums[:, 1], sums[:, 2]
    total = count.sum(0)
    whole = (count * mean).sum(0) / total
    return made.y, whole, (squares + count * (mean - whole) ** 2).sum(0) / total
