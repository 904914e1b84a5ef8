"""The names that are known at one place of a file: values, blocks, defaults.

A scope lies in the one around it; a block's lies in that of its definition, so that what a block
means does not depend on where it is used.
"""

from collections.abc import Iterable, Iterator, Mapping

from cnndsl.layers.arguments import Value
from cnndsl.layers.types import ImageType, TensorType, is_known, is_open
from cnndsl.record import Record
from cnndsl.syntax import tree

# The sizes of the current tensor, by which every expression can name them.
OWN_SIZES = ("height", "width", "channels")
ANY = "*"  # any layer, or any of its arguments


class Definition(Record):
    """A block and the scope in which it was defined."""

    block: tree.Block
    scope: "Scope"


class Default(Record):
    """An argument for later layers of a kind, to be computed in the scope that said so."""

    argument: tree.Keyword
    scope: "Scope"


class Scope(Mapping[str, Value]):
    """Names and their values. Unknown is the value of a name whose definition had a mistake."""

    def __init__(self, around: "Scope | None" = None) -> None:
        """`around` is the scope in which this one lies."""
        self._around = around
        self._in_doubt: set[str] = around._in_doubt if around is not None else set()
        self._defaults_in_doubt: set[tuple[str, str]] = (
            around._defaults_in_doubt if around is not None else set()
        )
        self._values: dict[str, Value | None] = {}
        self._own_sizes: dict[str, Value] = {}
        self._sizes_are_mistaken = False
        self._blocks: dict[str, Definition] = {}
        self._defaults: dict[str, dict[str, Default]] = {}

    def __getitem__(self, name: str) -> Value:
        scope: Scope | None = self
        while scope is not None:
            value = scope._values.get(name)
            if value is not None:
                return value
            scope = scope._around
        return self._own_sizes[name]

    def __iter__(self) -> Iterator[str]:
        seen: dict[str, None] = dict.fromkeys(self._own_sizes)
        scope: Scope | None = self
        while scope is not None:
            seen |= dict.fromkeys(n for n, v in scope._values.items() if v is not None)
            scope = scope._around
        return iter(seen)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def put(self, name: str, value: Value | None) -> None:
        """Give a name a value; None where a mistake, already reported, leaves it without one."""
        self._values[name] = value

    def put_in_doubt(self, words: Iterable[str]) -> None:
        """Take in the words of a text that could not be read: it may have defined them.

        This is known to all scopes of the network.
        """
        self._in_doubt.update(words)

    def apart(self) -> "Scope":
        """A scope that sees nothing of this one, for another file of the network."""
        scope = Scope()
        scope._in_doubt = self._in_doubt
        scope._defaults_in_doubt = self._defaults_in_doubt
        return scope

    def is_mistaken(self, name: str) -> bool:
        """Whether a mistake above, which was reported, leaves the name without a value."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope._values:
                return scope._values[name] is None
            scope = scope._around
        return name in self._in_doubt or (self._sizes_are_mistaken and name in OWN_SIZES)

    def has_own(self, name: str) -> bool:
        """Whether this very scope gave the name a value."""
        return name in self._values

    def see(self, current: TensorType) -> None:
        """Make `height`, `width` and `channels` those of the current tensor.

        A file that gives one of these names a value of its own keeps it.
        """
        self._own_sizes.clear()
        self._sizes_are_mistaken = not is_known(current)
        if isinstance(current, ImageType):
            sizes = zip(OWN_SIZES, current.dims, strict=True)
            self._own_sizes.update((name, dim) for name, dim in sizes if not is_open(dim))

    def see_with(self, other: "Scope") -> None:
        """Make them those that another scope sees now."""
        self._own_sizes = dict(other._own_sizes)
        self._sizes_are_mistaken = other._sizes_are_mistaken

    def define(self, block: tree.Block) -> None:
        """Make a block known from here on."""
        self._blocks[block.name.text] = Definition(block, self)

    def adopt(self, definition: Definition) -> None:
        """Make a block of another file known."""
        self._blocks[definition.block.name.text] = definition

    def block(self, name: str) -> Definition | None:
        """The block of that name, if there is one."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope._blocks:
                return scope._blocks[name]
            scope = scope._around
        return None

    def own_blocks(self) -> tuple[Definition, ...]:
        """The blocks that this very scope defines."""
        return tuple(self._blocks.values())

    def block_names(self) -> tuple[str, ...]:
        """All blocks that are known here."""
        names: list[str] = []
        scope: Scope | None = self
        while scope is not None:
            names += scope._blocks
            scope = scope._around
        return tuple(names)

    def set_default(self, kind: str, argument: tree.Keyword) -> None:
        """An argument for later layers of that kind."""
        self._defaults.setdefault(kind, {})[argument.name.text] = Default(argument, self)

    def doubt_default(self, kind: str = ANY, name: str = ANY) -> None:
        """Take in that a `default` with a mistake may have given layers of that kind a value.

        This is known to all scopes of the network.
        """
        self._defaults_in_doubt.add((kind, name))

    @property
    def doubts_defaults(self) -> bool:
        """Whether there was any such `default`."""
        return bool(self._defaults_in_doubt)

    def doubts_default(self, kind: str, name: str) -> bool:
        """Whether a `default` with a mistake may have given the argument a value."""
        doubted = self._defaults_in_doubt
        return any((k, n) in doubted for k in (kind, ANY) for n in (name, ANY))

    def defaults(self, kind: str) -> dict[str, Default]:
        """The arguments that layers of that kind get here when they give none."""
        outer = self._around.defaults(kind) if self._around is not None else {}
        return {**outer, **self._defaults.get(kind, {})}
