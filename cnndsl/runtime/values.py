"""Numbers with which no network computes anything: NaN, infinities, variances below zero.

They load without a word and turn every output into NaN, so they are refused where weights are read.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from cnndsl.diagnostics.safe import safe
from cnndsl.runtime.errors import WeightsError

_SHOWN = 6  # tensors in a message; a training that diverged spoils all of them


def refuse_bad_values(
    where: str, tensors: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype], *fixes: str
) -> None:
    """Raise `WeightsError` that names each tensor with such numbers, and how many they are.

    `tensors` are as they were read, and `dtypes` what each of them becomes in the model. `where`
    begins the message: "`w.safetensors`".
    """
    bad = bad_values(tensors, dtypes)
    if bad:
        raise WeightsError(
            f"{where} has weights that no network can compute with: {bad}",
            *(fixes or ("save the weights again, from before the training went wrong",)),
        )


def bad_values(tensors: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype]) -> str:
    """Each tensor with such numbers, and how many they are; an empty text where all are good."""
    found = [
        f"`{safe(name)}` has {what}"
        for name, tensor in tensors.items()
        for what in _bad_values(name, tensor, dtypes[name])
    ]
    more = len(found) - _SHOWN
    return "; ".join(found[:_SHOWN] + ([f"… and {more} more"] if more > 0 else []))


def _bad_values(name: str, tensor: Tensor, dtype: torch.dtype) -> Iterator[str]:
    if not tensor.is_floating_point():
        return
    total = tensor.numel()

    def share(bad: Tensor, what: str) -> Iterator[str]:
        count = int(bad.sum())
        if count:
            yield f"{count:,} {what} of {total:,} values"

    yield from share(tensor.isnan(), "NaN")
    yield from share(tensor.isinf(), "infinite")
    word = str(dtype).removeprefix("torch.")
    yield from share(tensor.isfinite() & tensor.to(dtype).isinf(), f"too large for {word}")
    if name.rpartition(".")[2] == "running_var":
        yield from share(tensor < 0, "negative variances")
