"""`cnndsl export`, `export_onnx` and `export_program`: free sizes keep their names and bounds."""

import json
import os
from pathlib import Path
from unittest import mock

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import load as load_onnx

import cnndsl
import cnndsl.train as training
from cnndsl.cli.main import main
from cnndsl.tools import onnx, program

torch.set_num_threads(1)
INTERPRETED = "cnndsl.rt.module.INTERPRETED"
ZOO = Path(__file__).parents[2] / "examples" / "zoo"
MANY = os.environ.get("CNNDSL_MANY") == "1"  # the zoo as well: a few minutes

UNET = """\
model SmallUNet
input H x W x 3
require H % 4 == 0, W % 4 == 0
conv 4 3x3 pad=same; batchnorm; relu as top
pool max 2
conv 6 3x3 pad=same; relu as mid
pool max 2
conv 8 3x3 pad=same; relu
deconv 6 2x2 stride=2; concat mid; conv 6 3x3 pad=same; relu
upsample 2 bilinear; concat top; conv 1 1x1; sigmoid
"""
# Pools with ceil=yes, of which torch.export proves nothing; residual and squeezed blocks.
FIRE = """\
model Fire
input H x W x 3
conv 4 3x3 stride=2; batchnorm; relu
pool max 3 stride=2 ceil=yes
add { skip } { conv 4 3x3 pad=same groups=2; batchnorm }
concat { conv 3 1x1; relu } { conv 3 3x3 pad=same; relu }
pool avg 3 stride=2 ceil=yes pad=1
globalpool avg
flatten
dropout
fc 5
softmax
"""


def ramp(model):
    """Batchnorm's statistics that change something."""
    for name, tensor in model.state_dict().items():
        if "running" in name:
            tensor.copy_(torch.linspace(0.5, 1.5, len(tensor)))
    return model


def compare(model, path, sizes):
    """Run the ONNX file on batches of these sizes against the model."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with mock.patch(INTERPRETED, False):
        for batch, *size in sizes:
            x = torch.randn(batch, model.input_shape[0], *size)
            (found,) = session.run(None, {"input": x.numpy()})
            np.testing.assert_allclose(found, model(x).detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "sizes", "told"),
    [
        (
            UNET,
            [(1, 4, 4), (3, 8, 20)],
            "input batch x 3 x H x W, output batch x 1 x H x W",
        ),
        (FIRE, [(1, 7, 7), (2, 8, 21)], "input batch x 3 x H x W, output batch x 5"),
    ],
)
def test_onnx_gives_what_the_model_gives_at_every_size(tmp_path, text, sizes, told):
    model = ramp(cnndsl.compile(source=text)).eval()
    cnndsl.export_onnx(model, tmp_path / "model.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert onnx.describe(tmp_path / "model.onnx") == told
    compare(model, tmp_path / "model.onnx", sizes)


def test_what_a_file_puts_out_has_its_label_and_is_computed_once(tmp_path):
    path = tmp_path / "net.cnn"
    path.write_text(
        "input H x W x 2\nconv 3 1x1; relu as output\npool max 2\nconv 3 3x3 pad=1 as a.mid\n"
        "batchnorm; relu\noutput a.mid\noutput output\nglobalpool avg; flatten; fc 4\nsoftmax\n"
    )
    model = ramp(cnndsl.compile(path)).eval()
    cnndsl.export_onnx(model, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    assert [value.name for value in session.get_outputs()] == ["output", "a.mid", "output_"]
    for shape in ((1, 2, 2, 2), (3, 2, 9, 6)):
        x = torch.randn(shape)
        with torch.no_grad(), mock.patch(INTERPRETED, False):
            wanted = (model(x), *model.outputs(x).values())
        for found, tensor in zip(session.run(None, {"input": x.numpy()}), wanted, strict=True):
            np.testing.assert_allclose(found, tensor.numpy(), rtol=1e-4, atol=1e-5)
    kinds = [node.op_type for node in load_onnx(tmp_path / "net.onnx").graph.node]
    assert kinds.count("Conv") == 2
    told = "output batch x 4, a.mid batch x 3 x (H//2) x (W//2), output_ batch x 3 x H x W"
    assert onnx.describe(tmp_path / "net.onnx").endswith(told)


@pytest.mark.skipif(not MANY, reason="minutes: CNNDSL_MANY=1 exports the zoo")
@pytest.mark.parametrize(
    ("name", "settings", "sizes"),
    [
        ("alexnet", {"H": 70, "W": 80}, [(2, 70, 80)]),
        ("vgg11", {"H": 32, "W": 32}, [(2, 32, 32)]),
        ("squeezenet1_1", {}, [(1, 17, 17), (2, 64, 99)]),
        ("resnet18", {}, [(1, 1, 1), (2, 33, 64)]),
        ("mobilenet_v2", {}, [(1, 1, 1), (2, 33, 64)]),
        ("densenet121", {}, [(1, 29, 29), (2, 64, 33)]),
        ("unet", {}, [(1, 16, 16), (2, 32, 96)]),
        ("resnet20_cifar", {}, [(2, 32, 32)]),
        ("darknet19", {}, [(2, 32, 64)]),
    ],
)
def test_the_zoo_in_onnx(tmp_path, name, settings, sizes):
    model = cnndsl.compile(ZOO / f"{name}.cnn", **settings).eval()
    cnndsl.export_onnx(model, tmp_path / "model.onnx")
    compare(model, tmp_path / "model.onnx", sizes)


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        (
            "input H x W x 1\nrequire H % 4 == 0, H >= 8, W >= 4, W <= 9\nconv 2 3x3\npool max 2\n",
            {"H": (8, None, 4), "W": (4, 9, 1)},
        ),
        ("input H x H x 1\nconv 2 5x5 stride=2\nrelu\n", {"H": (5, None, 1)}),
    ],
)
def test_a_program_has_the_symbols_within_their_bounds(text, ranges):
    model = cnndsl.compile(source=text)
    free = program.free_sizes(model)
    assert program.name_of(free[0]) == "batch"
    for axis in (2, 3):
        name = program.name_of(free[axis])
        low, high, divisor = ranges[name]
        root = getattr(free[axis], "root", free[axis])
        assert root.min * divisor == low
        assert root.max == high or high is None
    exported = cnndsl.export_program(model)
    run = exported.module()
    smallest = [ranges[program.name_of(free[axis])][0] for axis in (2, 3)]
    x = torch.randn(3, 1, *smallest)
    with mock.patch(INTERPRETED, False):
        torch.testing.assert_close(run(x), model(x))
    with pytest.raises((AssertionError, RuntimeError)):
        run(torch.randn(3, 1, smallest[0] - 1, smallest[1] - 1))
    assert not [n for n in exported.graph.nodes if "cnndsl" in str(n.target)]


def test_a_vector_and_an_image_of_one_size_keep_the_batch_free():
    for text, shape in (("input 6\nfc 2\n", (6,)), ("input 4 x 4 x 1\nrelu\n", (1, 4, 4))):
        model = cnndsl.compile(source=text)
        run = cnndsl.export_program(model).module()
        assert run(torch.zeros(5, *shape)).shape[0] == 5


def test_only_what_cnndsl_made_is_exported():
    with pytest.raises(TypeError, match=r"a Linear was not made by cnndsl\.compile"):
        cnndsl.export_program(torch.nn.Linear(2, 2))


def test_an_adaptive_pool_of_free_sizes_is_refused(tmp_path):
    """The exporter would write the windows of one size, and say nothing."""
    model = cnndsl.compile(source="input H x W x 1\npool avg to 3x3\n")
    with pytest.raises(cnndsl.ExportError, match=r"ONNX has no `pool … to`.*\n.*--set H=224"):
        cnndsl.export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


# ── the command ──────────────────────────────────────────────────────────────────────────────────


def test_a_trained_run(tmp_path, capsys):
    text = (
        "model Small\ninput 8 x 8 x 1\nconv 2 3x3; relu\nglobalpool avg\nflatten\nfc 10\nsoftmax\n"
    )
    digits = training.load("digits")
    few = training.as_data((digits.train.images[:16], digits.train.labels[:16])).train
    training.train(
        cnndsl.compile(source=text),
        digits.replace(train=few, test=None),
        out=tmp_path / "run",
        recipe=training.Recipe(epochs=1, device="cpu"),
        origin=training.Origin(text, (), ""),
    )
    path = tmp_path / "digits.onnx"
    assert main(["export", str(tmp_path / "run"), "-o", str(path)]) == 0
    told = "input batch x 1 x 8 x 8, output batch x 10"
    assert capsys.readouterr().out == f"wrote {path}: {told}\n"
    compare(cnndsl.load(tmp_path / "run"), path, [(4, 8, 8)])
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == list("0123456789")
    assert json.loads(facts["input_mean"]) == list(digits.scale.mean)
    assert main(["export", str(tmp_path / "run"), "-o", str(path), "--set", "a=1"]) == 2
    assert "give its folder alone" in capsys.readouterr().err


def test_a_file_without_weights_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.cnn").write_text("input 4 x 4 x 1\nrelu\n")
    assert main(["export", "a.cnn", "-o", "a.onnx"]) == 0
    out, err = capsys.readouterr()
    assert "wrote a.onnx: input batch x 1 x 4 x 4, output batch x 1 x 4 x 4" in out
    assert "random ones" in err
    assert main(["export", "a.cnn", "-o", "a.cnn"]) == 2
    assert "would be lost" in capsys.readouterr().err
    Path("b.cnn").write_text("input 4 x 4 x 1\nconv 2 9x9\n")
    assert main(["export", "b.cnn", "-o", "b.onnx"]) == 1
    assert "E301" in capsys.readouterr().err
    assert main(["export", "a.cnn", "-o", "a.onnx", "--weights", "none.safetensors"]) == 1
    assert "there is no file" in capsys.readouterr().err
    assert main(["export", "a.cnn", "-o", "no/a.onnx"]) == 74


def test_without_the_extra_the_command_that_installs_it_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(onnx, "find_spec", lambda name: None)
    assert main(["export", "a.cnn", "-o", str(tmp_path / "a.onnx")]) == 74
    err = capsys.readouterr().err
    assert "export needs onnx and onnxscript, which are not installed" in err
    assert "pip install 'cnndsl[onnx]'" in err
