"""Every example in the documentation is checked, and what it claims is so."""

import os
import re
import subprocess
import sys
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


# ── the commands of the README ───────────────────────────────────────────────────────────────────

README = (ROOT / "README.md").read_text(encoding="utf-8")
CHEAP = ("check", "compile", "--version")


def commands():
    """The lines after `$` of the README that take a moment, with the output that it shows."""
    for block in re.findall(r"^```\n(\$ .*?)^```", README, re.DOTALL | re.MULTILINE):
        for part in block.split("$ ")[1:]:
            line, _, output = part.partition("\n")
            if line.startswith("cnndsl") and line.split()[1] in CHEAP:
                yield pytest.param(line, output, id=line)


def run_there(folder, line):
    """Run a line in a folder that looks like a checkout, as a shell with the environment on."""
    for name in ("examples", "kernels", "grammars"):
        (folder / name).symlink_to(ROOT / name)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-c", line],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PATH": path},
        check=False,
    )


@pytest.mark.parametrize(("line", "output"), list(commands()))
def test_a_command_of_the_readme_prints_what_stands_below_it(line, output, tmp_path):
    done = run_there(tmp_path, line)
    assert done.returncode == ("broken" in line)
    printed = (done.stdout + done.stderr).splitlines()
    for shown in output.splitlines():
        assert shown in ("", "…") or shown in printed


def test_a_reader_is_told_where_the_program_is_before_its_first_use():
    activate = ". .venv/bin/activate"
    assert f"$ {activate}\n" in README
    assert README.index(activate) < README.index("$ cnndsl")
    assert activate in (ROOT / "Makefile").read_text(encoding="utf-8")
