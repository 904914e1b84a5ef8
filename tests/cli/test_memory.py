"""Commands that run networks keep the memory that a step frees."""

import subprocess
import sys

import pytest

from cnndsl.cli import memory, training
from cnndsl.cli.main import main

FAULTS = """
import ctypes, resource, sys, torch
from cnndsl.cli.memory import keep_freed
assert ctypes.CDLL(None).mallopt(-1, 0) == 1  # give all back at once; by default chance decides
if sys.argv[1] == "keep":
    assert keep_freed()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [torch.ones(2**22) for _ in range(5)]  # 80 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(min(faults() for _ in range(12)))  # small objects may lie in the way at first
"""


def faults(how):
    command = [sys.executable, "-c", FAULTS, how]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_what_is_freed_is_used_again():
    page = 4096
    assert faults("keep") < 100
    assert faults("leave") >= 2**26 // (16 * page)  # a page may be as large as 64 KiB


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert not memory.keep_freed()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not memory.keep_freed()


def test_commands_that_run_networks_do_so(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(training.memory, "keep_freed", lambda: asked.append(True))
    assert main(["eval", "no-such-run", "--data", "digits"]) != 0
    capsys.readouterr()
    assert asked == [True]
