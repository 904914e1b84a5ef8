"""From a tree to a graph: names, arguments, shapes, and every mistake on the way."""

from collections.abc import Mapping
from pathlib import Path

from cnndsl.check.elaborate import Elaborator
from cnndsl.check.report import Report, is_whole, layer_facts
from cnndsl.check.settings import read_settings
from cnndsl.diagnostics.model import Sink
from cnndsl.graph.facts import facts, totals
from cnndsl.source import Source
from cnndsl.syntax.parse import parse

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
    graph = Elaborator(parse(source, sink), values, root, sink).graph()
    ok = not sink.failed
    found = facts(graph)
    return Report(
        source.name,
        graph.name,
        ok,
        graph.symbols,
        graph.valid,
        layer_facts(graph, found),
        totals(graph, found) if is_whole(graph) else None,
        sink.sorted(),
        graph if ok else None,
    )
