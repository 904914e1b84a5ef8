"""Random networks of the whole language, drawn from the layers' own slots and `requires`.

Statements are drawn one by one; what a statement does is tried on a copy of the walk so far, so
that a network is valid as far as its author means it to be. With `free`, what is written makes
sense for every height and width: no numbers stand where a size depends on them.
"""

import random

from cnndsl.layers import arguments
from cnndsl.layers.arguments import Pair
from cnndsl.layers.base import Layer, Merge
from cnndsl.layers.table import FORMS, LAYERS
from cnndsl.layers.types import ImageType, VectorType
from cnndsl.sizes.dim import Dim
from tests.layers.drawing import draw_value
from tests.properties.language import (
    Block,
    Branches,
    Call,
    From,
    If,
    Labels,
    Line,
    Meaning,
    Names,
    Network,
    NoLabel,
    Refused,
    Repeat,
    Statement,
    Text,
    Written,
    image,
    is_small,
    literal,
    vector,
)

ALONE = [form for form in LAYERS if not issubclass(form, Merge)]
# Layers that make a network one of convolutions are drawn more often than the many activations.
OFTEN = [form for form in ALONE if form.kind in ("conv", "pool", "deconv", "fc", "take")] * 3
TRIES = 12
MOST_DEEP = 2  # blocks, repeats and branches in each other
LEAST_FREE = 6  # height and width of the image on which networks with free sizes are tried


class Author:
    """Writes one network."""

    def __init__(self, rng: random.Random, *, free: bool = False, mistaken: float = 0.0) -> None:
        """`mistaken`: how likely the network ends in a layer that does not take its input."""
        self.rng, self.free, self.mistaken = rng, free, mistaken
        self.labels = self.kinds = 0
        self.names: Names = {}
        self.symbols: set[str] = set()
        self.defaults: dict[str, dict[str, object]] = {}
        self.broken = False
        self.meaning: Meaning

    def network(self) -> Network:
        rng = self.rng
        source = self._source()
        statements = [Text(line) for line in self._names()] + [
            Text(line) for line in self._defaults()
        ]
        self.meaning = Meaning(source, self.names, self.defaults)
        for _ in range(rng.randint(2, 7)):
            if self.broken:
                break
            statements += self._statements(self.meaning, self.names, "", depth=0)
        if not any(isinstance(s, Line) for s in statements):
            statements.append(self._sure())
            if not self.broken:
                self.meaning.step(statements[-1], self.names, "")
        written = tuple(str(dim) for dim in source.dims)
        if self.free and isinstance(source, ImageType):
            written = ("H", "W", written[2])
        return Network(written, tuple(statements), self.names, self.defaults, source)

    def _source(self):
        rng = self.rng
        if self.free:
            height, width = (rng.randint(LEAST_FREE, 24) for _ in range(2))
            return image(height, width, rng.choice([1, 3, 4, 6, 12]))
        if rng.random() < 0.1:
            return vector(rng.choice([1, 3, 8, 12, 30]))
        height = rng.choice([1, 2, 5, 7, 8, 12, 13, 16])
        width = height if rng.random() < 0.5 else rng.choice([1, 3, 8, 9, 16])
        return image(height, width, rng.choice([1, 2, 3, 4, 6, 12]))

    def _names(self) -> list[str]:
        rng, lines = self.rng, []
        if rng.random() < 0.6:
            value = self.names["width0"] = rng.choice([2, 4, 6, 12])
            if self.free and rng.random() < 0.4:
                self.symbols.add("width0")
                lines.append("param width0")
            else:
                lines.append(f"param width0 = {value}")
        if rng.random() < 0.4:
            self.names["side"] = rng.choice([Pair(3, 3), Pair(1, 3), Pair(2, 2)])
            lines.append(f"let side = {self.names['side']}")
        if rng.random() < 0.3 and "width0" in self.names:
            self.names["twice"] = 2 * self.names["width0"]
            self.symbols |= {"twice"} if "width0" in self.symbols else set()
            lines.append("let twice = width0 * 2")
        if rng.random() < 0.2:
            self.names["rate"] = 0.25
            lines.append("let rate = 0.25")
        return lines

    def _defaults(self) -> list[str]:
        lines = []
        for kind, name, value in (
            ("conv", "bias", False),
            ("conv", "pad", "same"),
            ("pool", "stride", 2),
            ("batchnorm", "momentum", 0.5),
        ):
            if self.rng.random() < 0.12:
                self.defaults.setdefault(kind, {})[name] = value
                text = "no" if value is False else value
                lines.append(f"default {kind} {name}={text}")
        return lines

    # ── statements ───────────────────────────────────────────────────────────────────────────────

    def _statements(
        self, at: Meaning, names: Names, prefix: str, depth: int, labels: bool = True
    ) -> list[Statement]:
        """One statement, mostly, and what stands above it; `at` has walked them afterwards."""
        chance = self.rng.random()
        ways = [(0.19, self._merge), (0.25, self._from)]
        if depth < MOST_DEEP:
            ways += [(0.10, self._branches), (0.33, self._repeat), (0.38, self._if)]
        if depth == 0:
            ways += [(0.46, self._block), (0.56, self._call), (0.60, self._output)]
        for limit, way in sorted(ways, key=lambda pair: pair[0]):
            if chance < limit:
                found = way(at, names, prefix, depth, labels)
                if found:
                    return found
                break
        return self._line(at, names, prefix, depth, labels)

    def _body(self, at: Meaning, names: Names, prefix: str, depth: int, labels: bool):
        body: list[Statement] = []
        for _ in range(self.rng.choice([1, 1, 2, 3])):
            body += self._statements(at, names, prefix, depth + 1, labels)
        return tuple(body)

    def _tried(self, statement: Statement, at: Meaning, names: Names, prefix: str) -> bool:
        """Whether the statement is good here; then `at` has walked it.

        One that is not is kept as the network's last, so often as mistakes are wanted.
        """
        trial = at.copy()
        try:
            trial.step(statement, names, prefix)
            good = True
        except Refused:
            good = False
        except (arguments.Refusal, NoLabel, NameError):
            return False  # not with this number, not from this place, not on a vector
        if good and not (all(is_small(t) for t in trial.types.values()) and len(trial.nodes) < 60):
            return False
        if not good:
            wanted = at is self.meaning and self.rng.random() < self.mistaken
            if not wanted or _is_of_another_rule(trial):
                return False
            self.broken = True
        at.__dict__.update(trial.__dict__)
        return True

    def _line(self, at, names, prefix, depth, labels) -> list[Statement]:
        rng = self.rng
        for _ in range(TRIES):
            form = rng.choice(ALONE + OFTEN)
            if not isinstance(at.type, form.accepts) or (self.free and self._ties(form, at)):
                continue
            given = self._arguments(form, at, names, prefix)
            if given is None:
                continue
            line = Line(form, given, self._label() if labels and rng.random() < 0.3 else None)
            if self._tried(line, at, names, prefix):
                if depth == 0 and not self.broken and rng.random() < (0.02 if self.free else 0.15):
                    shape = " x ".join(str(dim) for dim in at.type.dims)
                    if not self.symbols:
                        line = line.replace(expected=f" -> {shape}")
                return [line]
        sure = self._sure()
        at.step(sure, names, prefix)
        return [sure]

    def _ties(self, form: type[Layer], at: Meaning) -> bool:
        """Whether weights would depend on the image's size, now or after the next layers."""
        sizes = at.type.dims[:2] if isinstance(at.type, ImageType) else ()
        fixed = at.current >= 0 and _is_fixed(at)
        return form.kind == "flatten" and not (fixed or not sizes)

    def _sure(self) -> Statement:
        return Line(FORMS["skip"][0], ())

    def _label(self) -> str:
        self.labels += 1
        return f"{self.rng.choice(['enc', 'stage.s', 'x_'])}{self.labels}"

    def _branches(self, at, names, prefix, depth, labels) -> list[Statement]:
        rng = self.rng
        kind = rng.choice(["add", "concat", "multiply"])
        first = at.copy()
        bodies = [self._body(first, names, prefix, depth + 1, labels)]
        before = first
        for _ in range(rng.choice([1, 1, 2])):
            for _ in range(3):
                other = before.copy()
                other.current = at.current
                body = self._body(other, names, prefix, depth + 1, labels)
                body += self._adapter(kind, first.type, other.type)
                trial = Branches(kind, (*bodies, body))
                if self._is_good(trial, at, names, prefix):
                    bodies.append(body)
                    before = at.copy()
                    before.step(trial, names, prefix)
                    break
        if len(bodies) < 2:
            bodies.append(bodies[0] if not labels else (self._sure(),))
        label = self._label() if labels and rng.random() < 0.4 else None
        statement = Branches(kind, tuple(bodies), label)
        return [statement] if self._tried(statement, at, names, prefix) else []

    def _adapter(self, kind: str, wanted, got) -> tuple[Statement, ...]:
        """Layers that give the end of a branch the size of the first one."""
        if not (isinstance(wanted, ImageType) and isinstance(got, ImageType)) or self.free:
            return ()
        lines: list[Statement] = []
        if got.dims[:2] != wanted.dims[:2] and self.rng.random() < 0.7:
            pool = FORMS["pool"][1]
            size = Pair(wanted.height.constant, wanted.width.constant)
            to = Written(str(size), lambda _: size)
            lines.append(Line(pool, (("function", literal("avg")), ("to", to))))
        if kind != "concat" and got.channels != wanted.channels and self.rng.random() < 0.7:
            filters = literal(wanted.channels.constant)
            size = literal(Pair(1, 1)).replace(text="1x1")
            given = [("filters", filters), ("size", size)]
            if self.defaults.get("conv", {}).get("pad"):
                given.append(("pad", literal(0)))
            lines.append(Line(FORMS["conv"][0], tuple(given)))
        return tuple(lines)

    def _is_good(self, statement, at, names, prefix) -> bool:
        trial = at.copy()
        try:
            trial.step(statement, names, prefix)
        except (Refused, arguments.Refusal, NoLabel):
            return False
        return True

    def _merge(self, at, names, prefix, depth, labels) -> list[Statement]:
        known = at.visible(prefix)
        for _ in range(TRIES if known else 0):
            others = tuple(self.rng.choice(known) for _ in range(self.rng.choice([1, 1, 2])))
            label = self._label() if labels and self.rng.random() < 0.3 else None
            merge = Labels(self.rng.choice(["add", "concat", "multiply"]), others, label)
            if self._tried(merge, at, names, prefix):
                return [merge]
        return []

    def _from(self, at, names, prefix, depth, labels) -> list[Statement]:
        known = at.visible(prefix)
        if not known:
            return []
        statement = From(self.rng.choice(known))
        return [statement] if self._tried(statement, at, names, prefix) else []

    def _output(self, at, names, prefix, depth, labels) -> list[Statement]:
        known = at.visible(prefix)
        return [Text(f"output {self.rng.choice(known)}")] if known else []

    def _repeat(self, at, names, prefix, depth, labels) -> list[Statement]:
        label = self._label() if labels and self.rng.random() < 0.7 else None
        inner = at.copy()
        inside = f"{prefix}{label}.0." if label else prefix
        body = self._body(inner, names, inside, depth + 1, label is not None)
        for count in self.rng.sample([0, 1, 2, 3, 4], 5):
            written = self._number(count, at, names) if self.rng.random() < 0.3 else literal(count)
            statement = Repeat(written, body, label)
            if self._tried(statement, at, names, prefix):
                return [statement]
        return []

    def _if(self, at, names, prefix, depth, labels) -> list[Statement]:
        if not isinstance(at.type, ImageType) or self.symbols:
            return []
        channels = at.type.channels.constant
        text, holds = self.rng.choice(
            [
                (f"channels == {channels}", True),
                (f"not channels < {channels} + 1", False),
                (f"channels > {channels} or channels != {channels}", False),
                (f"0 < channels <= {channels} and channels // {channels} == 1", True),
            ]
        )
        inner = at.copy()
        body = self._body(inner, names, prefix, depth + 1, False)
        other = self._body(at.copy(), names, prefix, depth + 1, False)
        # In a repeat, the condition may hold once and then no more.
        condition = Written(text, lambda here: bool(eval(text, {}, dict(here))))
        statement = If(condition, *((body, other) if holds else (other, body)))
        return [statement] if self._tried(statement, at, names, prefix) else []

    # ── blocks ───────────────────────────────────────────────────────────────────────────────────

    def _block(self, at, names, prefix, depth, labels) -> list[Statement]:
        """A definition, and its first use, for which its body was written."""
        rng = self.rng
        self.kinds += 1
        name = f"part{self.kinds}"
        values: Names = {"filters": rng.choice([2, 4, 6, 12])}
        if rng.random() < 0.6:
            values["step"] = rng.choice([1, 2])
        if rng.random() < 0.3:
            values["size"] = rng.choice([Pair(3, 3), Pair(1, 1), Pair(3, 1)])
        if rng.random() < 0.3:
            values["deep"] = rng.random() < 0.5
        defaults = {
            n: literal(v) if rng.random() < 0.5 and n != "filters" else None
            for n, v in values.items()
        }
        parameters = sorted(defaults.items(), key=lambda pair: pair[1] is not None)
        label = self._label() if rng.random() < 0.6 else None
        inner = at.copy()
        inside = f"{prefix}{label}." if label else prefix
        body = self._body(inner, self.names | values, inside, depth + 1, label is not None)
        block = Block(name, tuple(parameters), body)
        at.step(block, names, prefix)
        call = self._called(block, values, at, names, label)
        if self._tried(call, at, names, prefix):
            return [block, call]
        return [block]

    def _called(self, block: Block, values: Names, at, names, label) -> Call:
        rng = self.rng
        given = []
        for name, default in block.parameters:
            if default is not None and default.value({}) == values[name] and rng.random() < 0.7:
                continue
            value = values[name]
            is_number = isinstance(value, int) and not isinstance(value, bool)
            known = is_number and rng.random() < 0.4
            given.append((name, self._number(value, at, names) if known else literal(value)))
        order = [name for name, _ in block.parameters]
        places = 0
        while places < len(given) and given[places][0] == order[places] and rng.random() < 0.6:
            places += 1
        return Call(block.name, tuple(given), places, label)

    def _call(self, at, names, prefix, depth, labels) -> list[Statement]:
        """A block used again, with other values: labels inside ask for a label."""
        if not at.blocks:
            return []
        block = self.rng.choice(list(at.blocks.values()))
        kinds = {
            "filters": [2, 4, 6, 12],
            "step": [1, 2],
            "size": [Pair(3, 3), Pair(1, 1)],
            "deep": [True, False],
        }
        values = {name: self.rng.choice(kinds[name]) for name, _ in block.parameters}
        call = self._called(block, values, at, names, self._label())
        return [call] if self._tried(call, at, names, prefix) else []

    # ── arguments ────────────────────────────────────────────────────────────────────────────────

    def _arguments(self, form: type[Layer], at: Meaning, names: Names, prefix: str):
        given = []
        for name, slot in form.slots.items():
            if not (slot.required or slot.way in ("to", "like")) and self.rng.random() >= 0.25:
                continue
            if slot.way == "like":
                images = [
                    label
                    for label in at.visible(prefix)
                    if isinstance(at.types[at.find(label, prefix)], ImageType)
                ]
                if not images:
                    return None
                label = self.rng.choice(images)
                given.append((name, Written(label, lambda _: None)))
            else:
                given.append((name, self._argument(name, slot.kind, at, names)))
        return tuple(given)

    def _argument(self, slot: str, kind: arguments.Kind, at: Meaning, names: Names) -> Written:
        rng = self.rng
        value = self._suitable(slot, kind, at)
        if isinstance(kind, arguments.Count) and not isinstance(kind, arguments.Whole):
            free_groups = self.symbols and slot == "groups"
            if rng.random() < 0.4 and not free_groups:
                return self._number(value.constant, at, names, symbols=True)
            return literal(value.constant)
        if isinstance(kind, arguments.Size) and isinstance(value, Pair) and rng.random() < 0.3:
            same = [n for n, v in names.items() if v == value]
            if same:
                return self._name(rng.choice(same))
        if isinstance(kind, (arguments.Flag, arguments.Number)) and rng.random() < 0.3:
            kinds = (bool,) if isinstance(kind, arguments.Flag) else (float,)
            same = [n for n, v in names.items() if isinstance(v, kinds)]
            if same and slot != "eps":
                return self._name(rng.choice(same))
        if isinstance(value, Pair) and isinstance(kind, arguments.WindowSize):
            return Written(str(value), lambda _: value)
        text = kind.write(value)
        return Written(text, lambda _: value)

    def _suitable(self, slot: str, kind: arguments.Kind, at: Meaning):
        """A value, drawn so that it fits more often than by chance alone."""
        rng = self.rng
        if slot == "groups" and rng.random() < 0.8:
            have = at.type.dims[-1].constant
            divisors = [n for n in range(1, have + 1) if have % n == 0]
            return Dim.of(rng.choice(divisors))
        return draw_value(kind, rng)

    def _number(self, value: int, at: Meaning, names: Names, symbols: bool = False) -> Written:
        """An expression with that value here, by one of the names that are known."""
        here = {n: v for n, v in names.items() if isinstance(v, int) and not isinstance(v, bool)}
        if isinstance(at.type, ImageType):
            here["channels"] = at.type.channels.constant
        if not symbols and self.symbols:
            here = {}
        if not here:
            return literal(value)
        name = self.rng.choice(sorted(here))
        known = here[name]
        if known == value:
            text = name
        elif value and value % known == 0:
            text = f"{name}*{value // known}"
        elif value and known // value and known // (known // value) == value:
            text = f"{name}//{known // value}"
        elif known > value:
            text = f"({name} - {known - value})"
        else:
            text = f"({name} % {known} + {value})"
        return Written(text, lambda inner: eval(text, {}, dict(inner)))

    def _name(self, name: str) -> Written:
        return Written(name, lambda here: here[name])


def _is_fixed(at: Meaning) -> bool:
    """Whether the size of the current image is the same for every input."""
    layer = at.nodes[at.current].layer
    return layer.kind == "globalpool" or (layer.kind == "pool" and hasattr(layer, "to"))


def _is_of_another_rule(trial: Meaning) -> bool:
    """Whether the last layer is refused by a rule that PyTorch does not have.

    These are `pad=same` of even windows, and vectors where an image is needed.
    """
    node = trial.nodes[-1]
    layer = node.layer
    types = tuple(trial.types[i] for i in node.inputs)
    if not isinstance(types[0], layer.accepts):
        return True
    x = types if isinstance(layer, Merge) else types[0]
    claims = layer.requires(x)
    codes = {c.code for c in claims if c.left.constant < c.right.constant or c.operator == "=="}
    mixed = any(isinstance(type_, VectorType) for type_ in types)
    return bool(codes & {"E307", "E302"}) or mixed
