"""`cnndsl train FILE --data …`: trains a network, or goes on with a run that was interrupted."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from cnndsl.cli import training
from cnndsl.diagnostics.safe import safe

if TYPE_CHECKING:
    from cnndsl.train import Outcome, Recipe

# The settings of a recipe: type (`bool`: a flag), what stands for the value, help. What is not
# given is the recipe's own default, which the help names.
_LEARNING = {
    "epochs": (int, "N", "how often each image is seen (12)"),
    "batch": (int, "N", "images in a step, over all parts and processes (64)"),
    "optimizer": (str, "NAME", "adamw or sgd (adamw)"),
    "lr": (float, "RATE", "the highest learning rate; for sgd try 0.05 (0.003)"),
    "momentum": (float, "SHARE", "of sgd (0.9)"),
    "nesterov": (bool, "", "sgd looks ahead along its momentum"),
    "decay": (float, "RATE", "weight decay, not of biases and norms (0.01)"),
    "schedule": (
        str,
        "NAME",
        "what the learning rate does after its rise: cosine, one-cycle or constant (cosine)",
    ),
    "warmup": (
        int,
        "STEPS",
        "steps in which it rises (a tenth of all, at most 500; one-cycle: three tenths)",
    ),
    "smoothing": (float, "SHARE", "label smoothing: the share of a label that all classes get (0)"),
    "clip": (float, "NORM", "the largest norm of the gradients; 0: any (0)"),
    "ema": (float, "SHARE", "test and use averaged weights; they keep that share each step (0)"),
    "patience": (int, "EPOCHS", "stop after so many without a lower test loss; 0: never (0)"),
    "seed": (int, "N", "decides all random numbers; the same seed, the same result (0)"),
}
_CHANGES = {
    "flip": (bool, "", "mirror half of the images, at random"),
    "crop": (int, "PIXELS", "move each image by up to so many pixels, at random (0)"),
}
_MACHINE = {
    "device": (str, "NAME", "cpu, cuda, cuda:1 or auto: the GPU where there is one (auto)"),
    "dtype": (str, "TYPE", "fp32, or bf16 or fp16: layers compute in 16 bits (fp32)"),
    "accumulate": (int, "PARTS", "compute each batch in so many parts: less memory (1)"),
    "no_graph": (bool, "", "do not replay steps as CUDA graphs"),
}
_RECIPE = {**_LEARNING, **_CHANGES, **_MACHINE}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.description = (
        "Train a network. Its run folder holds the settings, the metrics of each epoch, the\n"
        "emitted module and checkpoints. Ctrl-C saves; a run goes on where it stopped, however\n"
        "that happened. `torchrun --nproc-per-node 2 -m cnndsl train …` trains in two processes."
    )
    parser.epilog = (
        "examples:\n"
        "  cnndsl train digits.cnn --data digits     scikit-learn's handwritten digits\n"
        "  cnndsl train pets.cnn --data pets         pets/cat/1.png, pets/dog/7.jpg, …\n"
        "  cnndsl train --resume runs/digits         go on\n"
        "  cnndsl train resnet18.cnn --set classes=2 --weights resnet18.safetensors --fresh fc \\\n"
        "      --data pets                           begin with what another network learned"
    )
    parser.usage = "cnndsl train FILE --data NAME|PATH [OPTION …]\n       cnndsl train --resume RUN"
    parser.add_argument("file", metavar="FILE", nargs="?", help="a .cnn file")
    training.add_settings(parser)
    parser.add_argument(
        "--weights",
        metavar="W.safetensors",
        help="what to begin with: weights under the names of the file's layers",
    )
    parser.add_argument(
        "--fresh",
        metavar="LAYER",
        action="append",
        default=[],
        help="a layer that begins anew all the same; may be given several times",
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        metavar="NAME|PATH",
        help="digits, fashion-mnist, mnist, cifar10, photos-10, or a folder with one folder of "
        "images for each class",
    )
    # None, not False, where a flag is not given: a resumed run tells it from one that is.
    data.add_argument(
        "--resize",
        action="store_true",
        default=None,
        help="bring the images to the size of the network's input",
    )
    data.add_argument(
        "--recolor",
        action="store_true",
        default=None,
        help="make grey images RGB, or RGB ones grey, as the network takes them",
    )
    for title, settings in (
        ("how it learns", _LEARNING),
        ("changed images", _CHANGES),
        ("where it is computed", _MACHINE),
    ):
        group = parser.add_argument_group(title)
        for name, (kind, metavar, text) in settings.items():
            flag = f"--{name.replace('_', '-')}"
            if kind is bool:
                group.add_argument(flag, action="store_true", default=None, help=text)
            else:
                group.add_argument(flag, type=kind, metavar=metavar, help=text)
        if settings is _MACHINE:
            group.add_argument(
                "--tune",
                action="store_true",
                default=None,
                help="on a GPU, first measure the kernels; the run keeps the fastest",
            )
    run = parser.add_argument_group("the run")
    run.add_argument("--out", metavar="RUN", help="the run folder to make (runs/ and FILE's name)")
    run.add_argument("--resume", metavar="RUN", help="the run folder to go on with")
    run.add_argument(
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
    from cnndsl.runtime.scaling import takes_bytes
    from cnndsl.train import Fit, UsageError, load, seed_all, train
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
    _check_save_every(arguments.save_every)
    if arguments.out == "":
        raise UsageError("`--out` needs the name of a folder", "`--out runs/digits`")
    out = Path(arguments.out or Path("runs") / Path(arguments.file).stem)
    refuse_existing(out)
    seed_all(recipe.seed)
    model, origin = compile_file(arguments.file, arguments.settings)
    scale = training.begin_with(model, arguments.weights, arguments.fresh)
    fit = Fit(bool(arguments.resize), bool(arguments.recolor))
    is_inside = takes_bytes(model)
    data = load(arguments.data, input_shape(model), recipe.seed, scale, fit, is_inside=is_inside)
    count = sum(p.numel() for p in model.parameters())
    verb = "validate" if data.judged_on == "valid" else "test"
    held_back = f", {data.test.count:,} to {verb}" if data.test else ""
    held_back += f", {data.final.count:,} to test" if data.final else ""
    _say(
        f"{type(model).__name__}: {count:,} parameters; "
        f"{safe(data.name)}: {data.train.count:,} images to train on{held_back}"
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
            tune=bool(arguments.tune),
        ),
        out,
    )


def _resume(arguments: argparse.Namespace) -> int:
    from cnndsl.train import Recipe, UsageError, checkpoint, open_run, resume
    from cnndsl.train.compiled import compile_run
    from cnndsl.train.progress import reporter
    from cnndsl.train.session import is_finished

    kept = ("file", "out", "resize", "recolor", "weights", "tune", *_RECIPE)
    given = [name for name in kept if getattr(arguments, name) is not None]
    given += ["set"] if arguments.settings else []
    given += ["fresh"] if arguments.fresh else []
    if given:
        flag = "FILE" if given[0] == "file" else f"--{given[0]}"
        raise UsageError(
            f"a run goes on with the settings that it began with, so `{flag}` cannot be given",
            f"`cnndsl train --resume {arguments.resume}`",
        )
    _check_save_every(arguments.save_every)
    path = Path(arguments.resume)
    folder = open_run(path)
    model = compile_run(folder)
    done = checkpoint.load(path).checkpoint.state["metrics"]
    is_over = is_finished(Recipe(**folder.config["recipe"]), done)
    what = "nothing is left to do in" if is_over else "going on with"
    _say(f"{type(model).__name__}: {what} {safe(path)}")
    return _report(
        resume(
            path,
            model,
            arguments.data,
            reporter=reporter(sys.stdout),
            save_every=arguments.save_every,
        ),
        path,
    )


def _check_save_every(seconds: float) -> None:
    from cnndsl.train import UsageError

    if not seconds >= 0:  # nan is not
        raise UsageError(
            f"save-every is {seconds}; it must be a number of seconds from 0 up", "--save-every 1"
        )


def _recipe(arguments: argparse.Namespace) -> "Recipe":
    from cnndsl.train import Recipe

    given = {name: getattr(arguments, name) for name in _RECIPE}
    recipe = Recipe(**{name: value for name, value in given.items() if value is not None})
    recipe.check()
    return recipe


def _report(outcome: "Outcome", path: Path) -> int:
    """The last words: how good it is, and what can be done with it."""
    if outcome.interrupted is not None:
        _say(f"stopped and saved; go on: cnndsl train --resume {training.quoted(path)}", sys.stderr)
        return 128 + outcome.interrupted
    used = outcome.best if outcome.best_is_used else outcome.metrics[-1]
    if used is not outcome.metrics[-1]:
        _say(f"\nit got no better after epoch {used['epoch']}, whose network is kept and used")
    if used["test_accuracy"] is not None:
        right, count = used["test_right"], used["test_count"]
        what = "validation" if used["judged_on"] == "valid" else "test"
        _say(f"\n{what} accuracy {used['test_accuracy']:.2%} ({right:,} of {count:,} images)")
    if outcome.final is not None:
        right, count = outcome.final.right, outcome.final.count
        _say(f"test accuracy {outcome.final.accuracy:.2%} ({right:,} of {count:,} images)")
    _say(f"the run is in {safe(path)}; look closer: cnndsl eval {training.quoted(path)}")
    return 0


def _say(text: str, stream: TextIO | None = None) -> None:
    """Print, in the process that speaks for all."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=stream or sys.stdout, flush=True)
