"""Fixes are tried before they are offered."""

import pytest

from cnndsl.check import check_source, trial
from cnndsl.diagnostics.fix import apply
from cnndsl.diagnostics.model import Diagnostic, Edit, Fix
from cnndsl.source import Source

TEXT = "input 8 x 8 x 1\nconv 4 9x9\nfc 10\n"
SOURCE = Source("a.cnn", TEXT)
SIZE = SOURCE.span(TEXT.index("9x9"), TEXT.index("9x9") + 3)


def offered(*fixes: Fix, source: Source = SOURCE) -> tuple[Fix, ...]:
    """What is offered of these fixes for the first error of the text."""
    report = check_source(source)
    error = report.diagnostics[0].replace(fixes=fixes)
    changed = report.replace(diagnostics=(error, *report.diagnostics[1:]))
    return trial.tried(changed, source, check_source)[0].fixes


def size(text: str) -> Fix:
    return Fix(f"use {text}", (Edit(SIZE, text),))


def test_a_fix_that_does_not_help_is_not_offered():
    assert offered(size("11x11")) == ()
    assert offered(size("9y9")) == ()
    assert offered(size("9x9 pad=4 groups=3")) == ()  # another mistake on the same line


def test_a_fix_that_changes_a_size_is_not_offered():
    assert offered(size("3x3")) == ()
    filters = SOURCE.span(TEXT.index("4"), TEXT.index("4") + 1)
    assert offered(Fix("", (Edit(filters, "8"), Edit(SIZE, "9x9 pad=4")))) == ()
    assert offered(size("9x9 pad=4")) == (size("9x9 pad=4"),)


def test_fixes_that_leave_nothing_to_mend_come_first_and_advice_last():
    advice, partial = Fix("think"), size("9x9 pad=4")  # `fc` then says that it needs a vector
    whole = size("9x9 pad=4; flatten")
    assert offered(advice, partial, whole) == (whole, partial, advice)


def test_a_fix_of_another_file_is_told_without_edits():
    other = Fix("there", (Edit(Source("b.cnn", "relu").span(0, 4), "gelu"),))
    assert offered(other) == (Fix("there"),)


def test_where_too_much_would_be_checked_again_fixes_are_told_without_edits(monkeypatch):
    report = check_source(SOURCE)
    monkeypatch.setattr(trial, "MOST_WORK", len(TEXT) + 2 * trial.CHARACTERS_A_LAYER)
    assert len(report.layers) == 2
    good = size("9x9 pad=4")
    assert offered(good, size("9x9 pad=5")) == (good, Fix("use 9x9 pad=5"))


def test_a_fix_whose_trial_reaches_a_limit_is_told_without_edits(monkeypatch):
    monkeypatch.setattr("cnndsl.check.network.MAX_LAYERS", 2)
    assert offered(size("3x3; relu; relu")) == (Fix("use 3x3; relu; relu"),)


def test_a_check_that_was_slow_is_not_made_again():
    report = check_source(SOURCE)
    slow = trial.tried(report, SOURCE, check_source, seconds=2 * trial.MOST_SECONDS)
    assert [fix.edits for fix in slow[0].fixes] == [()] * len(report.diagnostics[0].fixes)


@pytest.mark.parametrize(
    ("text", "code", "edits"),
    [
        ("input H x W x 3\nconv 8 3x3\nfc 10\n", "E303", ["globalpool avg\nflatten\n"]),
        (
            "input 8 x 8 x 3\nconv 8 3x3\nfc 10\n",
            "E303",
            ["flatten\n", "globalpool avg\nflatten\n"],
        ),
    ],
)
def test_of_a_free_size_only_what_works_for_all_sizes_is_offered(text, code, edits):
    (error,) = check_source(Source("a.cnn", text)).diagnostics
    assert error.code == code
    assert [edit.text for fix in error.fixes for edit in fix.edits] == edits


def test_every_fix_that_is_offered_makes_its_message_go_away():
    text = (
        "input 28 x 28 x 1\nconv 6 5x5 padding=2\nrelluu\npool max 2 -> 13 x 13 x 6\n"
        "conv 16 14x14 pad=same\nconv 7 3x3 groups=2\nfc 10 bias=maybe\n"
    )
    report = check_source(Source("a.cnn", text))
    tried = 0
    for diagnostic in report.diagnostics:
        for fix in diagnostic.fixes:
            if fix.edits:
                after = check_source(Source("a.cnn", applied(text, fix)))
                assert same(diagnostic) not in map(same, after.diagnostics), fix.message
                tried += 1
    assert tried >= 3


def applied(text: str, fix: Fix) -> str:
    return apply(text, (fix,))


def same(diagnostic: Diagnostic) -> tuple[str, str]:
    return diagnostic.code, diagnostic.message
