"""The values of holes: every argument of every layer, each axis of an image by itself.

Height and width do not meet in any layer, so each is solved alone, and the answers are put
together. Knows layers and their slots; knows nothing of files and messages.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from cnndsl.check.bind import Unsolved
from cnndsl.layers import arguments
from cnndsl.layers.arguments import Pair
from cnndsl.layers.base import Layer, Slot
from cnndsl.layers.types import ImageType, TensorType
from cnndsl.layers.window import Geometry
from cnndsl.sizes.dim import Dim

MOST_VALUES = 2_048  # of one hole in one direction; of two holes, each of the root of it, and so on
MOST_FOUND = 200
USUAL_RANGE = 64  # where sizes are free
_AXES = (0, 1)

Values = dict[str, Any]


class Search:
    """The layers that a call with holes may mean, on the input `x`, for the output `wanted`."""

    def __init__(self, unsolved: Unsolved, x: TensorType, wanted: TensorType) -> None:
        """The three as they are known: no size may be open."""
        self._unsolved, self._x, self._wanted = unsolved, x, wanted
        self.layers_made = 0  # which is what the search costs
        self._form = unsolved.form
        slots = {name: self._form.slots[name] for name in unsolved.holes}
        self._pairs = [n for n, slot in slots.items() if isinstance(slot.kind, arguments.Size)]
        self._sides = {n: slot.axis for n, slot in slots.items() if slot.axis is not None}
        self._joint = {
            n: slot for n, slot in slots.items() if n not in self._pairs and slot.axis is None
        }
        # The holes whose value changes no shape: one value stands for all.
        self.free = tuple(n for n, s in self._joint.items() if _changes_no_shape(s))

    def solutions(self) -> list[Layer]:
        """Layers whose output is the wanted one: squares first, then small numbers; at most 200."""
        if not isinstance(self._x, self._form.accepts):
            return []
        found: list[Layer] = []
        for values in product(*(self._choices(n, s) for n, s in self._joint.items())):
            found += self._with(dict(zip(self._joint, values, strict=True)))
            if len(found) >= MOST_FOUND:
                break
        usual = [layer for layer in found if _is_usual(layer)]
        return sorted(usual or found, key=self._rank)

    def tried(self) -> str:
        """Which numbers are looked at, for a message that there is no solution."""
        names = [*self._pairs, *self._sides]
        if not names:
            return ""
        least = min(self._least(name) for name in names)
        most = [self._most(axis) for axis in _AXES]
        return f"looked for from {least} to {most[0]} in height and to {most[1]} in width"

    def near_misses(self) -> list[Layer]:
        """Layers with small values that are valid, for a message that shows what they give."""
        joint = [self._choices(n, s)[:4] for n, s in self._joint.items()]
        made = [
            self._made(self._placed(dict(zip(self._joint, values, strict=True)), number))
            for number in range(4)
            for values in product(*joint)
        ]
        return [
            layer
            for layer in dict.fromkeys(made)
            if isinstance(self._x, layer.accepts) and fits(layer, self._x)
        ]

    # ── one choice of words and counts ───────────────────────────────────────────────────────────

    def _with(self, joint: Values) -> Iterator[Layer]:
        """The solutions with these values for what belongs to no axis."""
        probe = self._made(self._placed(joint, 1))
        if probe.output(self._x).dims[-1] != self._wanted.dims[-1] or self._refuses(probe):
            return
        if not isinstance(self._wanted, ImageType) or not (self._pairs or self._sides):
            yield from self._checked(joint)
            return
        axes = [list(self._along(axis, joint)) for axis in _AXES]
        pairs = sorted(product(*axes), key=lambda pair: _shape_rank(self._pairs, *pair))
        for height, width in pairs[:MOST_FOUND]:
            values = {name: Pair(height[name], width[name]) for name in self._pairs}
            rest = {name: (height, width)[axis][name] for name, axis in self._sides.items()}
            yield from self._checked({**joint, **values, **rest})

    def _along(self, axis: int, joint: Values) -> Iterator[dict[str, int]]:
        """The numbers with which one side of the output is as wanted."""
        names = [*self._pairs, *(n for n, side in self._sides.items() if side == axis)]
        most = self._most(axis)
        base = self._placed(joint, 1)
        wanted = self._wanted.dims[axis]
        for numbers in product(*(range(self._least(n), most + 1) for n in names)):
            found = dict(zip(names, numbers, strict=True))
            values = {n: Pair(v, v) if n in self._pairs else v for n, v in found.items()}
            if self._made({**base, **values}).output(self._x).dims[axis] == wanted:
                yield found

    def _checked(self, values: Values) -> Iterator[Layer]:
        layer = self._made(values)
        # In this order, since conditions take ten times as long as a size.
        if layer.output(self._x) == self._wanted and fits(layer, self._x):
            yield layer

    def _refuses(self, layer: Layer) -> bool:
        """Whether a rule on a word or a count fails, whatever the numbers of the axes are."""
        return any(
            claim.argument in self._joint and fails(claim.left, claim.operator, claim.right)
            for claim in layer.requires(self._x)
        )

    def _made(self, values: Values) -> Layer:
        self.layers_made += 1
        return self._form(**self._unsolved.known, **values)

    def _placed(self, joint: Values, number: int) -> Values:
        """All holes with a value: those of the axes with the number, if they take one so small."""
        rest = {name: max(number, self._least(name)) for name in (*self._pairs, *self._sides)}
        values = {n: Pair(v, v) if n in self._pairs else v for n, v in rest.items()}
        return {**joint, **values}

    # ── which values ─────────────────────────────────────────────────────────────────────────────

    def _least(self, name: str) -> int:
        kind = self._form.slots[name].kind
        return kind.least if isinstance(kind, (arguments.Size, arguments.Count)) else 0

    def _most(self, axis: int) -> int:
        """No number beyond it can solve: what is padded, moved over or laid down is no larger."""
        known: Mapping[str, Any] = self._unsolved.known
        reach = sum(2 * n for n in _numbers(known, axis, ("pad", "size", "output_pad")))
        times = 1
        for n in _numbers(known, axis, ("stride", "dilation")):
            times *= max(1, n)
        sides = [
            type_.dims[axis].constant or USUAL_RANGE
            for type_ in (self._x, self._wanted)
            if isinstance(type_, ImageType)
        ]
        holes = len(self._pairs) + sum(side == axis for side in self._sides.values())
        limit = int(MOST_VALUES ** (1 / max(1, holes)) + 0.5)
        return min(limit, max(sides, default=1) * times + reach * times + 1)

    def _choices(self, name: str, slot: Slot) -> Sequence[Any]:
        """Values of an argument that belongs to no axis."""
        kind = slot.kind
        if _changes_no_shape(slot) and not slot.required:
            return [slot.default]
        if isinstance(kind, arguments.Count):
            return self._counts(kind, isinstance(kind, arguments.Whole))
        if isinstance(kind, arguments.Flag):
            return [False, True]
        if isinstance(kind, arguments.Number):
            return [0.5]
        del name
        return kind.words

    def _counts(self, kind: arguments.Count, whole: bool) -> list[Any]:
        """Numbers up to the largest at hand, and what the file's own symbols make of them."""
        dims = [*self._x.dims, *self._wanted.dims]
        exact = [self._wanted.dims[-1], self._x.dims[-1]]
        known = [v for v in self._unsolved.known.values() if isinstance(v, Dim)]
        exact += [v + self._wanted.dims[-1] for v in known]
        exact += [v - self._wanted.dims[-1] for v in known]
        numbers = {d.constant for d in (*dims, *exact) if d.constant is not None}
        limit = int(MOST_VALUES ** (1 / max(1, len(self._joint))))
        upper = min(max(numbers, default=USUAL_RANGE), limit)
        candidates = sorted(
            {*range(kind.least, upper + 1), *(n for n in numbers if n >= kind.least)}
        )
        if whole:
            return candidates
        symbolic = [d for d in dict.fromkeys(exact) if d.constant is None]
        return [*symbolic, *(Dim.of(n) for n in candidates)]

    def _rank(self, layer: Layer) -> tuple[bool, int]:
        pairs = [getattr(layer, name) for name in self._pairs]
        return (
            any(pair.height != pair.width for pair in pairs),
            sum(pair.height + pair.width for pair in pairs),
        )


def fits(layer: Layer, x: TensorType) -> bool:
    """Whether no condition of the layer fails for sure."""
    return not any(fails(c.left, c.operator, c.right) for c in layer.requires(x))


def fails(left: Dim, operator: str, right: Dim) -> bool:
    """Whether `left operator right` is false, or an equality that holds for some sizes only."""
    if left.constant is None or right.constant is None:
        return operator == "==" and left != right
    return left.constant < right.constant or (operator == "==" and left != right)


def _numbers(known: Mapping[str, Any], axis: int, names: tuple[str, ...]) -> list[int]:
    values = (known.get(name) for name in names)
    return [value.values()[axis] for value in values if isinstance(value, Pair)]


def _shape_rank(
    pairs: list[str], height: dict[str, int], width: dict[str, int]
) -> tuple[bool, int]:
    uneven = any(height[name] != width[name] for name in pairs)
    return uneven, sum(height.values()) + sum(width.values())


def _changes_no_shape(slot: Slot) -> bool:
    """Whether it is a factor or a rate, or a number that only the values depend on."""
    optional = isinstance(slot.kind, arguments.Whole) and not slot.required
    return slot.axis is None and (optional or isinstance(slot.kind, arguments.Number))


def _is_usual(layer: Layer) -> bool:
    """Whether no window lies in the padding by more than half: else it is hardly what is meant."""
    geometry: object = getattr(layer, "geometry", None)
    if not isinstance(geometry, Geometry):
        return True
    return all(2 * p <= e for p, e in zip(geometry.pad.values(), geometry.extent, strict=True))
