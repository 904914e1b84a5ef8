"""The pages of the codes say what the checker says: each example is checked, each message compared.

`pytest --golden` writes the messages into the pages; a new page needs none to begin with.
"""

import re
from pathlib import Path

import pytest

from cnndsl.check import check_source
from cnndsl.check.settings import parse_setting
from cnndsl.diagnostics import catalogue
from cnndsl.diagnostics.catalogue import Example
from cnndsl.diagnostics.model import Sink
from cnndsl.diagnostics.render import render
from cnndsl.source import Source
from cnndsl.syntax.read import read_source

PACKAGE = Path(catalogue.__file__).parent.parent
PAGES = sorted((PACKAGE / "diagnostics" / "codes").glob("*.md"))


def examples(markdown: str) -> tuple[Example, Example]:
    """The wrong and the right one, whether or not the message stands there yet."""
    wrong, right = markdown.split("\n## Wrong\n")[1].split("\n## Right\n")
    return catalogue.blocks(wrong)[0], catalogue.blocks(right)[0]


def with_output(markdown: str, output: str) -> str:
    """The page with this message under its wrong example."""
    head, rest = markdown.split("\n## Wrong\n")
    wrong, right = rest.split("\n## Right\n")
    before, found, after = wrong.partition("```text\n")
    after = after.split("```\n", 1)[1] if found else ""
    block = f"```text\n{output}\n```\n"
    return f"{head}\n## Wrong\n{before.rstrip()}\n\n{block}{after}\n## Right\n{right}".replace(
        "```\n\n\n##", "```\n\n##"
    )


def check(example: Example):
    """What the checker says of an example.

    A `python` one is an expression that makes the text, a `path` one names a file.
    """
    language, *settings = example.info.split()
    text = example.text
    if language == "path":
        sink = Sink()
        assert read_source(text.strip(), sink) is None
        return sink.sorted()
    if language == "python":
        text = eval(text)
    else:
        assert language == "cnn"
    given = dict(parse_setting(word) for word in settings if word != "--set")
    return check_source(Source("example.cnn", text), given).diagnostics


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_wrong_example_gives_the_message_on_the_page(path, golden):
    markdown = path.read_text(encoding="utf-8")
    found = check(examples(markdown)[0])
    assert [d.code for d in found] == [path.stem] * max(len(found), 1)
    golden.check(path, with_output(markdown, "\n\n".join(render(d) for d in found)))
    assert catalogue.page(path.stem).output


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_right_example_is_right(path):
    found = check(examples(path.read_text(encoding="utf-8"))[1])
    assert "\n\n".join(render(d) for d in found) == ""


def test_every_code_has_a_page_and_every_page_a_code():
    used: set[str] = set()
    for file in PACKAGE.rglob("*.py"):
        used |= set(re.findall(r'"([EW]\d{3})"', file.read_text(encoding="utf-8")))
    assert used == {path.stem for path in PAGES}


def test_codes_that_the_help_mentions_exist():
    for file in (PACKAGE / "cli").glob("*.py"):
        mentioned = set(re.findall(r"\b[EW][1-6]\d{2}\b", file.read_text(encoding="utf-8")))
        assert mentioned <= {path.stem for path in PAGES}, file.name


def test_titles_and_prose_are_short_enough_to_read():
    for path in PAGES:
        heading, *lines = path.read_text(encoding="utf-8").split("\n")
        assert len(heading) <= 80, path.stem
        assert max(map(len, lines)) <= 120, path.stem


def test_the_pages_are_found_where_the_package_is_installed():
    assert catalogue.codes() == tuple(path.stem for path in PAGES)
    assert catalogue.codes()
