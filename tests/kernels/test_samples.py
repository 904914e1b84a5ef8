"""PyTorch's own samples of conv2d and max_pool2d run through regions; all: `CNNDSL_MANY=1`."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EVERY = 1 if os.environ.get("CNNDSL_MANY") == "1" else 60


def test_pytorchs_own_samples() -> None:
    """Each is run, or its reason is counted: none is left out in silence."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.kernels.samples"]
    done = subprocess.run(
        [*command, "--every", str(EVERY)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    convolutions, pools = (json.loads(line) for line in done.stdout.splitlines())
    for found in (convolutions, pools):
        assert found["distinct"] + sum(found["not"].values()) == found["samples"]
    assert convolutions["ran"] >= 2
    assert pools["ran"] >= 4
    if EVERY == 1:
        assert convolutions["ran"] == convolutions["distinct"]
        assert pools["ran"] == pools["distinct"]
