"""`examples/finetune.py` as a user runs it, on few images and with weights from a file."""

import runpy
import sys
from pathlib import Path

import pytest
import sklearn.datasets
import torch
from safetensors.torch import save_file
from sklearn.utils import Bunch

import cnndsl

# Before a test turns the interpreter off, for triton's own functions are decorated at its import.
pytest.importorskip("triton")

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_head_learns_and_the_trunk_stays(tmp_path, capsys, monkeypatch):
    # PyTorch's operators: the interpreter is slow.
    monkeypatch.setattr("cnndsl.rt.module.INTERPRETED", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    torch.manual_seed(1)
    state = cnndsl.compile(EXAMPLES / "zoo" / "resnet18.cnn").state_dict()
    save_file(state, tmp_path / "resnet18.safetensors")
    few = sklearn.datasets.load_digits()
    few = Bunch(images=few.images[:487], target=few.target[:487])  # 359 are kept to test
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: few)
    monkeypatch.setattr(sys, "argv", ["finetune.py", str(tmp_path / "resnet18.safetensors")])
    model = runpy.run_path(str(EXAMPLES / "finetune.py"))["model"]

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["epoch", "1"], ["epoch", "2"]]
    first, last = (float(line.split()[3]) for line in lines)
    assert last < first  # of a random trunk on 128 images, no more can be asked
    learned = model.state_dict()
    assert list(learned) == list(state)
    assert [n for n in state if not torch.equal(learned[n], state[n])] == ["fc.weight", "fc.bias"]
    assert learned["fc.weight"].shape == (10, 512)


def test_weights_of_another_network_stop_it(tmp_path, monkeypatch):
    monkeypatch.setattr("cnndsl.rt.module.INTERPRETED", False)
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "other.safetensors")
    monkeypatch.setattr(sys, "argv", ["finetune.py", str(tmp_path / "other.safetensors")])
    with pytest.raises(AssertionError, match="missing_keys"):
        runpy.run_path(str(EXAMPLES / "finetune.py"))
