"""Every kernel compiles offline for sm_80 and sm_90, without spills, and on tensor cores."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
KERNELS_OF_A_REGION = {"forward", "input_gradient", "weight_gradient", "bias_gradient"}


def usages(target: str) -> list[dict[str, Any]]:
    """Say what all kernels use; from a process in which kernels are not interpreted."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.compile_all", target],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def uses_tensor_cores(usage: dict[str, Any]) -> bool:
    if usage["kernel"].endswith("bias_gradient") or usage["region"] == "loss":
        return True  # a sum, no product
    has_many_channels = usage["region"] in ("wide", "strided", "overlapping", "average")
    if usage["target"] == "sm_90" and usage["dtype"] != "fp32" and has_many_channels:
        return usage["mma"] == "wgmma"
    return usage["mma"] in ("mma", "wgmma")


# One test a target: compiling is slow, and pytest-xdist then does both at once.
@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_all_kernels_compile(target: str) -> None:
    found = usages(target)
    compiled = {(u["region"], u["dtype"], u["kernel"].split("_", 1)[1]) for u in found}
    regions = {region for region, _, _ in compiled}
    assert len(regions) == 11
    assert compiled == {
        (region, dtype, kernel)
        for region in regions
        for dtype in ("fp32", "fp16", "bf16")
        for kernel in (("forward", "backward") if region == "loss" else KERNELS_OF_A_REGION)
    }
    assert [u for u in found if u["spills"]] == []
    # The least that any GPU of these generations gives a program: 99 KiB, on cards of sm_86.
    assert [u for u in found if u["shared_bytes"] > 99 * 1024] == []
    assert [u for u in found if u["registers"] * u["config"]["num_warps"] * 32 > 65536] == []
    assert [u for u in found if not uses_tensor_cores(u)] == []
