"""Trained networks back from where they lie: `cnndsl.load` of a run folder, or of a file.

Knows where a network's source and its weights are; what is done with it, it does not.
"""

import os
import warnings
from os import PathLike
from pathlib import Path
from typing import Any, cast

from torch import nn

from cnndsl.runtime import weights as files
from cnndsl.runtime.load import instance, write
from cnndsl.runtime.scaling import Scaling, tell_scaling
from cnndsl.train import checkpoint
from cnndsl.train.compiled import compile_run
from cnndsl.train.errors import TrainError, UsageError
from cnndsl.train.run import Run, open_run


def load_model(
    path: str | PathLike[str],
    /,
    *,
    weights: str | PathLike[str] | None = None,
    fresh: tuple[str, ...] | list[str] = (),
    **settings: object,
) -> nn.Module:
    """Give a trained model back, in evaluation mode and on the CPU.

    `path` is a run folder, whose best checkpoint is taken where that is kept, else the newest valid
    one; or a `.cnn` file together with `weights`, a safetensors file under the names of its layers.
    Layers named in `fresh` begin anew, whatever the file has for them. `settings` give params and
    free sizes of the file a value.

    Beside what every model has, this one may have `input_mean` and `input_deviation`, a number a
    channel: images are given to it as (x − mean)/deviation, of values in 0 … 1. (One that takes
    bytes, `input … u8`, scales them itself, by buffers of these names.) Its `classes` are
    those of the data that a run was trained on, if the file has no `labels`.

    Raises `CheckError`, `WeightsError`, `TrainError` for a run that cannot be used, `TypeError` for
    wrong arguments.
    """
    if Path(path).is_dir():
        if weights is not None or fresh or settings:
            raise TypeError("a run has its own weights and settings: load takes its folder alone")
        model, skipped = model_of(open_run(Path(path)))
        for text in skipped:
            warnings.warn(f"passed over {text}", stacklevel=2)
        return model
    if not Path(path).exists():
        raise UsageError(f"there is no run folder and no file `{os.fspath(path)}`")
    if weights is None:
        raise TypeError(
            f"{os.fspath(path)} is no run folder, so its weights lie elsewhere: load(…, weights=…);"
            " cnndsl.compile gives a network with fresh ones"
        )
    model = instance(write(path, None, settings))
    given = files.read(weights)
    files.load_into(model, given, fresh)
    tell_scaling(model, given.scaling)
    return model.eval()


def fill(model: nn.Module, run: Run) -> checkpoint.Found:
    """Give the model the weights of the run's checkpoint that is used."""
    found = checkpoint.load_to_use(run.path)
    try:
        model.load_state_dict(found.checkpoint.model)
    except RuntimeError as error:
        raise TrainError(
            f"the weights in `{run.path}` are those of another network",
            "give the network that was trained",
        ) from error
    return found


def model_of(run: Run) -> tuple[nn.Module, tuple[str, ...]]:
    """The model of a run, as `load_model` gives it, and why newer checkpoints were passed over."""
    model = compile_run(run)
    skipped = fill(model, run).skipped
    data = cast("dict[str, Any]", run.config["data"])
    if not getattr(model, "classes", ()):
        files.tell(model, classes=tuple(cast("list[str]", data["classes"])))
    if data["mean"] is not None:
        tell_scaling(model, Scaling(tuple(data["mean"]), tuple(data["deviation"])))
    return model.eval(), skipped
