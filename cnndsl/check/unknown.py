"""A line that begins with no layer of this language: what its author may have meant, all of it.

The name and the options change together, so that the line that is offered is right as a whole.
"""

import re

from cnndsl.check.habits import without
from cnndsl.check.suggest import nearest
from cnndsl.diagnostics.model import Diagnostic, Edit, Fix
from cnndsl.layers.base import Layer
from cnndsl.layers.table import BY_KIND
from cnndsl.syntax import tree
from cnndsl.syntax.foreign.find import in_head
from cnndsl.syntax.foreign.table import MISSING as ELSEWHERE
from cnndsl.syntax.foreign.words import LAYERS, OPTIONS

MISSING = {name.lower(): advice for name, advice in ELSEWHERE.items()}

# What a layer of another framework has where its arguments are left out.
_USUAL = {"pool max": " 2", "pool avg": " 2", "upsample": " 2 nearest"}
_LEARNS = "a group for each channel; unlike some instance norms, it learns a factor and a shift"


def unknown_layer(call: tree.LayerCall, blocks: tuple[str, ...]) -> Diagnostic:
    """The report of a name that is neither a layer nor one of the `blocks` that are known here."""
    span, word = call.name.span, call.name.text
    foreign = in_head(span.source, call.head.start, call.head.end)
    if foreign is not None:
        return foreign
    if advice := MISSING.get(word.lower()):
        message = f"there is no layer called `{word}`"
        return Diagnostic("E201", message, span, fixes=(Fix(advice),))
    if glued := _glued(call) or _activation(call):
        return glued
    meant = LAYERS.get(word.lower()) or nearest(word, (*blocks, *BY_KIND, *LAYERS))
    meant = LAYERS.get(meant or "", meant)
    what = "layer or block" if blocks else "layer"
    message = f"there is no {what} called `{word}`"
    if meant is None:
        fix = Fix("the layers are " + ", ".join(f"`{kind}`" for kind in BY_KIND))
        return Diagnostic("E201", message, span, fixes=(fix,))
    form = BY_KIND.get(meant.split(" ")[0])
    edits = [Edit(span, meant), *(option_edits(call, form) if form is not None else ())]
    if form is not None and not form.slots.keys() - {"eps", "momentum", "affine"}:
        # `batchnorm2d 64`: the channels are known.
        alone = [a.span for a in call.arguments if isinstance(a, tree.Positional)]
        edits += [without(place) for place in alone if place.text.isdigit()]
    fixes = [Fix(f"did you mean `{meant}`?", tuple(edits))]
    if form is not None and not call.arguments and _lacks(form, meant):
        usual = meant + _USUAL.get(meant, "")
        is_usual = meant in _USUAL
        text = f"did you mean `{usual}`?" if is_usual else f"for example `{form.examples[0]}`"
        fixes = [Fix(text, (Edit(span, usual),) if is_usual else ())]
    notes = (_LEARNS,) if meant.startswith("groupnorm c") else ()
    return Diagnostic("E201", message, span, notes=notes, fixes=tuple(fixes))


_SIZED = re.compile(r"(conv|deconv)_?([0-9]{1,3}(?:x[0-9]{1,3})?)(?:_?2d)?")


def _glued(call: tree.LayerCall) -> Diagnostic | None:
    """`conv3x3 64`: the size stands behind the filters."""
    found = _SIZED.fullmatch(call.name.text)
    first = next((a for a in call.arguments if isinstance(a, tree.Positional)), None)
    if found is None or first is None:
        return None
    size = found[2] if "x" in found[2] else f"{found[2]}x{found[2]}"
    edits = (Edit(call.name.span, found[1]), Edit(first.span.after(), f" {size}"))
    fix = Fix(f"write `{found[1]} {first.span.text} {size}`", edits)
    message = f"the size of a `{found[1]}` stands behind its filters"
    return Diagnostic("E201", message, call.name.span, fixes=(fix,))


def _activation(call: tree.LayerCall) -> Diagnostic | None:
    """`activation relu`."""
    if call.name.text.lower() not in ("activation", "act") or len(call.arguments) != 1:
        return None
    word = call.arguments[0].span.text
    layer = LAYERS.get(word.lower(), word)
    if layer not in BY_KIND:
        return None
    fix = Fix(f"write `{layer}`", (Edit(call.head, layer),))
    return Diagnostic("E201", "an activation is a layer by itself", call.head, fixes=(fix,))


def _lacks(form: type[Layer], written: str) -> bool:
    """Whether a line of nothing but these words lacks an argument."""
    needed = sum(slot.required for slot in form.slots.values())
    return needed > len(written.split(" ")) - 1


def option_edits(call: tree.LayerCall, form: type[Layer]) -> list[Edit]:
    """The options of a call under the names, and with the values, that a layer has."""
    edits: list[Edit] = []
    for argument in call.arguments:
        if isinstance(argument, tree.Keyword):
            edits += option_edit(argument, form)
    return edits


def option_edit(argument: tree.Keyword, form: type[Layer]) -> list[Edit]:
    """The edits of one option; none where nothing is known, or nothing is to be done."""
    name = argument.name.text
    meant = name if name in form.slots else OPTIONS.get(name, name)
    slot = form.slots.get(meant)
    if slot is None or not slot.by_name:
        return []
    edits = [Edit(argument.name.span, meant)] if meant != name else []
    written = argument.value.span.text.strip('"')
    value = slot.kind.meant.get(written)
    if value is not None:
        edits.append(Edit(argument.value.span, value))
    return edits
