"""`train --tune`: measured once, kept in the run folder, followed when it goes on."""

import json
from pathlib import Path

import pytest
import torch

import cnndsl
import cnndsl.train as training
from cnndsl.cli.main import main
from cnndsl.fuse.choices import load
from cnndsl.runtime.load import origin_of
from cnndsl.tune import door
from tests.tune.simulated import Simulated, quick_text

TEXT = "model Small\ninput 8 x 8 x 1\nconv 8 3x3; relu\npool max 2\nflatten\nfc 10\nsoftmax\n"
FEW = ["--data", "digits", "--epochs", "1", "--batch", "1024", "--device", "cpu"]


@pytest.fixture
def device(monkeypatch, tmp_path):
    """A table stands for the GPU; PyTorch's operators compute."""
    found = Simulated({"forward: library": 5.0})
    monkeypatch.setattr(door, "device_of", lambda x: found)
    monkeypatch.setattr("cnndsl.train.tuned.device_of", lambda x: found)
    monkeypatch.setattr(door.Store, "_folder", lambda self: tmp_path)
    monkeypatch.setattr(door, "text_of", quick_text)
    monkeypatch.setattr("cnndsl.rt.module.INTERPRETED", False)
    return found


@pytest.fixture
def network(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("small.cnn")
    path.write_text(TEXT)
    return path


def test_a_run_keeps_its_choices_and_goes_on_with_them(device, network, capsys):
    assert main(["train", str(network), *FEW, "--tune", "--out", "run"]) == 0
    assert "measuring the kernels" in capsys.readouterr().out
    chosen = load("run/choices.json")
    assert {t.images for t in device.opened} == {1024}
    assert [r.region for r in chosen.regions] == ["conv1 + relu1 + pool1", "flatten1 + fc1"]
    assert 'forward="library"' in Path("run/model.py").read_text()
    opened = len(device.opened)

    # All that uses the run has its kernels, and measures nothing.
    config = json.loads(Path("run/config.json").read_text())
    config["recipe"]["epochs"] = 2
    Path("run/config.json").write_text(json.dumps(config))
    assert main(["train", "--resume", "run"]) == 0
    assert "epoch 2/2" in capsys.readouterr().out
    model = cnndsl.load("run")
    origin = origin_of(model)
    assert origin is not None
    assert origin.choices == chosen
    assert len(device.opened) == opened

    assert main(["train", "--resume", "run", "--tune"]) == 2
    assert "`--tune` cannot be given" in capsys.readouterr().err
    Path("run/choices.json").write_text("{}")
    assert main(["eval", "run"]) == 1
    assert "choices.json` is no file of choices" in capsys.readouterr().err


def test_on_a_cpu_a_note_says_that_there_is_nothing_to_choose(network, capsys, monkeypatch):
    monkeypatch.setattr("cnndsl.rt.module.INTERPRETED", False)
    assert main(["train", str(network), *FEW, "--tune", "--out", "run"]) == 0
    assert "`tune` has nothing to choose on cpu" in capsys.readouterr().out
    assert not Path("run/choices.json").exists()


def test_from_python_the_parameters_stay_the_models(device, tmp_path):
    model = cnndsl.compile(source=TEXT)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    data = (torch.rand(32, 1, 8, 8), torch.arange(32) % 10)
    path = tmp_path / "run"
    training.train(model, data, out=path, epochs=1, device="cpu", tune=True)
    assert any(not torch.equal(before[name], p) for name, p in model.named_parameters())
    assert load(path / "choices.json").regions
    # A network that was not compiled has no kernels to follow them with.
    with pytest.raises(training.UsageError, match="was not compiled here"):
        training.resume(path, torch.nn.Linear(2, 2), data)
    with pytest.raises(training.TrainError, match="Linear was not compiled here"):
        training.train(
            torch.nn.Linear(2, 2), data, epochs=1, device="cpu", tune=True, classes=("a",) * 10
        )
