"""How well a network does: loss, accuracy, and which class it takes for which."""

from typing import cast

import torch
from torch import Tensor, nn

from cnndsl.record import Record
from cnndsl.train.ending import (
    classes_of,
    kind_of,
    logits_of,
    refuse_independent,
    summed_loss,
    taken_for,
)
from cnndsl.train.examples import IGNORED, Examples
from cnndsl.train.labelled import refuse_strangers
from cnndsl.train.ranks import ALONE, Ranks

_BATCH = 256


class Scores(Record):
    """Over all images: the mean loss, and how often class `row` was taken for class `column`."""

    loss: float
    confusion: tuple[tuple[int, ...], ...]

    @property
    def right(self) -> int:
        """How many were recognised."""
        return sum(row[i] for i, row in enumerate(self.confusion))

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(sum(row) for row in self.confusion)

    @property
    def accuracy(self) -> float:
        """The share that was recognised."""
        return self.right / self.count if self.count else 0.0


def evaluate(
    model: nn.Module,
    examples: Examples,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    ranks: Ranks = ALONE,
) -> Scores:
    """Run a network over examples as it would be used; it stays in the mode it was in.

    Raises `TrainError` where its output and the labels do not fit each other.

    Of each batch, several processes take a part each; all get the scores of all images.
    """
    training = model.training
    model.eval()
    loss = 0.0
    confusion: Tensor | None = None
    try:
        with torch.no_grad():
            for batch in examples.batches(_BATCH, None, part=ranks.part):
                x = batch.images.to(device) if device else batch.images
                y = batch.labels.to(device) if device else batch.labels
                with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
                    logits = logits_of(model, x)
                kind = kind_of(model, logits)
                refuse_independent(kind, logits.shape[1])
                classes = classes_of(kind, logits.shape[1])
                refuse_strangers(batch.labels, classes)
                logits = logits.float()
                loss += summed_loss(logits, y).item()
                pairs = (y * classes + taken_for(logits))[y != IGNORED].cpu()
                counts = torch.bincount(pairs, minlength=classes * classes)
                confusion = counts if confusion is None else confusion + counts
    finally:
        model.train(training)
    if confusion is None:
        return Scores(0.0, ())
    sums = torch.cat([torch.tensor([loss], dtype=torch.float64), confusion.double()])
    total_loss, *cells = _numbers(ranks.sum(sums.to(device) if device else sums))
    classes = round(len(cells) ** 0.5)
    table = tuple(
        tuple(int(cell) for cell in cells[row * classes : (row + 1) * classes])
        for row in range(classes)
    )
    return Scores(total_loss / sum(cells), table)


def _numbers(values: Tensor) -> list[float]:
    return cast("list[float]", values.cpu().numpy().tolist())
