"""One mistake, one error: its code, its place, and a fix that mends it."""

import re

import pytest

from cnndsl.diagnostics import model
from cnndsl.syntax import tree
from tests.syntax.networks import EVERYTHING, LENET, read

# The line with the mistake, the code, the text that is marked, and what the fix makes of the line
# (None: the fix is advice only).
MISTAKES = [
    ("labels “a” “b”", "E101", "“a”", 'labels "a" "b"'),
    ("labels 'a'", "E101", "'a'", 'labels "a"'),
    ("let a = 5 − 5", "E101", "−", "let a = 5 - 5"),
    ("require H ≥ 3", "E101", "≥", "require H >= 3"),
    ("relu → 3", "E101", "→", "relu -> 3"),
    ("relu\u00a0as a", "E101", "\u00a0", "relu as a"),
    ("if a && b { relu }", "E101", "&&", "if a and b { relu }"),
    ("require a|b", "E101", "|", "require a or b"),
    ("let a = 3 / 2", "E101", "/", "let a = 3 // 2"),
    ("größe 3", "E101", "größe", None),
    ("fc [3]", "E101", "[", None),
    ("repeat 3: relu", "E101", ":", None),
    ("fc .5", "E101", ".", None),
    ("relu @", "E101", "@", None),
    ('labels "a', "E102", '"a', 'labels "a"'),
    ('labels "a # b', "E102", '"a', 'labels "a" # b'),
    ("let a = (1 + 2", "E103", "(", "let a = (1 + 2)"),
    ("block b(p { relu }", "E103", "(", "block b(p) { relu }"),
    (")", "E104", ")", ""),
    ("}", "E104", "}", ""),
    ("fc 3)", "E104", ")", "fc 3"),
    ("fc 5K", "E105", "5K", "fc 5k"),
    ("expect a <= 2GB", "E105", "2GB", "expect a <= 2GiB"),
    ("fc 3.", "E105", "3.", "fc 3.0"),
    ("fc 1__0", "E105", "1__0", "fc 1_0"),
    ("fc 10px", "E105", "10px", None),
    ("conv 6 5x", "E105", "5x", None),
    ("fc 0b11", "E105", "0b11", None),
    ("relu ->", "E106", "->", None),
    ("relu as", "E106", "as", None),
    ("conv 6 pad=", "E106", "pad=", None),
    ("conv 6 pad= as a", "E106", "as", None),
    ("let", "E106", "let", None),
    ("let a = 3 +", "E106", "+", None),
    ("fc (1 + )", "E106", ")", None),
    ("fc ()", "E106", ")", None),
    ("block b(3) { }", "E106", "3", None),
    ("input 28 x", "E106", "x", None),
    ("require H > 3,", "E106", ",", None),
    ("default conv", "E106", "conv", None),
    ("concat", "E106", "concat", None),
    ("model 3", "E106", "3", None),
    ("use blocks.cnn", "E106", "blocks.cnn", 'use "blocks.cnn"'),
    ("labels cat dog", "E106", "cat", 'labels "cat" "dog"'),
    ("let a 3", "E107", "3", "let a = 3"),
    ("param a 3", "E107", "3", "param a = 3"),
    ("let a", "E107", "a", None),
    ("let a == 3", "E107", "==", "let a = 3"),
    ("require H = 3", "E107", "=", "require H == 3"),
    ("if H = 3 { relu }", "E107", "=", "if H == 3 { relu }"),
    ("k = 3", "E107", "k =", "let k = 3"),
    ("fc 3 = 3", "E107", "=", None),
    ("pad -1 0", "E108", "-1", "pad (-1) 0"),
    ("fc 3 ** 2", "E108", "**", None),
    ("blok b(p) { relu }", "E108", "blok", "block b(p) { relu }"),
    ("reqire H > 3, W > 2", "E108", "reqire", "require H > 3, W > 2"),
    ("inptu 28 x 28 x 1", "E108", "inptu", "input 28 x 28 x 1"),
    ("else { relu }", "E108", "else", None),
    ("to 3", "E108", "to", None),
    ("relu { relu }", "E108", "{", None),
    ("nn.relu", "E108", "nn.relu", None),
    ("fc a.b", "E108", "a.b", None),
    ("from a b", "E108", "b", None),
    ("input HxWx3", "E109", "HxWx3", "input H x W x 3"),
    ("input H x Wx3", "E109", "Wx3", "input H x W x 3"),
    ("input 28xW", "E109", "28xW", "input 28 x W"),
    ("input 28 x28 x1", "E109", "x28", "input 28 x 28 x 1"),
    ("input 28 28 1", "E109", "28", "input 28 x 28 x 1"),
    ("input 28, 28, 1", "E109", ",", "input 28 x 28 x 1"),
    ("input 28 28 1 u8", "E109", "28", "input 28 x 28 x 1 u8"),
    ("input 28 x 28 x1 u8", "E109", "x1", "input 28 x 28 x 1 u8"),
    ("input 28 x 28 x 1 uint8", "E108", "uint8", "input 28 x 28 x 1 u8"),
    ("input 28x28x1 U8", "E108", "U8", "input 28x28x1 u8"),
    ("input 28 x 28 x 1 float", "E108", "float", "input 28 x 28 x 1"),
    ("input 28 x 28 x 1 u8 u8", "E108", "u8", None),
    ("relu -> HxWx3", "E109", "HxWx3", "relu -> H x W x 3"),
    ("conv 6 5 x 5", "E109", "5 x 5", "conv 6 5x5"),
    ("conv 6 5 × 5", "E109", "5 × 5", "conv 6 5x5"),
    ("conv 6 5 x5", "E109", "5 x5", "conv 6 5x5"),
    ("pool max pad=1 x 2", "E109", "1 x 2", "pool max pad=1x2"),
    ("conv 6 5x5x3", "E109", "5x5x3", "conv 6 5x5"),
    ("relu -> 5 x 5 as c1", "E110", "as c1", "relu as c1 -> 5 x 5"),
    ("conv as c1 6 5x5 -> 3", "E110", "6 5x5", "conv 6 5x5 as c1 -> 3"),
    ("conv 6 as c1 pad=1", "E110", "pad=1", "conv 6 pad=1 as c1"),
    ("repeat 3", "E111", "repeat 3", None),
    ("if H > 3", "E111", "if H > 3", None),
    ("if a { relu } else", "E111", "else", None),
    ("relu // why", "E112", "//", "relu # why"),
    ("// why", "E112", "//", "# why"),
    ("conv 6 5x5 // why", "E112", "//", "conv 6 5x5 # why"),
    ("repeat 3 { relu } relu", "E113", "relu", None),
    ("model A input 3", "E113", "input", None),
    ("conv 6, 5x5, pad=1", "E114", ",", "conv 6 5x5 pad=1"),
    ('labels "a", "b"', "E114", ",", 'labels "a" "b"'),
    ("block b(p q) { relu }", "E114", "q", "block b(p, q) { relu }"),
    ("require H >= 3 W >= 3", "E114", "W", "require H >= 3, W >= 3"),
    ("fc 12345678901234567890", "E513", "12345678901234567890", None),
    ("conv 6 1x12345678901234567890", "E513", "1x12345678901234567890", None),
    ("lrn eps=1e999", "E513", "1e999", None),
    ("lrn eps=1e-999", "E513", "1e-999", None),
    ("lrn eps=1e99999999999", "E513", "1e99999999999", None),
]


def apply(text, fix):
    for edit in sorted(fix.edits, key=lambda e: -e.span.start):
        text = text[: edit.span.start] + edit.text + text[edit.span.end :]
    return text


@pytest.mark.parametrize(("line", "code", "marked", "mended"), MISTAKES)
def test_a_mistake_is_named_once_and_mended(line, code, marked, mended):
    before, after = "relu as before\n", "\nrelu as after\n"
    file, found = read(before + line + after)
    assert [(d.code, d.span.text) for d in found] == [(code, marked)]
    assert found[0].span.line == 2
    assert found[0].fixes
    labels = [s.label.text for s in file.statements if isinstance(s, tree.LayerCall) and s.label]
    assert [name for name in labels if name in ("before", "after")] == ["before", "after"]
    edited = [apply(before + line + after, fix) for fix in found[0].fixes if fix.edits]
    for text in edited:
        assert read(text)[1] == ()
    if mended is not None:
        assert edited == [before + mended + after]


@pytest.mark.parametrize(("line", "code", "marked", "mended"), MISTAKES)
def test_a_mistake_is_the_same_inside_blocks(line, code, marked, mended):
    if code in ("E103", "E104") or line.count("{") != line.count("}"):
        return  # brackets are matched over the whole file
    text = f"block a {{\n    if b {{\n        relu\n        {line}\n        relu\n    }}\n}}\nrelu"
    file, found = read(text)
    assert [(d.code, d.span.text) for d in found] == [(code, marked)]
    assert isinstance(file.statements[0], tree.Block)
    assert isinstance(file.statements[-1], tree.LayerCall)


def test_messages_are_in_plain_words():
    for line, *_ in MISTAKES:
        (found,) = read(line)[1]
        words = [found.message, found.caption, *found.notes, *(f.message for f in found.fixes)]
        for text in words:
            outside = re.sub("`[^`]*`", "", text)
            assert not re.search(r"\b(?!U\b|NUL|UTF|MiB|A\b|Z\b)[A-Z]{2,}|_", outside), text
            assert text == text.strip()
            assert not text.endswith(".")
        assert words[0]


def test_a_very_long_word_does_not_fill_the_message():
    for text in ("9" * 5000 + "q", "fc " + "9" * 5000, "a" * 5000 + " {", "relu " + "a." * 5000):
        for found in read(text)[1]:
            assert len(found.message) < 200
            assert all(len(fix.message) < 200 for fix in found.fixes)


# ── one run, all mistakes ────────────────────────────────────────────────────────────────────────


def test_three_mistakes_give_three_errors_at_their_places():
    text = LENET.replace("6 5x5 pad=same", "6, 5x5").replace("max 2  ", "max 2 2x", 1)
    text = text.replace("fc 84;", "fc 84 as;")
    file, found = read(text)
    assert [(d.code, d.span.line, d.span.text) for d in found] == [
        ("E114", 6, ","),
        ("E105", 11, "2x"),
        ("E106", 14, "as"),
    ]
    assert sum(isinstance(s, tree.Broken) for s in file.statements) == 3
    assert len(file.statements) == 15


def test_mistakes_inside_and_in_the_head_of_a_block_are_all_found():
    text = "block b(p, {\n    conv 6,\n    repeat {\n        fc 3 as\n    }\n}\ninput\n"
    file, found = read(text)
    lines = [d.span.line for d in found]
    assert lines == [1, 2, 3, 4, 7]
    assert [type(s) for s in file.statements] == [tree.Broken, tree.Broken]


def test_what_hangs_on_a_broken_statement_is_not_reported_again():
    for text in (
        "if { relu } else { relu }",
        "add { relu } ] { skip } as c -> 3",
        "repeat 3 as { relu } -> 3",
        "blok b(p) { relu } else 3",
    ):
        assert len(read(text + "\nrelu")[1]) == 1


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("block a {\n    relu\n\nblock b {\n    relu\n}\ninput 3\n", 1, 9),
        ("block a {\n    repeat 2 {\n        relu\n}\ninput 3\n", 2, 14),
        ("block a {\n    if b {\n        relu\n    }\n    relu\ninput 3\n", 1, 9),
        ("repeat 2 {\nrelu\ninput 3", 1, 10),
        ("repeat 2 {", 1, 10),
        ("add { skip } {", 1, 14),
    ],
)
def test_an_open_brace_is_blamed_where_the_layout_says(text, line, column):
    _, found = read(text)
    assert [(d.code, d.span.line, d.span.column) for d in found] == [("E103", line, column)]
    (fix,) = found[0].fixes
    assert read(apply(text, fix))[1] == ()


def test_statements_behind_an_open_block_are_read_where_they_belong():
    file, _ = read("block a {\n    relu\n\nblock b {\n    relu\n}\ninput 3\n")
    assert [type(s) for s in file.statements] == [tree.Block, tree.Block, tree.Input]


def test_an_open_parenthesis_ends_with_its_line():
    file, found = read("let a = (1 +\nlet b = (2)\nfc (3\nrelu\n")
    assert [(d.code, d.span.line) for d in found] == [("E103", 1), ("E103", 3)]
    kinds = [type(s) for s in file.statements]
    assert kinds == [tree.Broken, tree.Let, tree.Broken, tree.LayerCall]


def test_a_second_statement_on_a_line_is_read_all_the_same():
    file, found = read("repeat 3 { relu } conv 6 5x5\nmodel A input 3")
    assert [d.code for d in found] == ["E113", "E113"]
    kinds = [type(s) for s in file.statements]
    assert kinds == [tree.Repeat, tree.LayerCall, tree.Model, tree.Input]


def test_dropping_any_one_token_gives_few_errors_and_keeps_the_rest():
    """A lost token may still make sense; if not, it is one mistake, unless it is a bracket."""
    from cnndsl.syntax.limits import tokens_of

    for token in tokens_of(EVERYTHING):
        _, found = read(EVERYTHING[: token.start] + EVERYTHING[token.end :])
        most = 3 if token.kind in ("LPAR", "RPAR", "LBRACE", "RBRACE") else 1
        assert len(found) <= most, (token, [(d.code, d.message) for d in found])


def test_the_last_diagnostic_is_counted_even_when_there_are_too_many():
    sink = model.Sink(limit=5)
    from cnndsl.source import Source
    from cnndsl.syntax.parse import parse

    parse(Source("test.cnn", "relu ->\n" * 9), sink)
    assert (len(sink.sorted()), sink.dropped) == (5, 4)
