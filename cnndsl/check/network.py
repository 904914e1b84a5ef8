"""The network as it grows: each layer on the tensors that it reads, its claims, its name.

Knows layers and places; knows nothing of blocks, repeats and names in expressions.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cnndsl.check.bind import Bound, Failed
from cnndsl.check.claims import (
    Context,
    accepted,
    depends,
    examine,
    mismatch,
    weights_are_fixed,
)
from cnndsl.check.conditions import Need
from cnndsl.check.evaluate import Problem, compare
from cnndsl.check.places import Place, Tensor
from cnndsl.check.recover import (
    as_read,
    is_long,
    merged,
    of_one_kind,
    of_open_kind,
    output_after,
    settled,
    sure_claims,
)
from cnndsl.check.warnings import Loss, lost_pixels, skipped_pixels
from cnndsl.diagnostics.model import Diagnostic, Fix, Label, Sink
from cnndsl.graph.facts import Tally
from cnndsl.graph.graph import INPUT, Node
from cnndsl.layers.arguments import Count
from cnndsl.layers.base import Claim, Layer, Merge
from cnndsl.layers.types import (
    ImageType,
    TensorType,
    Unknown,
    Unknowns,
    VectorType,
    is_known,
    is_open,
    show,
)
from cnndsl.sizes.dim import Dim
from cnndsl.source import Source, Span
from cnndsl.syntax import tree

if TYPE_CHECKING:
    from cnndsl.check.origin import Origin
    from cnndsl.sizes.condition import Condition

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
        self.unknowns = Unknowns()
        self.is_for_no_size = False  # a claim on free sizes holds for none of them
        self.is_doubtful = False
        """Whether a mistake leaves open what the network is, so that nothing of it is counted."""
        self.tally = Tally()
        self._by_path: dict[str, Node] = {}
        self._labels: dict[str, tuple[Tensor, Span]] = {}
        self._counts: dict[str, int] = {}

    # ── layers ───────────────────────────────────────────────────────────────────────────────────

    def apply(self, call: tree.LayerCall, bound: Bound, x: Tensor, place: Place) -> Tensor:
        """A layer on the tensor `x`; after a mistake its output is known as far as it can be."""
        layer = bound.layer
        others = tuple(other.path for other in bound.others)
        arrives = as_read(type(layer), x.type)
        if self._is_enough and not is_known(x.type):
            after = self.lost()
        elif arrives is None:
            values = {name: getattr(layer, name) for name in layer.slots}
            failed = Failed(type(layer), values, bound.places, (), (), bound.defaults)
            after = self._mistaken(call, failed, x, place)
        else:
            after = self._on(call, bound, arrives, x, place)
        return self._add(layer, (x.path, *others), x.type, after, call, place)

    def _on(
        self,
        call: tree.LayerCall,
        bound: Bound,
        arrives: ImageType | VectorType,
        x: Tensor,
        place: Place,
    ) -> TensorType:
        """The output of a layer that reads what arrives."""
        layer = bound.layer
        claims = (*_counts(layer), *layer.requires(arrives))
        last = len(arrives.dims) - 1
        failed = self._hold(
            claims, call, bound, lambda claim: self._origin(claim, call, x, place), last
        )
        if failed:
            values = {name: getattr(layer, name) for name in layer.slots}
            return self._open(type(layer), values, _arguments(failed), x.type)
        self._look_at(layer, call, arrives)
        after = self._short(layer.output(arrives))
        if isinstance(x.type, Unknown) and len(layer.accepts) > 1:
            return of_open_kind(after, self.unknowns)
        return after

    def _look_at(self, layer: Layer, call: tree.LayerCall, x: ImageType | VectorType) -> None:
        """Report weights without a size, and pixels that are not read."""
        if not weights_are_fixed(layer, call, x, tuple(self.size_symbols), self._sink):
            self.is_doubtful = True
            return
        skipped_pixels(layer, x, call, self._sink)
        loss = lost_pixels(layer, x, call, self._sink)
        if loss is not None and len(self.losses) < MOST_LOSSES:
            self.losses.append(loss)

    def after(self, call: tree.LayerCall, failed: Failed, x: Tensor, place: Place) -> Tensor:
        """What comes out of a layer whose arguments have mistakes, which were reported."""
        return Tensor(x.path, self._mistaken(call, failed, x, place))

    def _mistaken(
        self, call: tree.LayerCall, failed: Failed, x: Tensor, place: Place
    ) -> TensorType:
        """Report what is wrong whatever the mistake is, and give what is known of the output."""
        if self._is_enough:
            return self.lost()
        form, known, unknowns = failed.form, failed.known, self.unknowns
        read = as_read(form, x.type)
        arrives = read or as_read(form, unknowns.tensor()) or unknowns.image()
        layer, claims = sure_claims(form, known, failed.doubtful, arrives, unknowns)
        if read is None:
            accepted(layer, call, x.type, self._sink)
        bound = Bound(layer, failed.places, (), failed.defaults)
        last = len(arrives.dims) - 1
        wrong = self._hold(
            claims, call, bound, lambda claim: self._origin(claim, call, x, place), last
        )
        return self._open(form, known, {*failed.doubtful, *_arguments(wrong)}, x.type)

    def _open(
        self, form: type[Layer], values: Mapping[str, Any], doubtful: Collection[str], x: TensorType
    ) -> TensorType:
        """The output of a layer with mistakes: known is what is the same whatever was meant."""
        if self._is_enough:
            return self.lost()
        self.is_doubtful = True
        read = as_read(form, x)
        arrives = read or as_read(form, self.unknowns.tensor()) or self.unknowns.image()
        after = self._short(output_after(form, values, doubtful, arrives, self.unknowns))
        # Where it does not take the kind that arrives, one of the two lines is at a wrong place.
        if read is None or (isinstance(x, Unknown) and len(form.accepts) > 1):
            return of_open_kind(after, self.unknowns)
        return after

    def merge(
        self, call: tree.Merge, layer: Merge, branches: tuple[Tensor, ...], place: Place
    ) -> Tensor:
        """Several tensors made one."""
        types = of_one_kind([branch.type for branch in branches])
        claims = layer.requires(types)
        last = len(types[0].dims) - 1
        bound = Bound(layer, {})
        failed = self._hold(
            claims, call, bound, lambda claim: self._ends(claim, call, branches, types, place), last
        )
        after: TensorType
        if any(type(type_) is not type(types[0]) for type_ in types):
            after = self.lost()
        elif failed or self.is_doubtful:
            self.is_doubtful = True
            abouts = {claim.about for claim in failed if claim.about is not None}
            after = self._short(merged(layer, types, abouts, self.unknowns))
        else:
            after = layer.output(types)
        if all(isinstance(branch.type, Unknown) for branch in branches):
            after = of_open_kind(after, self.unknowns)
        inputs = tuple(branch.path for branch in branches)
        return self._add(layer, inputs, branches[0].type, after, call, place)

    @property
    def _is_enough(self) -> bool:
        """Whether so much is wrong that nobody asks what else may be known."""
        return self.is_doubtful and self._sink.is_full

    def lost(self) -> Unknown:
        """The type of a tensor of which a mistake leaves nothing known."""
        self.is_doubtful = True
        return self.unknowns.tensor()

    def _short(self, type_: TensorType) -> TensorType:
        """The type without long formulas of what a mistake leaves open."""
        if not self.is_doubtful or isinstance(type_, Unknown):
            return type_
        dims = [self.unknowns.dim() if is_long(dim) else dim for dim in type_.dims]
        return VectorType(*dims) if isinstance(type_, VectorType) else ImageType(*dims)

    def asserted(self, expected: tree.Shape, wanted: TensorType, got: Tensor) -> Tensor:
        """The tensor after a line's assertion: it gives what is not known, and replaces nothing."""
        kind = type(wanted)
        computed = got.type
        if isinstance(computed, Unknown):
            computed = settled(computed, kind is VectorType)
        node = self._by_path.get(got.path)
        is_own = node is not None and node.output == got.type and _is_read(node)
        formula = node.layer.formula(node.arrives) if node is not None and is_own else ()
        if kind is not type(computed):
            self._sink.add(mismatch(expected, wanted, computed, formula))
            return got
        needs: list[Need] = []
        dims: list[Dim] = []
        wrong = mismatch(expected, wanted, computed, formula)
        for want, dim in zip(wanted.dims, computed.dims, strict=True):
            if is_open(want) or is_open(dim):
                dims.append(dim if is_open(want) else want)
                continue
            equal = _equal(dim, want, expected.span, self._sink)
            if isinstance(equal, bool):
                if not equal:
                    self._sink.add(wrong)
                dims.append(dim)
                continue
            needs.append(Need(equal, dim, want, wrong.code, wrong.span, lambda: wrong))
            dims.append(want)  # it is so for all sizes that are valid
        if needs:
            self.needs.append(tuple(needs))
        after = VectorType(*dims) if kind is VectorType else ImageType(*dims)
        return got if after == got.type else Tensor(got.path, after)

    def _hold(
        self,
        claims: Iterable[Claim],
        call: tree.LayerCall | tree.Merge,
        bound: Bound,
        context: Callable[[Claim], Context],
        last: int,
    ) -> list[Claim]:
        """Report the claims that fail, each mistake once, and give them; keep what is to be shown.

        `last` is the index of the channels among the dims that claims are about.
        """
        needs: list[Need] = []
        failed: list[Claim] = []
        for claim in claims:
            if failed and depends(claim, failed, last):
                continue
            found = examine(claim, call, bound, context, self._sink)
            if isinstance(found, Need):
                needs.append(found)
            elif not found:
                failed.append(claim)
                self.is_for_no_size |= bool(claim.left.symbols | claim.right.symbols)
        if not failed:
            for code in dict.fromkeys(need.code for need in needs):
                self.needs.append(tuple(n for n in needs if n.code == code))
        return failed

    def _origin(self, claim: Claim, call: tree.LayerCall, x: Tensor, place: Place) -> Context:
        """Where the dim that a claim is about has its value from.

        The calls are told here, too, for a claim on free sizes is reported when the walk is over.
        """
        if claim.about is None:
            return Context(place.labels())
        origin = self._seen_from(place, call.head.source)
        fixes: tuple[Fix, ...] = ()
        if claim.code == "E301" and claim.left.constant is not None:
            fixes = (origin.more_room(x, claim.about),)
        labels = (*place.labels(), *origin.last_change(x, claim.about))
        return Context(labels, origin.story(x, claim.about), fixes)

    def _seen_from(self, place: Place, source: Source) -> "Origin":
        from cnndsl.check.origin import Origin  # noqa: PLC0415 (most files have no mistakes)

        return Origin(self._by_path, place, source)

    def _ends(
        self,
        claim: Claim,
        call: tree.Merge,
        tensors: Sequence[Tensor],
        types: Sequence[TensorType],
        place: Place,
    ) -> Context:
        """Where each branch ends, with which shape, and how it got there."""
        pairs = zip(tensors, types, strict=True)
        branches = [tensor.replace(type=type_) for tensor, type_ in pairs]
        nodes = [(self._by_path.get(branch.path), branch) for branch in branches]
        origin = self._seen_from(place, call.head.source)
        labels = tuple(
            Label(origin.span(node), f"this one is {show(branch.type)}")
            for node, branch in nodes
            if node and not all(is_open(dim) for dim in branch.type.dims)
        )
        notes: tuple[str, ...] = ()
        if claim.about is not None and claim.between is not None:
            for index in claim.between:
                end = branches[index]
                notes += origin.story(end, claim.about, f"`{end.path}`'s")
        fixes: tuple[Fix, ...] = ()
        if claim.about in (0, 1):
            from cnndsl.check.crop import resized  # noqa: PLC0415 (most files have no mistakes)

            fixes = resized(call, branches, self._by_path, place)
        return Context((*place.labels(), *labels), notes, fixes)

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
        node = Node(path, layer, inputs, arrives, after, call.head, labelled, place.calls)
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


def _arguments(claims: Iterable[Claim]) -> set[str]:
    """The arguments that are at fault."""
    return {claim.argument for claim in claims if claim.argument is not None}


def _equal(dim: Dim, want: Dim, expected: Span, sink: Sink) -> "bool | Condition":
    """Whether an asserted size is the computed one; True where a problem with that is reported."""
    try:
        equal = compare(dim, "==", want, expected)
    except Problem as problem:
        sink.add(problem.diagnostic)
        return True
    if isinstance(equal, bool):
        return equal
    return False if equal.never else True if equal.holds else equal


def _counts(layer: Layer) -> Iterator[Claim]:
    """Counts that depend on symbols are as large as their kind says for every value of these."""
    for name, slot in layer.slots.items():
        value = getattr(layer, name)
        if isinstance(slot.kind, Count) and isinstance(value, Dim) and value.constant is None:
            least = slot.kind.least
            message = f"`{name}` of `{layer.kind}` is {value.pretty()}, and takes {slot.kind.what}"
            yield Claim(value, ">=", Dim.of(least), "E207", message, name)


class TooManyLayers(Exception):
    """The network outgrew `MAX_LAYERS`."""


def _is_read(node: Node) -> bool:
    """Whether what arrives is known and of a kind that the layer takes."""
    return is_known(node.arrives) and isinstance(node.arrives, node.layer.accepts)
