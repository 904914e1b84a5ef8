"""Which regions share one text of their kernels, and what that text leaves open.

Knows signatures; knows nothing of text.
"""

from collections.abc import Iterable, Sequence

from cnndsl.emit.jobs import Signature, Value
from cnndsl.emit.settle import Several

# What regions that share kernels agree in; the rest is settled where a kernel is compiled.
_FIXED = frozenset({"tiles"})


def merged(signatures: Iterable[Signature]) -> dict[Signature, Signature]:
    """For each signature the one whose kernels do its work, too: one for all that agree enough.

    They agree but for switches that the kernels' constants settle; kernels without an activation
    agree with those of any.
    """
    groups: list[list[Signature]] = []
    for own in dict.fromkeys(signatures):
        group = next(
            (group for group in groups if all(_agree(own, other) for other in group)), None
        )
        if group is None:
            groups.append([own])
        else:
            group.append(own)
    return {own: whole for group in groups for whole in (_whole(group),) for own in group}


def _agree(one: Signature, other: Signature) -> bool:
    fixed = [[s for s in own.switches if s[0] in _FIXED] for own in (one, other)]
    is_alike = one.family == other.family and fixed[0] == fixed[1]
    return is_alike and (one.holes == other.holes or not one.holes or not other.holes)


def _whole(group: Sequence[Signature]) -> Signature:
    first, *_ = group
    values: dict[str, set[Value | Several]] = {}
    for name, value in (switch for own in group for switch in own.switches):
        values.setdefault(name, set()).add(value)
    switches = (
        (name, next(iter(each)) if len(each) == 1 else Several(frozenset(each)))
        for name, each in values.items()
    )
    names = [own.name.split("_") for own in group]
    activated = next((own for own in group if own.holes), first)
    return Signature(
        first.family,
        "_".join(word for word in first.name.split("_") if all(word in n for n in names)),
        tuple(switches),
        activated.holes,
        activated.functions,
    )
