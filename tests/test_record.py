import copy
import pickle
from typing import ClassVar

import pytest

from cnndsl.record import Record, field


class Point(Record):
    """A point."""

    x: int
    y: int = 0


class Named(Point):
    """A point with a name, and a constant that is no field."""

    kinds: ClassVar[tuple[str, ...]] = ("a", "b")
    name: str = field(default="?")


def test_fields_by_place_by_name_and_by_default():
    assert Point(1, 2) == Point(y=2, x=1)
    assert Point(1).y == 0
    assert Named(1, name="n").values() == (1, 0, "n")
    assert Named.kinds == ("a", "b")


@pytest.mark.parametrize(
    ("arguments", "named", "message"),
    [
        ((), {}, "Point needs x"),
        ((1, 2, 3), {}, "Point has 2 fields, not 3"),
        ((1,), {"x": 2}, "x is given twice"),
        ((1,), {"z": 2}, "Point has no field z"),
    ],
)
def test_wrong_fields_are_refused(arguments, named, message):
    with pytest.raises(TypeError, match=message):
        Point(*arguments, **named)


def test_it_cannot_be_changed():
    point = Point(1)
    with pytest.raises(AttributeError, match="x cannot be set"):
        point.x = 2
    with pytest.raises(AttributeError, match="x cannot be deleted"):
        del point.x
    with pytest.raises(AttributeError):
        point.other = 2
    assert point == Point(1)


def test_equality_and_hash_go_by_type_and_fields():
    assert Point(1) != Point(2)
    assert Point(1, 0) != Named(1, 0)
    assert Point(1) != (1, 0)
    assert len({Point(1), Point(1, 0), Named(1)}) == 2


def test_a_copy_with_some_fields_changed():
    assert Named(1, 2, "n").replace(y=3) == Named(1, 3, "n")
    assert type(Named(1).replace(x=2)) is Named
    with pytest.raises(TypeError, match="no field z"):
        Point(1).replace(z=1)


def test_match_takes_fields_in_order():
    match Named(1, 2, "n"):
        case Named(x, y, name):
            assert (x, y, name) == (1, 2, "n")


def test_it_can_be_copied_and_pickled():
    named = Named(1, 2, "n")
    assert pickle.loads(pickle.dumps(named)) == named
    assert copy.deepcopy(named) == named


def test_it_shows_its_fields():
    assert repr(Named(1, name="n")) == "Named(x=1, y=0, name='n')"


def test_it_has_no_dict():
    assert not hasattr(Named(1), "__dict__")
