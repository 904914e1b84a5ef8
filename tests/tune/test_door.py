"""`cnndsl.tune`: the same parameters, other kernels; a file that can be committed."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import cnndsl
from cnndsl.fuse.choices import ChoicesError, load, read
from cnndsl.runtime.load import origin_of
from cnndsl.tune import door
from tests.fuse.pinning import graph_of
from tests.tune.simulated import Simulated, quick_text

ROOT = Path(__file__).parent.parent.parent
TEXT = """model Two
input 8 x 8 x 3
block unit(n) { add { skip } { conv n 3x3 pad=1; batchnorm }; relu }
conv 16 3x3 pad=1
unit 16 as first
flatten; fc 5
"""
TABLE = {
    "forward: library": 20.0,
    "backward: fused": 30.0,
    "backward: fused, apart, weight_gradient 64x64x64": 10.0,
}
LITTLE = "model Little\ninput 8 x 8 x 3\nconv 16 3x3\nflatten; fc 5\n"
X = torch.randn(6, 3, 8, 8)


@pytest.fixture
def device(monkeypatch, tmp_path):
    """Every tensor is on a simulated device; nothing is kept in the user's cache."""
    found = Simulated(TABLE)
    monkeypatch.setattr(door, "device_of", lambda x: found)
    monkeypatch.setattr(door.Store, "_folder", lambda self: tmp_path)
    monkeypatch.setattr(door, "text_of", quick_text)
    return found


@pytest.fixture
def model():
    torch.manual_seed(0)
    return cnndsl.compile(source=TEXT)


@pytest.fixture
def little():
    return cnndsl.compile(source=LITTLE)


def forward_ways(choices) -> set[str]:
    return {pin.choice.forward for r in choices.regions for _, pin in r.pins if pin.choice}


def test_parameters_are_the_same_objects_and_kernels_others(device, model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    model.register_forward_hook(lambda *_: seen.append("network"))
    model.get_submodule("first").register_forward_hook(lambda *_: seen.append("block"))
    model.note = "kept"
    tuned = cnndsl.tune(model.double(), X)
    assert type(tuned) is not type(model)
    assert type(tuned).__name__ == "Two"
    before, after = dict(model.named_parameters()), dict(tuned.named_parameters())
    assert list(before) == list(after)
    assert all(before[name] is after[name] for name in before)
    buffers = dict(tuned.named_buffers())
    assert all(buffers[name] is b for name, b in model.named_buffers())
    assert tuned.note == "kept"
    assert tuned.training == model.training
    for each in (model, tuned):  # interpreted, they take long
        vars(sys.modules[type(each).__module__])["runs_kernels"] = lambda x: False
    x = X.double()
    torch.testing.assert_close(tuned(x), model(x), rtol=0, atol=1e-12)
    assert seen.count("network") == seen.count("block") == 2
    # What the optimizer was made for is trained.
    first = next(tuned.parameters()).detach().clone()
    tuned(x).sum().backward()
    optimizer.step()
    assert not torch.equal(first, next(model.parameters()))
    origin = origin_of(tuned)
    assert origin is not None
    assert forward_ways(origin.choices) == {"library"}


def test_a_tuned_model_is_a_model_as_any_other(device, little):
    tuned = cnndsl.tune(little, X)
    again = cnndsl.tune(tuned, X)
    assert again is tuned  # it follows these choices already
    copy = pickle.loads(pickle.dumps(tuned.double().eval()))
    assert torch.equal(copy(X.double()), tuned(X.double()))
    assert set(tuned.state_dict()) == set(little.state_dict())


def test_what_is_pinned_is_followed_and_not_measured(device, little, tmp_path):
    path = tmp_path / "two.json"
    tuned = cnndsl.tune(little, X, pin=path)
    opened = len(device.opened)
    assert opened > 0
    found = load(path)
    assert dict(found.made) == {
        "device": "a table",
        "torch": "1",
        "triton": "1",
        "images": "6",
        "size": "8 x 8",
        "dtype": "fp32",
    }
    assert any("takes 20.0 µs" in text for text in found.regions[0].why)
    assert [chosen.region for chosen in found.regions] == ["conv1", "flatten1 + fc1"]
    # Without an example, and on any machine: here that of a CPU.
    other = cnndsl.tune(cnndsl.compile(source=LITTLE), pin=path)
    assert len(device.opened) == opened
    assert type(other) is type(tuned)
    with pytest.raises(ChoicesError, match="made for `conv 16 3x3"):
        cnndsl.tune(cnndsl.compile(source=LITTLE.replace("16 3x3", "17 3x3")), pin=path)
    path.write_text(path.read_text()[:-9])
    with pytest.raises(ChoicesError, match=r"two\.json"):
        cnndsl.tune(little, X, pin=path)


def test_the_last_batch_reuses_what_was_chosen(device, little):
    cnndsl.tune(little, X.repeat(8, 1, 1, 1))  # 48 images: the bucket of 64
    opened = len(device.opened)
    cnndsl.tune(little, X.repeat(7, 1, 1, 1))
    assert len(device.opened) == opened
    cnndsl.tune(little, X)
    assert len(device.opened) == 2 * opened


def test_under_autocast_its_type_is_measured(device, little):
    with torch.autocast("cpu", torch.bfloat16):
        cnndsl.tune(little, X)
    assert {task.dtype for task in device.opened} == {"bf16"}


def test_sizes_are_those_of_the_example(device):
    graph, _ = graph_of("input H x W x 3\nconv 8 3x3; relu\nconv 8 3x3 stride=2\n")
    shape = door.Shape.of(torch.zeros(2, 3, 20, 30), nn.Identity())
    door.measure(graph, shape, device, door.Store())
    assert [task.size for task in device.opened] == [(20, 30), (18, 28)]
    assert [task.needs_input_gradient for task in device.opened] == [False, True]


def test_on_a_cpu_a_warning_says_that_there_is_nothing_to_choose(little, tmp_path):
    with pytest.warns(UserWarning, match="nothing to choose on cpu") as warned:
        assert cnndsl.tune(little, X, pin=tmp_path / "x.json") is little
    assert warned[0].filename == __file__
    assert not (tmp_path / "x.json").exists()


def test_while_a_graph_is_captured_nothing_is_measured(device, little):
    device.capturing = True
    with pytest.raises(cnndsl.TuneError, match="while a CUDA graph is captured"):
        cnndsl.tune(little, X)
    assert device.opened == []


@pytest.mark.parametrize("make", [lambda: nn.Linear(2, 2), lambda: nn.Sequential()])
def test_other_models_have_no_regions(make):
    with pytest.raises(cnndsl.TuneError, match="was not compiled here"):
        cnndsl.tune(make(), X)


def test_a_model_from_another_process_says_so(little, monkeypatch):
    """A pickle holds the emitted text, and not what it was emitted from."""
    monkeypatch.setattr("cnndsl.runtime.load._ORIGINS", {})
    with pytest.raises(cnndsl.TuneError, match="Little was not compiled here"):
        cnndsl.tune(pickle.loads(pickle.dumps(little)), X)


def test_without_an_example_something_must_be_pinned(device, little, tmp_path):
    with pytest.raises(cnndsl.TuneError, match="nothing to measure with"):
        cnndsl.tune(little)
    with pytest.raises(cnndsl.TuneError, match="nothing to measure with"):
        cnndsl.tune(little, pin=tmp_path / "none.json")
    with pytest.raises(cnndsl.TuneError, match=r"no kernels are measured in torch\.float64"):
        cnndsl.tune(little, X.double())


def test_the_first_process_decides_for_all(tmp_path):
    """Two processes with gloo, in whose tables other candidates are fastest."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.tune.agreeing", str(tmp_path), str(rank)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    for process in started:
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
    first, second = ((tmp_path / f"{rank}.json").read_text() for rank in range(2))
    assert first == second
    assert forward_ways(read(first, "x")) == {"library"}
    assert [(tmp_path / f"{rank}.opened").read_text() for rank in range(2)] == ["1", "0"]
    # What the first cannot do, no process does.
    errors = [(tmp_path / f"{rank}.error").read_text() for rank in range(2)]
    assert errors[0] == errors[1]
    assert errors[0].startswith("kernels cannot be measured while a CUDA graph is captured")
