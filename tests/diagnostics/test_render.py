"""What people see: compared as a whole, because alignment is the point."""

import re
from textwrap import dedent

import pytest

from cnndsl.diagnostics.model import Diagnostic, Edit, Fix, Label, Sink
from cnndsl.diagnostics.render import render, report, summary
from cnndsl.diagnostics.style import COLOURED, PLAIN
from cnndsl.source import Source, Span, display_width


def at(source: Source, words: str, count: int = 0) -> Span:
    start = -1
    for _ in range(count + 1):
        start = source.text.index(words, start + 1)
    return source.span(start, start + len(words))


def shows(diagnostic: Diagnostic, expected: str, width: int = 100) -> None:
    assert render(diagnostic, width=width) == dedent(expected).strip("\n")


def test_the_form_in_the_reference():
    lines = [""] * 40
    lines[13] = "    conv 512 3x3 pad=same as enc4"
    lines[30] = "    concat enc4"
    source = Source("unet.cnn", "\n".join(lines))
    shows(
        Diagnostic(
            "E304",
            "the branches of this `concat` differ in height unless H % 16 == 0",
            at(source, "concat"),
            "the current tensor is 2·⌊H/16⌋ x 2·⌊W/16⌋ x 512",
            (
                Label(
                    at(source, "conv 512 3x3 pad=same as enc4"), "this one is ⌊H/8⌋ x ⌊W/8⌋ x 512"
                ),
            ),
            ("for example, H = 40 gives 5 and 4 rows",),
            (
                Fix("promise it: `require H % 16 == 0, W % 16 == 0`"),
                Fix("or make it so for every size: `upsample like enc4`"),
            ),
        ),
        """
        error[E304]: the branches of this `concat` differ in height unless H % 16 == 0
          --> unet.cnn:31:5
           |
        14 |     conv 512 3x3 pad=same as enc4
           |     ----------------------------- this one is ⌊H/8⌋ x ⌊W/8⌋ x 512
           …
        31 |     concat enc4
           |     ^^^^^^ the current tensor is 2·⌊H/16⌋ x 2·⌊W/16⌋ x 512
           |
           = for example, H = 40 gives 5 and 4 rows
           = help: promise it: `require H % 16 == 0, W % 16 == 0`
           = help: or make it so for every size: `upsample like enc4`
        """,
    )


def test_several_labels_on_one_line_hang_below_each_other():
    source = Source("a.cnn", "conv 6 5x5 pad=3")
    shows(
        Diagnostic(
            "E301",
            "m",
            at(source, "5x5"),
            "size",
            (
                Label(at(source, "pad=3"), "padding"),
                Label(at(source, "6"), "filters"),
                Label(at(source, "conv"), ""),
            ),
        ),
        """
        error[E301]: m
         --> a.cnn:1:8
          |
        1 | conv 6 5x5 pad=3
          | ---- - ^^^ ----- padding
          |      | |
          |      | size
          |      filters
        """,
    )


def test_a_label_inside_another_and_one_on_the_same_place():
    source = Source("a.cnn", "conv 6 5x5 pad=3")
    shows(
        Diagnostic(
            "E301",
            "m",
            at(source, "5x5"),
            "inner",
            (Label(at(source, "6 5x5 pad=3"), "outer"), Label(at(source, "5x5"), "the same")),
        ),
        """
        error[E301]: m
         --> a.cnn:1:8
          |
        1 | conv 6 5x5 pad=3
          |      --^^^------ outer
          |        |
          |        the same
          |        inner
        """,
    )


def test_a_place_of_many_lines_is_bracketed_and_its_middle_left_out():
    body = "\n".join(f"    relu  # {n}" for n in range(9))
    source = Source("a.cnn", f"input 8\nadd {{\n{body}\n}}\nfc 3\n")
    start = source.text.index("add")
    shows(
        Diagnostic(
            "W601",
            "m",
            source.span(start, source.text.index("}") + 1),
            "all of it",
            (Label(at(source, "input"), "from here"),),
        ),
        """
        warning[W601]: m
          --> a.cnn:2:1
           |
         1 |   input 8
           |   ----- from here
         2 | / add {
         3 | |     relu  # 0
           … |
        12 | | }
           | |_^ all of it
        """,
    )


def test_brackets_inside_brackets_keep_their_lanes():
    source = Source("a.cnn", "x; add {\n relu\n} { skip; add {\n  relu\n} }\n")
    shows(
        Diagnostic(
            "E305",
            "m",
            source.span(3, source.text.rindex("}") + 1),
            "outer",
            (Label(source.span(source.text.index("add", 5), source.text.rindex("} }") + 1), "in"),),
        ),
        """
        error[E305]: m
         --> a.cnn:1:4
          |
        1 |     x; add {
          |  ______^
        2 | |    relu
        3 | |   } { skip; add {
          | |  ___________-
        4 | | |   relu
        5 | | | } }
          | | |_- in
          | |_____^ outer
        """,
    )


def test_a_place_that_ends_with_the_line_end_stays_on_its_line():
    source = Source("a.cnn", "relu\r\nfc 3\n")
    shows(
        Diagnostic("E301", "m", source.span(0, 6), "c"),
        """
        error[E301]: m
         --> a.cnn:1:1
          |
        1 | relu
          | ^^^^ c
        """,
    )


@pytest.mark.parametrize(
    ("text", "start", "line", "column", "shown"),
    [
        ("", 0, 1, 1, "1 |\n  | ^ here"),
        ("relu", 4, 1, 5, "1 | relu\n  |     ^ here"),
        ("relu\n", 5, 2, 1, "2 |\n  | ^ here"),
        ("relu\n", 4, 1, 5, "1 | relu\n  |     ^ here"),
        ("a b", 1, 1, 2, "1 | a b\n  |  ^ here"),
    ],
)
def test_empty_places(text, start, line, column, shown):
    source = Source("a.cnn", text)
    rendered = render(Diagnostic("E101", "m", source.span(start, start), "here"))
    assert rendered == f"error[E101]: m\n --> a.cnn:{line}:{column}\n  |\n{shown}"


def test_a_place_beyond_the_text_is_at_its_end():
    source = Source("a.cnn", "ab")
    assert "1 | ab\n  |   ^ here" in render(Diagnostic("E101", "m", source.span(2, 99), "here"))


def test_tabs_wide_and_combining_characters_are_aligned():
    source = Source("a.cnn", "\tfc 名前 # e\u0301x\u3000y")
    shows(
        Diagnostic("E201", "m", at(source, "名前"), "n", (Label(at(source, "x"), "x"),)),
        """
        error[E201]: m
         --> a.cnn:1:5
          |
        1 |     fc 名前 # éx�y
          |        ^^^^    - x
          |        |
          |        n
        """.replace("é", "e\u0301"),
    )


def test_labels_in_another_file_have_their_own_place():
    one, other = Source("one.cnn", "fc 3"), Source("other.cnn", "\n" * 11 + "block b() {")
    shows(
        Diagnostic("E301", "m", at(one, "fc"), "", (Label(at(other, "b()"), "made here"),), ("n",)),
        """
        error[E301]: m
          --> one.cnn:1:1
           |
         1 | fc 3
           | ^^
           |
          ::: other.cnn:12:7
           |
        12 | block b() {
           |       --- made here
           |
           = n
        """,
    )


def test_a_gap_of_one_line_is_shown():
    source = Source("a.cnn", "one\ntwo\nthree")
    shows(
        Diagnostic("E301", "m", at(source, "three"), "", (Label(at(source, "one"), ""),)),
        """
        error[E301]: m
         --> a.cnn:3:1
          |
        1 | one
          | ---
        2 | two
        3 | three
          | ^^^^^
        """,
    )


def test_a_note_of_several_lines_is_indented():
    source = Source("a.cnn", "fc")
    shows(
        Diagnostic("E301", "m", at(source, "fc"), notes=("one\ntwo",)),
        """
        error[E301]: m
         --> a.cnn:1:1
          |
        1 | fc
          | ^^
          |
          = one
            two
        """,
    )


# ── what a fix would write ───────────────────────────────────────────────────────────────────────


def with_fix(source: Source, span: Span, fix: Fix) -> str:
    return render(Diagnostic("E301", "m", span, fixes=(fix,))).split("= help: ")[1]


def test_a_fix_shows_the_line_as_it_would_be():
    source = Source("a.cnn", "input 8\n\tconv 6 5x5 pad=3\n")
    span = at(source, "pad=3")
    fix = Fix("give it less padding", (Edit(span, "pad=2"),))
    assert with_fix(source, span, fix) == (
        "give it less padding\n2 |     conv 6 5x5 pad=2\n  |                +++++"
    )


def test_a_fix_of_several_edits_and_new_lines():
    source = Source("a.cnn", "conv 6\nfc 10\n")
    span = at(source, "fc")
    fix = Fix("make it a vector", (Edit(span.before(), "flatten\n"), Edit(at(source, "10"), "12")))
    assert with_fix(source, span, fix) == (
        "make it a vector\n2 | flatten\n  | +++++++\n3 | fc 12\n  |    ++"
    )


def test_a_fix_that_says_what_it_writes_shows_nothing_more():
    source = Source("a.cnn", "fc 10\n")
    fix = Fix("put `flatten` in front of it", (Edit(at(source, "fc").before(), "flatten\n"),))
    assert with_fix(source, at(source, "fc"), fix) == "put `flatten` in front of it"

    twice = Fix("`flatten`, then `relu`", (Edit(at(source, "fc").before(), "flatten\n  relu\n"),))
    assert with_fix(source, at(source, "fc"), twice) == "`flatten`, then `relu`"


def test_a_fix_that_is_large_or_elsewhere_is_words_only():
    source, other = Source("a.cnn", "fc 10\n"), Source("b.cnn", "x")
    span = at(source, "fc")
    assert with_fix(source, span, Fix("do", (Edit(span, "a\n" * 9),))) == "do"
    assert with_fix(source, span, Fix("do", (Edit(at(other, "x"), "y"),))) == "do"


# ── bounds ───────────────────────────────────────────────────────────────────────────────────────


def test_of_a_long_line_the_part_around_the_place_is_shown():
    source = Source("a.cnn", "y" * 500 + " BAD " + "z" * 500)
    source_line, marks = render(Diagnostic("E101", "m", at(source, "BAD"), "here"), width=60).split(
        "\n"
    )[3:]
    assert len(source_line) <= 60
    assert source_line.startswith("1 | …y")
    assert source_line.endswith("z…")
    column = source_line.index("BAD")
    assert marks == "  | " + " " * (column - 4) + "^^^ here"


def test_marks_far_apart_on_a_long_line_keep_to_the_main_one():
    source = Source("a.cnn", "first " + "y" * 500 + " BAD " + "z" * 500 + " last")
    labels = (Label(at(source, "first"), "one"), Label(at(source, "last"), "two"))
    lines = render(Diagnostic("E101", "m", at(source, "BAD"), "here", labels), width=60).split("\n")
    assert "BAD" in lines[3]
    assert lines[4].startswith("  | -")  # at the `…`, where the first one would be
    assert max(map(len, lines)) <= 70
    assert all(any(word in line for line in lines) for word in ("one", "two", "here"))


def test_a_place_longer_than_the_line_is_cut():
    source = Source("a.cnn", "x" * 5000)
    lines = render(Diagnostic("E101", "m", source.span(0, 5000), "here"), width=60).split("\n")
    assert max(map(len, lines)) <= 70
    assert lines[4].endswith("^ here")


def test_hostile_text_stays_short_and_fast():
    source = Source("e\x1b[31mvil.cnn", "a " * 500_000)
    labels = tuple(Label(source.span(2 * n, 2 * n + 1), "\x1b[2J" + "w" * 9999) for n in range(900))
    diagnostic = Diagnostic(
        "E101",
        "x\x00" * 99_999,
        source.span(600_000, 600_001),
        "c" * 99_999,
        labels,
        ("n\n" * 9_999,),
        (Fix("f" * 99_999, (Edit(source.span(0, 500_000), "y" * 99_999),)),),
    )
    text = render(diagnostic)
    assert len(text) < 40_000
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "= and 888 more places" in text


@pytest.mark.parametrize("unit", ["a ", "\u0301", "名", "\t", "\u0301\n"])
def test_huge_texts_of_any_kind_take_no_time(unit):
    source = Source("a.cnn", "e" + unit * 300_000)
    size = len(source.text)
    for n in range(0, size, size // 50):
        whole = Diagnostic("E101", "m", source.span(n, size), "c", (Label(source.span(0, n), ""),))
        assert len(render(whole)) < 3_000


def test_every_place_of_a_nasty_text_can_be_drawn():
    text = "a\tb\r\n\n  名\u0301{\n x\u200b\n}\t\n\n"
    source = Source("a.cnn", text)
    for start in range(len(text) + 1):
        for end in range(start, len(text) + 1):
            label = Label(source.span(end // 2, end), "l")
            for line in render(
                Diagnostic("E101", "m", source.span(start, end), "c", (label,)), width=40
            ).split("\n"):
                assert line == line.rstrip()
                assert "\r" not in line
                assert "\t" not in line


# ── several, and colours ─────────────────────────────────────────────────────────────────────────


def test_a_report_counts_what_it_shows():
    source = Source("a.cnn", "fc 3")
    error = Diagnostic("E301", "m", at(source, "fc"))
    warning = Diagnostic("W601", "w", at(source, "3"))
    text = report([error, warning, error])
    assert text.startswith("error[E301]: m\n")
    assert "^^\n\nwarning[W601]: w\n" in text
    assert text.endswith("\n\n2 errors, 1 warning\n")
    assert summary([error]) == "1 error"
    assert report([]) == ""


def test_a_report_says_that_a_sink_has_dropped_some():
    source, sink = Source("a.cnn", "fc 3"), Sink(limit=1)
    for n in range(4):
        sink.add(Diagnostic("E301", "m", source.span(n, n + 1)))
    text = report(sink.sorted(), dropped=sink.dropped)
    assert text.endswith("1 error (and 3 more, not shown: mend these first)\n")


def test_colours_change_nothing_but_colours():
    source = Source("a.cnn", "conv 6 5x5\nfc")
    diagnostic = Diagnostic(
        "E301",
        "m",
        at(source, "5x5"),
        "c",
        (Label(at(source, "conv"), "l"), Label(source.span(0, 13), "all")),
        ("n",),
        (Fix("f", (Edit(at(source, "fc"), "relu"),)),),
    )
    plain, coloured = render(diagnostic, style=PLAIN), render(diagnostic, style=COLOURED)
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain
    assert "\x1b[1;31merror[E301]\x1b[0m" in coloured
    assert "\x1b[1;31m^^^ c\x1b[0m" in coloured or "\x1b[1;31m^^^\x1b[0m" in coloured


def test_the_carets_of_a_tabbed_line_are_as_wide_as_what_they_mark():
    source = Source("a.cnn", "\ta\tb 名")
    lines = render(Diagnostic("E101", "m", source.span(1, 6), "")).split("\n")
    assert lines[4].count("^") == display_width("a\tb 名")
