"""What is remembered of launches: the same kernels on the same tensors, found without a search.

And that a smaller batch, such as the last of an epoch, takes the kernels of the others.
"""

import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_launches_without_a_gpu() -> None:
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
    counts = dict(re.findall(r"^(\w+, batch \d+): (\d+) compilations", done.stdout, re.M))
    first = {name: int(counts[f"{name}, batch 64"]) for name in ("lenet", "mixed", "other")}
    # 3 and 4 kernels of its convolutions, 4 of each fully connected layer, 2 of the loss.
    assert first["lenet"] == 21
    assert min(first.values()) > 12
    for name, batch in product(first, (40, 1)):
        assert counts[f"{name}, batch {batch}"] == "0", done.stdout
