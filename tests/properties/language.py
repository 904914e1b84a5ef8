"""Networks as plain data: how they are written, and what they must mean.

`Meaning` walks statements much as a reader does, with numbers alone, and lists the layers that must
come out. It shares the layers with the checker, but neither its walk, its scopes, nor its names.
"""

from collections.abc import Callable

from cnndsl.layers.arguments import Labelled, Pair
from cnndsl.layers.base import Layer, Merge
from cnndsl.layers.table import MERGES
from cnndsl.layers.types import ImageType, TensorType, VectorType
from cnndsl.record import Record
from cnndsl.sizes.dim import Dim

Names = dict[str, object]  # int, Pair, float, bool
MOST_VALUES = 12_000  # in one tensor: tests run them all through PyTorch


class Written(Record):
    """An argument: its text, and its value in an environment."""

    text: str
    value: Callable[[Names], object]


class Line(Record):
    """A layer with the arguments that are written; `form` is its class."""

    form: type[Layer]
    given: tuple[tuple[str, Written], ...]
    label: str | None = None
    expected: str = ""


class Branches(Record):
    """`add { … } { … }`."""

    kind: str
    bodies: tuple[tuple["Statement", ...], ...]
    label: str | None = None


class Labels(Record):
    """`add LABEL …`."""

    kind: str
    others: tuple[str, ...]
    label: str | None = None


class Block(Record):
    """A definition; `parameters` with their defaults, None where there is none."""

    name: str
    parameters: tuple[tuple[str, Written | None], ...]
    body: tuple["Statement", ...]


class Call(Record):
    """A use of a block: arguments by name, of which the first `places` are written by place."""

    name: str
    given: tuple[tuple[str, Written], ...]
    places: int
    label: str | None = None


class Repeat(Record):
    """`repeat N as LABEL { … }`."""

    count: Written
    body: tuple["Statement", ...]
    label: str | None = None


class If(Record):
    """`if COND { … } else { … }`."""

    condition: Written
    then: tuple["Statement", ...]
    otherwise: tuple["Statement", ...]


class From(Record):
    """`from LABEL`."""

    label: str


class Text(Record):
    """Any other line, which adds no layer: `let`, `param`, `default`, `output`."""

    text: str


Statement = Line | Branches | Labels | Block | Call | Repeat | If | From | Text


class Network(Record):
    """A whole file: its input, its names with their values, and its statements.

    `defaults` are the options that `default` lines among the statements set, by kind of layer.
    """

    source: tuple[str, ...]
    statements: tuple[Statement, ...]
    names: Names
    defaults: dict[str, dict[str, object]]
    types: TensorType


# ── as text ──────────────────────────────────────────────────────────────────────────────────────


def text_of(network: Network) -> str:
    return "\n".join(lines_of(network)) + "\n"


def lines_of(network: Network) -> list[str]:
    lines = [f"input {' x '.join(network.source)}"]
    for statement in network.statements:
        lines += written(statement)
    return lines


def written(statement: Statement) -> list[str]:
    """The lines of a statement."""
    match statement:
        case Text(text):
            return [text]
        case From(label):
            return [f"from {label}"]
        case Line(form, given, label, expected):
            return [" ".join([form.kind, *_arguments(form, given), *_as(label)]) + expected]
        case Labels(kind, others, label):
            return [" ".join([kind, *others, *_as(label)])]
        case Branches(kind, bodies, label):
            return _braced(kind, bodies, _as(label))
        case Block(name, parameters, body):
            takes = ", ".join(n if d is None else f"{n}={d.text}" for n, d in parameters)
            return _braced(f"block {name}({takes})", [body], [])
        case Call(name, given, places, label):
            values = [v.text if i < places else f"{n}={v.text}" for i, (n, v) in enumerate(given)]
            return [" ".join([name, *values, *_as(label)])]
        case Repeat(count, body, label):
            return _braced(" ".join(["repeat", count.text, *_as(label)]), [body], [])
        case If(condition, then, otherwise):
            lines = _braced(f"if {condition.text}", [then], [])
            return [*lines[:-1], *_braced("} else", [otherwise], [])]


def _as(label: str | None) -> list[str]:
    return [f"as {label}"] if label else []


def _braced(head: str, bodies, tail: list[str]) -> list[str]:
    lines = [head]
    for number, body in enumerate(bodies):
        lines[-1] += " {"
        for statement in body:
            lines += [f"    {line}" for line in written(statement)]
        lines.append("}" if number < len(bodies) - 1 else " ".join(["}", *tail]))
    return lines


def _arguments(form: type[Layer], given) -> list[str]:
    words = []
    for name, value in given:
        way = form.slots[name].way
        # Of the one number of a layer, some are written by name and some by place.
        # Of a place, a minus wants parentheses.
        by_name = len(value.text) % 2 or value.text.startswith("-")
        way = "name" if way == "either" and by_name else way
        before = {"place": "", "either": "", "name": f"{name}="}.get(way, f"{way} ")
        words.append(before + value.text)
    return words


# ── as layers ────────────────────────────────────────────────────────────────────────────────────


class Refused(Exception):
    """A layer does not take its input; it is the last of `Meaning.nodes`."""


class NoLabel(Exception):
    """A label is not seen from where it is named."""


class Node(Record):
    """A layer that must come out: what it reads by number (−1: the input), its path if labelled."""

    layer: Layer
    inputs: tuple[int, ...]
    path: str | None


class Meaning:
    """The layers so far, and where the walk is."""

    def __init__(self, source: TensorType, names: Names, defaults) -> None:
        self.types: dict[int, TensorType] = {-1: source}
        self.nodes: list[Node] = []
        self.labels: dict[str, int] = {}
        self.blocks: dict[str, Block] = {}
        self.current = -1
        self.names, self.defaults = names, defaults

    def copy(self) -> "Meaning":
        other = Meaning(self.types[-1], self.names, self.defaults)
        other.types, other.nodes = dict(self.types), list(self.nodes)
        other.labels, other.blocks = dict(self.labels), dict(self.blocks)
        other.current = self.current
        return other

    @property
    def type(self) -> TensorType:
        return self.types[self.current]

    def walk(self, statements, names: Names, prefix: str) -> None:
        for statement in statements:
            self.step(statement, names, prefix)

    def step(self, statement: Statement, names: Names, prefix: str) -> None:
        match statement:
            case Line():
                self._line(statement, names, prefix)
            case From(label):
                self.current = self.find(label, prefix)
            case Labels(kind, others, label):
                read = (self.current, *(self.find(other, prefix) for other in others))
                self._add(MERGES[kind](), read, label, prefix)
            case Branches(kind, bodies, label):
                start, ends = self.current, []
                for body in bodies:
                    self.current = start
                    self.walk(body, names, prefix)
                    ends.append(self.current)
                self._add(MERGES[kind](), tuple(ends), label, prefix)
            case Block():
                self.blocks[statement.name] = statement
            case Call(name, given, _, label):
                block, here = self.blocks[name], self._around(names)
                values = {n: value.value(here) for n, value in given}
                inner = dict(self.names)
                for parameter, default in block.parameters:
                    inner[parameter] = (
                        values[parameter]
                        if parameter in values
                        else default.value(self._around(inner))
                    )
                self.walk(block.body, inner, f"{prefix}{label}." if label else prefix)
                self._label(label, prefix)
            case Repeat(count, body, label):
                for i in range(count.value(self._around(names))):
                    self.walk(body, names, f"{prefix}{label}.{i}." if label else prefix)
                self._label(label, prefix)
            case If(condition, then, otherwise):
                body = then if condition.value(self._around(names)) else otherwise
                self.walk(body, names, prefix)
            case Text():
                pass

    def find(self, name: str, prefix: str) -> int:
        """The tensor of a label, in the nearest scope that has it."""
        while prefix and prefix + name not in self.labels:
            prefix = prefix[: prefix[:-1].rfind(".") + 1]
        if prefix + name not in self.labels:
            raise NoLabel(name)
        return self.labels[prefix + name]

    def visible(self, prefix: str) -> list[str]:
        """The labels that can be named here."""
        return [
            path[len(start) :]
            for path in self.labels
            for start in _scopes(prefix)
            if path.startswith(start)
            and not path[len(start)].isdigit()  # `0.conv1` is no name
            and self.find(path[len(start) :], prefix) == self.labels[path]
        ]

    def _around(self, names: Names) -> Names:
        """With the sizes of the current tensor."""
        if not isinstance(self.type, ImageType):
            return names
        sizes = zip(("height", "width", "channels"), self.type.dims, strict=True)
        return {name: dim.constant for name, dim in sizes} | names

    def _line(self, line: Line, names: Names, prefix: str) -> None:
        read, fields, here = [self.current], {}, self._around(names)
        own = dict(line.given)
        for name, slot in line.form.slots.items():
            if name not in own:
                if name in self.defaults.get(line.form.kind, {}):
                    fields[name] = slot.kind.read(_value(self.defaults[line.form.kind][name]))
                continue
            if slot.way == "like":
                other = self.find(own[name].text, prefix)
                read.append(other)
                fields[name] = Labelled(own[name].text, self.types[other])
            else:
                fields[name] = slot.kind.read(_value(own[name].value(here)))
        self._add(line.form(**fields), tuple(read), line.label, prefix)

    def _add(self, layer: Layer, inputs: tuple[int, ...], label: str | None, prefix: str) -> None:
        types = tuple(self.types[i] for i in inputs)
        x = types if isinstance(layer, Merge) else types[0]
        self.nodes.append(Node(layer, inputs, f"{prefix}{label}" if label else None))
        self.current = len(self.nodes) - 1
        if not all(isinstance(type_, layer.accepts) for type_ in types[:1]):
            raise Refused
        for claim in layer.requires(x):
            left, right = claim.left.constant, claim.right.constant
            if left < right or (claim.operator == "==" and left != right):
                raise Refused
        self.types[self.current] = layer.output(x)
        self._label(label, prefix)

    def _label(self, label: str | None, prefix: str) -> None:
        if label:
            self.labels[prefix + label] = self.current


def _scopes(prefix: str) -> list[str]:
    found = [prefix]
    while prefix:
        prefix = prefix[: prefix[:-1].rfind(".") + 1]
        found.append(prefix)
    return found


def _value(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return Dim.of(value)
    return value


def is_small(type_: TensorType) -> bool:
    """Whether PyTorch runs it in no time."""
    count = 1
    for dim in type_.dims:
        count *= dim.constant
    return count <= MOST_VALUES and max(dim.constant for dim in type_.dims[:2]) <= 2_000


def image(height: int, width: int, channels: int) -> ImageType:
    return ImageType(Dim.of(height), Dim.of(width), Dim.of(channels))


def vector(features: int) -> VectorType:
    return VectorType(Dim.of(features))


def literal(value: object) -> Written:
    """A value written as it is."""
    text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
    if isinstance(value, Pair):
        text = value.short
    return Written(text, lambda _: value)
