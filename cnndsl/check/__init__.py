"""From a tree to a graph: names, arguments, shapes, and every mistake on the way.

`cnndsl.check` is this package and the function that users call, so the package can be called.
"""

import os
import sys
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from time import thread_time
from types import ModuleType
from typing import TYPE_CHECKING

from cnndsl.check.elaborate import Elaborator
from cnndsl.check.evaluate import size_problem
from cnndsl.check.report import Report, is_whole, layer_facts
from cnndsl.check.settings import read_settings
from cnndsl.check.unread import warn_of_unread
from cnndsl.check.warnings import warn_of_single_values
from cnndsl.diagnostics.model import Sink
from cnndsl.graph.facts import Totals
from cnndsl.graph.graph import Graph
from cnndsl.graph.shown import counted, shown
from cnndsl.layers.arguments import Value
from cnndsl.sizes.limits import SizeError, one_account
from cnndsl.source import Source
from cnndsl.syntax.parse import parse
from cnndsl.syntax.read import STANDARD_INPUT, read_source

if TYPE_CHECKING:
    from cnndsl.check.repair import Repaired

TEXT = "<text>"  # what messages call a source that is no file
FEW = 4  # from more rows on, an image is none whose channels were given first
NO_SETTINGS: Mapping[str, object] = {}


def check_source(
    source: Source, settings: Mapping[str, object] = NO_SETTINGS, root: Path | None = None
) -> Report:
    """Check a text; never raises for a bad one.

    `settings` give values to params and to symbols of the input: an int, float, bool, a size as
    (height, width), or a string. `root` is the folder below which `use` finds files, for a source
    that is a file there; None: it can use none.
    """
    return check_tree(source, settings, Sink(), root)


def check_tree(
    source: Source, settings: Mapping[str, object], sink: Sink, root: Path | None = None
) -> Report:
    """The same, with diagnostics that were found before in `sink`."""
    values = read_settings(settings)

    def again(mended: Source) -> Report:
        return _report(mended, values, Sink(), root)

    start = thread_time()
    with one_account():
        report = _report(source, values, sink, root)
    took = thread_time() - start
    if not any(fix.edits for found in report.diagnostics for fix in found.fixes):
        return report
    from cnndsl.check.trial import tried  # noqa: PLC0415 (most files have no mistakes)

    with one_account():  # all trials together may ask as much of isl as the check
        return report.replace(diagnostics=tried(report, source, again, took))


def repair_tree(
    source: Source,
    report: Report,
    settings: Mapping[str, object],
    sink: Sink,
    root: Path | None = None,
) -> "Repaired":
    """Mend a checked text by the edits that help; `report` and `sink` are those of its check."""
    from cnndsl.check.repair import repaired  # noqa: PLC0415 (only for --fix)

    values = read_settings(settings)

    def check(mended: Source, found: Sink) -> Report:
        return check_tree(mended, settings, found, root)

    def count(mended: Source, found: Sink) -> Report:
        with one_account():
            return _report(mended, values, found, root)

    return repaired(source, report, sink, check, count)


def _report(source: Source, values: Mapping[str, Value], sink: Sink, root: Path | None) -> Report:
    """What is found in a text, with fixes that nobody has tried."""
    elaborator = Elaborator(parse(source, sink), values, root, sink)
    graph = elaborator.graph()
    totals = _totals(graph, elaborator, sink)
    found = elaborator.tally.facts
    ok = not sink.failed
    seen = shown(graph) if ok else graph
    if seen is not graph and totals is not None:
        found, totals = counted(seen)
    first = graph.source.dims[0].constant if graph.source.dims else None
    has_few_rows = elaborator.input is not None and first is not None and first <= FEW
    if ok and elaborator.input is not None:
        if has_few_rows:
            from cnndsl.check.order import warn_of_order  # noqa: PLC0415 (few images are so low)

            warn_of_order(elaborator.input, graph.source, graph.nodes, sink)
        warn_of_unread(graph, sink)
        warn_of_single_values(graph.nodes, sink)
    diagnostics = sink.sorted()
    if has_few_rows:
        from cnndsl.check.order import with_swap  # noqa: PLC0415

        diagnostics = with_swap(diagnostics, elaborator.input, graph.source)
    return Report(
        source.name,
        graph.name,
        ok,
        graph.symbols,
        graph.valid,
        layer_facts(seen, found),
        totals,
        diagnostics,
        graph if ok else None,
        found,
        elaborator.library.used(),
    )


def _totals(graph: Graph, elaborator: Elaborator, sink: Sink) -> Totals | None:
    """What is counted on a whole graph, where the formulas are not too long to be told."""
    tally = elaborator.tally
    try:
        tally.take(graph.source, graph.nodes)
        is_counted = is_whole(graph) and not elaborator.is_doubtful
        return tally.totals(graph.source, graph.takes_bytes) if is_counted else None
    except SizeError as error:
        if graph.place is not None:  # without an input there was nothing to count
            sink.add(size_problem(error, graph.place))
        return None


def check_file(
    name: str, settings: Mapping[str, object], sink: Sink, root: Path | None = None
) -> tuple[Report, Source | None]:
    """Read and check a file (`-`: standard input); None for one that cannot be read.

    What is found goes to `sink` as well as into the report. `use` reads below the file's folder, or
    below `root`, as if the file lay there.
    """
    source = read_source(name, sink)
    if source is None:
        return Report(name, "", False, (), "False", (), None, sink.sorted(), None), None
    if root is None and name != STANDARD_INPUT:
        root = Path(name).parent
    return check_tree(source, settings, sink, root), source


def check(
    path: str | PathLike[str] | None = None,
    /,
    *,
    source: str | None = None,
    **settings: object,
) -> Report:
    """Check a `.cnn` file, or the text in `source`; never raises for a bad model.

    `settings` give params of the file and free sizes of its input a value.
    """
    if (path is None) == (source is None):
        raise TypeError("check takes the path of a .cnn file, or source=… with its text")
    if source is not None:
        return check_source(Source(TEXT, source), settings)
    return check_file(os.fspath(path or ""), settings, Sink())[0]


class _Callable(ModuleType):
    """A package that is also a function."""

    __call__ = staticmethod(check)


sys.modules[__name__].__class__ = _Callable
