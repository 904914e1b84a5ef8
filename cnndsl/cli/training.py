"""What commands on trained networks share: the network of a file or run, and how errors end.

No command itself. Everything that imports torch is imported when it is first needed.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cnndsl.check.settings import parse_setting
from cnndsl.cli import memory, terminal
from cnndsl.cli.options import USAGE
from cnndsl.diagnostics.safe import MESSAGE, safe

if TYPE_CHECKING:
    from torch import nn

    from cnndsl.runtime.weights import Weights
    from cnndsl.train import Scale
    from cnndsl.train.trained import Network


def guarded(work: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Run a command; what stops it is said in a sentence, with what helps."""
    try:
        from cnndsl.train import RankError, TrainError
    except ModuleNotFoundError as error:
        message, *helps = str(error).split("\n  help: ")
        terminal.complain(message, *helps, color=arguments.color)
        return USAGE
    import cnndsl

    memory.keep_freed()
    try:
        return work(arguments)
    except cnndsl.CheckError as error:
        if _speaks():
            terminal.show(error.diagnostics, arguments.color)
        return 1
    except cnndsl.WeightsError as error:
        if _speaks():
            terminal.complain(error.message, *error.fixes, color=arguments.color)
        return 1
    except TrainError as error:
        if _speaks() or isinstance(error, RankError):
            terminal.complain(error.message, *error.fixes, color=arguments.color)
        return error.status


def _speaks() -> bool:
    """Whether this process tells of mistakes that all processes of its machine find."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Declare `--set`, whose values are texts; `compile_file` takes them."""
    parser.add_argument(
        "--set",
        metavar="NAME=V",
        action="append",
        default=[],
        type=_setting,
        dest="settings",
        help="a value for a param or a free size; may be given several times",
    )


def add_network(parser: argparse.ArgumentParser, *, with_device: bool = True) -> None:
    """Declare the run, or the file with its weights, for `network`."""
    parser.add_argument("run", metavar="RUN", help="a run folder; or a .cnn file, with --weights")
    parser.add_argument(
        "--weights", metavar="W.safetensors", help="of a .cnn file: see `cnndsl weights`"
    )
    add_settings(parser)
    if with_device:
        parser.add_argument(
            "--device",
            metavar="NAME",
            default="auto",
            help="cpu, cuda or auto: the GPU if there is one",
        )


def _setting(text: str) -> str:
    try:
        parse_setting(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def quoted(path: Path) -> str:
    """A path as a shell takes it, and as a terminal can show it."""
    text = str(path)
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(_escaped, text))}'"


def _escaped(character: str) -> str:
    """A character between `$'` and `'`, as bash and zsh take it."""
    number = ord(character)
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    if 0xDC80 <= number <= 0xDCFF:  # Python's sign for a byte that is not UTF-8
        return f"\\x{number - 0xDC00:02x}"
    return f"\\x{number:02x}" if number < 0x80 else f"\\U{number:08x}"


def network(arguments: argparse.Namespace) -> "Network":
    """The network of a run, with its newest weights, or of a file, with those in `--weights`."""
    from cnndsl.train import Trained, UsageError, open_run
    from cnndsl.train.compiled import compile_run

    path = Path(arguments.run)
    if arguments.weights is not None or path.is_file():
        return _of_file(arguments)
    if arguments.settings:
        raise UsageError("a run has its own settings, so `--set` cannot be given")
    run = open_run(path)
    result = Trained(run, compile_run(run), arguments.device)
    tell_skipped(result.skipped)
    return result


def tell_skipped(checkpoints: Sequence[str]) -> None:
    """Say which checkpoints of a run were not used, and why."""
    for text in checkpoints:
        print(f"warning: passed over {safe(text, MESSAGE)}", file=sys.stderr)


def _of_file(arguments: argparse.Namespace) -> "Network":
    from cnndsl.runtime import weights
    from cnndsl.train import UsageError
    from cnndsl.train.compiled import compile_file
    from cnndsl.train.trained import Network

    if arguments.weights is None:
        raise UsageError(
            f"`{arguments.run}` is a file, which has no weights",
            f"say where they are: `{arguments.run} --weights W.safetensors`",
            "or give the folder of a run",
        )
    model, _ = compile_file(arguments.run, arguments.settings)
    given = weights.read(arguments.weights)
    weights.load_into(model, given)
    scale = as_scale(model, given)
    if scale is None:
        print(
            f"note: {safe(arguments.weights)} does not say how images were scaled, so they are "
            "given as values in 0 … 1; `cnndsl weights --mean … --deviation …` says it",
            file=sys.stderr,
        )
    classes = cast("tuple[str, ...]", model.classes)
    return Network(model, classes, scale, arguments.device)


def as_scale(model: "nn.Module", given: "Weights") -> "Scale | None":
    """How a file of weights says that images were scaled, as training takes it.

    For a model that takes bytes it may say so in tensors, which the model has got.
    """
    from cnndsl.runtime.scaling import NAMES, scaling_of, takes_bytes
    from cnndsl.train import Scale

    is_in_tensors = set(NAMES) <= set(given.forms)
    scaling = scaling_of(model) if is_in_tensors else given.scaling
    if scaling is None:
        return None
    return Scale(scaling.mean, scaling.deviation, takes_bytes(model))


def begin_with(model: "nn.Module", path: str | None, fresh: Sequence[str]) -> "Scale | None":
    """Give the model the weights in a file, but for `fresh` layers; tells how images are scaled."""
    from cnndsl.train import UsageError

    if path is None:
        if fresh:
            raise UsageError(
                "without `--weights` every layer begins anew, so `--fresh` says nothing",
                "say what to begin with: `--weights W.safetensors`",
            )
        return None
    from cnndsl.runtime import weights

    given = weights.read(path)
    weights.load_into(model, given, fresh)
    return as_scale(model, given)
