"""What Python prints of a report: a few lines, whatever the network."""

import re
from importlib import metadata
from pathlib import Path

import pytest

import cnndsl

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").rglob("*.cnn"))
MISTAKES = "input 8 x 8 x 3\n" + "nonsense\n" * 150


@pytest.mark.parametrize("path", EXAMPLES[::3], ids=lambda path: path.stem)
def test_a_report_prints_as_a_few_lines(path):
    report = cnndsl.check(path)
    assert len(str(report)) < 3000
    assert str(report).count("\n") < 15
    assert "\n" not in repr(report)
    assert len(repr(report)) < 300
    for diagnostic in report.diagnostics[:10]:
        assert f"line {diagnostic.span.line}: {diagnostic.code}: " in str(report)
    if report.ok:
        assert report.model in repr(report)
        assert f"{len(report.layers)} layer" in str(report)
        assert re.search(r"\d parameters \(", str(report))
        assert len(repr(report.graph)) < 200


def test_of_many_mistakes_a_report_prints_the_first_and_how_many():
    report = cnndsl.check(source=MISTAKES)
    assert "150 errors" in repr(report)
    assert "and 140 more" in str(report)


def test_names_from_files_do_not_reach_the_terminal_as_they_are():
    report = cnndsl.check("no\x1b[31mfile\n")
    assert "\x1b" not in str(report) + repr(report)


def test_the_package_knows_its_version():
    assert cnndsl.__version__ == metadata.version("cnndsl")
    assert "__version__" in dir(cnndsl)
