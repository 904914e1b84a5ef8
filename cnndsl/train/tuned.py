"""Kernels that are chosen by measurement before a training begins, and followed when it goes on.

What was chosen lies in the run folder as `choices.json`: a resumed run measures nothing. Knows
models and choices; what a kernel is, `cnndsl.tune` knows.
"""

import torch
from torch import nn

from cnndsl.fuse.choices import NONE, Choices, ChoicesError, load
from cnndsl.runtime.load import Origin, origin_of
from cnndsl.train.data import Data
from cnndsl.train.errors import TrainError, UsageError
from cnndsl.train.progress import Reporter
from cnndsl.train.ranks import Ranks
from cnndsl.train.recipe import DTYPES, Recipe
from cnndsl.train.run import Run
from cnndsl.tune import TuneError, tune
from cnndsl.tune.door import device_of, following


def tuned(
    model: nn.Module, data: Data, recipe: Recipe, ranks: Ranks, reporter: Reporter
) -> nn.Module:
    """The model with the kernels that are fastest for batches of this training.

    All processes call this. On a CPU a note says that there is nothing to choose.
    """
    device = ranks.device(recipe.device)
    count = -(-recipe.batch // (ranks.world * recipe.accumulate))
    images = next(iter(data.train.batches(count, None))).images.to(device)
    if device_of(images) is None:
        reporter.note(f"note: `tune` has nothing to choose on {device}: no kernels run there")
        return model
    reporter.note("measuring the kernels, which takes a while when it is done first")
    dtype = DTYPES[recipe.dtype]
    try:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return tune(model, images)
    except TuneError as error:
        raise TrainError(error.message, *error.fixes) from error


def choices_of(model: nn.Module) -> Choices:
    """What its kernels follow; none where the rules chose."""
    origin = origin_of(model)
    return origin.choices if origin is not None else NONE


def followed(model: nn.Module, run: Run) -> nn.Module:
    """The model with the kernels that were chosen for a run."""
    if not run.choices.is_file():
        return model
    origin: Origin | None = origin_of(model)
    if origin is None:
        raise UsageError(
            f"`{run.path}` was trained with kernels that were chosen for its network, and the one "
            "given was not compiled here",
            "give what `cnndsl.compile` makes",
        )
    try:
        return following(model, origin, load(run.choices))
    except ChoicesError as error:
        raise TrainError(
            error.message,
            f"or take `{run.choices}` away: the run goes on with the kernels of the rules",
        ) from error
