"""The benchmarks run: that for GPUs goes through its steps in the interpreter."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_dry_run(tmp_path):
    """Measures nothing, but compares every gradient with float64."""
    command = [sys.executable, "benchmarks/gpu.py", "--dry-run", "--names", "A,LeNet"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "| A cifar 3-64 | both |" in done.stdout
    found = json.loads((tmp_path / "interpreter.json").read_text("utf-8"))
    errors = found["blocks"][0]["errors"]
    assert errors.keys() == {"ours", "library", "eager", "smart", "ours again"}
    assert max(errors["ours"]) < 1e-5
    assert max(errors["library"]) < 1e-5
    assert max(errors["ours again"]) == 0.0
    assert [row["network"] for row in found["steps"]] == ["LeNet"]
    assert abs(found["steps"][0]["loss"]["ours"] - found["steps"][0]["loss"]["eager"]) < 1e-5


def test_a_row_on_the_cpu(tmp_path):
    """Two processes take turns; what they compute is compared first."""
    code = (
        "import sys; sys.path.insert(0, 'benchmarks'); import json, train_cpu as t\n"
        "if __name__ == '__main__':\n"
        "    t.compare('LeNet')\n"
        "    print(json.dumps(t.measure('LeNet', 'channels-last', 'training', 2, 1)))\n"
    )
    script = tmp_path / "row.py"  # the processes that it starts import it
    script.write_text(code, "utf-8")
    environment = {**os.environ, "TRITON_INTERPRET": "0"}  # kernels are not what is measured
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert (row["network"], row["layout"], row["kind"]) == ("LeNet", "channels-last", "training")
    assert min(row["eager"], row["ours"], row["ratio"]) > 0


def test_results_are_whole():
    """What is committed can be read, says where it is from, and has an error for each time."""
    results = ROOT / "benchmarks" / "results"
    found = json.loads((results / "nvidia-h200.json").read_text("utf-8"))
    assert {"device", "commit", "torch", "triton", "dtype"} <= found.keys()
    for row in found["blocks"]:
        assert {"ours", "eager"} <= row["errors"].keys()
        assert {"ours", "ours graphed", "eager graphed"} <= row["forward"].keys()
