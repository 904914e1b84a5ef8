"""From a `.cnn` file, or from the source that a run folder keeps, to a network."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from torch import nn

from cnndsl.check.settings import parse_setting
from cnndsl.runtime.load import instance, write_file
from cnndsl.train.errors import UsageError
from cnndsl.train.run import Origin, Run
from cnndsl.train.tuned import followed


def compile_file(
    path: str | PathLike[str], settings: Sequence[str], root: Path | None = None
) -> tuple[nn.Module, Origin]:
    """The network in a file, with fresh weights, and what a run folder keeps of it.

    `settings` are of the form `NAME=VALUE`. The files that it uses lie below its folder, or below
    `root`. Raises `CheckError` for a file with errors.
    """
    written, source, used = write_file(path, dict(parse_setting(text) for text in settings), root)
    texts = tuple((file.name, file.text) for file in used)
    return instance(written), Origin(source.text, tuple(settings), used=texts)


def compile_run(run: Run) -> nn.Module:
    """The network of a run, compiled anew from its source, with the kernels chosen for it.

    The emitted module in the folder is for people to read: running a file that lies there would
    mean to trust whoever wrote it.
    """
    if not run.source.is_file():
        raise UsageError(
            f"the network in `{run.path}` was given from Python, so its source is not there",
            "use `cnndsl.train.resume` or `cnndsl.train.Trained` in Python, with that network",
        )
    used = run.used if run.used.is_dir() else None
    return followed(compile_file(run.source, run.config["set"], used)[0], run)
