"""The network as blocks within blocks: which labels become modules with a `forward` of their own.

A label in front of others (`layer1` and `layer1.0` of `layer1.0.conv1`) is a block where its parts
stand in a row, read no tensor from within others and give one. Knows graphs; knows no text.
"""

from collections.abc import Sequence
from typing import TypeVar

from cnndsl.emit.region import modules
from cnndsl.fuse.regions import Part, Region
from cnndsl.graph.graph import Node
from cnndsl.record import Record


class Block(Record):
    """Steps in a row under one label; it is a step itself, with `inputs` and a `path` like a part.

    `label` is the words of its label, `path` the tensor that it gives. All in it has the label, but
    for layers without weights that stand in between, or that a kernel in it computes, too.
    """

    label: tuple[str, ...]
    steps: "tuple[Step, ...]"
    inputs: tuple[str, ...]
    path: str


Step = Block | Part
StepType = TypeVar("StepType", bound=Step)


def held(part: Part) -> tuple[Node, ...]:
    """The nodes of a part whose modules the network holds."""
    if isinstance(part, Region):
        return tuple(node for _, _, node in modules(part))
    return () if part.layer.module(part.arrives) is None else (part,)


def needed(steps: Sequence[StepType], results: Sequence[str]) -> list[StepType]:
    """The steps without which some result could not be made, in order."""
    wanted = set(results)
    found: list[StepType] = []
    for step in reversed(steps):
        if step.path in wanted:
            found.append(step)
            wanted.update(step.inputs)
    return found[::-1]


def tree(parts: Sequence[Part], results: Sequence[str]) -> tuple[Step, ...]:
    """The parts that the results need, with those of each block in one step."""
    found = needed(parts, results)
    return _Tree(found, results).within((), 0, len(found))


class _Tree:
    """Looks for blocks among parts, by where in the row they stand."""

    def __init__(self, parts: Sequence[Part], results: Sequence[str]) -> None:
        self._parts = parts
        self._homes = [_home(part) for part in parts]
        self._weighty = [bool(held(part)) for part in parts]
        self._users: dict[tuple[str, ...], set[int]] = {}  # of the weights under a label
        self._readers: dict[str, set[int]] = {name: {len(parts)} for name in results}
        for index, part in enumerate(parts):
            for name in part.inputs:
                self._readers.setdefault(name, set()).add(index)
            for words in (_words(node.path)[:-1] for node in held(part)):
                for depth in range(1, len(words) + 1):
                    self._users.setdefault(words[:depth], set()).add(index)

    def within(self, label: tuple[str, ...], first: int, end: int) -> tuple[Step, ...]:
        """The steps from `first` to `end`, all of them under the label."""
        steps: list[Step] = []
        at = first
        for block, start, stop in sorted(self._blocks(label, first, end), key=lambda b: b[1]):
            if start >= at:
                steps += [*self._parts[at:start], block]
                at = stop
        return (*steps, *self._parts[at:end])

    def _blocks(self, label: tuple[str, ...], first: int, end: int) -> list[tuple[Block, int, int]]:
        """The outermost blocks under a label, with their places."""
        own: dict[tuple[str, ...], list[int]] = {}
        for index, home in enumerate(self._homes[first:end], first):
            if len(home) > len(label) and _is_under(home, label):
                own.setdefault(home[: len(label) + 1], []).append(index)
        found: list[tuple[Block, int, int]] = []
        for longer, indices in own.items():
            start, stop = indices[0], indices[-1] + 1
            is_same = bool(label) and (start, stop) == (first, end)
            takes_in = is_same and self._takes_in(longer, start, stop)
            block = None if takes_in else self._block(longer, start, stop)
            inner = self._blocks(longer, start, stop) if block is None else []
            found += inner if block is None else [(block, start, stop)]
        return found

    def _block(self, label: tuple[str, ...], first: int, end: int) -> Block | None:
        """These parts, and what stands between them, as a block; None where they are none."""
        span = range(first, end)
        users = self._users.get(label, set[int]())
        weights = [index for index in span if self._weighty[index]]
        if not users or not users <= set(span):
            return None
        if not all(_is_under(self._homes[index], label) for index in weights):
            return None
        made = {self._parts[index].path: None for index in span}
        reads = [name for index in span for name in self._parts[index].inputs]
        inputs = tuple(dict.fromkeys(name for name in reads if name not in made))
        given = [name for name in made if self._readers.get(name, set[int]()) - set(span)]
        if len(given) != 1 or (len(inputs) > 1 and self._takes_in(label, first, end)):
            return None
        return Block(label, self.within(label, first, end), inputs, given[0])

    def _takes_in(self, label: tuple[str, ...], first: int, end: int) -> bool:
        """Whether a kernel of the label's parts computes a layer that is not under the label."""
        return any(
            not _is_under(_words(node.path), label)
            for part in self._parts[first:end]
            if isinstance(part, Region)
            for node in part.nodes
        )


def _home(part: Part) -> tuple[str, ...]:
    """The label under which all of its weights lie; for a part without, its own but the last."""
    nodes = held(part) or (part.nodes if isinstance(part, Region) else (part,))
    labels = [_words(node.path)[:-1] for node in nodes]
    depth = 0
    while all(len(words) > depth and words[depth] == labels[0][depth] for words in labels):
        depth += 1
    return labels[0][:depth]


def _words(path: str) -> tuple[str, ...]:
    return tuple(path.split("."))


def _is_under(words: tuple[str, ...], label: tuple[str, ...]) -> bool:
    return words[: len(label)] == label
