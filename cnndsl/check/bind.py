"""A call in a file made into a layer: each argument in its slot, each mistake at its place."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType, ModuleType
from typing import Any

from cnndsl.check.evaluate import Evaluator, describe, is_condition
from cnndsl.check.places import Tensor
from cnndsl.check.recover import of_one_kind
from cnndsl.check.scope import Scope
from cnndsl.check.suggest import nearest
from cnndsl.diagnostics.model import Diagnostic, Edit, Fix, Label, Sink
from cnndsl.layers.arguments import Count, Labelled, Refusal, Size, Value
from cnndsl.layers.base import REQUIRED, Layer, Slot
from cnndsl.layers.table import FORMS
from cnndsl.record import Record
from cnndsl.source import Span
from cnndsl.syntax import tree


class Bound(Record):
    """A layer, the places of its arguments for messages about them, and what else it reads."""

    layer: Layer
    places: Mapping[str, Span]
    others: tuple[Tensor, ...] = ()
    defaults: frozenset[str] = frozenset()  # the options that `default` lines give to its kind


class Unsolved(Record):
    """A layer with holes: what is known of its arguments, and the places of those to be found."""

    form: type[Layer]
    known: Mapping[str, Any]
    places: Mapping[str, Span]
    holes: tuple[str, ...]
    others: tuple[Tensor, ...]
    defaults: frozenset[str] = frozenset()


class Failed(Record):
    """A layer with mistakes in its arguments: those that are known, and those that may be any."""

    form: type[Layer]
    known: Mapping[str, Any]
    places: Mapping[str, Span]
    doubtful: tuple[str, ...]
    others: tuple[Tensor, ...] = ()
    defaults: frozenset[str] = frozenset()


class _Refused(Record):
    """An argument whose value does not suit its slot."""

    name: str
    slot: Slot
    span: Span
    value: Value


class _Hole(Record):
    """The value of an argument that is to be found."""


def bind(
    call: tree.LayerCall,
    scope: Scope,
    find: Callable[[tree.Name], Tensor | None],
    sink: Sink,
) -> Bound | Unsolved | Failed:
    """The layer that `call` means; what is known of it after reporting why there is none.

    `find` gives the tensor with a label, or reports that there is none.
    """
    ways = {type(a).__name__.lower() for a in call.arguments if isinstance(a, (tree.To, tree.Like))}
    forms = FORMS[call.name.text]
    for form in forms:
        if {slot.way for slot in form.slots.values()} & {"to", "like"} == ways:
            return _Binding(call, form, scope, find, sink).bind()
    return _Binding(call, forms[0], scope, find, sink).bind()


class _Binding:
    """One call on its way into a layer."""

    def __init__(
        self,
        call: tree.LayerCall,
        form: type[Layer],
        scope: Scope,
        find: Callable[[tree.Name], Tensor | None],
        sink: Sink,
    ) -> None:
        self.call, self.form, self.sink = call, form, sink
        self.scope, self.find = scope, find
        self.values: dict[str, Any] = {}
        self.places: dict[str, Span] = {}
        self.holes: list[str] = []
        self.others: list[Tensor] = []
        self.good = True
        self.doubtful: set[str] = set()
        self.may_give_more = False  # an argument that was not understood may be any other

    def bind(self) -> Bound | Unsolved | Failed:
        positional: list[tree.Positional] = []
        for argument in self.call.arguments:
            match argument:
                case tree.Positional():
                    positional.append(argument)
                case tree.Keyword():
                    self._keyword(argument, self.scope)
                case tree.To() | tree.Like():
                    self._behind_word(argument)
        if len(positional) == 2 and not self._are_in_order(*positional):
            swapped = _habits().swapped(self.call, self.form, positional, self.values)
            if swapped:
                self._add(swapped)
                positional.reverse()
        self._positional(positional)
        defaults = self.scope.defaults(self.form.kind)
        for name, default in defaults.items():
            if name not in self.places and name in self.form.slots:
                self._keyword(default.argument, default.scope)
        places, others = MappingProxyType(self.places), tuple(self.others)
        values = MappingProxyType(self.values)
        doubtful = () if self.good and not self.scope.doubts_defaults else self._doubtful()
        if not self.good or doubtful:
            return Failed(self.form, values, places, doubtful, others, frozenset(defaults))
        if self.holes:
            holes = tuple(name for name in self.form.slots if name in self.holes)
            return Unsolved(self.form, values, places, holes, others, frozenset(defaults))
        return Bound(self.form(**self.values), places, others, frozenset(defaults))

    def _doubtful(self) -> tuple[str, ...]:
        """The arguments of which a mistake, here or in a `default`, leaves the value open."""
        slots = self.form.slots
        open_ = {
            name
            for name, slot in slots.items()
            if slot.by_name and self.scope.doubts_default(self.form.kind, name)
        }
        if not self.good:
            open_ |= {n for n, s in slots.items() if s.default is REQUIRED or self.may_give_more}
        open_ = self.doubtful | (open_ - self.values.keys() - set(self.holes))
        if open_:
            open_.update(self.holes)
        return tuple(name for name in slots if name in open_)

    def _behind_word(self, argument: tree.To | tree.Like) -> None:
        """`to 7x7`, `like enc4`."""
        word = "to" if isinstance(argument, tree.To) else "like"
        slots = [(n, s) for n, s in self.form.slots.items() if s.way == word]
        if not slots or slots[0][0] in self.places:
            self._report(
                "E203",
                f"`{self.form.kind}` takes no `{word}`",
                argument.span,
                fixes=(Fix("remove it"),),  # an edit would change the network: see `_too_many`
            )
            self.may_give_more = True
            return
        (name, slot), *_ = slots
        self.places[name] = argument.span
        if isinstance(argument, tree.To):
            self._take(name, slot, argument.value, self.scope)
            return
        tensor = self.find(argument.label)
        if tensor is None:
            self.good = False
            self.doubtful.add(name)
            return
        self.others.append(tensor)
        image = of_one_kind((tensor.type,))[0]
        self.values[name] = Labelled(argument.label.text, image)

    def _positional(self, given: list[tree.Positional]) -> None:
        """Arguments by their place, in the order of the slots.

        Where one is missing, the values say which: `pool 2` gives a size and no function.
        """
        slots = [
            (name, slot)
            for name, slot in self.form.slots.items()
            if slot.by_place and name not in self.values and name not in self.places
        ]
        lacking = sum(slot.required for _, slot in slots) - len(given)
        missing: list[tuple[str, Slot]] = []
        before: Span | None = None  # the argument in front of which the missing one belongs
        for name, slot in slots:
            if not given:
                missing += [(name, slot)] if slot.required else []
                continue
            argument = given[0]
            value = self._value(argument.value, name, slot, self.scope)
            if lacking > 0 and value is not None and self._belongs_later(name, slot, value):
                lacking -= 1
                missing.append((name, slot))
                before = argument.span
                continue
            given.pop(0)
            self.places[name] = argument.span
            self._put(name, slot, value, argument.span)
        self._missing(missing, before)
        self._too_many(given)

    def _belongs_later(self, name: str, slot: Slot, value: "Value | _Hole") -> bool:
        """Whether a value does not suit this slot, but one of those behind it."""
        if isinstance(value, _Hole) or _suits(slot, value):
            return False
        names = list(self.form.slots)
        later = [self.form.slots[n] for n in names[names.index(name) + 1 :]]
        return any(_suits(other, value) for other in later if other.required)

    def _keyword(self, argument: tree.Keyword, scope: Scope) -> None:
        name = argument.name.text
        slot = self.form.slots.get(name)
        if slot is None or slot.way in ("to", "like"):
            self._unknown(argument)
        elif slot.way == "place":
            message = f"`{name}` is given by its place: `{self.form.examples[0]}`"
            fix = _habits().all_by_place(self.call, self.form)
            self._report("E204", message, argument.span, fixes=(fix,))
            self._take(name, slot, argument.value, scope)
        elif name in self.places:
            self.doubtful.add(name)
            self._report(
                "E205",
                f"`{name}` is given twice",
                argument.span,
                labels=(Label(self.places[name], "first here"),),
                fixes=(Fix("remove one of them", (Edit(argument.span, ""),)),),
            )
        else:
            self.places[name] = argument.span
            self._take(name, slot, argument.value, scope)

    def _take(self, name: str, slot: Slot, expression: tree.Expression, scope: Scope) -> None:
        self._put(name, slot, self._value(expression, name, slot, scope), expression.span)

    def _put(self, name: str, slot: Slot, value: "Value | _Hole | None", span: Span) -> None:
        """Give an argument its value, or report that it does not suit."""
        if value is None:
            self.good = False
            self.doubtful.add(name)
        elif isinstance(value, _Hole):
            self.holes.append(name)
        else:
            try:
                self.values[name] = slot.kind.read(value)
            except Refusal as refusal:
                self.doubtful.add(name)
                self._refused(_Refused(name, slot, span, value), str(refusal))

    def _value(
        self, expression: tree.Expression, name: str, slot: Slot, scope: Scope
    ) -> "Value | _Hole | None":
        """The argument's value; a bare word that the slot understands stands for itself."""
        if isinstance(expression, tree.Hole):
            return _Hole()
        if isinstance(slot.kind, Size) and isinstance(expression, tree.Binary):
            product = _habits().product(expression)
            if product:
                self._add(product)
                return None
        if isinstance(expression, tree.Reference) and expression.name in slot.kind.words:
            return expression.name
        if isinstance(expression, tree.Reference) and expression.name not in scope:
            word = expression.name
            near = slot.kind.meant.get(word) or nearest(word, slot.kind.words)
            if (near or slot.kind.meant or slot.kind.words) and not scope.is_mistaken(word):
                self._report(
                    "E206",
                    f"`{name}` of `{self.form.kind}` takes {slot.kind.what}, not `{word}`",
                    expression.span,
                    fixes=(Fix(f"did you mean `{near}`?", (Edit(expression.span, near),)),)
                    if near
                    else (),
                )
                return None
        value = Evaluator(scope, self.sink).value(expression)
        if is_condition(value):
            self._report("E206", "a condition cannot be an argument", expression.span)
            return None
        return value

    def _are_in_order(self, first: tree.Positional, second: tree.Positional) -> bool:
        """Whether two arguments are surely in their places: `6 5x5`, `max 2`."""
        match first.value, second.value:
            case tree.Size(), _:
                return False
            case (_, tree.Size()) | (tree.Integer(), tree.Integer()):
                return True
            case tree.Reference(name), tree.Integer():
                slots = self.form.slots.values()
                return any(name in slot.kind.words for slot in list(slots)[:1])
            case _:
                return False

    # ── reports ──────────────────────────────────────────────────────────────────────────────────

    def _missing(self, slots: list[tuple[str, Slot]], before: Span | None) -> None:
        """Report all that is missing, at once; `before` is where the first of it belongs."""
        if not slots:
            return
        self.doubtful.update(name for name, _ in slots)
        place = before.before() if before is not None else self.call.head.after()
        fixes: list[Fix] = []
        example = self.form.examples[0]
        words = slots[0][1].kind.words if len(slots) == 1 else ()
        # What the example has is what people usually mean.
        for word in sorted(words, key=lambda word: word not in example.split()):
            if before is not None:
                text, result = f"{word} ", f"{self.form.kind} {word} …"
            else:
                text, result = f" {word}", f"{self.call.head.text} {word}"
            fixes.append(Fix(f"write `{result}`", (Edit(place, text),)))
        if not any(f"`{example}`" in fix.message for fix in fixes):
            fixes.append(Fix(f"for example `{example}`"))
        message = f"`{self.form.kind}` needs {', and '.join(_needed(slots))}"
        self._report("E202", message, self.call.head, fixes=tuple(fixes))

    def _too_many(self, extra: list[tree.Positional]) -> None:
        if not extra:
            return
        self.may_give_more = True
        span = extra[0].span.to(extra[-1].span)
        # Removing them would mend the message and change the network, so no edit does that.
        fixes = [Fix("remove it" if len(extra) == 1 else "remove them")]
        options = [n for n, s in self.form.slots.items() if s.by_name]
        first = extra[0].value
        if elsewhere := _habits().meant_elsewhere(self.call, self.form, extra):
            self._add(elsewhere)
            return
        if isinstance(first, tree.Reference) and first.name in options and len(extra) == 2:
            text = f"{first.name}={extra[1].value.span.text}"
            fixes = [Fix(f"an option has an equals sign: `{text}`", (Edit(span, text),))]
        elif options:
            named = f"`{options[0]}={first.span.text}`"
            fixes.insert(0, Fix(f"name it if it is an option, such as {named}"))
        takes = sum(slot.by_place for slot in self.form.slots.values())
        count = {0: "no value", 1: "one value"}.get(takes, f"{takes} values")
        these = "this is one too many" if len(extra) == 1 else "these are too many"
        message = f"`{self.form.kind}` takes {count} by place; {these}"
        self._report("E203", message, span, fixes=tuple(fixes))

    def _unknown(self, argument: tree.Keyword) -> None:
        self.may_give_more = True
        optional = [n for n, s in self.form.slots.items() if s.by_name]
        word = argument.name.text
        if activation := _habits().activation(self.call, argument):
            self._add(activation)
            return
        from cnndsl.syntax.foreign.words import OPTIONS  # noqa: PLC0415 (most files have no mistakes)

        near = OPTIONS.get(word)
        if near is None and not self.sink.is_full:
            near = nearest(word, [*optional, *OPTIONS])
        if near is not None and near not in self.form.slots:
            near = OPTIONS.get(near, near)
        fixes: list[Fix] = []
        if near in optional:
            edits = [Edit(argument.name.span, near)]
            slot = self.form.slots[near]
            if meant := slot.kind.meant.get(argument.value.span.text.strip('"')):
                edits.append(Edit(argument.value.span, meant))
            fixes.append(Fix(f"did you mean `{near}`?", tuple(edits)))
        elif near in self.form.slots and OPTIONS.get(word) == near:
            fixes.append(_habits().all_by_place(self.call, self.form))
            self._take(near, self.form.slots[near], argument.value, self.scope)
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

    def _refused(self, refused: _Refused, takes: str) -> None:
        default = refused.slot.default
        fixes: tuple[Fix, ...] = ()
        meant = refused.slot.kind.meant.get(refused.value) if isinstance(refused.value, str) else ""
        if meant:
            fixes = (Fix(f"did you mean `{meant}`?", (Edit(refused.span, meant),)),)
        elif flag := _habits().as_flag(refused.slot.kind, refused.value):
            fixes = (Fix(f"did you mean `{flag}`?", (Edit(refused.span, flag),)),)
        elif count := _habits().as_count(refused.slot.kind, refused.value):
            fixes = (Fix(f"write `{count}`", (Edit(refused.span, count),)),)
        elif part := _habits().as_part(refused.slot.kind, refused.value):
            fixes = (Fix(f"a part of 1: `{part}`", (Edit(refused.span, part),)),)
        elif not refused.slot.required and default is not None:
            usual = refused.slot.kind.write(default)
            # How many of something there are is for the user to say.
            edits = () if isinstance(refused.slot.kind, Count) else (Edit(refused.span, usual),)
            fixes = (Fix(f"the usual value is `{usual}`", edits),)
        self._report(
            "E206",
            f"`{refused.name}` of `{self.form.kind}` takes {takes}, not {describe(refused.value)}",
            refused.span,
            fixes=fixes,
        )

    def _add(self, found: Diagnostic) -> None:
        self.good = False
        self.sink.add(found)

    def _report(
        self,
        code: str,
        message: str,
        span: Span,
        labels: tuple[Label, ...] = (),
        fixes: tuple[Fix, ...] = (),
    ) -> None:
        self._add(Diagnostic(code, message, span, "", labels, (), fixes))


def _habits() -> ModuleType:
    """What people write in other places; most files have no mistakes, and do not load it."""
    from cnndsl.check import habits  # noqa: PLC0415

    return habits


def written(slot: Slot, name: str, text: str) -> str:
    """An argument as a file says it, by the way in which it is written."""
    match slot.way:
        case "place" | "either":
            return text
        case "name":
            return f"{name}={text}"
        case word:
            return f"{word} {text}"


def _suits(slot: Slot, value: Value) -> bool:
    try:
        slot.kind.read(value)
    except Refusal:
        return False
    return True


def _needed(slots: list[tuple[str, Slot]]) -> Iterator[str]:
    """What is missing, in words; arguments of one kind are listed together."""
    names: dict[str, list[str]] = {}
    for name, slot in slots:
        if slot.kind.words:  # the words say enough: `max or avg`
            yield slot.kind.what
        else:
            names.setdefault(slot.kind.what, []).append(name)
    for what, (first, *others) in names.items():
        if others:
            yield f"its {', '.join((first, *others[:-1]))} and {others[-1]}, each {what}"
        else:
            yield f"its {first}: {what}"
