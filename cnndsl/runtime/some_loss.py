"""Labels that fit an emitted module, whichever they are: to look at a step of training."""

from typing import Any

import torch
from torch import Tensor


def some_labels(model: object, logits: Tensor) -> Tensor | None:
    """Classes or answers, all 0, for the logits of a batch; None where the module has no loss.

    It has none where it has one output and no final sigmoid.
    """
    if getattr(model, "ends_in", "") == "sigmoid":
        return torch.zeros_like(logits)
    if logits.shape[1] == 1:
        return None
    return torch.zeros_like(logits[:, 0], dtype=torch.int64)


def some_loss(model: Any, x: Tensor, labels: Tensor | None) -> Tensor:  # noqa: ANN401 (any emitted module)
    """The module's loss; a sum over its logits where it has none."""
    return model.logits(x).square().sum() if labels is None else model.loss(x, labels)
