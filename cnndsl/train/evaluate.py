"""How well a network does: loss, accuracy, and which class it takes for which."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cnndsl.record import Record
from cnndsl.train.examples import Examples
from cnndsl.train.network import logits_of

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
) -> Scores:
    """Run a network over examples as it would be used; it stays in the mode it was in."""
    training = model.training
    model.eval()
    loss = 0.0
    confusion: Tensor | None = None
    try:
        with torch.no_grad():
            for images, labels in examples.batches(_BATCH, None):
                x = images.to(device) if device else images
                y = labels.to(device) if device else labels
                with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
                    logits = logits_of(model, x).float()
                classes = logits.shape[1]
                loss += functional.cross_entropy(logits, y, reduction="sum").item()
                pairs = (y * classes + logits.argmax(1)).cpu()
                counts = torch.bincount(pairs, minlength=classes * classes)
                confusion = counts if confusion is None else confusion + counts
    finally:
        model.train(training)
    if confusion is None:
        return Scores(0.0, ())
    classes = round(len(confusion) ** 0.5)
    rows = confusion.view(classes, classes)
    table = tuple(tuple(int(cell) for cell in row) for row in rows)
    return Scores(loss / int(confusion.sum()), table)
