"""The network as it grows: each layer on the tensors that it reads, its claims, its name.

Knows layers and places; knows nothing of blocks, repeats and names in expressions.
"""

from collections.abc import Callable, Iterator

from cnndsl.check.bind import Bound
from cnndsl.check.claims import Context, accepted, examine, mismatch, weights_are_fixed
from cnndsl.check.conditions import Need
from cnndsl.check.evaluate import Problem, compare
from cnndsl.check.origin import last_change, more_room, story
from cnndsl.check.places import Place, Tensor
from cnndsl.check.warnings import Loss, lost_pixels, skipped_pixels
from cnndsl.diagnostics.model import Diagnostic, Edit, Fix, Label, Sink
from cnndsl.graph.facts import Tally
from cnndsl.graph.graph import INPUT, Node
from cnndsl.layers.arguments import Count
from cnndsl.layers.base import Claim, Layer, Merge
from cnndsl.layers.types import TensorType, Unknown, show, write
from cnndsl.sizes.dim import Dim
from cnndsl.source import Span
from cnndsl.syntax import tree

MAX_LAYERS = 10_000
MAX_PARTS = 64  # of a path, between dots: each is a module inside another
MOST_LOSSES = 32  # pools of which it is asked whether they lose pixels for some sizes


class Network:
    """Nodes in execution order, and what they need of the free sizes."""

    def __init__(self, sink: Sink) -> None:
        """What is wrong goes to `sink`."""
        self._sink = sink
        self.nodes: list[Node] = []
        self.needs: list[tuple[Need, ...]] = []
        self.losses: list[Loss] = []
        self.size_symbols: list[str] = []
        self.tally = Tally()
        self._by_path: dict[str, Node] = {}
        self._labels: dict[str, tuple[Tensor, Span]] = {}
        self._counts: dict[str, int] = {}

    # ── layers ───────────────────────────────────────────────────────────────────────────────────

    def apply(self, call: tree.LayerCall, bound: Bound, x: Tensor, place: Place) -> Tensor:
        """A layer on the tensor `x`; its output is unknown after a mistake."""
        layer, after = bound.layer, Unknown()
        others = tuple(other.path for other in bound.others)
        unknown = isinstance(x.type, Unknown) or any(
            isinstance(other.type, Unknown) for other in bound.others
        )
        if not unknown and accepted(layer, call, x.type, self._sink):
            claims = (*_counts(layer), *layer.requires(x.type))
            good = self._hold(claims, call, bound, lambda claim: self._origin(claim, x))
            free = tuple(self.size_symbols)
            if good and weights_are_fixed(layer, call, x.type, free, self._sink):
                after = layer.output(x.type)
                skipped_pixels(layer, call, self._sink)
                loss = lost_pixels(layer, x.type, call, self._sink)
                if loss is not None and len(self.losses) < MOST_LOSSES:
                    self.losses.append(loss)
        return self._add(layer, (x.path, *others), x.type, after, call, place)

    def merge(
        self, call: tree.Merge, layer: Merge, branches: tuple[Tensor, ...], place: Place
    ) -> Tensor:
        """Several tensors made one."""
        types = tuple(branch.type for branch in branches)
        after: TensorType = Unknown()
        if not any(isinstance(type_, Unknown) for type_ in types):
            claims = tuple(layer.requires(types))
            bound = Bound(layer, {})
            if self._hold(claims, call, bound, lambda claim: self._ends(claim, call, branches)):
                after = layer.output(types)
        inputs = tuple(branch.path for branch in branches)
        return self._add(layer, inputs, types[0], after, call, place)

    def asserted(self, expected: tree.Shape, wanted: TensorType, got: Tensor) -> Tensor:
        """The tensor after a line's assertion, which is believed after an earlier mistake."""
        if isinstance(got.type, Unknown):
            return Tensor(got.path, wanted)
        node = self._by_path.get(got.path)
        formula = node.layer.formula(node.arrives) if node and node.output == got.type else ()
        wrong = mismatch(expected, wanted, got.type, formula, write(got.type))
        unknown = Tensor(got.path, Unknown())
        if len(wanted.dims) != len(got.type.dims):
            self._sink.add(wrong)
            return unknown
        needs: list[Need] = []
        for want, dim in zip(wanted.dims, got.type.dims, strict=True):
            try:
                equal = compare(dim, "==", want, expected.span)
            except Problem as problem:
                self._sink.add(problem.diagnostic)
                return unknown
            if equal is False or (equal is not True and equal.never):
                self._sink.add(wrong)
                return unknown
            if equal is not True and not equal.holds:
                needs.append(Need(equal, dim, want, wrong.code, wrong.span, lambda: wrong))
        if not needs:
            return got
        self.needs.append(tuple(needs))
        return Tensor(got.path, wanted)  # it is so for all sizes that are valid

    def _hold(
        self,
        claims: tuple[Claim, ...],
        call: tree.LayerCall | tree.Merge,
        bound: Bound,
        context: Callable[[Claim], Context],
    ) -> bool:
        needs: list[Need] = []
        for claim in claims:
            found = examine(claim, call, bound, context, self._sink)
            if isinstance(found, Need):
                needs.append(found)
            elif not found:
                return False  # a second message about the same numbers would say nothing new
        for code in dict.fromkeys(need.code for need in needs):
            self.needs.append(tuple(n for n in needs if n.code == code))
        return True

    def _origin(self, claim: Claim, x: Tensor) -> Context:
        """Where the dim that a claim is about has its value from."""
        if claim.about is None:
            return Context()
        label = last_change(self._by_path, x, claim.about)
        fixes: tuple[Fix, ...] = ()
        if claim.code == "E301" and claim.left.constant is not None:
            fixes = (more_room(self._by_path, x, claim.about),)
        return Context(label, story(self._by_path, x, claim.about), fixes)

    def _ends(self, claim: Claim, call: tree.Merge, branches: tuple[Tensor, ...]) -> Context:
        """Where each branch ends, with which shape, and how it got there."""
        nodes = [(self._by_path.get(branch.path), branch) for branch in branches]
        labels = tuple(
            Label(node.span, f"this one is {show(branch.type)}") for node, branch in nodes if node
        )
        notes: tuple[str, ...] = ()
        if claim.about is not None and claim.between is not None:
            for index in claim.between:
                end = branches[index]
                notes += story(self._by_path, end, claim.about, f"`{end.path}`'s")
        return Context(labels, notes, _resized(claim, call))

    def _add(
        self,
        layer: Layer,
        inputs: tuple[str, ...],
        arrives: TensorType,
        after: TensorType,
        call: tree.LayerCall | tree.Merge,
        place: Place,
    ) -> Tensor:
        if len(self.nodes) >= MAX_LAYERS:
            raise TooManyLayers
        path = self._name(layer.kind, call.label, place)
        labelled = call.label is not None
        node = Node(path, layer, inputs, arrives, after, call.head, labelled, place.uses)
        self.nodes.append(node)
        self._by_path.setdefault(path, node)
        return Tensor(path, after)

    # ── names ────────────────────────────────────────────────────────────────────────────────────

    def _name(self, kind: str, label: tree.Name | None, place: Place) -> str:
        """The path of a node: its label, or its kind and count, behind the scopes around it."""
        key = place.prefix + kind
        count = self._counts[key] = self._counts.get(key, 0) + 1
        if label is not None:
            return place.prefix + label.text
        while f"{key}{count}" in self._labels or f"{key}{count}" in self._by_path:
            count = self._counts[key] = count + 1
        return f"{key}{count}"

    def label(self, name: tree.Name, tensor: Tensor, place: Place) -> None:
        """Make a tensor known by a label; reports one that is taken."""
        path = place.prefix + name.text
        if path == INPUT:
            self._report("E208", "`input` is the name of the network's input", name.span)
        elif path.count(".") >= MAX_PARTS:
            message = f"with the labels around it, this label has more than {MAX_PARTS} parts"
            fix = Fix("leave out some of the names between the dots")
            self._sink.add(Diagnostic("E506", message, name.span, fixes=(fix,)))
        elif path in self._labels:
            first = self._labels[path][1]
            fixes = [Fix("choose another label")]
            if first == name.span:  # the same line again: a block or repeat without a label
                fixes = [Fix("label the block call or the `repeat` around it: `… as NAME`")]
            labels = (Label(first, "here"),) if first != name.span else ()
            message = f"the label `{path}` is taken"
            self._sink.add(Diagnostic("E208", message, name.span, "", labels, (), tuple(fixes)))
        else:
            self._labels[path] = (tensor, name.span)

    def find(self, name: str, place: Place) -> Tensor | None:
        """The tensor with that label, in the nearest scope that has one."""
        prefix = place.prefix
        while True:
            found = self._labels.get(prefix + name)
            if found is not None:
                return found[0]
            if not prefix:
                return None
            prefix = prefix[: prefix[:-1].rfind(".") + 1]

    def label_names(self) -> tuple[str, ...]:
        """All labels so far."""
        return tuple(self._labels)

    def _report(self, code: str, message: str, span: Span) -> None:
        self._sink.add(Diagnostic(code, message, span))


def _counts(layer: Layer) -> Iterator[Claim]:
    """Counts that depend on symbols are as large as their kind says for every value of these."""
    for name, slot in layer.slots.items():
        value = getattr(layer, name)
        if isinstance(slot.kind, Count) and isinstance(value, Dim) and value.constant is None:
            least = slot.kind.least
            message = f"`{name}` of `{layer.kind}` is {value.pretty()}, and takes {slot.kind.what}"
            yield Claim(value, ">=", Dim.of(least), "E207", message, name)


def _resized(claim: Claim, call: tree.Merge) -> tuple[Fix, ...]:
    """Where the current tensor meets a labelled one of another size: make it as large."""
    if not call.others or claim.about not in (0, 1) or claim.between is None:
        return ()
    if min(claim.between) != 0:
        return ()  # two labelled ones: nothing on this line can resize them
    label = call.others[max(claim.between) - 1].text
    edit = Edit(call.span.before(), f"upsample like {label}; ")
    return (Fix(f"make it so for every size: `upsample like {label}`", (edit,)),)


class TooManyLayers(Exception):
    """The network outgrew `MAX_LAYERS`."""
