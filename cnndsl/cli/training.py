"""What `train`, `eval` and `predict` share: the network of a file or run, and how errors end.

No command itself. Everything that imports torch is imported when it is first needed.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cnndsl.cli import terminal
from cnndsl.cli.options import USAGE

if TYPE_CHECKING:
    from cnndsl.train import Trained


def guarded(work: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Run a command; what stops it is said in a sentence, with what helps."""
    try:
        from cnndsl.train import RankError, TrainError
    except ModuleNotFoundError as error:
        message, *helps = str(error).split("\n  help: ")
        terminal.complain(message, *helps, color=arguments.color)
        return USAGE
    import cnndsl

    try:
        return work(arguments)
    except cnndsl.CheckError as error:
        if _speaks():
            terminal.show(error.diagnostics, arguments.color)
        return 1
    except TrainError as error:
        if _speaks() or isinstance(error, RankError):
            terminal.complain(error.message, *error.fixes, color=arguments.color)
        return error.status


def _speaks() -> bool:
    """Whether this process tells of mistakes that all processes of its machine find."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def quoted(path: Path) -> str:
    """A path as a shell takes it."""
    return shlex.quote(str(path))


def trained(path: str, device: str) -> "Trained":
    """The network of a run, with its newest weights; says which checkpoints are damaged."""
    from cnndsl.train import Trained, open_run
    from cnndsl.train.compiled import compile_run

    run = open_run(Path(path))
    result = Trained(run, compile_run(run), device)
    for text in result.skipped:
        print(f"warning: passed over {text}", file=sys.stderr)
    return result
