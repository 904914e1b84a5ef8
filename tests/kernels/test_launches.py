"""What is remembered of launches: the same kernels on the same tensors, found without a search."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_what_is_remembered_is_what_would_be_done_anew() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.launches"],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "DIFFERENT" not in done.stdout
    assert "as made, True, tf32: 75 launches" in done.stdout
    replays = re.search(
        r"^([0-9]+) calls were like an earlier one, 0 could not be remembered$", done.stdout, re.M
    )
    assert replays is not None
    assert int(replays[1]) > 1000
    assert "13 kernels, 13 remembered" in done.stdout
