"""Which tensor of a file belongs to which of a model, where layers may have other names.

    match(wanted, found)   # both: name → Form, in order

First by name; then layer by layer, those of the same shapes in the order in which they stand.
Nothing is guessed. If a model has three layers of certain shapes and the file has four, none of
them is matched; nor are two and two, where the file does not say in which order its own stand.
Knows names and shapes; knows nothing of files and models.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from cnndsl.record import Record

# Batchnorm's count of the batches that it saw, which older files lack and nothing computes with.
COUNTER = "num_batches_tracked"
# What tools keep in a state for themselves: AveragedModel's count, and thop's of work.
_RECORDS = ("n_averaged", "total_ops", "total_params")


class Form(Record):
    """The shape of a tensor, and whether it holds floating-point numbers; if not, what it holds."""

    shape: tuple[int, ...]
    is_float: bool = True
    kind: str = "integers"

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.shape)) or "one number"
        return shape if self.is_float else f"{shape} ({self.kind})"

    def takes(self, other: "Form") -> bool:
        """Whether the other's numbers fit here as they lie, at most under another shape."""
        if (self.is_float, self.is_float or self.kind) != (
            other.is_float,
            other.is_float or other.kind,
        ):
            return False
        return self.shape == other.shape or _lie_alike(self.shape, other.shape)


def _lie_alike(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether shapes of different ranks hold the same numbers in the same order.

    A fully connected layer (O, I) is a convolution (O, I, 1, 1), a 1-d convolution (O, I, K) one
    of (O, I, K, 1), and a factor a channel (C, 1, 1) is (C).
    """
    if len(one) == len(other):
        return False
    if min(len(one), len(other)) < 2:  # a vector: there is one order only
        return _large(one) == _large(other) and len(_large(one)) < 2
    return one[:2] == other[:2] and _large(one[2:]) == _large(other[2:])


def _large(sizes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in sizes if size != 1)


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

    `prefix` stood in front of the file's names; each of `rivals` stands in front of as many.
    `ordered` pairs layers, `tensors` has their tensors. `uncertain` are layers of the same shapes
    of which nothing says how they belong together, `crossed` are pairs of the last layers of their
    shapes that stand in another order than those that were matched by name. `missing` are the
    model's tensors that got nothing; `counters` those among them that may begin at zero; `unused`
    are the file's that went nowhere, `records` those that no layer needs.
    """

    prefix: str
    rivals: tuple[str, ...]
    named: tuple[Pair, ...]
    ordered: tuple[Pair, ...]
    tensors: tuple[Pair, ...]
    misfits: tuple[Misfit, ...]
    uneven: tuple[Uneven, ...]
    uncertain: tuple[Uneven, ...]
    crossed: tuple[Pair, ...]
    missing: tuple[str, ...]
    counters: tuple[str, ...]
    unused: tuple[str, ...]
    records: tuple[str, ...]

    @property
    def sources(self) -> dict[str, str]:
        """For each tensor of the model that got one, the name of the file's."""
        return {pair.ours: pair.theirs for pair in (*self.named, *self.tensors)}


def match(
    wanted: Mapping[str, Form],
    found: Mapping[str, Form],
    *,
    prefix: str | None = None,
    is_ordered: bool = True,
) -> Match:
    """Match what a model wants with what a file has.

    `prefix` says which of the file's tensors are meant, where there are several sets of them.
    `is_ordered` says whether both stand in the order of their networks.
    """
    rivals: tuple[str, ...] = ()
    usable = found
    if prefix is None:
        prefix, rivals = _prefix(wanted, found)
    else:
        usable = {name: form for name, form in found.items() if name.startswith(prefix)}
    same_name = _by_name(wanted, usable, prefix)
    named = [p for p in same_name if wanted[p.ours].takes(found[p.theirs])]
    misfits = [p for p in same_name if not wanted[p.ours].takes(found[p.theirs])]
    # A name says more than a shape: layers with a tensor of the same name belong together.
    open_ours = _others(wanted, (p.ours for p in same_name))
    records = [n for n in found if _leaf(n) in _RECORDS and n not in {p.theirs for p in same_name}]
    open_theirs = _others(usable, (p.theirs for p in same_name))
    open_theirs = {n: f for n, f in open_theirs.items() if n not in records}
    groups = _Groups(open_ours, open_theirs)
    groups.pair(is_ordered=is_ordered)
    groups.cross(_Places(wanted, found, named))
    tensors = [
        Pair(f"{pair.ours}{leaf}", f"{pair.theirs}{leaf}")
        for pair in groups.pairs
        for leaf in groups.ours[pair.ours]
        if f"{pair.theirs}{leaf}" in open_theirs
    ]
    got = {p.ours for p in (*named, *tensors)}
    used = {p.theirs for p in (*named, *tensors, *misfits)}.union(records)
    missing = [name for name in wanted if name not in got]
    filled = {_layer(name) for name in got}
    counters = [n for n in missing if n.endswith(COUNTER) and _layer(n) in filled]
    return Match(
        prefix,
        rivals,
        tuple(named),
        tuple(groups.pairs),
        tuple(tensors),
        tuple(Misfit(p, wanted[p.ours], found[p.theirs]) for p in misfits),
        tuple(groups.uneven),
        tuple(groups.uncertain),
        tuple(groups.crossed),
        tuple(n for n in missing if n not in counters),
        tuple(counters),
        tuple(name for name in found if name not in used),
        tuple(records),
    )


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """A key that sorts `features.2` before `features.10`."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in parts)


def _prefix(wanted: Iterable[str], found: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """What stands in front of the names that the model wants, and what does so as often.

    A few names may lack it, as `n_averaged` does where all else begins with `module.`.
    """
    ours, names = frozenset(wanted), tuple(found)
    covered: dict[str, set[str]] = {"": set()}
    for name in names:
        for start in _starts(name):
            for known in (name[start:], f"{name[start:]}.weight"):
                if known in ours:
                    covered.setdefault(name[:start], set()).add(known)
    most = max(map(len, covered.values()))
    if len(covered[""]) == most:
        return "", ()
    # Inside a file, short names of a network's own (`conv1.weight`) come again in every block.
    best = [
        prefix
        for prefix, known in covered.items()
        if len(known) == most
        and (2 * most > len(ours) or 2 * sum(n.startswith(prefix) for n in names) > len(names))
    ]
    return (best[0], tuple(best[1:])) if best else ("", ())


def _starts(name: str) -> Iterator[int]:
    """Where the parts of a dotted name begin."""
    yield 0
    yield from (place + 1 for place, sign in enumerate(name) if sign == ".")


def _by_name(wanted: Iterable[str], found: Mapping[str, Form], prefix: str) -> list[Pair]:
    """Tensors of one name, with the prefix or without it."""
    pairs: list[Pair] = []
    for name in wanted:
        # A factor a channel is a layer here, and a tensor of the block itself in others' files.
        bare = name.removesuffix(".weight")
        for theirs in (prefix + name, name, prefix + bare, bare):
            if theirs in found:
                pairs.append(Pair(name, theirs))
                break
    return pairs


def _others(forms: Mapping[str, Form], taken: Iterable[str]) -> dict[str, Form]:
    """The tensors of layers that have none among those that are taken."""
    layers = {_layer(name) for name in taken if _leaf(name) != COUNTER}
    return {name: form for name, form in forms.items() if _layer(name) not in layers}


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _layers(forms: Mapping[str, Form]) -> dict[str, dict[str, Form]]:
    """The tensors of each layer: by the layer's name with its last point, then by their own."""
    found: dict[str, dict[str, Form]] = {}
    for name, form in forms.items():
        layer, dot, leaf = name.rpartition(".")
        found.setdefault(f"{layer}{dot}", {})[leaf] = form
    return found


class _Places:
    """Where layers of the same shapes stand that were matched by name, on both sides."""

    def __init__(
        self, wanted: Mapping[str, Form], found: Mapping[str, Form], named: Iterable[Pair]
    ) -> None:
        ours, theirs = _layers(wanted), _layers(found)
        self.ours = {name: place for place, name in enumerate(ours)}
        self.theirs = {name: place for place, name in enumerate(theirs)}
        self.known: dict[_Key, set[tuple[int, int]]] = {}
        for pair in named:
            one, other = (f"{_layer(name)}." if "." in name else "" for name in pair.values())
            place = self.ours[one], self.theirs[other]
            self.known.setdefault(_key(ours[one]), set()).add(place)

    def crosses(self, pair: Pair, forms: Mapping[str, Form]) -> bool:
        """Whether a pair stands before a known one on one side, and behind it on the other."""
        one, other = self.ours[pair.ours], self.theirs[pair.theirs]
        known = self.known.get(_key(forms), ())
        return any((one < ours) != (other < theirs) for ours, theirs in known)


class _Groups:
    """Layers without a name in common, by their shapes."""

    def __init__(self, ours: Mapping[str, Form], theirs: Mapping[str, Form]) -> None:
        self.ours, self.theirs = _layers(ours), _layers(theirs)
        self.pairs: list[Pair] = []
        self.uneven: list[Uneven] = []
        self.uncertain: list[Uneven] = []
        self.crossed: list[Pair] = []

    def pair(self, *, is_ordered: bool) -> None:
        """Pair them where both sides have as many of a kind, in order."""
        given = _by_key(self.theirs)
        for key, names in _by_key(self.ours).items():
            others = given.get(key, [])
            pairs = [Pair(a, b) for a, b in zip(names, others, strict=False)]
            if len(others) == len(names) and all(map(self._fits, pairs)):
                if is_ordered or len(names) == 1:
                    self.pairs += pairs
                else:
                    self.uncertain.append(self._group(names, others))
            elif others:
                self.uneven.append(self._group(names, others))
        place = {name: number for number, name in enumerate(self.ours)}
        self.pairs.sort(key=lambda p: place[p.ours])

    def cross(self, places: _Places) -> None:
        """Take out pairs that contradict the order of layers that were matched by name.

        Where names are counted from 0 in a file and from 1 in a network, all but the first and the
        last have the same name, and the wrong one.
        """
        self.crossed = [p for p in self.pairs if places.crosses(p, self.ours[p.ours])]
        self.pairs = [p for p in self.pairs if p not in self.crossed]

    def _fits(self, pair: Pair) -> bool:
        theirs = self.theirs[pair.theirs]
        return all(form.takes(theirs[leaf]) for leaf, form in _computing(self.ours[pair.ours]))

    def _group(self, names: list[str], others: list[str]) -> Uneven:
        return Uneven(tuple(_computing(self.ours[names[0]])), tuple(names), tuple(others))


_Key = tuple[tuple[str, tuple[int, ...], bool], ...]


def _key(tensors: Mapping[str, Form]) -> _Key:
    """The same for all layers whose tensors may fit each other."""
    return tuple((leaf, _large(form.shape), form.is_float) for leaf, form in _computing(tensors))


def _by_key(layers: Mapping[str, Mapping[str, Form]]) -> dict[_Key, list[str]]:
    found: dict[_Key, list[str]] = {}
    for name, tensors in layers.items():
        key = _key(tensors)
        if key:
            found.setdefault(key, []).append(name)
    return found


def _computing(tensors: Mapping[str, Form]) -> Iterator[tuple[str, Form]]:
    """What a layer computes with: a batchnorm with its counter and one without it are alike."""
    for leaf in sorted(tensors):
        if leaf != COUNTER:
            yield leaf, tensors[leaf]
