"""Whether a network can be trained on its data by a recipe, found out before the first step."""

from torch import nn

from cnndsl.train.data import Data
from cnndsl.train.errors import UsageError
from cnndsl.train.examples import BatchExamples, Examples, Part
from cnndsl.train.network import check_fit, refuse_idle_heads, refuse_single
from cnndsl.train.ranks import Ranks
from cnndsl.train.recipe import Recipe


def check_all(model: nn.Module, data: Data, recipe: Recipe, ranks: Ranks) -> int:
    """Raise `TrainError` for what would go wrong, or would be trained in vain.

    Gives the number of classes.
    """
    count = check_fit(model, data.train, data.classes)
    for examples in (data.test, data.final):
        if examples is not None:
            check_fit(model, examples, data.classes)
    size = min(data.train.shape[1:])
    if recipe.crop > size:
        raise UsageError(
            f"crop is {recipe.crop}, but the images have only {size} pixels in a direction",
            "`--crop` moves images by up to so many pixels: an eighth of their size is usual",
        )
    first = next(iter(data.train.batches(1, None))).images
    refuse_idle_heads(model, first)
    divides = not isinstance(data.train, BatchExamples)  # which come as they like
    if divides and _least(data.train, recipe.batch, recipe.accumulate, ranks.world) == 1:
        refuse_single(model, first[:1], _other_batch(data.train, recipe, ranks.world))
    return count


def _least(examples: Examples, batch: int, pieces: int, world: int) -> int:
    """The least number of images that a network ever sees at once."""
    whole = min(batch, examples.count)
    last = examples.count % batch or whole
    least = whole
    for count in (whole, last):
        first, end = Part(world - 1, world).bounds(count)
        share = max(1, end - first)  # one image stands in for none
        least = min(least, share // min(pieces, share))
    return least


def _other_batch(examples: Examples, recipe: Recipe, world: int) -> str:
    """Which `--batch` near the one of the recipe leaves no image alone."""
    near = [recipe.batch + step * sign for step in range(1, 65) for sign in (1, -1)]
    good = [
        batch
        for batch in near
        if batch > 0 and _least(examples, batch, recipe.accumulate, world) > 1
    ]
    if not good:
        return "choose a larger `--batch`, and no `--accumulate`, or give more images"
    return f"choose another batch: `--batch {good[0]}`"
