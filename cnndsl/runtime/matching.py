"""Which tensor of a file belongs to which of a model, where layers may have other names.

    match(wanted, found)   # both: name → Form, in order

First by name; then layer by layer, those of the same shapes in the order in which they stand.
Nothing is guessed: if a model has three layers of certain shapes and the file has four, none of
them is matched. Knows names and shapes; knows nothing of files and models.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from cnndsl.record import Record

# Batchnorm's count of the batches that it saw, which older files lack and nothing computes with.
COUNTER = "num_batches_tracked"


class Form(Record):
    """The shape of a tensor, and whether it holds floating-point numbers."""

    shape: tuple[int, ...]
    is_float: bool = True

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.shape)) or "one number"
        return shape if self.is_float else f"{shape} (integers)"


class Pair(Record):
    """A tensor of the model, and the one of the file that goes there."""

    ours: str
    theirs: str


class Misfit(Record):
    """Tensors of one name and two forms."""

    pair: Pair
    wanted: Form
    found: Form


class Uneven(Record):
    """Layers of the same shapes, of which the model and the file have different numbers."""

    forms: tuple[tuple[str, Form], ...]
    ours: tuple[str, ...]
    theirs: tuple[str, ...]


class Match(Record):
    """What was found.

    `prefix` stood in front of the file's names. `ordered` pairs layers, `tensors` has their
    tensors. `missing` are the model's tensors that got nothing; `counters` those among them that
    may begin at zero; `unused` are the file's that went nowhere.
    """

    prefix: str
    named: tuple[Pair, ...]
    ordered: tuple[Pair, ...]
    tensors: tuple[Pair, ...]
    misfits: tuple[Misfit, ...]
    uneven: tuple[Uneven, ...]
    missing: tuple[str, ...]
    counters: tuple[str, ...]
    unused: tuple[str, ...]

    @property
    def sources(self) -> dict[str, str]:
        """For each tensor of the model that got one, the name of the file's."""
        return {pair.ours: pair.theirs for pair in (*self.named, *self.tensors)}


def match(wanted: Mapping[str, Form], found: Mapping[str, Form]) -> Match:
    """Match what a model wants with what a file has."""
    prefix = _prefix(wanted, found)
    same_name = [Pair(name, prefix + name) for name in wanted if prefix + name in found]
    named = [p for p in same_name if wanted[p.ours] == found[p.theirs]]
    misfits = [p for p in same_name if wanted[p.ours] != found[p.theirs]]
    # A name says more than a shape: what has the same one belongs together or nowhere.
    open_ours = {n: f for n, f in wanted.items() if n not in {p.ours for p in same_name}}
    open_theirs = {n: f for n, f in found.items() if n not in {p.theirs for p in same_name}}
    ordered, uneven = _in_order(_layers(open_ours), _layers(open_theirs))
    tensors = [
        Pair(f"{pair.ours}{leaf}", f"{pair.theirs}{leaf}")
        for pair in ordered
        for leaf in _layers(open_ours)[pair.ours]
        if f"{pair.theirs}{leaf}" in open_theirs
    ]
    got = {p.ours for p in (*named, *tensors)}
    used = {p.theirs for p in (*named, *tensors, *misfits)}
    missing = [name for name in wanted if name not in got]
    filled = {_layer(name) for name in got}
    counters = [n for n in missing if n.endswith(COUNTER) and _layer(n) in filled]
    return Match(
        prefix,
        tuple(named),
        tuple(ordered),
        tuple(tensors),
        tuple(Misfit(p, wanted[p.ours], found[p.theirs]) for p in misfits),
        tuple(uneven),
        tuple(n for n in missing if n not in counters),
        tuple(counters),
        tuple(name for name in found if name not in used),
    )


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """A key that sorts `features.2` before `features.10`."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in parts)


def _prefix(wanted: Iterable[str], found: Iterable[str]) -> str:
    """What stands in front of all names of the file (`module.`), if without it more of them fit."""
    names, ours = tuple(found), frozenset(wanted)
    candidates, prefix = [""], ""
    while names:
        word, dot, _ = names[0][len(prefix) :].partition(".")
        prefix = f"{prefix}{word}{dot}"
        if not dot or not all(name.startswith(prefix) for name in names):
            break
        candidates.append(prefix)
    return max(candidates, key=lambda p: sum(n[len(p) :] in ours for n in names))


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _layers(forms: Mapping[str, Form]) -> dict[str, dict[str, Form]]:
    """The tensors of each layer: by the layer's name with its last point, then by their own."""
    found: dict[str, dict[str, Form]] = {}
    for name, form in forms.items():
        layer, dot, leaf = name.rpartition(".")
        found.setdefault(f"{layer}{dot}", {})[leaf] = form
    return found


def _in_order(
    ours: Mapping[str, Mapping[str, Form]], theirs: Mapping[str, Mapping[str, Form]]
) -> tuple[list[Pair], list[Uneven]]:
    """Pair the layers of the same tensors, where both sides have as many of them."""
    given = _by_forms(theirs)
    pairs: list[Pair] = []
    uneven: list[Uneven] = []
    for forms, names in _by_forms(ours).items():
        others = given.get(forms, [])
        if len(others) == len(names):
            pairs += [Pair(a, b) for a, b in zip(names, others, strict=True)]
        elif others:
            uneven.append(Uneven(forms, tuple(names), tuple(others)))
    place = {name: number for number, name in enumerate(ours)}
    return sorted(pairs, key=lambda p: place[p.ours]), uneven


def _by_forms(
    layers: Mapping[str, Mapping[str, Form]],
) -> dict[tuple[tuple[str, Form], ...], list[str]]:
    found: dict[tuple[tuple[str, Form], ...], list[str]] = {}
    for name, tensors in layers.items():
        forms = tuple(_computing(tensors))
        if forms:
            found.setdefault(forms, []).append(name)
    return found


def _computing(tensors: Mapping[str, Form]) -> Iterator[tuple[str, Form]]:
    """What a layer computes with: a batchnorm with its counter and one without it are alike."""
    for leaf in sorted(tensors):
        if leaf != COUNTER:
            yield leaf, tensors[leaf]
