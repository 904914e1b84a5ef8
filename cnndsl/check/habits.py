"""Arguments as other languages have them: swapped, by name, as products, or layers among them.

Each function looks at a call and gives what to report, or None where nothing of the kind is there.
"""

from collections.abc import Mapping, Sequence

from cnndsl.diagnostics.model import Diagnostic, Edit, Fix
from cnndsl.layers.arguments import Count, Flag, Kind, Number, Pair, Size, Value
from cnndsl.layers.base import Layer, Slot
from cnndsl.layers.table import BY_KIND
from cnndsl.sizes.dim import Dim
from cnndsl.source import Span
from cnndsl.syntax import tree

_COUNT_THEMSELVES = ("batchnorm", "prelu")  # layers that know their channels from the line above


def all_by_place(call: tree.LayerCall, form: type[Layer]) -> Fix:
    """The whole line with its arguments in their places, for those that were given by name."""
    from cnndsl.syntax.foreign.words import OPTIONS  # noqa: PLC0415 (most files have no mistakes)

    places = [name for name, slot in form.slots.items() if slot.way == "place"]
    given: dict[str, str] = {}
    alone: list[str] = []
    others: list[str] = []
    for argument in call.arguments:
        if isinstance(argument, tree.Positional):
            alone.append(argument.span.text)
            continue
        word = argument.name.text if isinstance(argument, tree.Keyword) else ""
        name = word if word in form.slots else OPTIONS.get(word, word)
        if isinstance(argument, tree.Keyword) and name in places and name not in given:
            given[name] = argument.value.span.text
        else:
            others.append(argument.span.text)
    free = [name for name in places if name not in given]
    given.update(zip(free, alone, strict=False))
    in_order = [given[name] for name in places if name in given]
    text = " ".join([call.name.text, *in_order, *alone[len(free) :], *others])
    return Fix(f"write `{text}`", (Edit(call.head, text),))


def swapped(
    call: tree.LayerCall,
    form: type[Layer],
    given: Sequence[tree.Positional],
    known: Mapping[str, object],
) -> Diagnostic | None:
    """Two arguments in each other's place, such as `pool 2 max` or `conv 5x5 6`."""
    if len(given) != 2:
        return None
    slots = [(n, slot) for n, slot in form.slots.items() if slot.required and n not in known]
    if len(slots) != 2:
        return None
    (first, one), (second, other) = slots
    values = given[0].value, given[1].value
    if not (_may_be(other, values[0]) and _may_be(one, values[1])):
        return None
    if _may_be(one, values[0]) and _may_be(other, values[1]):
        return None
    texts = [argument.span.text for argument in given]
    edits = (Edit(given[0].span, texts[1]), Edit(given[1].span, texts[0]))
    message = f"`{form.kind}` takes its {first} before its {second}"
    fix = Fix(f"write `{call.name.text} {texts[1]} {texts[0]}`", edits)
    return Diagnostic("E206", message, given[0].span.to(given[1].span), fixes=(fix,))


def _may_be(slot: Slot, expression: tree.Expression) -> bool:
    """Whether an argument looks like a value of a slot, as far as its text tells."""
    is_size = isinstance(slot.kind, Size)
    match expression:
        case tree.Reference(name):
            return name in slot.kind.words if slot.kind.words else True
        case tree.Size():
            return is_size
        case tree.Integer():
            return is_size or not slot.kind.words
        case _:
            return False


def product(expression: tree.Expression) -> Diagnostic | None:
    """A size as the product of two numbers: `5*5` is 25. In parentheses it is meant."""
    match expression:
        case tree.Binary("*", tree.Integer(height), tree.Integer(width)):
            pass
        case _:
            return None
    span = expression.span
    if span.text.startswith("("):
        return None
    size = f"{height}x{width}"
    message = f"`{span.text}` is {height * width}; a size is written `{size}`"
    notes = (f"if {height * width} is meant, write the number",)
    fix = Fix(f"write `{size}`", (Edit(span, size),))
    return Diagnostic("E206", message, span, notes=notes, fixes=(fix,))


def meant_elsewhere(
    call: tree.LayerCall, form: type[Layer], extra: Sequence[tree.Positional]
) -> Diagnostic | None:
    """Arguments too many that are a foreign call, a value of an option, or layers: `relu`."""
    from cnndsl.syntax.foreign.find import in_head  # noqa: PLC0415 (most files have no mistakes)
    from cnndsl.syntax.foreign.words import LAYERS  # noqa: PLC0415 (most files have no mistakes)

    foreign = in_head(call.span.source, call.head.start, call.head.end)
    if foreign is not None:
        return foreign
    span = extra[0].span.to(extra[-1].span)
    words = [a.value.name if isinstance(a.value, tree.Reference) else "" for a in extra]
    if len(extra) == 1 and (option := _as_option(form, words[0])):
        text, message = option
        return Diagnostic(
            "E203", message, span, fixes=(Fix(f"write `{text}`", (Edit(span, text),)),)
        )
    if form.kind in _COUNT_THEMSELVES and len(call.arguments) == 1:
        message = f"`{form.kind}` knows its channels from the line above"
        fix = Fix("delete the number", (without(span),))
        return Diagnostic("E203", message, span, fixes=(fix,))
    layers = [LAYERS.get(word.lower(), word) for word in words]
    if any(layer.split(" ")[0] not in BY_KIND for layer in layers):
        return None
    message = f"`{words[0]}` is a layer by itself, not an argument of `{form.kind}`"
    return Diagnostic("E203", message, span, fixes=(_behind(call, "; ".join(layers), span),))


def _as_option(form: type[Layer], word: str) -> tuple[str, str] | None:
    """The option that an argument too many gives, and what to say: `same`, `nobias`."""
    for name, slot in form.slots.items():
        if slot.by_name and word in slot.kind.words:
            return f"{name}={word}", f"`{word}` is a value of the option `{name}`"
        if slot.way == "name" and word in (f"no{name}", f"no_{name}"):
            return f"{name}=no", f"an option is written with its name: `{name}=no`"
    return None


def activation(call: tree.LayerCall, argument: tree.Keyword) -> Diagnostic | None:
    """Keras's `activation=relu`."""
    from cnndsl.syntax.foreign.words import LAYERS  # noqa: PLC0415 (most files have no mistakes)

    match argument.value:
        case tree.Text(word) | tree.Reference(word):
            layer = LAYERS.get(word.lower(), word)
        case _:
            return None
    if argument.name.text not in ("activation", "act") or layer.split(" ")[0] not in BY_KIND:
        return None
    message = f"an activation is a layer by itself, behind `{call.name.text}`"
    fix = _behind(call, layer, argument.span)
    return Diagnostic("E204", message, argument.span, fixes=(fix,))


def _behind(call: tree.LayerCall, layers: str, argument: Span) -> Fix:
    """Take an argument away, and put the layers that it names behind the statement."""
    gone = without(argument)
    edits = (gone, Edit(call.span.after(), f"; {layers}"))
    if argument.end == call.span.end:
        edits = (gone.replace(text=f"; {layers}"),)
    return Fix(f"put it behind the line: `; {layers}`", edits)


def without(argument: Span) -> Edit:
    """Delete an argument, and the blanks in front of it."""
    before = argument.source.text[: argument.start].rstrip(" \t")
    return Edit(argument.source.span(len(before), argument.end), "")


def as_flag(kind: Kind, value: Value) -> str | None:
    """A number where `yes` or `no` is asked for: `bias=0`."""
    if not isinstance(kind, Flag) or not isinstance(value, Dim):
        return None
    return {0: "no", 1: "yes"}.get(value.constant) if value.constant is not None else None


def as_part(kind: Kind, value: Value) -> str | None:
    """A percentage where a part of 1 is asked for: `dropout 20`."""
    if not isinstance(kind, Number) or kind.high != 1 or not isinstance(value, Dim):
        return None
    number = value.constant
    return f"{number / 100:g}" if number is not None and 1 < number <= 100 else None


def as_count(kind: Kind, value: Value) -> str | None:
    """Two equal numbers where one for both axes is asked for: `upsample 2x2 nearest`."""
    if isinstance(kind, Count) and isinstance(value, Pair) and value.height == value.width:
        return str(value.height)
    return None


def layer_asserted(expected: tree.Shape) -> Diagnostic | None:
    """A layer behind the arrow, such as `conv 8 3x3 -> relu`."""
    match expected.dims:
        case (tree.Reference(name=name),) if name in BY_KIND:
            pass
        case _:
            return None
    source = expected.span.source
    before = source.text[: expected.span.start].rstrip()
    arrow = len(before.removesuffix("->").rstrip())
    edit = Edit(Span(source, arrow, expected.span.end), f"; {name}")
    fix = Fix(f"write the layer behind a `;`: `; {name}`", (edit,))
    message = f"`->` states the shape of the output, and `{name}` is a layer"
    return Diagnostic("E305", message, expected.span, fixes=(fix,))
