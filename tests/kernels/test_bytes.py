"""What blocks move, and keep for backward: by count, of their launches and of their addresses."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .hostile import HostileInterpreter
from .regions import Case, conv_geometry, ours

ROOT = Path(__file__).parents[2]
POOL2: dict[str, Any] = {"activation": "relu", "pool_size": 2}


def test_the_blocks_of_the_design_notes() -> None:
    """Forward of a convolution, ReLU and 2x2 pool moves little more than what it is about."""
    command = [sys.executable, "benchmarks/static.py", "--json", "--names", "A,B,C,D,E,F,G,H,I"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {row["block"][0]: row for row in map(json.loads, done.stdout.splitlines())}
    assert "".join(found) == "ABCDEFGHI"
    for letter in "ABCEFGHI":  # D is a stem: its pool overlaps, so there are three launches
        row = found[letter]
        assert row["forward_bytes"] <= 1.1 * row["least_forward_bytes"], row
    kept, eager = (
        sum(row[name] for row in found.values()) for name in ("saved_bytes", "eager_saved_bytes")
    )
    assert kept <= eager / 4
    # What is known by hand: of B a product, and the bytes of forward as the design notes have them.
    assert found["B"]["forward_flops"] == 2 * 256 * 32 * 32 * 128 * 9 * 64
    assert found["B"]["step_flops"] == 3 * found["B"]["forward_flops"]
    assert found["A"]["step_flops"] == 2 * found["A"]["forward_flops"]  # nobody asks for dx
    assert round(found["E"]["forward_bytes"] / 1e6) == 565
    # A byte a window here; there the sum twice, and 8 bytes a window.
    windows = 64 * 112 * 112 * 64
    assert found["E"]["saved_bytes"] == windows
    assert found["E"]["eager_saved_bytes"] == (4 * 2 + 8) * windows


@pytest.mark.parametrize(
    ("channels", "filters", "kernel", "pad", "size"),
    [(3, 20, 3, 1, 12), (1, 8, 5, 2, 16), (17, 33, 3, 1, 10), (32, 64, 1, 0, 8)],
)
def test_no_address_is_touched_that_need_not_be(
    channels: int, filters: int, kernel: int, pad: int, size: int
) -> None:
    case = Case(conv_geometry(channels, filters, kernel, pad=pad, **POOL2), (2, size, size))
    with HostileInterpreter(counts=True) as interpreter:
        y = ours(case).y
    assert interpreter.launches[0] == "conv_forward"
    assert "conv_forward" not in interpreter.launches[1:]
    needed = 4 * (case.x.numel() + case.weight.numel() + y.numel()) + y.numel()
    assert needed < interpreter.moved[0] <= 1.1 * needed
    assert interpreter.moved[0] == needed + 4 * filters  # the bias, and nothing else
