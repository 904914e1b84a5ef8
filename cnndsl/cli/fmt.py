"""`cnndsl fmt FILE…`: gives each file its one canonical layout, or tells which lack it."""

import argparse
import sys

from cnndsl.cli import terminal
from cnndsl.diagnostics.model import Sink
from cnndsl.diagnostics.safe import safe
from cnndsl.source import Source
from cnndsl.syntax.format import format_text
from cnndsl.syntax.parse import parse
from cnndsl.syntax.read import STANDARD_INPUT, read_source


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.description = (
        "Write each file in the one canonical layout; comments and meaning stay. With `-`, the\n"
        "text comes from standard input and goes to standard output."
    )
    parser.epilog = (
        "examples:\n"
        "  cnndsl fmt *.cnn\n"
        "  cnndsl fmt --check *.cnn    change nothing; status 1 if a file would change"
    )
    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="a .cnn file, or - for standard input"
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing, name the files that would change"
    )


def run(arguments: argparse.Namespace) -> int:
    """Lay out each file; status 1 if one has syntax errors or, with `--check`, would change."""
    good = True
    for name in arguments.files:
        good = _one(name, arguments) and good
    return 0 if good else 1


def _one(name: str, arguments: argparse.Namespace) -> bool:
    """Lay out one file; whether all is well with it."""
    sink = Sink()
    source = read_source(name, sink)
    if source is not None:
        parse(source, sink)
    if source is None or sink.failed:
        terminal.show(sink.sorted(), arguments.color, sink.dropped)
        return False
    text = format_text(source)
    if arguments.check:
        return _compare(source, text)
    if name == STANDARD_INPUT:
        sys.stdout.write(text)
    elif text != source.text:
        _replace(name, text)
        print(f"{safe(name)}: written in the canonical layout", file=sys.stderr)
    return True


def _compare(source: Source, text: str) -> bool:
    if text == source.text:
        return True
    changed = zip(source.text.split("\n"), text.split("\n"), strict=False)
    line = next((i for i, (old, new) in enumerate(changed, 1) if old != new), source.line_count)
    print(f"{safe(source.name)}: would change, from line {line} on", file=sys.stderr)
    return False


def _replace(path: str, text: str) -> None:
    from cnndsl.output import replacing

    with replacing(path) as file:
        file.write_text(text, encoding="utf-8", newline="")
