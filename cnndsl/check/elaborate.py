"""From the tree to the graph: statements in order, each layer on the current tensor.

A mistake makes the tensor after it unknown, and unknown causes no further messages, so that one
run reports every independent mistake.
"""

from collections.abc import Mapping
from typing import cast

from cnndsl import sizes
from cnndsl.check.bind import Bound, bind
from cnndsl.check.claims import accepted, examine, mismatch, weights_are_fixed
from cnndsl.check.conditions import Judge, Need, Promise, Verdict
from cnndsl.check.evaluate import (
    Evaluator,
    Problem,
    compare,
    describe,
    is_condition,
    names_in,
    size_problem,
)
from cnndsl.check.scope import Scope
from cnndsl.check.suggest import OTHER_NAMES, nearest
from cnndsl.check.warnings import warn
from cnndsl.diagnostics.model import Diagnostic, Edit, Fix, Label, Sink
from cnndsl.graph.facts import facts, totals
from cnndsl.graph.graph import INPUT, Graph, Node
from cnndsl.layers.arguments import Value
from cnndsl.layers.base import Layer
from cnndsl.layers.table import BY_KIND
from cnndsl.layers.types import ImageType, TensorType, Unknown, VectorType, show, write
from cnndsl.sizes.dim import Dim
from cnndsl.source import Span
from cnndsl.syntax import tree

# Names that a tensor's own sizes have in every expression.
OWN_SIZES = ("height", "width", "channels")


class Elaborator:
    """Walks one file."""

    def __init__(self, file: tree.File, settings: Mapping[str, Value], sink: Sink) -> None:
        """`settings` stand in for params and symbols; what is wrong goes to `sink`."""
        self._file, self._sink = file, sink
        self._scope = Scope(settings)
        self._evaluator = Evaluator(self._scope, sink)
        self._model: tree.Model | None = None
        self._input: tree.Input | None = None
        self._source: TensorType = Unknown()
        self._current: TensorType = Unknown()
        self._at = INPUT
        self._nodes: list[Node] = []
        self._labels: dict[str, Span] = {}
        self._defined: set[str] = set()  # names of `param` and `let`
        self._counts: dict[str, int] = {}
        self._needs: list[tuple[Need, ...]] = []
        self._promises: list[Promise] = []
        self._classes: tree.Labels | None = None
        self._warned_no_input = False

    def graph(self) -> Graph:
        """The network; it is whole only if no error was reported."""
        for statement in self._file.statements:
            self._statement(statement)
        self._finish()
        verdict = self._judge()
        return Graph(
            self._model.name.text if self._model else _model_name(self._file.source.name),
            self._source,
            tuple(self._nodes),
            self._at,
            self._scope.symbols,
            verdict.valid,
            verdict.constraints,
            verdict.example,
            tuple(text.value for text in self._classes.names) if self._classes else (),
            self._input.span if self._input else None,
        )

    def _judge(self) -> Verdict:
        after_input = self._input.span.after() if self._input else self._start()
        judge = Judge(self._scope.symbols, tuple(self._promises), after_input, self._sink)
        try:
            return judge.verdict(tuple(self._needs))
        except sizes.SizeError as error:
            self._sink.add(size_problem(error, after_input))
            return Verdict("False", ())

    def _statement(self, statement: tree.Statement) -> None:
        match statement:
            case tree.LayerCall():
                self._layer(statement)
            case tree.Input():
                self._read_input(statement)
            case tree.Model():
                if self._model is not None:
                    self._twice("model", statement.span, self._model.span)
                self._model = self._model or statement
            case tree.Param() | tree.Let():
                self._define(statement)
            case tree.Require() | tree.Expect():
                take = self._require if isinstance(statement, tree.Require) else self._expect
                for condition in statement.conditions:
                    take(condition)
            case tree.Labels():
                if self._classes is not None:
                    self._twice("labels", statement.span, self._classes.span)
                self._classes = self._classes or statement
            case tree.Broken():
                self._current = Unknown()
                self._warned_no_input = True  # the statement may have been the input
            case _:
                self._unsupported(statement)

    def _unsupported(self, statement: tree.Statement) -> None:
        word = statement.span.text.split(maxsplit=1)[0]
        self._report(
            "E299",
            f"`{word}` is in the language, but this version of cnndsl does not check it yet",
            Span(statement.span.source, statement.span.start, statement.span.start + len(word)),
            fixes=(Fix("write the layers out one by one"),),
        )
        self._current = Unknown()

    # ── input, names, conditions ─────────────────────────────────────────────────────────────────

    def _read_input(self, statement: tree.Input) -> None:
        if self._input is not None:
            self._twice("input", statement.span, self._input.span)
            return
        self._input = statement
        dims = [self._input_dim(expression) for expression in statement.shape.dims]
        if len(dims) == 2:
            text = statement.shape.span.text
            self._report(
                "E214",
                "an image has a height, a width and channels; this has only two sizes",
                statement.shape.span,
                fixes=tuple(
                    Fix(
                        f"for {what}: `input {text} x {n}`",
                        (Edit(statement.shape.span, f"{text} x {n}"),),
                    )
                    for what, n in (("grey images", 1), ("colour images", 3))
                ),
            )
            return
        if len(dims) > 3:
            self._report(
                "E214",
                f"an image has a height, a width and channels; this has {len(dims)} sizes",
                statement.shape.span,
                fixes=(Fix("leave out the batch: it is never written"),),
            )
            return
        if any(dim is None for dim in dims):
            return
        known = cast("list[Dim]", dims)
        self._source = VectorType(known[0]) if len(known) == 1 else ImageType(*known)
        self._current = self._source

    def _input_dim(self, expression: tree.Expression) -> Dim | None:
        if isinstance(expression, tree.Reference) and expression.name not in self._scope:
            value: object = self._scope.size_symbol(expression.name)
        else:
            value = self._evaluator.value(expression)
        if value is None:
            return None
        if isinstance(value, Dim) and (value.constant is None or value.constant >= 1):
            return value
        self._report(
            "E207",
            f"a size of the input is a positive whole number, not {describe(value)}",
            expression.span,
        )
        return None

    def _define(self, statement: tree.Param | tree.Let) -> None:
        name, span = statement.name.text, statement.name.span
        if name in self._defined or name in self._scope.symbols:
            self._report(
                "E208",
                f"`{name}` has a value already",
                span,
                fixes=(Fix("choose another name"),),
            )
            return
        self._defined.add(name)
        setting = self._scope.setting(name) if isinstance(statement, tree.Param) else None
        if setting is not None:
            self._scope.put(name, setting)
        elif statement.value is None:
            self._scope.param_symbol(name)
        else:
            value = self._evaluator.value(statement.value)
            if value is not None and not is_condition(value):
                self._scope.put(name, value)

    def _require(self, expression: tree.Expression) -> None:
        condition = self._evaluator.condition(expression)
        if condition is None or condition is True:
            return
        if condition is False:
            self._report("E403", "this is required, but it is not so", expression.span)
            return
        self._promises.append(Promise(condition, expression.span))

    def _expect(self, expression: tree.Expression) -> None:
        if isinstance(self._current, Unknown) or self._sink.failed:
            return  # what is counted would be wrong
        graph = Graph("", self._source, tuple(self._nodes), self._at)
        counted = totals(graph, facts(graph))
        known: dict[str, Value] = dict(self._scope)
        known |= {"params": counted.params, "macs": counted.macs}
        known |= {"training_bytes": counted.training_bytes}
        if counted.receptive_field is not None:
            known["receptive_field"] = counted.receptive_field.size[0]
        if isinstance(self._current, ImageType):
            known |= dict(zip(OWN_SIZES, self._current.dims, strict=True))
        condition = Evaluator(known, self._sink).condition(expression)
        if condition is None or condition is True:
            return
        if condition is not False and condition.holds:
            return
        values = (f"{n} = {describe(known[n])}" for n in names_in(expression) if n in known)
        self._report("E311", "this is expected, but it is not so", expression.span, tuple(values))

    # ── layers ───────────────────────────────────────────────────────────────────────────────────

    def _layer(self, call: tree.LayerCall) -> None:
        if self._input is None and not self._warned_no_input:
            self._warned_no_input = True
            self._report(
                "E209",
                "there is no `input` above the first layer",
                call.head,
                fixes=(
                    Fix(
                        "say what comes in, for example `input 28 x 28 x 1`",
                        (Edit(call.span.before(), "input 28 x 28 x 1\n"),),
                    ),
                ),
            )
        before = self._current
        after: TensorType = Unknown()
        form = self._form(call)
        if form is not None:
            self._own_sizes(before)
            try:
                bound = bind(call, form, self._evaluator, self._sink)
                if bound is not None:
                    after = self._apply(call, bound, before)
            except sizes.SizeError as error:
                self._sink.add(size_problem(error, call.head))
        self._current = self._asserted(call, after)

    def _form(self, call: tree.LayerCall) -> type[Layer] | None:
        word = call.name.text
        if word in BY_KIND:
            return BY_KIND[word]
        meant = OTHER_NAMES.get(word.lower()) or nearest(word, (*BY_KIND, *OTHER_NAMES))
        meant = OTHER_NAMES.get(meant or "", meant)
        fixes: tuple[Fix, ...] = ()
        if meant is not None:
            fixes = (Fix(f"did you mean `{meant}`?", (Edit(call.name.span, meant),)),)
        else:
            fixes = (Fix("the layers are " + ", ".join(f"`{kind}`" for kind in BY_KIND)),)
        self._report("E201", f"there is no layer called `{word}`", call.name.span, fixes=fixes)
        return None

    def _own_sizes(self, current: TensorType) -> None:
        """Make `height`, `width` and `channels` those of the current tensor.

        A file that gives one of these names a value of its own keeps it.
        """
        dims = current.dims if isinstance(current, ImageType) else (None,) * len(OWN_SIZES)
        for name, dim in zip(OWN_SIZES, dims, strict=True):
            if name not in self._defined:
                self._scope.put(name, dim) if dim is not None else self._scope.drop(name)

    def _apply(self, call: tree.LayerCall, bound: Bound, before: TensorType) -> TensorType:
        """The output of a layer on `before`, after its claims were looked at."""
        layer, label = bound.layer, call.label
        path = self._path(layer, label)
        after: TensorType = Unknown()
        if not isinstance(before, Unknown) and accepted(layer, call, before, self._sink):
            good = self._claims_hold(call, bound, before)
            free = tuple(self._scope.sizes)
            if good and weights_are_fixed(layer, call, before, free, self._sink):
                after = layer.output(before)
                warn(layer, before, call, self._sink)
        node = Node(path, layer, (self._at,), before, after, call.span, label is not None)
        self._nodes.append(node)
        self._at = path
        return after

    def _claims_hold(self, call: tree.LayerCall, bound: Bound, before: TensorType) -> bool:
        needs: list[Need] = []
        for claim in bound.layer.requires(before):
            origin = self._origin(claim.about, before)
            found = examine(claim, call, bound, origin, self._sink)
            if isinstance(found, Need):
                needs.append(found)
            elif not found:
                return False  # a second message about the same numbers would say nothing new
        for code in dict.fromkeys(need.diagnostic.code for need in needs):
            self._needs.append(tuple(n for n in needs if n.diagnostic.code == code))
        return True

    def _origin(self, dim: int | None, current: TensorType) -> Label | None:
        """The layer that gave the current tensor's dim its value, if one did."""
        if dim is None:
            return None
        for node in reversed(self._nodes):
            arrived = node.arrives.dims
            if isinstance(node.output, Unknown) or len(arrived) != len(node.output.dims):
                return None
            if arrived[dim] != node.output.dims[dim]:
                return Label(node.span, f"the image is {show(current)} from here on")
        return None

    def _path(self, layer: Layer, label: tree.Name | None) -> str:
        """The label, or the kind and its count; reports a label that is taken."""
        count = self._counts[layer.kind] = self._counts.get(layer.kind, 0) + 1
        if label is None:
            while f"{layer.kind}{count}" in self._labels:
                count += 1
            path = f"{layer.kind}{count}"
            self._counts[layer.kind] = count
            return path
        if label.text in self._labels:
            self._report(
                "E208",
                f"the label `{label.text}` is taken",
                label.span,
                labels=(Label(self._labels[label.text], "here"),),
                fixes=(Fix("choose another label"),),
            )
        elif label.text == INPUT:
            self._report("E208", "`input` is the name of the network's input", label.span)
        self._labels.setdefault(label.text, label.span)
        return label.text

    def _asserted(self, call: tree.LayerCall, after: TensorType) -> TensorType:
        """The type after the line's assertion: after a mistake, the assertion is believed."""
        expected = call.expected
        if expected is None:
            return after
        dims = [self._evaluator.value(dim) for dim in expected.dims]
        if not all(isinstance(dim, Dim) for dim in dims):
            return after
        wanted = _type_of(cast("list[Dim]", dims))
        if isinstance(after, Unknown) or wanted is None:
            return after if wanted is None else wanted
        last = self._nodes[-1]
        formula = last.layer.formula(last.arrives)
        wrong = mismatch(expected, wanted, after, formula, write(after))
        if len(wanted.dims) != len(after.dims):
            self._sink.add(wrong)
            return after
        needs: list[Need] = []
        for want, got in zip(wanted.dims, after.dims, strict=True):
            try:
                equal = compare(got, "==", want, expected.span)
            except Problem as problem:
                self._sink.add(problem.diagnostic)
                return after
            if equal is False or (equal is not True and equal.never):
                self._sink.add(wrong)
                return after
            if equal is not True and not equal.holds:
                needs.append(Need(equal, wrong))
        if needs:
            self._needs.append(tuple(needs))
        return after

    # ── at the end ───────────────────────────────────────────────────────────────────────────────

    def _finish(self) -> None:
        for name in self._scope.unused_settings:
            self._report(
                "E213",
                f"`{name}` is set, but the file has no param or input size of that name",
                self._start(),
                fixes=_near(name, self._scope),
            )
        if self._input is None and not self._warned_no_input:
            self._report(
                "E209",
                "the file describes no network: it has no `input`",
                self._start(),
                fixes=(Fix("start with what comes in, for example `input 28 x 28 x 1`"),),
            )
        if self._input is not None and not self._nodes and not self._sink.failed:
            self._report(
                "E209",
                "there are no layers below the `input`",
                self._input.span,
                fixes=(Fix("add one, for example `conv 6 5x5`"),),
            )
        self._check_classes()

    def _check_classes(self) -> None:
        if self._classes is None or isinstance(self._current, Unknown):
            return
        outputs, given = self._current.dims[-1], len(self._classes.names)
        if outputs.constant not in (None, given):
            self._report(
                "E215",
                f"there are {given} labels for {outputs} outputs",
                self._classes.span,
                fixes=(Fix("give each output of the last layer one label"),),
            )

    def _start(self) -> Span:
        return self._file.source.span(0, 0)

    def _twice(self, what: str, span: Span, first: Span) -> None:
        self._report(
            "E210",
            f"there is a second `{what}`",
            span,
            labels=(Label(first, "the first is here"),),
            fixes=(Fix("remove one of them"),),
        )

    def _report(
        self,
        code: str,
        message: str,
        span: Span,
        notes: tuple[str, ...] = (),
        labels: tuple[Label, ...] = (),
        fixes: tuple[Fix, ...] = (),
    ) -> None:
        self._sink.add(Diagnostic(code, message, span, "", labels, notes, fixes))


def _type_of(dims: list[Dim]) -> TensorType | None:
    if len(dims) == 1:
        return VectorType(dims[0])
    return ImageType(*dims) if len(dims) == 3 else None


def _near(name: str, scope: Scope) -> tuple[Fix, ...]:
    near = nearest(name, scope)
    return (Fix(f"did you mean `{near}`?"),) if near else ()


def _model_name(file_name: str) -> str:
    """The name of a model whose file gives none: the file's, as an identifier."""
    stem = file_name.replace("\\", "/").rsplit("/", 1)[-1].split(".", 1)[0]
    cleaned = "".join(c if c.isascii() and c.isalnum() else "_" for c in stem).strip("_")
    return cleaned if cleaned and not cleaned[0].isdigit() else f"Model{cleaned}"
