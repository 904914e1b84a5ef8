"""`cnndsl bench`: ratios of one run, and regions; measured only where there is a GPU."""

import json
from pathlib import Path

import pytest
import torch

import cnndsl
from cnndsl.cli.main import main
from cnndsl.fuse.choices import load, read, write
from cnndsl.runtime.load import origin_of
from cnndsl.tools import bench, regions
from cnndsl.tools.roof import Roof, Work, work
from cnndsl.tune import door
from cnndsl.tune.door import Shape
from cnndsl.tune.store import Store
from tests.tune.simulated import Simulated, quick_text

TEXT = """model Tiny
input 8 x 8 x 3
conv 16 3x3 pad=1; relu; pool max 2
conv 16 3x3 pad=1; batchnorm; relu
flatten; fc 5; softmax
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("tiny.cnn").write_text(TEXT)
    # Interpreted kernels would take long; `bench` compares PyTorch's operators on a CPU.
    monkeypatch.setattr(bench, "WARM_UPS", 1)
    return "tiny.cnn"


@pytest.fixture
def quick(monkeypatch):
    """Kernels are interpreted in this process: run PyTorch's operators, as without that."""
    whole = bench.eager

    def eager(model, origin):
        monkeypatch.setattr("cnndsl.rt.module.INTERPRETED", False)
        return whole(model, origin)

    monkeypatch.setattr(bench, "eager", eager)


FEW = ["--device", "cpu", "--batch", "2", "--rounds", "1", "--against", "eager"]


def test_text_on_a_cpu(tiny, quick, capsys):
    assert main(["bench", tiny, *FEW]) == 0
    out = capsys.readouterr().out
    assert out.startswith("tiny.cnn on cpu, ")
    lines = out.splitlines()
    for kind in ("training", "inference"):
        (line,) = [line for line in lines if line.startswith(kind)]
        assert "ours " in line
        assert "; eager " in line
        assert "torch.compile" not in line
    assert "regions: not measured, for there is no GPU here; what the rules choose:" in out
    assert "\nconv1 + relu1 + pool1\n  forward   fused, packed    at least " in out
    assert "\nconv2 + batchnorm1 + relu2 (training)\n" in out
    assert "µs" not in out


def test_json_on_a_cpu(tiny, quick, capsys):
    assert main(["bench", tiny, *FEW, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["version"], found["device"], found["shape"]) == (1, "cpu", [2, 3, 8, 8])
    assert [row["kind"] for row in found["network"]] == ["training", "inference"]
    for row in found["network"]:
        ratio = row["ms"]["eager"] / row["ms"]["ours"]
        assert row["ratio"] == {"eager": pytest.approx(ratio)}
    first = found["regions"][0]
    assert first["us"] is None
    assert first["share"] is None
    assert first["choice"] == "fused, packed"
    assert first["products"] == 2 * 8 * 8 * 16 * 27
    # x, the weights and the bias, y, and a byte for each value of y
    assert first["bytes"] == 4 * (2 * 3 * 64 + 16 * 28 + 2 * 16 * 16) + 2 * 16 * 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pin", "x.json", "--device", "cpu"], "on cpu no kernels are measured, so there is"),
        (["--batch", "0"], "whole numbers from 1 up"),
        (["--dtype", "int8"], "`--dtype` is fp32, bf16 or fp16"),
        (["--device", "tpu9"], "the device `tpu9` cannot be used"),
    ],
)
def test_wrong_usage(tiny, capsys, arguments, message):
    assert main(["bench", tiny, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_file_with_errors(tiny, capsys):
    Path(tiny).write_text("input 2 x 2 x 1\nconv 4 5x5\n")
    assert main(["bench", tiny, "--device", "cpu"]) == 1
    assert "error[E301]" in capsys.readouterr().err
    Path(tiny).write_text("input 8 x 8 x 1\nparam n\nconv n 3x3\n")
    assert main(["bench", tiny, "--device", "cpu"]) == 2
    assert "`n` has no value" in capsys.readouterr().err


def test_what_computes_something_else_is_not_measured(tiny):
    model = cnndsl.compile(tiny)
    origin = origin_of(model)
    assert origin is not None
    models = {"ours": model, "eager": bench.eager(model, origin)}
    x = torch.rand(2, 3, 8, 8).double()
    for each in models.values():
        each.double()
    bench._compare(models, x)
    with torch.no_grad():
        next(models["eager"].parameters()).add_(1)
    with pytest.raises(RuntimeError, match="give different results"):
        bench._compare(models, x)


def test_the_eager_network_has_no_kernels(tiny):
    from cnndsl.emit.module import emit

    origin = origin_of(cnndsl.compile(tiny))
    assert origin is not None
    text = emit(origin.graph, origin.source, fused=False).text
    assert "triton" not in text.split("class Tiny", 1)[1]
    assert "runs_kernels" not in text
    assert "x = F.relu(x)" in text


def test_regions_as_a_gpu_measures_them(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(door, "text_of", quick_text)
    origin = origin_of(cnndsl.compile(tiny))
    assert origin is not None
    device = Simulated({"forward: library": 4.0}, wrong=["forward: staged, packed"])
    shape, roof = Shape(64, (8, 8), torch.bfloat16), Roof(1e12, 1e14)
    lines, choices = regions.by_measurement(
        origin, shape, device, Store(tmp_path / "choices"), roof
    )
    names = [(line.region, line.role, line.direction) for line in lines]
    assert names[:2] == [
        ("conv1 + relu1 + pool1", "whole", "forward"),
        ("conv1 + relu1 + pool1", "whole", "backward"),
    ]
    assert len(names) == len(set(names)) == 8
    first = lines[0]
    assert (first.choice, first.us) == ("library", 4.0)
    moved = 2 * (64 * 3 * 64 + 16 * 28 + 64 * 256) + 64 * 256
    assert first.work == Work(moved, 64 * 8 * 8 * 16 * 27)
    assert first.share == pytest.approx(moved / 1e12 * 1e6 / 4.0)
    assert first.why.startswith("forward: library takes 4.0 µs, fused")
    wrong = [why for name, us, why in first.candidates if us is None]
    assert wrong
    assert all(why.startswith("is wrong: ") for why in wrong)
    assert read(write(choices), "x") == choices
    path = tmp_path / "x.json"
    path.write_text(write(choices))
    assert load(path) == choices


def test_the_gradient_of_the_networks_input_costs_nothing():
    origin = origin_of(cnndsl.compile(source=TEXT))
    assert origin is not None
    first, second, *_ = regions.regions(origin)
    once = work(first, "whole", 1, {}, "fp32")
    assert once["backward"].products == once["forward"].products
    twice = work(second, "whole", 1, {}, "fp32")
    assert twice["backward"].products == 2 * twice["forward"].products
