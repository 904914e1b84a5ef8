"""What programs read: our JSON, GitHub's annotations, SARIF."""

import json

import pytest

from cnndsl.diagnostics import catalogue
from cnndsl.diagnostics.machine import github, place, to_json
from cnndsl.diagnostics.model import Diagnostic, Edit, Fix, Label
from cnndsl.diagnostics.sarif import sarif
from cnndsl.source import Source

SOURCE = Source("a b.cnn", "input 8\n\tconv 6 名 pad=3\nfc 3\n")
PAD = SOURCE.span(SOURCE.text.index("pad"), SOURCE.text.index("\nfc"))
DIAGNOSTIC = Diagnostic(
    "E301",
    "the padding, 100%: wrong",
    PAD,
    "this one",
    (Label(SOURCE.span(0, 5), "from here"),),
    ("a note",),
    (Fix("do", (Edit(PAD, "pad=1"), Edit(SOURCE.span(0, 0), "#\n"))), Fix("words only")),
)


def span(line: int, column: int, end_line: int, end_column: int) -> dict:
    return {
        "start": {"line": line, "column": column},
        "end": {"line": end_line, "column": end_column},
    }


def test_a_place_counts_characters_from_one_and_ends_past_the_last():
    assert place(PAD) == span(2, 11, 2, 16)
    assert place(SOURCE.span(6, 9)) == span(1, 7, 2, 2)
    end = len(SOURCE.text)
    assert place(SOURCE.span(end, end)) == span(4, 1, 4, 1)


def test_the_json_of_version_1():
    assert to_json(DIAGNOSTIC) == {
        "code": "E301",
        "severity": "error",
        "message": "the padding, 100%: wrong",
        "span": span(2, 11, 2, 16),
        "labels": [
            {"span": span(2, 11, 2, 16), "message": "this one"},
            {"span": span(1, 1, 1, 6), "message": "from here"},
        ],
        "notes": ["a note"],
        "fixes": [
            {
                "message": "do",
                "edits": [
                    {"span": span(2, 11, 2, 16), "text": "pad=1"},
                    {"span": span(1, 1, 1, 1), "text": "#\n"},
                ],
            },
            {"message": "words only", "edits": []},
        ],
    }
    json.dumps(to_json(DIAGNOSTIC))


def test_a_place_in_another_file_names_it():
    other = Source("other.cnn", "x").span(0, 1)
    made = to_json(Diagnostic("W601", "m", PAD, labels=(Label(other, "l"),)))
    assert made["severity"] == "warning"
    assert made["labels"] == [{"span": span(1, 1, 1, 2), "file": "other.cnn", "message": "l"}]


def test_github_shows_it_beside_the_line():
    assert github(DIAGNOSTIC) == (
        "::error file=a b.cnn,line=2,col=11,endLine=2,endColumn=16,"
        "title=E301%3A the padding%2C 100%25%3A wrong"
        "::this one%0Aa note%0Ahelp: do%0Ahelp: words only"
    )


def test_github_takes_columns_within_a_line_only_and_needs_a_message():
    source = Source("a,b:c.cnn", "a\nb")
    assert github(Diagnostic("W601", "m\r\nn", source.span(0, 3))) == (
        "::warning file=a%2Cb%3Ac.cnn,line=1,endLine=2,title=W601%3A m%0D%0An::m%0D%0An"
    )


@pytest.fixture
def log(monkeypatch) -> dict:
    page = catalogue.parse(
        "E301", "# E301: t\n\nprose\n\n## Wrong\n```cnn\n```\n```text\n```\n## Right\n```cnn\n```\n"
    )
    monkeypatch.setattr(catalogue, "page", lambda code: page.replace(code=code))
    warning = Diagnostic("W601", "w", SOURCE.span(8, 9))
    return sarif([warning, DIAGNOSTIC, DIAGNOSTIC], "1.2.3")


def test_sarif_names_each_rule_once(log):
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("cnndsl", "1.2.3")
    assert [rule["id"] for rule in driver["rules"]] == ["E301", "W601"]
    assert [r["defaultConfiguration"]["level"] for r in driver["rules"]] == ["error", "warning"]
    assert driver["rules"][0]["shortDescription"] == {"text": "t"}
    for result in run["results"]:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    assert run["columnKind"] == "unicodeCodePoints"


def test_sarif_results_have_places_and_fixes(log):
    warning, error, _ = log["runs"][0]["results"]
    assert warning["level"] == "warning"
    assert "fixes" not in warning
    assert error["message"]["text"] == "the padding, 100%: wrong. this one\na note"
    (location,) = error["locations"]
    region = {"startLine": 2, "startColumn": 11, "endLine": 2, "endColumn": 16}
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "a%20b.cnn"},
        "region": region,
    }
    assert error["relatedLocations"][0]["message"] == {"text": "from here"}
    (fix,) = error["fixes"]  # the one without edits is no fix for a program
    (change,) = fix["artifactChanges"]
    assert change["replacements"][0] == {
        "deletedRegion": region,
        "insertedContent": {"text": "pad=1"},
    }
    assert len(change["replacements"]) == 2
