"""Every kernel compiles offline, without spills, on tensor cores, and no worse than it did."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.golden import Golden

from .static import CONV, faults, rows, table, worse

ROOT = Path(__file__).parent.parent.parent
TABLES = ROOT / "tests" / "golden" / "static"
MANY = os.environ.get("CNNDSL_MANY") == "1"


def usages(target: str, *only: str) -> list[dict[str, Any]]:
    """Say what all kernels use; from a process in which kernels are not interpreted."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.compile_all", target, *only],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def no_worse_than_committed(target: str, found: list[dict[str, Any]], golden: Golden) -> None:
    """Compare with the committed table; with `--golden`, write it."""
    path, text = TABLES / f"{target}.md", table(found)
    if golden.rewrite or not path.is_file():
        golden.check(path, text)
    assert worse(path.read_text(encoding="utf-8"), text) == []


# One test a target: compiling is slow, and pytest-xdist then does two at once.
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100"])
def test_all_kernels_compile(target: str, golden: Golden) -> None:
    found = usages(target)
    assert len({(usage["region"], usage["dtype"]) for usage in found}) == 31 * 2 + 5 + 7
    assert faults(found) == []
    no_worse_than_committed(target, found, golden)


# Those that spilled on sm_80 with sizes that symbols decide, where with constant ones they did not.
@pytest.mark.parametrize(
    ("target", "only"),
    [
        ("sm_80", ("stem", "average_normed")),
        *(
            pytest.param(target, (), marks=pytest.mark.skipif(not MANY, reason="CNNDSL_MANY=1"))
            for target in ("sm_80", "sm_90", "sm_100")
        ),
    ],
)
def test_open_sizes_spill_nothing(target: str, only: tuple[str, ...]) -> None:
    found = usages(target, "--free", *(["--only", *only] if only else []))
    assert faults(found) == []
    constant, free = rows((TABLES / f"{target}.md").read_text(encoding="utf-8")), rows(table(found))
    assert any(constant[name] != free[name] for name in constant.keys() & free.keys())


def test_some_kernels_compile_for_amd(golden: Golden) -> None:
    found = usages("gfx942", "--only", "wide", "residual_normed", "fc1", "loss")
    assert faults(found) == []
    no_worse_than_committed("gfx942", found, golden)


def wide(**changed: Any) -> list[dict[str, Any]]:
    """Give a region's kernels as they should be, but for the forward kernel."""
    usage: dict[str, Any] = {
        "region": "wide",
        "dtype": "fp32",
        "target": "sm_90",
        "config": {"BLOCK_FILTERS": 64, "PRECISION": "tf32", "num_warps": 4},
        "registers": 100,
        "spills": 0,
        "shared_bytes": 1000,
        "mma": "wgmma",
    }
    kernels = sorted(CONV | {"conv_bias_gradient"})
    found = [usage | {"kernel": kernel} for kernel in kernels]
    return [u | changed if u["kernel"] == "conv_forward" else u for u in found]


def test_what_a_kernel_may_not_use() -> None:
    name = "sm_90 wide fp32 conv_forward filters 64, precision tf32, num_warps 4"
    assert faults(wide()) == []
    assert faults(wide(spills=2)) == [f"{name}: spills 2 times"]
    assert faults(wide(shared_bytes=101377)) == [f"{name}: takes 101377 bytes of shared memory"]
    assert faults(wide(registers=513)) == [f"{name}: takes more registers than there are"]
    assert faults(wide(mma="mma")) == [f"{name}: multiplies by mma, not wgmma"]
    small = {"BLOCK_FILTERS": 32, "PRECISION": "tf32", "num_warps": 4}
    assert faults(wide(config=small, mma="mma")) == []
    assert len(faults(wide(config=small, mma="fma"))) == 1
    assert faults(wide()[1:]) == ["wide fp32: not as expected: conv_bias_gradient"]


def test_a_table_that_is_worse_is_told_by_its_lines() -> None:
    usage: dict[str, Any] = {
        "region": "wide",
        "dtype": "bf16",
        "kernel": "conv_forward",
        "config": {"BLOCK_FILTERS": 64, "num_warps": 4},
        "registers": 100,
        "spills": 0,
        "shared_bytes": 1000,
        "mma": "wgmma",
        "tma": False,
        "instructions": 500,
    }
    name = "wide bf16 conv_forward filters 64, num_warps 4"

    def against(**changed: Any) -> list[str]:
        return worse(table([usage]), table([{**usage, **changed}]))

    assert against() == []
    assert against(registers=120, instructions=400, tma=True, shared_bytes=10) == []
    assert against(registers=121) == [f"{name}: registers was 100, is 121"]
    assert against(spills=1) == [f"{name}: spills was 0, is 1"]
    assert against(mma="mma") == [f"{name}: mma was wgmma, is mma"]
    assert worse(table([{**usage, "tma": True}]), table([usage])) == [
        f"{name}: tma was True, is False"
    ]
    assert worse(table([usage]), table([])) == [f"{name}: is gone"]
    assert worse(table([]), table([usage])) == [f"{name}: is new"]
