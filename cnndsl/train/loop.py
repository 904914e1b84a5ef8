"""`train` and `resume`: the ways into training, from Python and from the command line.

The same seed gives the same bits on the CPU, also across an interruption: random numbers follow
from the seed and the step, and a checkpoint holds all else.
"""

import os
import warnings
from os import PathLike
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from cnndsl.fuse.choices import write
from cnndsl.runtime.load import text_of
from cnndsl.runtime.scaling import Scaling, takes_bytes, tell_scaling
from cnndsl.train.chance import seed_all
from cnndsl.train.compiled import compile_file, compile_run
from cnndsl.train.config import range_of, scale_of
from cnndsl.train.counts import counts_line
from cnndsl.train.data import AS_IT_IS, Data, Scale, as_bytes, as_data, in_one, load
from cnndsl.train.errors import TrainError, UsageError
from cnndsl.train.examples import TensorExamples
from cnndsl.train.fit import ANY, Fit, Shape
from cnndsl.train.network import input_shape
from cnndsl.train.pixels import Range
from cnndsl.train.progress import Quiet, Reporter
from cnndsl.train.ranks import RankError, Ranks, joined, naming_the_lost
from cnndsl.train.recipe import Recipe
from cnndsl.train.run import Origin, Run, create, open_run, refuse_existing
from cnndsl.train.session import SAVE_EVERY, Outcome, Session, versions
from cnndsl.train.tuned import choices_of, followed, tuned

StrPath = str | PathLike[str]


def train(
    model: nn.Module | StrPath,
    data: object,
    *,
    test: object = None,
    classes: tuple[str, ...] = (),
    resize: bool = False,
    recolor: bool = False,
    out: StrPath | None = None,
    recipe: Recipe | None = None,
    origin: Origin | None = None,
    reporter: Reporter | None = None,
    save_every: float = SAVE_EVERY,
    tune: bool = False,
    **settings: object,
) -> Outcome:
    """Train a network that maps images to classes; `out` names the run folder to make.

    `model` is a module, or the path of a `.cnn` file. `data` is the name of a set, a folder of
    images, `(images, labels)` tensors of shapes (N, C, H, W) and (N,), a map-style `Dataset` of
    pairs (image, class), or an iterable of batches that has a length; `test` likewise, for data
    from Python. `tune` measures the kernels on a GPU first, and takes the fastest (`cnndsl.tune`);
    the parameters stay the model's. Images of a set or folder, and tensors, are brought to the
    network's size if `resize`, and made grey or RGB as it takes them if `recolor`. `settings` are a
    `Recipe`'s: `epochs=3`.

    Seed before you make a module (`seed_all`), so that its first weights are the same each time.
    Under `torchrun`, all processes call this with the same arguments. Raises `TrainError`.
    """
    used = (recipe or Recipe()).replace(**settings)
    used.check()
    path = None if out is None else Path(out)
    if path is not None:
        refuse_existing(path)
    if not isinstance(model, nn.Module):
        seed_all(used.seed)
        model, origin = compile_file(model, ())
    images = _read(data, test, classes, model, used, Fit(resize, recolor))
    if takes_bytes(model) and images.scale is not None:
        tell_scaling(model, Scaling(images.scale.mean, images.scale.deviation))
    with joined(used.device) as ranks, naming_the_lost():
        shown = _heard(reporter, ranks)
        if tune:
            model = tuned(model, images, used, ranks, shown)
        return _begin(model, images, used, shown, ranks, path, origin, save_every)


def _begin(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    reporter: Reporter,
    ranks: Ranks,
    path: Path | None,
    origin: Origin | None,
    save_every: float,
) -> Outcome:
    session = Session(model, data, recipe, reporter, ranks)
    _tell(data, reporter, ranks)
    if path is None:
        return session.run(save_every)
    if ranks.is_first:
        try:
            choices = choices_of(model)
            text = write(choices) if choices.regions else ""
            if origin is not None:
                origin = origin.replace(module=text_of(model) or origin.module)
            create(path, session.config(origin), origin, session.checkpoint(), text)
        except OSError as error:
            raise TrainError(
                f"`{path}` cannot be made: {error.strerror or error}",
                "make room, or train into another folder: `--out`",
            ) from error
    ranks.wait(session.device)
    return _run_in(open_run(path), session, save_every)


def resume(
    path: StrPath,
    model: nn.Module | None = None,
    data: object = None,
    *,
    test: object = None,
    classes: tuple[str, ...] = (),
    reporter: Reporter | None = None,
    save_every: float = SAVE_EVERY,
) -> Outcome:
    """Go on with a run where its newest valid checkpoint stands.

    `model` and `data` are those of `train`; a network from a `.cnn` file, and data that has a name
    or a folder, are found by what the run folder says. The number of processes may be another one.
    """
    folder = open_run(Path(path))
    recipe = Recipe(**folder.config["recipe"])
    kept = cast("dict[str, Any]", folder.config["data"])
    model = compile_run(folder) if model is None else followed(model, folder)
    given = _named(folder) if data is None else data
    fit = Fit(kept["resize"], kept["recolor"])
    images = _read(given, test, classes, model, recipe, fit, scale_of(kept), range_of(kept))
    if kept["fingerprint"] != images.fingerprint:
        raise TrainError(
            f"the images are not those that `{path}` was trained on",
            "give the same data, or train anew into another folder: `--out`",
        )
    torch.set_num_threads(int(folder.config["threads"]))
    with joined(recipe.device) as ranks, naming_the_lost():
        shown = _heard(reporter, ranks)
        if folder.config["versions"] != versions():
            shown.note("note: other versions than before: the last bits of the result may differ")
        if folder.config["processes"] != ranks.world:
            shown.note(
                f"note: begun in {_processes(folder.config['processes'])}, going on in "
                f"{_processes(ranks.world)}: the last bits of the result may differ"
            )
        return _run_in(folder, Session(model, images, recipe, shown, ranks), save_every)


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def _named(folder: Run) -> str:
    name = str(folder.config["data"]["name"])
    if name == "python":
        raise UsageError(
            f"`{folder.path}` was trained on data from Python, which is not kept", "give it again"
        )
    return name


def _tell(data: Data, reporter: Reporter, ranks: Ranks) -> None:
    """Say what the data is, and what was left out of it; in Python, where nobody reports, warn."""
    if type(reporter) is not Quiet:
        for text in (counts_line(data), *(f"note: {text}" for text in data.notes)):
            if text:
                reporter.note(text)
    elif ranks.is_first:
        for text in data.notes:
            warnings.warn(text, stacklevel=4)


def _read(
    data: object,
    test: object,
    classes: tuple[str, ...],
    model: nn.Module,
    recipe: Recipe,
    fit: Fit,
    scale: Scale | None = None,
    within: Range | None = None,
) -> Data:
    if isinstance(data, str | PathLike):
        shape, inside = input_shape(model), takes_bytes(model)
        name = os.fspath(cast("StrPath", data))
        return load(name, shape, recipe.seed, scale, fit, is_inside=inside, within=within)
    return _fitted(as_data(data, test, classes), fit, input_shape(model) or ANY)


def _fitted(data: Data, fit: Fit, wanted: Shape) -> Data:
    """Data from Python, brought to what the network takes."""
    if fit == AS_IT_IS:
        return data
    parts: list[TensorExamples | None] = []
    for part in (data.train, data.test):
        if part is not None and not isinstance(part, TensorExamples):
            raise UsageError(
                "only tensors, sets and folders can be resized and recoloured here",
                "let the Dataset give images as the network takes them",
            )
        parts.append(part and TensorExamples(_fitted_images(part.images, fit, wanted), part.labels))
    return data.replace(train=parts[0], test=parts[1], fit=fit)


def _fitted_images(images: Tensor, fit: Fit, wanted: Shape) -> Tensor:
    """The images, of the type that they had."""
    if images.is_floating_point():
        return fit(images, wanted)
    return as_bytes(fit(in_one(images), wanted))


def _heard(reporter: Reporter | None, ranks: Ranks) -> Reporter:
    """One process speaks for all."""
    return reporter if reporter is not None and ranks.is_first else Quiet()


def _run_in(folder: Run, session: Session, save_every: float) -> Outcome:
    try:
        if session.ranks.is_first:
            folder.lock()
        session.ranks.wait(session.device)
        session.take_up(folder)
        return session.run(save_every)
    except RankError as error:
        raise RankError(
            error.message,
            *error.fixes,
            f"its last checkpoint is whole: go on with `cnndsl train --resume {folder.path}`",
        ) from error
    except OSError as error:
        raise TrainError(
            f"`{folder.path}` cannot be written: {error.strerror or error}",
            "its last checkpoint is whole: make room, then go on with "
            f"`cnndsl train --resume {folder.path}`",
        ) from error
    finally:
        folder.unlock()
