import pytest

from cnndsl.cli import explain
from cnndsl.cli.main import main
from cnndsl.diagnostics import catalogue
from cnndsl.diagnostics.style import COLOURED, PLAIN

PAGE = catalogue.parse(
    "E304",
    "# E304: branches differ\n\n"
    + "Some words that are long enough to be filled. " * 3
    + "\n\n- a list\n- stays\n\n## Wrong\n\n```cnn\nrelu\n\nfc 3\n```\n\n"
    + "```text\nerror[E304]: m\n```\n\n## Right\n\n```cnn\nfc 3\n```\n",
)


@pytest.fixture
def pages(monkeypatch):
    monkeypatch.setattr(catalogue, "codes", lambda: ("E301", "E304", "W601"))
    monkeypatch.setattr(catalogue, "page", lambda code: PAGE.replace(code=code))


def test_a_page_is_laid_out_for_the_width(pages):
    assert explain.show(PAGE, PLAIN, 40) == (
        "E304: branches differ\n\n"
        "Some words that are long enough to be\n"
        "filled. Some words that are long enough\n"
        "to be filled. Some words that are long\n"
        "enough to be filled.\n\n"
        "- a list\n- stays\n\n"
        "Wrong\n\n    relu\n\n    fc 3\n\n    error[E304]: m\n\n"
        "Right\n\n    fc 3"
    )
    assert "\x1b[1;31mE304\x1b[0m" in explain.show(PAGE, COLOURED, 40)


@pytest.mark.parametrize("code", ["E304", "e304", " e304 "])
def test_a_code_in_any_case(pages, capsys, code):
    assert main(["explain", code]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("E304: branches differ\n")


def test_no_code_lists_all_by_family(pages, capsys):
    assert main(["explain"]) == 0
    assert capsys.readouterr().out == (
        "shapes\n  E301  branches differ\n  E304  branches differ\n\n"
        "warnings\n  W601  branches differ\n"
    )


def test_an_unknown_code_names_near_ones(pages, capsys):
    assert main(["explain", "e305"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "error: there is no message with the code `e305`\n"
        "  = help: near it are E301, E304\n"
        "  = help: `cnndsl explain` lists all of them\n"
    )
    assert main(["explain", "nonsense"]) == 2
    assert "near it" not in capsys.readouterr().err
