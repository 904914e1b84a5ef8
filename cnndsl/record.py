"""Immutable data with named fields, for every value that passes between the stages.

It gives what `@dataclass(frozen=True, slots=True)` gives (fields from annotations, equality, hash,
repr, `match`), but a class costs next to nothing to define: dataclasses write and compile source
for each, which made the import of a compiler with sixty small classes cost more than its work.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Generic, Self, TypeVar, cast, dataclass_transform, overload

_MISSING = object()


def field(*, default: Any = _MISSING) -> Any:  # noqa: ANN401 (what it stands for has any type)
    """Declare a field whose default is `default`; `x: int = 0` in a class body does the same."""
    return default


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class _RecordType(type):
    """Turns the annotations of a class body into slots, in order, after those of its base."""

    __fields__: tuple[str, ...]
    __defaults__: dict[str, Any]

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> "_RecordType":
        annotations = cast("dict[str, object]", body.get("__annotations__", {}))
        own = [n for n, kind in annotations.items() if not _is_class_variable(kind)]
        defaults = {n: body.pop(n) for n in own if n in body}
        inherited: list[str] = []
        for base in bases:
            if isinstance(base, _RecordType):
                inherited += [n for n in base.__fields__ if n not in inherited]
                defaults = {**base.__defaults__, **defaults}
        slots = tuple(n for n in own if n not in inherited)
        # Set before the class is made, so that `__init_subclass__` sees them.
        body["__slots__"] = slots
        body["__fields__"] = body["__match_args__"] = (*inherited, *slots)
        body["__defaults__"] = defaults
        return super().__new__(cls, name, bases, body)


def _is_class_variable(annotation: object) -> bool:
    text = annotation if isinstance(annotation, str) else repr(annotation)
    return text.startswith(("ClassVar", "typing.ClassVar"))


class Record(metaclass=_RecordType):
    """A base class: annotated names in the body of a subclass are its fields."""

    __fields__: ClassVar[tuple[str, ...]]
    __defaults__: ClassVar[dict[str, Any]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take the fields by position or by name; `TypeError` for one too many or too few."""
        fields = self.__fields__
        put = object.__setattr__
        if len(args) > len(fields):
            raise TypeError(f"{type(self).__name__} has {len(fields)} fields, not {len(args)}")
        for name, value in zip(fields, args, strict=False):
            if name in kwargs:
                raise TypeError(f"{type(self).__name__}: {name} is given twice")
            put(self, name, value)
        for name in fields[len(args) :]:
            if name in kwargs:
                put(self, name, kwargs.pop(name))
            elif name in self.__defaults__:
                put(self, name, self.__defaults__[name])
            else:
                raise TypeError(f"{type(self).__name__} needs {name}")
        if kwargs:
            raise TypeError(f"{type(self).__name__} has no field {next(iter(kwargs))}")

    def values(self) -> tuple[Any, ...]:
        """The fields' values, in order."""
        return tuple(getattr(self, name) for name in self.__fields__)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return type(self)(**{**dict(zip(self.__fields__, self.values(), strict=True)), **changes})

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.values() == cast("Record", other).values()

    def __hash__(self) -> int:
        return hash((type(self), self.values()))

    def __repr__(self) -> str:
        inside = ", ".join(f"{n}={getattr(self, n)!r}" for n in self.__fields__)
        return f"{type(self).__name__}({inside})"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: {name} cannot be deleted")

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        return type(self), self.values()


_Value = TypeVar("_Value")


class once(Generic[_Value]):  # noqa: N801 (a decorator)
    """A property that is computed when it is first asked for, and then kept.

    As `functools.cached_property`, but without its lock: on Python 3.11 that is one lock for a
    class, held while the value is computed, so that two threads which also take another lock can
    wait for each other for ever. Two threads may compute a value twice here; it must be the same.
    """

    def __init__(self, compute: Callable[[Any], _Value]) -> None:
        """`compute` gets the object and gives the value."""
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> _Value: ...
    def __get__(self, instance: object | None, owner: type) -> Self | _Value:
        """The value; an attribute of that name then stands before this property."""
        if instance is None:
            return self
        value = self._compute(instance)
        instance.__dict__[self._name] = value
        return value
