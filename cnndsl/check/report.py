"""What checking found out, as data and as the JSON of version 1 (see docs/interfaces)."""

from collections.abc import Mapping
from types import MappingProxyType

from cnndsl.diagnostics.model import Diagnostic
from cnndsl.diagnostics.safe import safe
from cnndsl.graph.facts import Facts, ReceptiveField, Totals
from cnndsl.graph.graph import Graph
from cnndsl.graph.text import summary
from cnndsl.layers.types import TensorType, is_known
from cnndsl.record import Record
from cnndsl.sizes.dim import Dim
from cnndsl.source import Source

VERSION = 1


class LayerFacts(Record):
    """One layer of the checked network, in execution order.

    `input` and `output` are (height, width, channels) of an image or (features,) of a vector, empty
    where a mistake leaves them unknown. Counts are for one image; `bytes` are those of the output.
    """

    name: str
    kind: str
    line: int
    args: dict[str, object]
    inputs: tuple[str, ...]
    input: tuple[Dim, ...]
    output: tuple[Dim, ...]
    params: Dim | None
    macs: Dim | None
    bytes: Dim | None
    receptive_field: ReceptiveField | None


class Report(Record):
    """The result of a check.

    `ok` is True where there is no error (warnings are allowed); `symbols` are the free sizes and
    params, `valid` the exact condition on them as an expression of the language, which Python
    evaluates to the same value; `graph` is there only if `ok`; `used` are the files that a `use`
    named, by their paths from the folder of the main one.
    """

    file: str
    model: str
    ok: bool
    symbols: tuple[str, ...]
    valid: str
    layers: tuple[LayerFacts, ...]
    totals: Totals | None
    diagnostics: tuple[Diagnostic, ...]
    graph: Graph | None
    facts: Mapping[str, Facts] = MappingProxyType({})  # by the name of the layer
    used: tuple[Source, ...] = ()

    def __str__(self) -> str:
        """A few lines: how many mistakes there are, the first of them, and the totals."""
        shown = self.diagnostics[:_SHOWN]
        lines = [f"{safe(self.file)}: {self._outcome}"]
        lines += [f"  line {d.span.line}: {d.code}: {safe(d.message, _LONGEST)}" for d in shown]
        if len(self.diagnostics) > _SHOWN:
            lines.append(f"  and {len(self.diagnostics) - _SHOWN} more, in `.diagnostics`")
        if self.graph is not None and self.totals is not None:
            lines.append(summary(self.graph, self.totals))
        return "\n".join(lines)

    def __repr__(self) -> str:
        """One line."""
        return f"<Report on {safe(self.file, _LONGEST)}: {self._outcome}>"

    @property
    def _outcome(self) -> str:
        """Such as `LeNet, 12 layers`, or `2 errors, 1 warning`."""
        from cnndsl.diagnostics import render  # noqa: PLC0415 (the command prints no report)

        counted = render.summary(self.diagnostics)
        if not self.ok:
            return counted or "not checked"
        layers = "1 layer" if len(self.layers) == 1 else f"{len(self.layers):,} layers"
        network = f"{safe(self.model, _LONGEST)}, {layers}"
        return f"{network}, {counted}" if counted else network


_SHOWN = 10  # diagnostics that `str` gives
_LONGEST = 200  # characters of a message or name there


def layer_facts(graph: Graph, found: dict[str, Facts]) -> tuple[LayerFacts, ...]:
    """The layers of a graph with what was counted on them."""
    rows: list[LayerFacts] = []
    for node in graph.nodes:
        known = found.get(node.path)
        rows.append(
            LayerFacts(
                node.path,
                node.layer.kind,
                node.span.line,
                node.layer.data(),
                node.inputs,
                _dims(node.arrives),
                _dims(node.output),
                known.params if known else None,
                known.macs if known else None,
                known.bytes if known else None,
                known.receptive_field if known else None,
            )
        )
    return tuple(rows)


def is_whole(graph: Graph) -> bool:
    """Whether every type in the graph is known."""
    types: tuple[TensorType, ...] = (graph.source, *(node.output for node in graph.nodes))
    return all(is_known(type_) for type_ in types)


def _dims(type_: TensorType) -> tuple[Dim, ...]:
    """All of them, or none where a mistake leaves one open."""
    return type_.dims if is_known(type_) else ()


def to_json(report: Report, diagnostics: list[dict[str, object]]) -> dict[str, object]:
    """The object that `check --format json` prints for a file; diagnostics come as JSON already."""
    return {
        "version": VERSION,
        "file": report.file,
        "model": report.model,
        "ok": report.ok,
        "symbols": list(report.symbols),
        "valid": report.valid,
        "layers": [_layer_json(layer) for layer in report.layers],
        "totals": _totals_json(report.totals),
        "diagnostics": diagnostics,
    }


def _layer_json(layer: LayerFacts) -> dict[str, object]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "line": layer.line,
        "args": layer.args,
        "inputs": list(layer.inputs),
        "input": [_number(dim) for dim in layer.input] or None,
        "output": [_number(dim) for dim in layer.output] or None,
        "params": _number(layer.params),
        "macs": _number(layer.macs),
        "bytes": _number(layer.bytes),
        "receptive_field": _field_json(layer.receptive_field),
    }


def _totals_json(totals: Totals | None) -> dict[str, object] | None:
    if totals is None:
        return None
    return {
        "params": _number(totals.params),
        "buffers": _number(totals.buffers),
        "macs": _number(totals.macs),
        "weight_bytes": _number(totals.weight_bytes),
        "training_bytes": _number(totals.training_bytes),
        "receptive_field": _field_json(totals.receptive_field),
    }


def _field_json(field: ReceptiveField | None) -> dict[str, object] | None:
    if field is None:
        return None
    return {
        "size": [_number(size) for size in field.size],
        "stride": list(field.stride),
        "offset": list(field.offset),
    }


def _number(dim: Dim | None) -> object:
    if dim is None:
        return None
    return dim.constant if dim.constant is not None else str(dim)
