"""`cnndsl train FILE --data …`: trains a network, or goes on with a run that was interrupted."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cnndsl.check.settings import parse_setting
from cnndsl.cli import training

if TYPE_CHECKING:
    from cnndsl.train import Outcome, Recipe

# The settings of a recipe and their types; what is not given is the recipe's own default.
_RECIPE = {
    "epochs": (int, "N", "how often each image is seen (12)"),
    "batch": (int, "N", "images in a step (64)"),
    "lr": (float, "RATE", "the highest learning rate; it rises to it, then falls (0.003)"),
    "decay": (float, "RATE", "weight decay (0.01)"),
    "seed": (int, "N", "decides all random numbers; the same seed, the same result (0)"),
    "device": (str, "NAME", "cpu, cuda, cuda:1 or auto: the GPU where there is one (auto)"),
    "dtype": (str, "TYPE", "fp32, or bf16: layers compute in bfloat16 (fp32)"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.description = (
        "Train a network. Its run folder holds the settings, the metrics of each epoch, the\n"
        "emitted module and checkpoints. Ctrl-C saves; a run goes on where it stopped, however\n"
        "that happened."
    )
    parser.epilog = (
        "examples:\n"
        "  cnndsl train digits.cnn --data digits     scikit-learn's handwritten digits\n"
        "  cnndsl train pets.cnn --data pets         pets/cat/1.png, pets/dog/7.jpg, …\n"
        "  cnndsl train --resume runs/digits         go on"
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help="a .cnn file")
    parser.add_argument(
        "--data",
        metavar="NAME|PATH",
        help="digits, or a folder with one folder of images for each class",
    )
    parser.add_argument(
        "--set",
        metavar="NAME=V",
        action="append",
        default=[],
        type=_setting,
        dest="settings",
        help="a value for a param or a free size; may be given several times",
    )
    for name, (kind, metavar, text) in _RECIPE.items():
        parser.add_argument(f"--{name}", type=kind, metavar=metavar, help=text)
    parser.add_argument(
        "--out", metavar="RUN", help="the run folder to make (runs/ and the file's name)"
    )
    parser.add_argument("--resume", metavar="RUN", help="the run folder to go on with")
    parser.add_argument(
        "--save-every",
        metavar="SECONDS",
        type=float,
        default=1.0,
        help="the most that a crash may cost, but for the time that saving takes; 0: each step (1)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Train; status 130 when Ctrl-C ended it."""
    return training.guarded(_resume if arguments.resume else _start, arguments)


def _start(arguments: argparse.Namespace) -> int:
    from cnndsl.train import UsageError, load, seed_all, train
    from cnndsl.train.compiled import compile_file
    from cnndsl.train.network import input_shape
    from cnndsl.train.progress import reporter
    from cnndsl.train.run import refuse_existing

    if arguments.file is None:
        raise UsageError(
            "which network? No file is given", "`cnndsl train digits.cnn --data digits`"
        )
    if arguments.data is None:
        raise UsageError(
            "which images? `--data` is missing",
            "`--data digits`, or a folder with one folder of images for each class",
        )
    recipe = _recipe(arguments)
    out = Path(arguments.out or Path("runs") / Path(arguments.file).stem)
    refuse_existing(out)
    seed_all(recipe.seed)
    model, origin = compile_file(arguments.file, arguments.settings)
    shape = input_shape(model)
    data = load(arguments.data, shape[0] if shape else None, recipe.seed)
    count = sum(p.numel() for p in model.parameters())
    held_back = f", {data.test.count:,} to test" if data.test else ""
    print(
        f"{type(model).__name__}: {count:,} parameters; "
        f"{data.name}: {data.train.count:,} images to train on{held_back}",
        flush=True,
    )
    return _report(
        train(
            model,
            data,
            out=out,
            recipe=recipe,
            origin=origin,
            reporter=reporter(sys.stdout),
            save_every=arguments.save_every,
        ),
        out,
    )


def _resume(arguments: argparse.Namespace) -> int:
    from cnndsl.train import Recipe, UsageError, load, open_run, resume, seed_all
    from cnndsl.train.compiled import compile_run
    from cnndsl.train.network import input_shape
    from cnndsl.train.progress import reporter

    given = [name for name in ("file", "out", *_RECIPE) if getattr(arguments, name) is not None]
    given += ["set"] if arguments.settings else []
    if given:
        flag = "FILE" if given[0] == "file" else f"--{given[0]}"
        raise UsageError(
            f"a run goes on with the settings that it began with, so `{flag}` cannot be given",
            f"`cnndsl train --resume {arguments.resume}`",
        )
    path = Path(arguments.resume)
    folder = open_run(path)
    recipe = Recipe(**folder.config["recipe"])
    seed_all(recipe.seed)
    model = compile_run(folder)
    shape = input_shape(model)
    name = arguments.data or folder.config["data"]["name"]
    data = load(name, shape[0] if shape else None, recipe.seed)
    finished = len(folder.metrics) >= recipe.epochs
    what = "nothing is left to do in" if finished else "going on with"
    print(f"{type(model).__name__}: {what} {path}", flush=True)
    shown = reporter(sys.stdout)
    return _report(resume(path, model, data, reporter=shown, save_every=arguments.save_every), path)


def _recipe(arguments: argparse.Namespace) -> "Recipe":
    from cnndsl.train import Recipe

    given = {name: getattr(arguments, name) for name in _RECIPE}
    recipe = Recipe(**{name: value for name, value in given.items() if value is not None})
    recipe.check()
    return recipe


def _report(outcome: "Outcome", path: Path) -> int:
    """The last words: how good it is, and what can be done with it."""
    if outcome.interrupted is not None:
        print(
            f"stopped and saved; go on: cnndsl train --resume {training.quoted(path)}",
            file=sys.stderr,
        )
        return 128 + outcome.interrupted
    last = outcome.metrics[-1]
    if last["test_accuracy"] is not None:
        right, count = last["test_right"], last["test_count"]
        print(f"\ntest accuracy {last['test_accuracy']:.2%} ({right:,} of {count:,} images)")
    print(f"the run is in {path}; look closer: cnndsl eval {training.quoted(path)}")
    return 0


def _setting(text: str) -> str:
    try:
        parse_setting(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text
