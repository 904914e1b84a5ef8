"""A call in a file made into a layer: each argument in its slot, each mistake at its place."""

from typing import Any

from cnndsl.check.evaluate import Evaluator, describe, is_condition
from cnndsl.check.suggest import nearest
from cnndsl.diagnostics.model import Diagnostic, Edit, Fix, Label, Sink
from cnndsl.layers.arguments import Refusal, Value
from cnndsl.layers.base import Layer, Slot
from cnndsl.record import Record
from cnndsl.source import Span
from cnndsl.syntax import tree


class Bound(Record):
    """A layer and the places of its arguments, for messages about them."""

    layer: Layer
    places: dict[str, Span]


class _Refused(Record):
    """An argument whose value does not suit its slot."""

    name: str
    slot: Slot
    span: Span
    value: Value


def bind(call: tree.LayerCall, form: type[Layer], evaluator: Evaluator, sink: Sink) -> Bound | None:
    """The layer that `call` means, or None after reporting why there is none."""
    return _Binding(call, form, evaluator, sink).bind()


class _Binding:
    """One call on its way into a layer."""

    def __init__(
        self, call: tree.LayerCall, form: type[Layer], evaluator: Evaluator, sink: Sink
    ) -> None:
        self.call, self.form, self.evaluator, self.sink = call, form, evaluator, sink
        self.values: dict[str, Any] = {}
        self.places: dict[str, Span] = {}
        self.good = True

    def bind(self) -> Bound | None:
        positional: list[tree.Positional] = []
        for argument in self.call.arguments:
            match argument:
                case tree.Positional():
                    positional.append(argument)
                case tree.Keyword():
                    self._keyword(argument)
                case tree.To() | tree.Like():
                    word = "to" if isinstance(argument, tree.To) else "like"
                    self._report(
                        "E203",
                        f"`{self.form.kind}` takes no `{word}`",
                        argument.span,
                        fixes=(Fix("remove it", (Edit(argument.span, ""),)),),
                    )
        self._positional(positional)
        return Bound(self.form(**self.values), self.places) if self.good else None

    def _positional(self, given: list[tree.Positional]) -> None:
        """Arguments by their place, in the order of the required slots.

        Where one is missing, the values say which: `pool 2` gives a size and no function.
        """
        required = [
            (n, s) for n, s in self.form.slots.items() if s.required and n not in self.values
        ]
        missing = len(required) - len(given)
        for name, slot in required:
            if not given:
                self._missing(name, slot, None)
                continue
            argument = given[0]
            value = self._value(argument.value, name, slot)
            if value is None:
                given.pop(0)
                self.good = False
                continue
            try:
                self.values[name] = slot.kind.read(value)
                self.places[name] = argument.span
                given.pop(0)
            except Refusal:
                if missing > 0 and self._fits_later(name, value):
                    missing -= 1
                    self._missing(name, slot, argument.span)
                else:
                    given.pop(0)
                    self._refused(_Refused(name, slot, argument.span, value))
        self._too_many(given)

    def _fits_later(self, name: str, value: Value) -> bool:
        later = list(self.form.slots)[list(self.form.slots).index(name) + 1 :]
        for slot in (self.form.slots[n] for n in later if self.form.slots[n].required):
            try:
                slot.kind.read(value)
            except Refusal:
                continue
            return True
        return False

    def _keyword(self, argument: tree.Keyword) -> None:
        name, slots = argument.name.text, self.form.slots
        slot = slots.get(name)
        if slot is None:
            self._unknown(argument)
            return
        if slot.required:
            self._report(
                "E204",
                f"`{name}` is given by its place: `{self.form.examples[0]}`",
                argument.span,
                fixes=(
                    Fix("write its value alone", (Edit(argument.span, argument.value.span.text),)),
                ),
            )
            self.values[name] = None
            return
        if name in self.places:
            self._report(
                "E205",
                f"`{name}` is given twice",
                argument.span,
                labels=(Label(self.places[name], "first here"),),
                fixes=(Fix("remove one of them", (Edit(argument.span, ""),)),),
            )
            return
        self.places[name] = argument.span
        value = self._value(argument.value, name, slot)
        if value is None:
            self.good = False
            return
        try:
            self.values[name] = slot.kind.read(value)
        except Refusal:
            self._refused(_Refused(name, slot, argument.value.span, value))

    def _value(self, expression: tree.Expression, name: str, slot: Slot) -> Value | None:
        """The argument's value; a bare word that the slot understands stands for itself."""
        if isinstance(expression, tree.Reference) and expression.name in slot.kind.words:
            return expression.name
        if isinstance(expression, tree.Reference) and not self.evaluator.knows(expression.name):
            word = expression.name
            near = slot.kind.meant.get(word) or nearest(word, slot.kind.words)
            if near is not None or slot.kind.meant:
                self._report(
                    "E206",
                    f"`{name}` of `{self.form.kind}` takes {slot.kind.what}, not `{word}`",
                    expression.span,
                    fixes=(Fix(f"did you mean `{near}`?", (Edit(expression.span, near),)),)
                    if near
                    else (),
                )
                return None
        value = self.evaluator.value(expression)
        if value is None:
            return None
        if is_condition(value):
            self._report("E206", "a condition cannot be an argument", expression.span)
            return None
        return value

    # ── reports ──────────────────────────────────────────────────────────────────────────────────

    def _missing(self, name: str, slot: Slot, before: Span | None) -> None:
        place = before.before() if before is not None else self.call.head.after()
        fixes: list[Fix] = []
        for word in slot.kind.words:
            text = f"{word} " if before is not None else f" {word}"
            fixes.append(Fix(f"write `{self.form.kind} {word} …`", (Edit(place, text),)))
        what = slot.kind.what if slot.kind.words else f"its {name}: {slot.kind.what}"
        fixes.append(Fix(f"for example `{self.form.examples[0]}`"))
        self._report("E202", f"`{self.form.kind}` needs {what}", self.call.head, fixes=tuple(fixes))

    def _too_many(self, extra: list[tree.Positional]) -> None:
        if not extra:
            return
        span = extra[0].span.to(extra[-1].span)
        optional = [n for n, s in self.form.slots.items() if not s.required]
        fixes = [Fix("remove it" if len(extra) == 1 else "remove them", (Edit(span, ""),))]
        if optional:
            named = f"`{optional[0]}={extra[0].value.span.text}`"
            fixes.insert(0, Fix(f"name it if it is an option, such as {named}"))
        takes = len(self.form.slots) - len(optional)
        count = {0: "no value", 1: "one value"}.get(takes, f"{takes} values")
        self._report(
            "E203",
            f"`{self.form.kind}` takes {count} by place; this is one too many"
            if len(extra) == 1
            else f"`{self.form.kind}` takes {count} by place; these are too many",
            span,
            fixes=tuple(fixes),
        )

    def _unknown(self, argument: tree.Keyword) -> None:
        optional = [n for n, s in self.form.slots.items() if not s.required]
        near = nearest(argument.name.text, [*optional, *_OTHER_ARGUMENTS])
        near = _OTHER_ARGUMENTS.get(argument.name.text, _OTHER_ARGUMENTS.get(near or "", near))
        fixes: list[Fix] = []
        if near in optional:
            fixes.append(Fix(f"did you mean `{near}`?", (Edit(argument.name.span, near),)))
        if optional:
            fixes.append(Fix("it takes " + ", ".join(f"`{name}=`" for name in optional)))
        else:
            fixes.append(Fix("it takes no options: remove it", (Edit(argument.span, ""),)))
        self._report(
            "E204",
            f"`{self.form.kind}` has no option `{argument.name.text}`",
            argument.name.span,
            fixes=tuple(fixes),
        )

    def _refused(self, refused: _Refused) -> None:
        default = refused.slot.default
        fixes: tuple[Fix, ...] = ()
        if not refused.slot.required and default is not None:
            usual = refused.slot.kind.write(default)
            fixes = (Fix(f"the usual value is `{usual}`", (Edit(refused.span, usual),)),)
        self._report(
            "E206",
            f"`{refused.name}` of `{self.form.kind}` takes {refused.slot.kind.what}, "
            f"not {describe(refused.value)}",
            refused.span,
            fixes=fixes,
        )

    def _report(
        self,
        code: str,
        message: str,
        span: Span,
        labels: tuple[Label, ...] = (),
        fixes: tuple[Fix, ...] = (),
    ) -> None:
        self.good = False
        self.sink.add(Diagnostic(code, message, span, "", labels, (), fixes))


# What people call these options elsewhere.
_OTHER_ARGUMENTS = {
    "padding": "pad",
    "strides": "stride",
    "step": "stride",
    "dilate": "dilation",
    "dilation_rate": "dilation",
    "group": "groups",
    "use_bias": "bias",
    "epsilon": "eps",
    "ceil_mode": "ceil",
    "rate": "p",
    "count_include_pad": "count_pad",
}
