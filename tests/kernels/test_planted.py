"""Mistakes that are planted in the kernels are found; all of them: `CNNDSL_MANY=1`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .mistakes import MISTAKES, place

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "tests" / "golden" / "mistakes.md"
EVERY = 1 if os.environ.get("CNNDSL_MANY") == "1" else 50


def test_mistakes_are_found() -> None:
    """By a test each, but for those that change nothing, of which the reason is known."""
    command = [sys.executable, "-m", "tests.kernels.planted", "--sample", str(EVERY)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" → ") == len(MISTAKES[::EVERY])


def test_the_table_is_of_these_mistakes() -> None:
    rows = [line.split(" | ") for line in TABLE.read_text("utf-8").splitlines() if " | " in line]
    assert [(file.lstrip("| "), name) for file, name, _ in rows[2:]] == [
        (mistake.file, mistake.name) for mistake in MISTAKES
    ]
    found = [not row[2].startswith("none") for row in rows[2:]]
    changing = [not mistake.same for mistake in MISTAKES]
    assert sum(changing) >= 100
    assert sum(found) >= 0.95 * sum(changing)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: f"{m.file} {m.name}")
def test_what_is_replaced_stands_there(mistake) -> None:
    text = place(mistake).read_text("utf-8")
    assert text.count(mistake.old) == mistake.times
