"""Every example in the documentation is checked, and what it claims is so."""

import re
from pathlib import Path

import pytest

from cnndsl.check import check_source
from cnndsl.cli.main import COMMANDS
from cnndsl.layers.table import FORMS
from cnndsl.source import Source
from cnndsl.syntax.format import format_text

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language):
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            line = text[: match.start()].count("\n") + 1
            found.append(pytest.param(match[1], id=f"{page.name}:{line}"))
    return found


@pytest.mark.parametrize("text", blocks("cnn"))
def test_examples_are_right_and_in_the_canonical_layout(text):
    source = Source("example.cnn", text)
    assert [d.message for d in check_source(source).diagnostics] == []
    assert format_text(source) == text


def test_every_layer_and_command_is_documented():
    language = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
    missing = [kind for kind in FORMS if not re.search(rf"`{kind}\b", language)]
    assert not missing
    interfaces = (ROOT / "docs" / "interfaces.md").read_text(encoding="utf-8")
    assert not [command for command in COMMANDS if f"`cnndsl {command}" not in interfaces]


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page.name, target)
