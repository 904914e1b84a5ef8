"""`cnndsl check FILE…`: the diagnostics of each file, then its layers and totals."""

import argparse
import json
import sys
from pathlib import Path

from cnndsl.check import check_tree
from cnndsl.check.report import Report, is_whole, to_json
from cnndsl.check.settings import parse_setting
from cnndsl.cli import terminal
from cnndsl.diagnostics.model import Sink
from cnndsl.graph import text
from cnndsl.graph.facts import facts
from cnndsl.layers.arguments import Value
from cnndsl.syntax.read import read_source


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.description = (
        "Prove the shapes of a network, for every image size where sizes are free, and count\n"
        "parameters, multiply-accumulates, memory and receptive fields."
    )
    parser.epilog = (
        "examples:\n"
        "  cnndsl check lenet.cnn\n"
        "  cnndsl check lenet.cnn --explain           the formula of each size with its numbers\n"
        "  cnndsl check resnet.cnn --set width=64     give a param or a free size a value\n"
        "  cnndsl check *.cnn --format json           one object a file, one file a line"
    )
    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="a .cnn file, or - for standard input"
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
    parser.add_argument(
        "--explain", action="store_true", help="show the formula of each output size"
    )
    parser.add_argument(
        "--format", metavar="FORM", choices=("text", "json"), default="text", help="text or json"
    )


def run(arguments: argparse.Namespace) -> int:
    """Check each file; status 1 if any has errors."""
    settings: dict[str, object] = dict(arguments.settings)
    good = True
    for number, name in enumerate(arguments.files):
        sink = Sink()
        source = read_source(name, sink)
        root = None if name == "-" else Path(name).parent
        report = _unread(name, sink) if source is None else check_tree(source, settings, sink, root)
        good = good and report.ok
        if arguments.format == "json":
            _print_json(report)
        else:
            if number:
                print()
            _print_text(report, sink.dropped, arguments)
    return 0 if good else 1


def _setting(text: str) -> tuple[str, Value]:
    try:
        return parse_setting(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _unread(name: str, sink: Sink) -> Report:
    return Report(name, "", False, (), "False", (), None, sink.sorted(), None)


def _print_json(report: Report) -> None:
    from cnndsl.diagnostics import machine

    found = [machine.to_json(diagnostic) for diagnostic in report.diagnostics]
    print(json.dumps(to_json(report, found), ensure_ascii=False))


def _print_text(report: Report, dropped: int, arguments: argparse.Namespace) -> None:
    terminal.show(report.diagnostics, arguments.color, dropped)
    graph = report.graph
    if graph is None or report.totals is None or not is_whole(graph):
        return
    sys.stderr.flush()
    if report.diagnostics:
        print()
    print(f"{graph.name} ({report.file})\n")
    print(text.table(graph, facts(graph), explain=arguments.explain))
    print()
    print(text.summary(graph, report.totals))
