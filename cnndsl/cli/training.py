"""What `train`, `eval` and `predict` share: the network of a file or run, and how errors end.

No command itself. Everything that imports torch is imported when it is first needed.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cnndsl.check.settings import parse_setting
from cnndsl.cli import terminal
from cnndsl.cli.options import USAGE

if TYPE_CHECKING:
    from torch import nn

    from cnndsl.train import Run, Trained


def guarded(work: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Run a command; what stops it is said in a sentence, with what helps."""
    try:
        from cnndsl.train import TrainError
    except ModuleNotFoundError as error:
        message, *helps = str(error).split("\n  help: ")
        terminal.complain(message, *helps, color=arguments.color)
        return USAGE
    import cnndsl

    try:
        return work(arguments)
    except cnndsl.CheckError as error:
        terminal.show(error.diagnostics, arguments.color)
        return 1
    except TrainError as error:
        terminal.complain(error.message, *error.fixes, color=arguments.color)
        return error.status


def compile_file(path: str, settings: Sequence[str]) -> "tuple[nn.Module, str]":
    """The network in a file, with fresh weights, and the text of the module that it became."""
    from cnndsl.runtime.load import import_text, write

    written = write(path, None, dict(parse_setting(text) for text in settings))
    return cast("nn.Module", getattr(import_text(written), written.name)()), written.text


def compile_run(run: "Run") -> "nn.Module":
    """The network of a run, compiled anew from its source.

    The emitted module in the folder is for people to read: running a file that lies there would
    mean to trust whoever wrote it.
    """
    from cnndsl.train import UsageError

    if not run.source.is_file():
        raise UsageError(
            f"the network in `{run.path}` was given from Python, so its source is not there",
            "use `cnndsl.train.resume` or `cnndsl.train.Trained` in Python, with that network",
        )
    return compile_file(str(run.source), run.config["set"])[0]


def quoted(path: Path) -> str:
    """A path as a shell takes it."""
    return shlex.quote(str(path))


def trained(path: str, device: str) -> "Trained":
    """The network of a run, with its newest weights; says which checkpoints are damaged."""
    from cnndsl.train import Trained, open_run

    run = open_run(Path(path))
    result = Trained(run, compile_run(run), device)
    for text in result.skipped:
        print(f"warning: passed over {text}", file=sys.stderr)
    return result
