"""Every kernel compiles offline, without spills, on tensor cores, and no worse than it did."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.golden import Golden

from .static import table, worse

ROOT = Path(__file__).parent.parent.parent
TABLES = ROOT / "tests" / "golden" / "static"
KERNELS_OF_A_REGION = {"forward", "input_gradient", "weight_gradient", "bias_gradient"}
# Of a convolution in training that a batchnorm follows, and of that batchnorm.
NORMED = {
    *("conv_forward", "conv_input_gradient", "conv_weight_gradient"),
    *("norm_statistics", "norm_forward", "norm_gradient_sums", "norm_input_gradient"),
}


def usages(target: str, *regions: str) -> list[dict[str, Any]]:
    """Say what all kernels use; from a process in which kernels are not interpreted."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.compile_all", target, *regions],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


# Where a library multiplies, and what else a region has: one pass each way, rows of few channels.
PASSES = {
    **dict.fromkeys(("wide", "overlapping", "average", "pooled"), "conv_unpool"),
    **dict.fromkeys(("residual", "depthwise"), "conv_bias_gradient"),
}
WANTED = {
    "loss": {"loss_forward", "loss_backward"},
    "stem": {*(f"conv_{kernel}" for kernel in KERNELS_OF_A_REGION), "conv_lay_out"},
    "stem_staged": {"conv_lay_out", "conv_stage", "conv_forward", "conv_unpool"},
    "stem_normed": NORMED | {"conv_lay_out"},
    "pooled_normed": NORMED | {"conv_bias_gradient"},
    **{f"{name}_library": {"conv_forward", last} for name, last in PASSES.items()},
}
MANY_CHANNELS = (
    *("wide", "strided", "overlapping", "average", "residual", "pooled"),
    *("plain_normed", "residual_normed", "average_normed", "pooled_normed"),
)


def uses_tensor_cores(usage: dict[str, Any]) -> bool:
    is_pass = usage["kernel"] == "conv_forward" and usage["region"].endswith(("library", "staged"))
    if is_pass or usage["kernel"].endswith(("bias_gradient", "unpool", "lay_out")):
        return True  # a sum, or value by value: no product
    if usage["kernel"].startswith(("norm", "loss")):
        return True
    has_many_channels = usage["region"] in MANY_CHANNELS
    if usage["target"] == "sm_90" and usage["dtype"] != "fp32" and has_many_channels:
        return usage["mma"] == "wgmma"
    return usage["mma"] in ("mma", "wgmma")


def no_worse_than_committed(target: str, found: list[dict[str, Any]], golden: Golden) -> None:
    """Compare with the committed table; with `--golden`, write it."""
    path, text = TABLES / f"{target}.md", table(found)
    if golden.rewrite or not path.is_file():
        golden.check(path, text)
    assert worse(path.read_text(encoding="utf-8"), text) == []


# One test a target: compiling is slow, and pytest-xdist then does both at once.
@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_all_kernels_compile(target: str, golden: Golden) -> None:
    found = usages(target)
    no_worse_than_committed(target, found, golden)
    compiled: dict[tuple[str, str], set[str]] = {}
    for usage in found:
        compiled.setdefault((usage["region"], usage["dtype"]), set()).add(usage["kernel"])
    assert len(compiled) == 11 * 3 + (3 + 6 + 1) * 2 + 5 * 2
    for (region, _), kernels in compiled.items():
        family = "fc" if region.startswith("fc") else "conv"
        usual = {f"{family}_{kernel}" for kernel in KERNELS_OF_A_REGION}
        usual = NORMED if region.endswith("normed") else usual
        assert kernels == WANTED.get(region, usual), region
    assert [u for u in found if u["spills"]] == []
    # The least that any GPU of these generations gives a program: 99 KiB, on cards of sm_86.
    assert [u for u in found if u["shared_bytes"] > 99 * 1024] == []
    assert [u for u in found if u["registers"] * u["config"]["num_warps"] * 32 > 65536] == []
    assert [u for u in found if not uses_tensor_cores(u)] == []


@pytest.mark.parametrize(("target", "mma"), [("sm_100", "tcgen05"), ("gfx942", "mma")])
def test_some_kernels_compile_for_other_generations(target: str, mma: str, golden: Golden) -> None:
    found = usages(target, "wide", "residual_normed", "fc1", "loss")
    no_worse_than_committed(target, found, golden)
    assert [u for u in found if u["spills"]] == []
    convolutions = [u for u in found if u["kernel"] in ("conv_forward", "conv_input_gradient")]
    half = [u["mma"] for u in convolutions if u["dtype"] != "fp32"]
    assert len(half) >= 6
    assert set(half) == {mma}


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
