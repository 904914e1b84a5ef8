"""The mean and the deviation of a set's images, channel by channel, batch after batch."""

from typing import cast

import torch
from torch import Tensor

_LEVELS = 256


class Tally:
    """Adds up images: bytes are counted by their value, floats are summed in float64."""

    def __init__(self) -> None:
        self._counts: Tensor | None = None  # of bytes: (C, 256)
        self._sums: Tensor | None = None  # of floats: the values and their squares, (2, C)
        self._number = 0  # floats in a channel

    def add(self, images: Tensor) -> None:
        """Take in images (N, C, H, W): bytes, or values 0 … 1; all of one type."""
        channels = images.transpose(0, 1).flatten(1)
        if images.dtype == torch.uint8:
            counts = torch.stack([torch.bincount(c, minlength=_LEVELS) for c in channels])
            self._counts = counts if self._counts is None else self._counts + counts
        else:
            values = channels.double()
            sums = torch.stack([values.sum(1), values.square().sum(1)])
            self._sums = sums if self._sums is None else self._sums + sums
            self._number += values.shape[1]

    def scale(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The mean and the deviation of each channel, of values 0 … 1."""
        if self._counts is not None:
            levels = torch.arange(_LEVELS, dtype=torch.float64) / (_LEVELS - 1)
            shares = self._counts.double() / self._counts.sum(1, keepdim=True)
            mean = shares @ levels
            variance = (shares * (levels - mean[:, None]).square()).sum(1)
        else:
            assert self._sums is not None
            mean, squares = self._sums / self._number
            variance = (squares - mean.square()).clamp_min(0)
        # A channel of one value only has deviation 0; it becomes 0 everywhere.
        return _numbers(mean), _numbers(variance.sqrt().clamp_min(1e-8))


def _numbers(values: Tensor) -> tuple[float, ...]:
    return tuple(cast("list[float]", values.numpy().tolist()))
