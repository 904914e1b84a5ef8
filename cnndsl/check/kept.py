"""Whether a change of a file keeps the counts and sizes that the user wrote, and known shapes."""

from collections.abc import Iterable, Sequence

from cnndsl.check.report import LayerFacts
from cnndsl.layers.arguments import Count
from cnndsl.layers.table import FORMS
from cnndsl.sizes.dim import Dim


def keeps_sizes(before: Sequence[LayerFacts], after: Sequence[LayerFacts]) -> bool:
    """Whether all layers are still there, in order, with the numbers that stand behind their names.

    Layers that were put between them are no loss. Shapes that were known are the same, unless the
    input has another shape now.
    """
    same_input = _input(before) == _input(after)
    for kind in {layer.kind for layer in before} - {"skip"}:  # it does nothing
        rest = iter([layer for layer in after if layer.kind == kind])
        old = [layer for layer in before if layer.kind == kind]
        if not all(any(_matches(one, other, same_input) for other in rest) for one in old):
            return False
    return True


def _input(layers: Iterable[LayerFacts]) -> tuple[Dim, ...]:
    return next((layer.input for layer in layers if layer.inputs == ("input",)), ())


def _matches(old: LayerFacts, new: LayerFacts, same_input: bool) -> bool:
    for form in FORMS[old.kind]:
        if any(
            old.args.get(name) != new.args.get(name)
            for name, slot in form.slots.items()
            if slot.required or slot.way == "to" or isinstance(slot.kind, Count)
        ):
            return False
    if not same_input or len(old.output) != len(new.output):
        return not same_input or not old.output
    return not any(
        a.constant != b.constant
        for a, b in zip(old.output, new.output, strict=True)
        if a.constant is not None and b.constant is not None
    )
