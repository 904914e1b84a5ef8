"""How many images each class has, in a line that shows at once whether one is short of them."""

from typing import cast

import torch
from torch import Tensor

from cnndsl.diagnostics.safe import safe
from cnndsl.train.data import Data

_LISTED = 12  # classes that fit on a line or two
_UNEVEN = 10  # times as many images as another class: what is rare is hardly learned


def counts_line(data: Data) -> str:
    """The counts of the training images; empty where the labels are not known beforehand."""
    labels = getattr(data.train, "labels", None)
    if not isinstance(labels, Tensor):
        return ""
    counted = torch.bincount(labels.cpu(), minlength=len(data.classes))
    counts = cast("list[int]", counted.numpy().tolist())
    names = [safe(data.classes[i] if data.classes else i, 40) for i in range(len(counts))]
    least, most = (counts.index(f(counts)) for f in (min, max))
    if len(counts) <= _LISTED:
        listed = ", ".join(f"{name} {n:,}" for name, n in zip(names, counts, strict=True))
        line = f"images of each class: {listed}"
    elif counts[least] == counts[most]:
        line = f"{len(counts):,} classes of {counts[0]:,} images each"
    else:
        line = (
            f"{len(counts):,} classes of {counts[least]:,} to {counts[most]:,} images: the fewest "
            f"{names[least]}, the most {names[most]}"
        )
    if counts[most] >= _UNEVEN * max(1, counts[least]):
        line += (
            f"\nnote: {names[most]} has {counts[most] // max(1, counts[least])} times as many "
            f"images as {names[least]}, which will hardly be learned"
        )
    return line
