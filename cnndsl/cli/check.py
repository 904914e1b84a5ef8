"""`cnndsl check FILE…`: the diagnostics of each file, then its layers and totals."""

import argparse
import sys
import time
from pathlib import Path

from cnndsl.check import check_file, repair_tree
from cnndsl.check.report import Report, is_whole, to_json
from cnndsl.check.settings import parse_setting
from cnndsl.cli import terminal
from cnndsl.diagnostics.model import Sink
from cnndsl.diagnostics.safe import MESSAGE, safe
from cnndsl.graph import text
from cnndsl.layers.arguments import Value
from cnndsl.source import Source, expand
from cnndsl.syntax.read import STANDARD_INPUT

_PAUSE = 0.3  # seconds between two looks at a file that is watched


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
        "  cnndsl check lenet.cnn --annotate          the file, with the shapes beside it\n"
        "  cnndsl check resnet.cnn --set width=64     give a param or a free size a value\n"
        "  cnndsl check lenet.cnn --fix               make the edits that help; say what is left\n"
        "  cnndsl check *.cnn --format json           one object a file, one file a line"
    )
    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="a .cnn file, a pattern, or - for standard input"
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
    parser.add_argument("--explain", action="store_true", help="show the formula of each size")
    parser.add_argument("--annotate", action="store_true", help="print the file with its shapes")
    parser.add_argument(
        "--fix", action="store_true", help="make the edits that help in the files, until none does"
    )
    parser.add_argument("--watch", action="store_true", help="check again whenever a file changes")
    parser.add_argument(
        "--format",
        metavar="FORM",
        choices=("text", "json", "sarif", "github"),
        default="text",
        help="text, json, sarif or github",
    )


def run(arguments: argparse.Namespace) -> int:
    """Check each file; status 1 if any has errors."""
    names = [name for given in arguments.files for name in _expand(given)]
    if arguments.watch:
        return _watch(names, arguments)
    return _check_all(names, arguments)


def _check_all(names: list[str], arguments: argparse.Namespace) -> int:
    settings: dict[str, object] = dict(arguments.settings)
    reports: list[Report] = []
    for name in names:
        sink = Sink()
        report, source = check_file(name, settings, sink)
        if arguments.fix and source is not None and not report.ok:
            report, source, sink = _fix(name, source, report, settings, sink)
        reports.append(report)
        match arguments.format:
            case "text":
                if len(reports) > 1:
                    print()
                _print_text(report, source, sink.dropped, arguments)
            case "json":
                _print_json(report)
            case "github":
                _print_github(report)
            case _:
                pass  # one log for all files, below
    if arguments.format == "sarif":
        _print_sarif(reports)
    return 0 if all(report.ok for report in reports) else 1


def _expand(name: str) -> list[str]:
    """The files that a pattern names, where the shell has not done it."""
    if name == STANDARD_INPUT or not any(sign in name for sign in "*?[") or Path(name).exists():
        return [name]
    path = Path(name)
    found = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
    return sorted(str(file) for file in found) or [name]


def _setting(text: str) -> tuple[str, Value]:
    try:
        return parse_setting(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


# ── fixing and watching ──────────────────────────────────────────────────────────────────────────


def _fix(
    name: str, source: Source, report: Report, settings: dict[str, object], sink: Sink
) -> tuple[Report, Source, Sink]:
    """Make the edits that help, say which they are and what is left, and write the file."""
    from cnndsl.check.repair import why_left

    root = None if name == STANDARD_INPUT else Path(name).parent
    mended = repair_tree(source, report, settings, sink, root)
    for done in mended.done:
        print(
            f"{safe(source.name)}:{done.line}: fixed: {safe(_as_done(done.message), MESSAGE)}",
            file=sys.stderr,
        )
    left = [d for d in mended.report.diagnostics if d.severity == "error"]
    for error in left:
        why = why_left(error, mended.source)
        print(
            f"{safe(error.span.source.name)}:{error.span.line}: left {error.code}: "
            f"{safe(why, MESSAGE)}",
            file=sys.stderr,
        )
    if left:
        print(file=sys.stderr)
    if mended.done and name == STANDARD_INPUT:
        sys.stdout.write(mended.source.text)
    elif mended.done:
        _write(name, mended.source.text)
    return mended.report, mended.source, mended.sink


def _as_done(message: str) -> str:
    """What a fix says, without the question or condition with which it was offered."""
    for offer in ("did you mean ", "if that is what you want: "):
        if message.startswith(offer):
            return f"now {message.removeprefix(offer).removesuffix('?')}"
    return message


def _write(path: str, content: str) -> None:
    from cnndsl.output import replacing

    with replacing(path) as file:
        file.write_text(content, encoding="utf-8", newline="")


def _watch(names: list[str], arguments: argparse.Namespace) -> int:
    """Check, wait for a change, check again; until Ctrl-C."""
    seen: list[tuple[int, int] | None] | None = None
    while True:
        now = [_stamp(name) for name in names]
        if now != seen:
            seen = now
            if sys.stdout.isatty():
                print("\x1b[2J\x1b[H", end="")
            _check_all(names, arguments)
            sys.stdout.flush()
        time.sleep(_PAUSE)


def _stamp(name: str) -> tuple[int, int] | None:
    try:
        stat = Path(name).stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


# ── output ───────────────────────────────────────────────────────────────────────────────────────


def _print_json(report: Report) -> None:

    from cnndsl.diagnostics import machine

    found = [machine.to_json(diagnostic) for diagnostic in report.diagnostics]
    terminal.print_json(to_json(report, found))


def _print_github(report: Report) -> None:
    from cnndsl.diagnostics import machine

    for diagnostic in report.diagnostics:
        print(machine.github(diagnostic))


def _print_sarif(reports: list[Report]) -> None:
    from importlib import metadata

    from cnndsl.diagnostics.sarif import sarif

    found = [diagnostic for report in reports for diagnostic in report.diagnostics]
    terminal.print_json(sarif(found, metadata.version("cnndsl")))


def _print_text(
    report: Report, source: Source | None, dropped: int, arguments: argparse.Namespace
) -> None:
    terminal.show(report.diagnostics, arguments.color, dropped)
    graph = report.graph
    if graph is None or source is None or report.totals is None or not is_whole(graph):
        return
    sys.stderr.flush()
    if report.diagnostics:
        print()
    if arguments.annotate:
        from cnndsl.check.annotate import annotate

        print("\n".join(expand(line) for line in annotate(source, graph).rstrip("\n").split("\n")))
        return
    print(f"{graph.name} ({safe(report.file)})\n")
    print(text.table(graph, report.facts, explain=arguments.explain))
    print()
    print(text.summary(graph, report.totals))
