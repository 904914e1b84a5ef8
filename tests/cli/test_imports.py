"""What `check` loads for a file without mistakes: a small file takes the time of its imports."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What only mistakes, fixes, holes and free sizes need.
NEEDLESS = {
    "cnndsl.check.crop",
    "cnndsl.check.edits",
    "cnndsl.check.holes",
    "cnndsl.check.repair",
    "cnndsl.check.trial",
    "cnndsl.diagnostics.render",
    "cnndsl.sizes.presburger",
    "cnndsl.syntax.errors",
    "cnndsl.syntax.foreign",
    "threading",
}
SCRIPT = """
import sys
from cnndsl.cli.main import main
status = main(["check", "examples/lenet.cnn"])
print(*sys.modules, file=sys.stderr)
sys.exit(status)
"""


def test_a_right_file_loads_nothing_that_only_mistakes_need() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(ran.stderr.split())
    assert "cnndsl.check.elaborate" in loaded
    assert not loaded & NEEDLESS
