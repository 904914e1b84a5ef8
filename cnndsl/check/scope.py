"""The names that are known at one place of a file, and what `--set` puts in their stead."""

from collections.abc import Iterator, Mapping

from cnndsl.layers.arguments import Value
from cnndsl.sizes.dim import Dim


class Scope(Mapping[str, Value]):
    """Names and their values; symbols are names whose value is unknown.

    `height`, `width` and `channels` are those of the current tensor, put in by the elaborator.
    """

    def __init__(self, settings: Mapping[str, Value]) -> None:
        """`settings` come from outside and go before what the file says."""
        self._values: dict[str, Value] = {}
        self._settings = settings
        self._used: set[str] = set()
        self.sizes: list[str] = []  # symbols of the input's sizes, in order of appearance
        self.params: list[str] = []  # params without a value

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def put(self, name: str, value: Value) -> None:
        """Give a name a value."""
        self._values[name] = value

    def drop(self, name: str) -> None:
        """Forget a name."""
        self._values.pop(name, None)

    def setting(self, name: str) -> Value | None:
        """What was set from outside for a name, if anything."""
        if name in self._settings:
            self._used.add(name)
            return self._settings[name]
        return None

    def size_symbol(self, name: str) -> Value:
        """A size of the input that is free, unless it was set."""
        value = self.setting(name)
        if value is None:
            value = Dim.symbol(name)
            self.sizes.append(name)
        self.put(name, value)
        return value

    def param_symbol(self, name: str) -> None:
        """A param without a value."""
        self.put(name, Dim.symbol(name))
        self.params.append(name)

    @property
    def symbols(self) -> tuple[str, ...]:
        """All that is free."""
        return (*self.sizes, *self.params)

    @property
    def unused_settings(self) -> tuple[str, ...]:
        """What was set, but is nowhere in the file."""
        return tuple(name for name in self._settings if name not in self._used)
