"""Holes: arguments `?` that are found from the assertion on their line."""

from collections.abc import Sequence

from cnndsl.check.bind import Bound, Unsolved, written
from cnndsl.check.search import MOST_FOUND, Search
from cnndsl.diagnostics.model import Diagnostic, Edit, Fix, Sink
from cnndsl.layers.arguments import Padding, Pair
from cnndsl.layers.base import Layer
from cnndsl.layers.types import TensorType, Unknown, show
from cnndsl.record import Record
from cnndsl.sizes.dim import Dim

MOST_SHOWN = 8
# Layers that are made on trial for one file, which takes about a second: some hundred holes.
MOST_MADE = 15_000


class Solver:
    """The holes of one file; calls that are alike are solved once, and the work is bounded."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._layers_made = 0
        self._answers: dict[tuple[object, ...], _Answer] = {}

    def solve(self, unsolved: Unsolved, x: TensorType, wanted: TensorType | None) -> Bound | None:
        """The layer whose output is the asserted one; None after reporting none, or several."""
        span = unsolved.places[unsolved.holes[0]]
        if wanted is None or isinstance(wanted, Unknown):
            fix = Fix("say which shape you want behind the line: `-> 28 x 28 x 6`")
            message = "a hole `?` needs an assertion on its line"
            self._sink.add(Diagnostic("E312", message, span, fixes=(fix,)))
            return None
        if isinstance(x, Unknown):
            return None
        answer = self._answer(unsolved, x, wanted)
        if answer is None:
            message = "this file has too many holes `?`: no value was looked for here"
            fix = Fix("fill in some of the holes above")
            self._sink.add(Diagnostic("E312", message, span, fixes=(fix,)))
            return None
        found = answer.layers
        if found and answer.free:
            self._sink.add(_any_value(unsolved, found[0], answer.free[0]))
        elif len(found) == 1:
            return Bound(found[0], unsolved.places, unsolved.others, unsolved.defaults)
        elif not found:
            self._sink.add(_no_value(unsolved, answer, x, wanted))
        else:
            self._sink.add(_several_values(unsolved, found, x, wanted))
        return None

    def _answer(self, unsolved: Unsolved, x: TensorType, wanted: TensorType) -> "_Answer | None":
        """What a search finds; None where there was too much to look for already."""
        key = (unsolved.form, tuple(unsolved.known.items()), unsolved.holes, x, wanted)
        answer = self._answers.get(key)
        if answer is None and self._layers_made < MOST_MADE:
            search = Search(unsolved, x, wanted)
            layers = search.solutions()
            near = [] if layers else search.near_misses()[:4]
            answer = _Answer(tuple(layers), search.free, tuple(near), search.tried())
            self._answers[key] = answer
            self._layers_made += search.layers_made
        return answer


class _Answer(Record):
    """The layers that solve a call, its holes that change no shape, near misses, what was tried."""

    layers: tuple[Layer, ...]
    free: tuple[str, ...]
    near: tuple[Layer, ...]
    tried: str


def _no_value(unsolved: Unsolved, answer: _Answer, x: TensorType, wanted: TensorType) -> Diagnostic:
    notes = [f"{_text(unsolved, layer)} gives {show(layer.output(x))}" for layer in answer.near]
    if answer.tried:
        notes.append(answer.tried)
    return Diagnostic(
        "E312",
        f"no value of `?` makes the output {show(wanted)}",
        unsolved.places[unsolved.holes[0]],
        notes=tuple(notes),
        fixes=_other_form(unsolved, wanted),
    )


def _several_values(
    unsolved: Unsolved, found: Sequence[Layer], x: TensorType, wanted: TensorType
) -> Diagnostic:
    fixes = tuple(_fix(unsolved, layer, x) for layer in found[:MOST_SHOWN])
    count = f"{len(found)} values" if len(found) < MOST_FOUND else f"{MOST_FOUND} values or more"
    message = f"{count} of `?` make the output {show(wanted)}"
    return Diagnostic("E313", message, unsolved.places[unsolved.holes[0]], fixes=fixes)


def _any_value(unsolved: Unsolved, layer: Layer, name: str) -> Diagnostic:
    """The message that a shape says nothing about an argument."""
    slot = unsolved.form.slots[name]
    text = written(slot, name, slot.kind.write(getattr(layer, name)))
    usual = "the usual value is" if not slot.required else "say it, for example"
    # Only a value that is usual may be filled in.
    edits = () if slot.required else (Edit(unsolved.places[name], text),)
    return Diagnostic(
        "E313",
        f"every value of `{name}` makes this output: the shape does not depend on it",
        unsolved.places[name],
        fixes=(Fix(f"{usual} `{text}`", edits),),
    )


def _other_form(unsolved: Unsolved, wanted: TensorType) -> tuple[Fix, ...]:
    """A form of the layer that gives any size, where this one does not."""
    height, width = (dim.constant for dim in (*wanted.dims, Dim.of(0), Dim.of(0))[:2])
    if unsolved.form.kind != "upsample" or not height or not width:
        return ()
    return (Fix(f"for that height and width: `upsample to {height}x{width}`"),)


def _text(unsolved: Unsolved, layer: Layer) -> str:
    parts = [_written(unsolved, layer, name) for name in unsolved.holes]
    return f"`{' '.join(parts)}`"


def _written(unsolved: Unsolved, layer: Layer, name: str) -> str:
    slot = unsolved.form.slots[name]
    return written(slot, name, slot.kind.write(getattr(layer, name)))


def _fix(unsolved: Unsolved, layer: Layer, x: TensorType) -> Fix:
    edits = tuple(
        Edit(unsolved.places[name], _written(unsolved, layer, name)) for name in unsolved.holes
    )
    same = ", which is `pad=same`" if _is_same(unsolved, layer, x) else ""
    return Fix(f"write {_text(unsolved, layer)}{same}", edits)


def _is_same(unsolved: Unsolved, layer: Layer, x: TensorType) -> bool:
    """Whether the padding that was found is what the word `same` stands for."""
    slot = unsolved.form.slots.get("pad")
    if "pad" not in unsolved.holes or slot is None or not isinstance(slot.kind, Padding):
        return False
    values = {name: getattr(layer, name) for name in layer.slots}
    size, dilation = values["size"], values["dilation"]
    assert isinstance(size, Pair)
    assert isinstance(dilation, Pair)
    odd = all(d * (n - 1) % 2 == 0 for n, d in zip(size.values(), dilation.values(), strict=True))
    return odd and type(layer)(**{**values, "pad": "same"}).output(x) == layer.output(x)
