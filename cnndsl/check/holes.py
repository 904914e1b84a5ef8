"""Holes: arguments `?` that are found from the assertion on their line."""

from itertools import product
from typing import Any

from cnndsl.check.bind import Bound, Unsolved, written
from cnndsl.diagnostics.model import Diagnostic, Edit, Fix, Sink
from cnndsl.layers import arguments
from cnndsl.layers.arguments import Kind, Pair
from cnndsl.layers.base import Layer, Slot
from cnndsl.layers.types import TensorType, Unknown, show
from cnndsl.layers.window import Geometry
from cnndsl.sizes.dim import Dim

MOST_TRIALS = 20_000  # two holes with 140 numbers each


def solve(unsolved: Unsolved, x: TensorType, wanted: TensorType | None, sink: Sink) -> Bound | None:
    """The layer whose output is the asserted one; None after reporting none, or several."""
    span = unsolved.places[unsolved.holes[0]]
    if wanted is None or isinstance(wanted, Unknown):
        fix = Fix("say which shape you want behind the line: `-> 28 x 28 x 6`")
        sink.add(
            Diagnostic("E312", "a hole `?` needs an assertion on its line", span, fixes=(fix,))
        )
        return None
    if isinstance(x, Unknown):
        return None
    found = _solutions(unsolved, x, wanted)
    if len(found) == 1:
        return Bound(found[0], unsolved.places, unsolved.others)
    texts = [_text(unsolved, layer) for layer in found[:6]]
    if not found:
        message = f"no value of `?` makes the output {show(wanted)}"
        sink.add(Diagnostic("E312", message, span, notes=_near_misses(unsolved, x)))
        return None
    fixes = tuple(_fix(unsolved, layer, text) for layer, text in zip(found, texts, strict=False))
    message = f"{len(found)} values of `?` make the output {show(wanted)}"
    sink.add(Diagnostic("E313", message, span, fixes=fixes))
    return None


def _solutions(unsolved: Unsolved, x: TensorType, wanted: TensorType) -> list[Layer]:
    if not isinstance(x, unsolved.form.accepts):
        return []
    slots = [unsolved.form.slots[name] for name in unsolved.holes]
    choices = [_candidates(slot, x, wanted) for slot in slots]
    while len(choices) > 1 and _count(choices) > MOST_TRIALS:
        choices = [c[: max(1, len(c) // 2)] for c in choices]
    found: list[Layer] = []
    for values in product(*choices):
        layer = _with(unsolved, values)
        # In this order, since conditions take ten times as long as a size.
        if layer.output(x) == wanted and _fits(layer, x):
            found.append(layer)
    usual = [layer for layer in found if _is_usual(layer)]
    return usual or found


def _is_usual(layer: Layer) -> bool:
    """Whether no window lies in the padding by more than half: else it is hardly what is meant."""
    geometry: object = getattr(layer, "geometry", None)
    if not isinstance(geometry, Geometry):
        return True
    return all(2 * p <= e for p, e in zip(geometry.pad.values(), geometry.extent, strict=True))


def _count(choices: list[list[Any]]) -> int:
    count = 1
    for one in choices:
        count *= len(one)
    return count


def _with(unsolved: Unsolved, values: tuple[Any, ...]) -> Layer:
    return unsolved.form(**unsolved.known, **dict(zip(unsolved.holes, values, strict=True)))


def _fits(layer: Layer, x: TensorType) -> bool:
    if not isinstance(x, layer.accepts):
        return False
    for claim in layer.requires(x):
        left, right = claim.left.constant, claim.right.constant
        if left is not None and right is not None:
            if left < right or (claim.operator == "==" and left != right):
                return False
        elif claim.operator == "==" and claim.left != claim.right:
            return False
    return True


def _candidates(slot: Slot, x: TensorType, wanted: TensorType) -> list[Any]:
    """Values worth trying: numbers up to the sizes at hand, the words, the two booleans."""
    sizes = [d.constant for d in (*x.dims, *wanted.dims) if d.constant is not None]
    most = min(max(sizes, default=16), 512)
    kind: Kind = slot.kind
    if isinstance(kind, arguments.Size):
        return [Pair(n, n) for n in range(kind.least, most + 1)]
    if isinstance(kind, arguments.Count):
        return list(wanted.dims[-1:]) if slot.required else [Dim.of(n) for n in range(1, most + 1)]
    if isinstance(kind, arguments.Flag):
        return [False, True]
    return list(kind.words)


def _text(unsolved: Unsolved, layer: Layer) -> str:
    parts = [_written(unsolved, layer, name) for name in unsolved.holes]
    return f"`{' '.join(parts)}`"


def _written(unsolved: Unsolved, layer: Layer, name: str) -> str:
    slot = unsolved.form.slots[name]
    return written(slot, name, slot.kind.write(getattr(layer, name)))


def _fix(unsolved: Unsolved, layer: Layer, text: str) -> Fix:
    edits = tuple(
        Edit(unsolved.places[name], _written(unsolved, layer, name)) for name in unsolved.holes
    )
    return Fix(f"write {text}", edits)


def _near_misses(unsolved: Unsolved, x: TensorType) -> tuple[str, ...]:
    """What the first few values give, so that the user sees how the size moves."""
    notes: list[str] = []
    slots = [unsolved.form.slots[name] for name in unsolved.holes]
    choices = [_candidates(slot, x, x)[:4] for slot in slots]
    for values in product(*choices):
        layer = _with(unsolved, values)
        if len(notes) < 4 and _fits(layer, x):
            notes.append(f"{_text(unsolved, layer)} gives {show(layer.output(x))}")
    return tuple(notes)
