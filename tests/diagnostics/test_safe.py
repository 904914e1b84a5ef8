"""Names from files reach a terminal without anything that it would obey."""

import pytest

from cnndsl.diagnostics.safe import LONGEST, safe, safe_list


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("conv1.weight", "conv1.weight"),
        ("größe 犬 é", "größe 犬 é"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("a\nerror: forged", r"a\nerror: forged"),
        ("a\r\tb\x07", r"a\r\tb\x07"),
        ("\x9b31m", r"\x9b31m"),  # one character that some terminals take for `ESC [`
        ("abc\u202egpj.exe", r"abc\u202egpj.exe"),  # from right to left
        ("a\u2028b\u200bc", r"a\u2028b\u200bc"),
        ("\udcff.png", r"\udcff.png"),  # a file name that is not UTF-8
        (7, "7"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(name, shown):
    assert safe(name) == shown
    assert safe(name).isprintable()


def test_a_long_name_keeps_its_ends():
    shown = safe("a" * 5000 + "z")
    assert len(shown) <= LONGEST + 1
    assert shown.startswith("aaa")
    assert shown.endswith("az")


def test_a_long_list_says_how_many_more():
    assert safe_list(["a\n", "b"]) == r"a\n, b"
    assert safe_list(range(1000), most=2) == "0, 1, … and 998 more"
