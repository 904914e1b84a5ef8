"""`cnndsl COMMAND …`: chooses the command, and turns every way to end into an exit status.

Knows the names of the commands; imports only the one that is asked for. Exit status:

    0   fine
    1   the model or the data has errors
    2   wrong usage
    70  a bug in cnndsl: one line, and where the traceback lies
    74  the system failed: a disk is full, a file cannot be written
    130 interrupted by Ctrl-C
    141 whoever read the output has closed it, as in `cnndsl … | head`
"""

import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from cnndsl.cli import options, terminal

# Each is a module of this package with `configure(parser)` and `run(arguments) -> int`.
COMMANDS = {
    "check": "prove the shapes of a network; count parameters, work and memory",
    "fmt": "write files in the one canonical layout",
    "compile": "write a network as a Python file with fused Triton kernels",
    "train": "train a network on images, or go on with a run",
    "weights": "fit weights from elsewhere to a network, whatever its layers are called",
    "bench": "measure a network against eager PyTorch and torch.compile, then region by region",
    "eval": "how often a trained network is right, and what it takes for what",
    "predict": "what a trained network takes images for",
    "export": "write a network as an ONNX file, for programs without PyTorch",
    "explain": "what a message such as E301 means, with a wrong and a right example",
}

INTERNAL = 70
SYSTEM = 74
INTERRUPTED = 130
CLOSED = 141

_HELP = """\
cnndsl: a small language for convolutional networks

usage: cnndsl COMMAND [OPTION …]

commands:
{commands}

examples:
  cnndsl check lenet.cnn                    is it right, and what does it cost?
  cnndsl compile lenet.cnn -o lenet.py      an nn.Module with fused kernels
  cnndsl train digits.cnn --data digits     train it on scikit-learn's digits
  cnndsl explain E301                       what does that message mean?

`cnndsl COMMAND --help` shows what a command takes, `cnndsl --version` the version.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without `⌊` or a file name in another encoding is no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _dispatch(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _give_up_output()
        return CLOSED
    except Exception as error:  # no bug of ours may show a traceback unasked
        from cnndsl.diagnostics.helpful import OutputError

        if "--traceback" in arguments:
            _print_traceback(error)
        match error:
            case OutputError():
                terminal.complain(error.message, *error.fixes)
                return options.USAGE
            case ModuleNotFoundError(name=str(name)) if name.split(".")[0] != "cnndsl":
                return _not_installed(name)
            case ValueError() if any("\0" in argument for argument in arguments):
                terminal.complain("an argument has a NUL character, which no file name has")
                return options.USAGE
            case OSError():
                _give_up_output()
                return _system_failed(error)
            case _:
                return _we_failed(error, "--traceback" in arguments)
    return status


def _give_up_output() -> None:
    """Drop what standard output cannot take: Python flushes it once more when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(arguments: list[str]) -> int:
    command, rest = _split(arguments)
    if command is None:
        return _without_command(rest)
    if command not in COMMANDS:
        near = options.did_you_mean(command, COMMANDS)
        if command.endswith(".cnn"):
            near = [f"to check a file: `cnndsl check {command}`"]
        terminal.complain(
            f"there is no command `{command}`", *near, "`cnndsl --help` lists the commands"
        )
        return options.USAGE
    module = import_module(f"cnndsl.cli.{command}")
    parser = options.Parser(command)
    module.configure(parser)
    parser.add_common()
    try:
        return module.run(parser.parse_args(rest))
    except SystemExit as end:  # from argparse, after help or an error of usage
        return end.code if isinstance(end.code, int) else 0


def _split(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The command, and everything else: options may stand in front of it too."""
    position = 0
    while position < len(arguments) and arguments[position].startswith("-"):
        position += 2 if arguments[position] == "--color" else 1
    if position >= len(arguments):
        return None, arguments
    return arguments[position], arguments[:position] + arguments[position + 1 :]


def _without_command(arguments: list[str]) -> int:
    if "--version" in arguments or "-V" in arguments:
        print(f"cnndsl {_version()}")
        return 0
    if not arguments or "--help" in arguments or "-h" in arguments:
        lines = [f"  {name:<10} {text}" for name, text in COMMANDS.items()]
        (sys.stdout if arguments else sys.stderr).write(_HELP.format(commands="\n".join(lines)))
        return 0 if arguments else options.USAGE
    terminal.complain(
        f"`{arguments[0]}` is no command", "`cnndsl --help` lists the commands and options"
    )
    return options.USAGE


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("cnndsl")
    except metadata.PackageNotFoundError:
        return "(a checkout that is not installed)"


def _not_installed(name: str) -> int:
    package = name.split(".")[0]
    _last_words(
        f"this needs the package `{_DISTRIBUTIONS.get(package, package)}`, which is not installed",
        "`pip install 'cnndsl[train]'` installs all that the commands need",
    )
    return SYSTEM


# Packages that are imported under another name than they are installed by.
_DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}


def _system_failed(error: OSError) -> int:
    from cnndsl.diagnostics.safe import safe

    where = f" {safe(error.filename)}:" if error.filename is not None else ""
    _last_words(f"the system refused:{where} {error.strerror or error}")
    return SYSTEM


def _we_failed(error: Exception, is_shown: bool) -> int:
    """Say that the fault is ours, and keep what we need to mend it."""
    what = f"cnndsl itself failed ({type(error).__name__}): a bug in cnndsl, not in your file"
    if is_shown:
        _last_words(what, "please report it, with the lines above")
        return INTERNAL
    try:
        path = _save_traceback(error)
    except OSError:
        _last_words(what, "please report it, with what `--traceback` prints")
    else:
        _last_words(what, f"please report it, with the file {path}")
    return INTERNAL


def _last_words(message: str, *helps: str) -> None:
    try:
        terminal.complain(message, *helps)
    except OSError:
        return  # there is nobody to tell


def _print_traceback(error: BaseException) -> None:
    import traceback

    traceback.print_exception(error)


def _save_traceback(error: BaseException) -> str:
    import platform
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile(
        "w", prefix="cnndsl-", suffix=".txt", delete=False, encoding="utf-8", errors="replace"
    ) as file:
        print(f"cnndsl {_version()}, Python {platform.python_version()}", file=file)
        print(f"arguments: {sys.argv[1:]}", file=file)
        traceback.print_exception(error, file=file)
    return file.name
