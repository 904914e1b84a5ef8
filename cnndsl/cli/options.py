"""Options as every command takes them: one look of help, and errors that say what to do.

Wraps `argparse`, whose own errors speak of `argument --x: invalid int value`.
"""

import argparse
import re
import sys
from collections.abc import Iterable
from typing import NoReturn

from cnndsl.cli import terminal

USAGE = 2  # the exit status for wrong usage


class Parser(argparse.ArgumentParser):
    """A parser for one command."""

    def __init__(self, command: str) -> None:
        """Take the options that all commands share; the command adds its own."""
        super().__init__(
            prog=f"cnndsl {command}",
            formatter_class=_Formatter,
            add_help=False,
            allow_abbrev=False,  # a shortened name would break when an option is added
        )

    def add_common(self) -> None:
        """Add the shared options; last, so that the command's own stand above them in the help."""
        common = self.add_argument_group("common options")
        common.add_argument("-h", "--help", action="help", help="show this help")
        common.add_argument(
            "--color",
            metavar="WHEN",
            choices=("auto", "always", "never"),
            default="auto",
            help="colours: auto (on a terminal, unless NO_COLOR is set), always or never",
        )
        common.add_argument(
            "--traceback",
            action="store_true",
            help="show where cnndsl itself failed, if it does",
        )

    def add_output(self, metavar: str, *, required: bool = False) -> None:
        """Add `-o` and `--force`, which `cnndsl.output` obeys."""
        self.add_argument(
            "-o", metavar=metavar, dest="output", required=required, help="the file to write"
        )
        self.add_argument(
            "--force", action="store_true", help="replace a file that cnndsl did not write"
        )

    def format_help(self) -> str:
        """The help, which need not say `positional`."""
        return super().format_help().replace("\npositional arguments:\n", "\narguments:\n", 1)

    def error(self, message: str) -> NoReturn:
        """Print what is wrong in plain words, and end with status 2."""
        names = [name for action in self._actions for name in action.option_strings]
        text, helps = plain_words(message, self.prog, names)
        terminal.complain(text, *helps, f"`{self.prog} --help` shows what it takes")
        sys.exit(USAGE)


def did_you_mean(word: str, known: Iterable[str]) -> list[str]:
    """The help that offers the known word nearest to a misspelt one, if any is near."""
    from cnndsl.check.suggest import nearest

    found = nearest(word, known)
    return [f"did you mean `{found}`?"] if found else []


def plain_words(message: str, program: str, names: list[str]) -> tuple[str, list[str]]:
    """An error message of `argparse` in plain words, and what helps."""
    for pattern, words in _MESSAGES:
        found = re.fullmatch(pattern, message, re.DOTALL)
        if found:
            return words.format(*found.groups()), []
    if found := re.fullmatch(r"unrecognized arguments: (.*)", message, re.DOTALL):
        first = found[1].split(" ")[0].split("=")[0]
        if first.startswith("-"):
            return f"`{program}` has no option `{first}`", did_you_mean(first, names)
        return f"`{first}` is one argument more than `{program}` takes", []
    if found := re.fullmatch(r"argument (.*): invalid choice: (.*) \(choose from (.*)\)", message):
        wanted = [choice.strip("'") for choice in found[3].split(", ")]
        given = found[2].strip("'")
        return (
            f"{_quoted(found[1])} is {_either(wanted)}, not `{given}`",
            did_you_mean(given, wanted),
        )
    if found := re.fullmatch(r"the following arguments are required: (.*)", message):
        missing = found[1].split(", ")
        return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing", []
    if found := re.fullmatch(r"argument ([^:]*): (.*)", message, re.DOTALL):
        return f"{_quoted(found[1])}: {found[2]}", []
    return message, []


_MESSAGES = (
    (r"argument ([^:]*): expected one argument", "`{0}` needs a value"),
    (r"argument ([^:]*): expected at least one argument", "`{0}` needs at least one value"),
    (r"argument ([^:]*): expected (\d+) arguments", "`{0}` needs {1} values"),
    (r"argument ([^:]*): ignored explicit argument '(.*)'", "`{0}` takes no value"),
    (r"argument ([^:]*): not allowed with argument (.*)", "`{0}` and `{1}` exclude each other"),
    (
        r"argument ([^:]*): invalid int value: '(.*)'",
        "`{0}` takes a whole number, and `{1}` is none",
    ),
    (r"argument ([^:]*): invalid float value: '(.*)'", "`{0}` takes a number, and `{1}` is none"),
)


def _quoted(name: str) -> str:
    return f"`{name}`"


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal; examples keep their line ends."""

    def __init__(self, prog: str) -> None:
        # Without a width argparse imports shutil, and with it four compression libraries,
        # each time that an option is added.
        super().__init__(prog, max_help_position=30, width=min(terminal.width(sys.stdout), 100))
