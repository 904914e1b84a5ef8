"""Statements that say something of the network as a whole: its name, its input, its promises."""

from collections.abc import Mapping
from typing import cast

from cnndsl.check.conditions import Promise
from cnndsl.check.evaluate import Evaluator, describe, is_condition, names_in
from cnndsl.check.network import Network
from cnndsl.check.places import Tensor
from cnndsl.check.scope import OWN_SIZES, Scope
from cnndsl.check.suggest import nearest
from cnndsl.diagnostics.model import Diagnostic, Edit, Fix, Label, Sink
from cnndsl.graph.graph import INPUT
from cnndsl.layers.arguments import Value
from cnndsl.layers.types import NO_INPUT, ImageType, TensorType, Unknown, VectorType
from cnndsl.sizes.dim import Dim
from cnndsl.source import Span
from cnndsl.syntax import tree


class Declarations:
    """What a file says of its network beside the layers."""

    def __init__(self, settings: Mapping[str, Value], network: Network, sink: Sink) -> None:
        """`settings` stand in for params and free sizes of the input."""
        self._settings, self._unused = settings, dict.fromkeys(settings)
        self._network, self._sink = network, sink
        self.model: tree.Model | None = None
        self.input: tree.Input | None = None
        self.source: TensorType = NO_INPUT
        self.classes: tree.Labels | None = None
        self.promises: list[Promise] = []
        self._params: list[str] = []

    @property
    def takes_bytes(self) -> bool:
        """Whether images come as bytes."""
        return self.input is not None and self.input.is_bytes

    @property
    def symbols(self) -> tuple[str, ...]:
        """All that is free: sizes of the input, then params without a value."""
        return (*self._network.size_symbols, *self._params)

    # ── statements that stand once ───────────────────────────────────────────────────────────────

    def take_model(self, statement: tree.Model) -> None:
        """`model NAME`."""
        if self.model is not None:
            self._twice("model", statement.span, self.model.span)
        self.model = self.model or statement

    def take_labels(self, statement: tree.Labels) -> None:
        """`labels "a" "b"`."""
        if self.classes is not None:
            self._twice("labels", statement.span, self.classes.span)
        self.classes = self.classes or statement

    def take_input(self, statement: tree.Input, scope: Scope) -> Tensor | None:
        """`input H x W x C`, perhaps `u8`: the first current tensor."""
        if self.input is not None:
            self._twice("input", statement.span, self.input.span)
            return None
        self.input = statement
        dims = [self._input_dim(expression, scope) for expression in statement.shape.dims]
        known = [dim if dim is not None else self._network.unknowns.dim() for dim in dims]
        if None in dims:
            self._network.is_doubtful = True
        if len(dims) == 2 or len(dims) > 3:
            self._wrong_rank(statement.shape, len(dims))
            self.source = self._network.lost()
        else:
            self.source = VectorType(known[0]) if len(known) == 1 else ImageType(*known)
            if statement.is_bytes and known[-1].constant is None and dims[-1] is not None:
                self._report(
                    "E206",
                    f"bytes need a number of channels, not `{known[-1]}`: each channel has a mean "
                    "and a deviation of its own",
                    statement.shape.dims[-1].span,
                    fixes=(Fix("write the number, such as 3 for colour images"),),
                )
        return Tensor(INPUT, self.source)

    def _wrong_rank(self, shape: tree.Shape, count: int) -> None:
        text = shape.span.text
        fixes = tuple(
            Fix(f"for {what}: `input {text} x {n}`", (Edit(shape.span, f"{text} x {n}"),))
            for what, n in (("grey images", 1), ("colour images", 3))
        )
        if count > 3:
            fixes = (Fix("leave out the batch: it is never written"),)
        self._report(
            "E214",
            "an image has a height, a width and channels; "
            f"this has {'only two' if count == 2 else count} sizes",
            shape.span,
            fixes=fixes,
        )

    def _input_dim(self, expression: tree.Expression, scope: Scope) -> Dim | None:
        if isinstance(expression, tree.Reference) and expression.name not in scope:
            value = self._setting(expression.name)
            if value is None:
                value = Dim.symbol(expression.name)
                self._network.size_symbols.append(expression.name)
            scope.put(expression.name, value)
        else:
            value = Evaluator(scope, self._sink).value(expression)
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

    # ── values ───────────────────────────────────────────────────────────────────────────────────

    def define(self, statement: tree.Param | tree.Let, scope: Scope) -> None:
        """`param NAME = EXPR`, `let NAME = EXPR`."""
        name, span = statement.name.text, statement.name.span
        if scope.has_own(name):
            self._report(
                "E208",
                f"`{name}` has a value already",
                span,
                fixes=(Fix("choose another name"),),
            )
            return
        if isinstance(statement, tree.Param):
            setting = self._setting(name)
            if setting is not None:
                scope.put(name, setting)
                return
            if statement.value is None:
                scope.put(name, Dim.symbol(name))
                self._params.append(name)
                return
        value = Evaluator(scope, self._sink).value(cast("tree.Expression", statement.value))
        scope.put(name, None if is_condition(value) else value)
        if is_condition(value):
            message = "whether this holds depends on free sizes, so it is no value"
            self._report("E206", message, statement.span)

    def _setting(self, name: str) -> Value | None:
        self._unused.pop(name, None)
        return self._settings.get(name)

    # ── conditions ───────────────────────────────────────────────────────────────────────────────

    def require(self, expression: tree.Expression, scope: Scope) -> None:
        """One condition of a `require`."""
        condition = Evaluator(scope, self._sink).condition(expression)
        if condition is None or condition is True:
            return
        if condition is False:
            self._report("E403", "this is required, but it is not so", expression.span)
            return
        self.promises.append(Promise(condition, expression.span))

    def expect(self, expression: tree.Expression, scope: Scope, current: Tensor) -> None:
        """One condition of an `expect`, on what stands above it."""
        known = Scope(scope)
        known.see(current.type)
        for name, value in self._counted().items():
            known.put(name, value)
        condition = Evaluator(known, self._sink).condition(expression)
        if condition is None or condition is True:
            return
        if condition is not False and condition.holds:
            return
        values = (f"{n} is {_plain(known[n])}" for n in names_in(expression) if n in known)
        message = "this is expected, but it is not so"
        self._report("E311", message, expression.span, notes=tuple(values))

    def _counted(self) -> dict[str, Value | None]:
        """What can be expected beside names; None for what a mistake leaves open."""
        if self._network.is_doubtful:
            return dict.fromkeys(("params", "macs", "training_bytes", "receptive_field"))
        tally = self._network.tally
        tally.take(self.source, self._network.nodes)
        counted = tally.totals(self.source, self.takes_bytes)
        found: dict[str, Value | None] = {"params": counted.params, "macs": counted.macs}
        found["training_bytes"] = counted.training_bytes
        if counted.receptive_field is not None:
            found["receptive_field"] = counted.receptive_field.size[0]
        return found

    # ── at the end ───────────────────────────────────────────────────────────────────────────────

    def finish(self, start: Span, scope: Scope, current: Tensor) -> None:
        """Report what is missing, and what was set but is not there."""
        for name in self._unused:
            near = nearest(name, (n for n in scope if n not in OWN_SIZES))
            self._report(
                "E213",
                f"`{name}` is set, but the file has no param or input size of that name",
                start,
                fixes=(Fix(f"did you mean `{near}`?"),) if near else (),
            )
        if self.input is not None and not self._network.nodes and not self._sink.failed:
            self._report(
                "E209",
                "there are no layers below the `input`",
                self.input.span,
                fixes=(Fix("add one, for example `conv 6 5x5`"),),
            )
        if self.classes is None:
            return
        type_, given = current.type, len(self.classes.names)
        outputs = type_.channels if isinstance(type_, Unknown) else type_.dims[-1]
        if outputs.constant not in (None, given):
            self._report(
                "E215",
                f"there are {given} labels for {outputs} outputs",
                self.classes.span,
                fixes=(Fix("give each output of the last layer one label"),),
            )

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


def _plain(value: Value) -> str:
    if isinstance(value, Dim) and value.constant is not None:
        return f"{value.constant:,}"
    return value.pretty() if isinstance(value, Dim) else describe(value)
