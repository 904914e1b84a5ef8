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
# Of a convolution in training that a batchnorm follows, and of that batchnorm.
NORMED = {
    *("conv_forward", "conv_input_gradient", "conv_weight_gradient"),
    *("norm_statistics", "norm_forward", "norm_gradient_sums", "norm_input_gradient"),
}


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


MANY_CHANNELS = (
    *("wide", "strided", "overlapping", "average", "residual", "pooled"),
    *("plain_normed", "residual_normed", "average_normed", "pooled_normed"),
)


def uses_tensor_cores(usage: dict[str, Any]) -> bool:
    if usage["kernel"].endswith("bias_gradient") or usage["kernel"].startswith(("norm", "loss")):
        return True  # a sum, or value by value: no product
    has_many_channels = usage["region"] in MANY_CHANNELS
    if usage["target"] == "sm_90" and usage["dtype"] != "fp32" and has_many_channels:
        return usage["mma"] == "wgmma"
    return usage["mma"] in ("mma", "wgmma")


# One test a target: compiling is slow, and pytest-xdist then does both at once.
@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_all_kernels_compile(target: str) -> None:
    found = usages(target)
    compiled: dict[tuple[str, str], set[str]] = {}
    for usage in found:
        compiled.setdefault((usage["region"], usage["dtype"]), set()).add(usage["kernel"])
    assert len(compiled) == 11 * 3 + 3 * 2 + 5 * 2
    for (region, _), kernels in compiled.items():
        if region == "loss":
            wanted = {"loss_forward", "loss_backward"}
        elif region.endswith("normed"):
            wanted = NORMED | ({"conv_bias_gradient"} if region == "pooled_normed" else set())
        else:
            family = "fc" if region.startswith("fc") else "conv"
            wanted = {f"{family}_{kernel}" for kernel in KERNELS_OF_A_REGION}
        assert kernels == wanted, region
    assert [u for u in found if u["spills"]] == []
    # The least that any GPU of these generations gives a program: 99 KiB, on cards of sm_86.
    assert [u for u in found if u["shared_bytes"] > 99 * 1024] == []
    assert [u for u in found if u["registers"] * u["config"]["num_warps"] * 32 > 65536] == []
    assert [u for u in found if not uses_tensor_cores(u)] == []
