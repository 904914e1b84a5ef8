import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from cnndsl.source import TAB_WIDTH, Source, Span, display_width, expand

TEXTS = st.text(st.sampled_from("ab \t\r\n名\u0301\u3000\u200b\x00é{"), max_size=30)


def test_lines_and_columns_count_from_one():
    source = Source("a.cnn", "ab\n\ncd\n")
    assert [source.position(n) for n in range(8)] == [
        (1, 1), (1, 2), (1, 3), (2, 1), (3, 1), (3, 2), (3, 3), (4, 1),
    ]  # fmt: skip
    assert source.line_count == 4
    assert [source.line(n) for n in (1, 2, 3, 4)] == ["ab", "", "cd", ""]
    assert [source.line_start(n) for n in (1, 2, 3, 4)] == [0, 3, 4, 7]


def test_an_empty_file_has_one_empty_line():
    source = Source("a.cnn", "")
    assert (source.line_count, source.line(1), source.position(0)) == (1, "", (1, 1))


def test_a_line_is_shown_without_its_end():
    assert Source("a.cnn", "ab\r\ncd").line(1) == "ab"


@given(TEXTS)
def test_a_position_leads_back_to_its_offset(text):
    source = Source("a.cnn", text)
    for offset in range(len(text) + 1):
        line, column = source.position(offset)
        assert source.line_start(line) + column - 1 == offset
        assert text[:offset].count("\n") == line - 1


def test_a_span_knows_its_text_and_its_ends():
    source = Source("a.cnn", "conv 6\nfc 3")
    span = source.span(5, 9)
    assert span.text == "6\nfc"
    assert (span.line, span.column, span.end_position) == (1, 6, (2, 3))
    assert (span.before(), span.after()) == (source.span(5, 5), source.span(9, 9))
    assert source.span(7, 9).to(source.span(0, 4)) == source.span(0, 9)
    assert span != Span(Source("a.cnn", source.text), 5, 9)  # another file of the same name


def test_widths_are_those_of_a_terminal():
    assert display_width("abc") == 3
    assert display_width("名前") == 4
    assert display_width("e\u0301") == 1
    assert display_width("\t") == TAB_WIDTH


@given(TEXTS)
def test_what_is_expanded_can_be_printed_and_is_as_wide(text):
    shown = expand(text)
    assert shown.isprintable()
    assert display_width(shown) == display_width(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cf") for c in shown)
