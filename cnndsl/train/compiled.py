"""From a `.cnn` file, or from the source that a run folder keeps, to a network."""

import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import cast

from torch import nn

from cnndsl.check.settings import parse_setting
from cnndsl.runtime.load import import_text, write
from cnndsl.train.errors import UsageError
from cnndsl.train.run import Origin, Run


def compile_file(path: str | PathLike[str], settings: Sequence[str]) -> tuple[nn.Module, Origin]:
    """The network in a file, with fresh weights, and what a run folder keeps of it.

    `settings` are of the form `NAME=VALUE`. Raises `CheckError` for a file with errors.
    """
    written = write(os.fspath(path), None, dict(parse_setting(text) for text in settings))
    model = cast("nn.Module", getattr(import_text(written), written.name)())
    source = Path(path).read_text(encoding="utf-8")
    return model, Origin(source, tuple(settings), written.text)


def compile_run(run: Run) -> nn.Module:
    """The network of a run, compiled anew from its source.

    The emitted module in the folder is for people to read: running a file that lies there would
    mean to trust whoever wrote it.
    """
    if not run.source.is_file():
        raise UsageError(
            f"the network in `{run.path}` was given from Python, so its source is not there",
            "use `cnndsl.train.resume` or `cnndsl.train.Trained` in Python, with that network",
        )
    return compile_file(run.source, run.config["set"])[0]
