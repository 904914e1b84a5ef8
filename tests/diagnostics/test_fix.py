import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnndsl.diagnostics.fix import apply, choose
from cnndsl.diagnostics.model import Diagnostic, Edit, Fix
from cnndsl.source import Source

SOURCE = Source("a.cnn", "0123456789")


def edit(start: int, end: int, text: str) -> Edit:
    return Edit(SOURCE.span(start, end), text)


def problem(*fixes: Fix) -> Diagnostic:
    return Diagnostic("E301", "m", SOURCE.span(0, 1), fixes=fixes)


def fixed(*diagnostics: Diagnostic) -> str:
    return apply(SOURCE.text, choose(SOURCE, diagnostics))


def test_the_first_fix_with_edits_is_taken():
    words, one, two = Fix("words"), Fix("1", (edit(0, 1, "a"),)), Fix("2", (edit(5, 6, "b"),))
    assert choose(SOURCE, [problem(words, one, two)]) == (one,)
    assert fixed(problem(words, one, two)) == "a123456789"
    assert fixed(problem(words)) == SOURCE.text


def test_fixes_apart_are_made_together_in_any_order():
    late, early = problem(Fix("", (edit(7, 9, ""),))), problem(Fix("", (edit(2, 2, "xy"),)))
    assert fixed(late, early) == fixed(early, late) == "01xy234569"


def test_of_overlapping_fixes_the_first_is_made():
    first = problem(Fix("", (edit(2, 5, "A"), edit(8, 9, "B"))))
    second = problem(Fix("", (edit(0, 1, "C"), edit(4, 6, "D"))))
    assert fixed(first, second) == "01A567B9"  # all of the second one waits
    assert fixed(second, first) == "C123D6789"


def test_the_same_fix_asked_for_twice_is_made_once():
    assert fixed(*[problem(Fix("", (edit(3, 3, "\nflatten"),)))] * 2) == "012\nflatten3456789"


def test_fixes_that_touch_are_no_overlap():
    one, two = problem(Fix("", (edit(2, 4, "A"),))), problem(Fix("", (edit(4, 6, "B"),)))
    insertion = problem(Fix("", (edit(2, 2, "-"),)))
    assert fixed(one, two, insertion) == "01-AB6789"


def test_an_insertion_inside_a_replacement_waits():
    assert fixed(problem(Fix("", (edit(2, 6, "A"),))), problem(Fix("", (edit(4, 4, "B"),)))) == (
        "01A6789"
    )


def test_a_fix_for_another_file_or_against_itself_is_left_out():
    other = Fix("", (Edit(Source("b.cnn", "x").span(0, 1), "y"),))
    assert choose(SOURCE, [problem(other)]) == ()
    assert choose(SOURCE, [problem(Fix("", (edit(1, 4, ""), edit(2, 3, ""))))]) == ()


def test_overlapping_fixes_are_never_made_by_accident():
    with pytest.raises(ValueError, match="overlap"):
        apply(SOURCE.text, [Fix("", (edit(1, 4, ""),)), Fix("", (edit(2, 6, ""),))])


EDITS = st.builds(
    lambda a, b, text: edit(min(a, b), max(a, b), text),
    st.integers(0, 10),
    st.integers(0, 10),
    st.text("xyz", max_size=2),
)


@given(st.lists(st.lists(EDITS, min_size=1, max_size=3), max_size=6))
def test_whatever_is_chosen_can_be_made(groups):
    fixes = choose(SOURCE, [problem(Fix("", tuple(edits))) for edits in groups])
    made = apply(SOURCE.text, fixes)
    edits = [e for fix in fixes for e in fix.edits]
    removed = sum(e.span.end - e.span.start for e in edits)
    assert len(made) == 10 - removed + sum(len(e.text) for e in edits)
