"""How a message tells where a size comes from, through blocks: by the lines that call them."""

from pathlib import Path

from cnndsl.check import check_source
from cnndsl.source import Source

TWO = """\
block two(n) {
  conv n 3x3
  conv n 3x3
}
block down(n) {
  two(n)
  pool max 2
}
"""


def _error(text: str, code: str = "E301", root: Path | None = None):
    name = "model.cnn" if root is None else str(root / "model.cnn")
    report = check_source(Source(name, text), {}, root=root)
    (error,) = (d for d in report.diagnostics if d.code == code)
    return error


def _labels(diagnostic):
    return [(label.span.line, label.message) for label in diagnostic.labels]


def test_what_a_block_does_is_one_change_at_its_call():
    error = _error(f"{TWO}input 32 x 32 x 1\ndown(8)\ndown(16)\nconv 4 3x3\nconv 4 9x9\n")
    assert error.notes[1] == (
        "its height: 32 → 14 (down, line 10) → 5 (down, line 11) → 3 (conv, line 12)"
    )
    assert _labels(error) == [(12, "the image is 3 x 3 x 4 from here on")]


def test_each_turn_of_a_repeat_is_a_change():
    error = _error(f"{TWO}input 70 x 70 x 1\nrepeat 3 {{ down(8) }}\nconv 4 9x9\n")
    assert error.notes[1] == (
        "its height: 70 → 33 (down, line 10) → 14 (down, line 10) → 5 (down, line 10)"
    )
    assert _labels(error) == [(10, "the image is 5 x 5 x 8 from here on")]


def test_in_the_same_call_each_line_is_a_change():
    error = _error(
        f"{TWO}block end {{ two(4); conv 8 3x3; conv 8 9x9 }}\ninput 14 x 14 x 1\ntwo(2)\nend\n"
    )
    assert error.notes[1] == (
        "its height: 14 → 10 (two, line 11) → 6 (two, line 9) → 4 (conv, line 9)"
    )
    assert _labels(error) == [
        (12, "in this call"),
        (9, "the image is 4 x 4 x 8 from here on"),
    ]


def test_only_the_last_calls_are_told_where_there_are_many():
    text = f"{TWO}input 60 x 60 x 1\n" + "two(4)\n" * 9 + "conv 4 5x5; conv 4 99x99\n"
    assert _error(text).notes[1] == (
        "its height: … → 44 → 40 (two, line 14) → 36 (two, line 15) → 32 (two, line 16)"
        " → 28 (two, line 17) → 24 (two, line 18) → 20 (conv, line 19)"
    )


def test_a_call_that_leaves_the_size_as_it_was_is_no_change():
    same = "block same(n) { conv n 3x3; pad 1 1 1 1 }\n"
    text = f"{same}input 16 x 16 x 1\npool max 2\nsame(4)\npool max 2\nconv 4 5x5\n"
    assert _error(text).notes[1] == "its height: 16 → 8 (pool, line 3) → 4 (pool, line 5)"


def test_a_merge_shows_its_branches_at_the_calls_that_end_them():
    error = _error(
        f"{TWO}input 28 x 28 x 1\nconcat {{ two(4); two(8) }} {{ conv 4 3x3 }}\n", "E304"
    )
    assert _labels(error) == [
        (10, "this one is 20 x 20 x 8"),
        (10, "this one is 26 x 26 x 4"),
    ]
    assert error.notes[0].endswith("28 → 24 (two, line 10) → 20 (two, line 10)")


def test_a_warning_about_pixels_says_in_which_call():
    text = "block down { pool max 2 }\ninput 10 x 10 x 1\ndown\ndown\n"
    assert _labels(_error(text, "W601")) == [(4, "in this call")]
    text = "block thin { conv 4 2x2 stride=3 }\ninput 11 x 11 x 1\nthin\n"
    assert _labels(_error(text, "W602")) == [(3, "in this call")]


def test_deep_calls_are_told_from_outside_and_not_all():
    text = (
        "block a { conv 4 9x9 }\nblock b { a }\nblock c { b }\nblock d { c }\ninput 5 x 5 x 1\nd\n"
    )
    assert _labels(_error(text)) == [(6, "in this call"), (4, "in this call"), (3, "in this call")]


def test_a_line_of_another_file_has_its_name(tmp_path):
    (tmp_path / "blocks.cnn").write_text("block end(k) {\n  conv 4 9x9\n}\n")
    text = 'use "blocks.cnn"\ninput 8 x 8 x 1\nconv 2 3x3\npool max 2\nend(3)\n'
    error = _error(text, root=tmp_path)
    assert error.notes[1].startswith("its height: 8 → 6 (conv, line 3 of ")
    assert "model.cnn) → 3 (pool, line 4 of " in error.notes[1]
    assert [message for _, message in _labels(error)] == [
        "in this call",
        "the image is 3 x 3 x 2 from here on",
    ]


def test_a_block_is_named_however_it_is_called():
    text = "block d(n) { conv n 3x3 }\ninput 9 x 9 x 1\nd n=4\nd  4\nconv 4 9x9\n"
    assert _error(text).notes[1] == "its height: 9 → 7 (d, line 3) → 5 (d, line 4)"


def test_the_start_is_open_where_the_way_back_is_too_long():
    block = "block big(n) { conv n 3x3; repeat 500 { relu }; conv n 3x3 }\n"
    error = _error(f"{block}input 30 x 30 x 1\nbig 4\nconv 4 3x3\nconv 4 99x99\n")
    assert error.notes[1] == "its height: … → 26 (big, line 3) → 24 (conv, line 4)"


def test_a_label_says_no_more_than_is_so_at_its_line():
    text = "input 20 x 20 x 1\npool max 2\nconv 8 1x1\nconv 4 99x99\n"
    assert _labels(_error(text)) == [(2, "the image is 10 pixels high from here on")]
    text = "input 20 x 20 x 1\nconv 8 1x1\npool max 2\nconv 4 2x2 groups=3\n"
    error = _error(text, "E306")
    assert _labels(error) == [(2, "the image has 8 channels from here on")]
    error = _error("input 20\nfc 8\nrelu\ntake 0 20\n", "E317")
    assert _labels(error) == [(2, "the vector has 8 features from here on")]


def test_each_mistake_about_sizes_says_in_which_call_it_is():
    """The same text, called twice: the first call is right."""
    for code, body, image, calls in (
        ("E302", "(n) { conv n 3x3; globalpool avg; flatten; fc n }", "9 x 9 x 1", ("b 4", "b 4")),
        ("E305", "(n) { conv n 3x3 -> 20 x 20 x 4 }", "22 x 22 x 4", ("b 4", "b 4")),
        ("E306", "(n) { conv n 3x3 groups=2 }", "22 x 22 x 4", ("b 4", "b 5")),
        ("E307", "(k) { conv 4 k pad=same }", "22 x 22 x 1", ("b 3", "b 4")),
        ("E312", "(n, h) { conv n 3x3 pad=? -> h x h x n }", "22 x 22 x 4", ("b 4 20", "b 4 19")),
    ):
        text = "\n".join([f"block b{body}", f"input {image}", *calls, ""])
        assert (4, "in this call") in _labels(_error(text, code)), code


def test_what_needs_a_size_too_is_told_once_and_not_at_the_same_place():
    text = "block d(n) { conv n 3x3 }\nblock e(n) { d n; d n }\ninput H x W x 3\n"
    text += "require H >= 4, W >= 4\nd 4\ne 4\ne 4\nconv 4 3x3\n"
    labels = _labels(_error(text, "E402"))
    assert labels.count((8, "this needs it, too")) == 1
    assert all(line != 1 for line, _ in labels)
    assert len(set(labels)) == len(labels)
