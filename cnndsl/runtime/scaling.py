"""How images are scaled for a model: (x − mean)/deviation, a channel each, of x in 0 … 1.

A model of `input … u8` takes bytes and does so itself, by two buffers; of others it is told beside
them, in attributes. Both are called `input_mean` and `input_deviation`.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn

from cnndsl.record import Record
from cnndsl.runtime.errors import WeightsError

NAMES = ("input_mean", "input_deviation")


class Scaling(Record):
    """How images were scaled in training: (x − mean)/deviation, a channel each, of x in 0 … 1."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]


def takes_bytes(model: nn.Module) -> bool:
    """Whether images are given to it as bytes, which it scales itself."""
    return getattr(model, "input_dtype", None) == torch.uint8


def scaling_of(model: nn.Module) -> Scaling | None:
    """What is kept with a model; None where nothing is."""
    mean, deviation = (getattr(model, name, None) for name in NAMES)
    if mean is None or deviation is None:
        return None
    return Scaling(_numbers(mean), _numbers(deviation))


def _numbers(values: Tensor | tuple[float, ...]) -> tuple[float, ...]:
    if isinstance(values, Tensor):
        return tuple(cast("list[float]", values.double().cpu().numpy().tolist()))
    return values


def refuse_scaling(model: nn.Module, scaling: Scaling) -> None:
    """Raise `WeightsError` unless there is a mean and a deviation for each channel."""
    channels = cast("tuple[int | None, ...]", model.input_shape)[0]
    counts = len(scaling.mean), len(scaling.deviation)
    if channels is not None and counts != (channels, channels):
        raise WeightsError(
            f"there are {counts[0]} numbers as mean and {counts[1]} as deviation, but images of "
            f"{channels} channels",
            f"give {channels} of each: `--mean … --deviation …` of `cnndsl weights`",
        )
    if not all(map(math.isfinite, scaling.mean)) or not all(
        math.isfinite(d) and d > 0 for d in scaling.deviation
    ):
        raise WeightsError("means are finite numbers, deviations finite and above zero")


def tell_scaling(model: nn.Module, scaling: Scaling | None) -> None:
    """Keep with the model how images are scaled for it, where that is known."""
    if scaling is None:
        return
    refuse_scaling(model, scaling)
    for name, values in zip(NAMES, (scaling.mean, scaling.deviation), strict=True):
        if takes_bytes(model):
            model.get_buffer(name).copy_(torch.tensor(values))
        else:
            setattr(model, name, values)
