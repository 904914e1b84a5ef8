"""`input … u8`: a network that takes bytes and scales them itself."""

import copy
import json
import pickle

import pytest
import safetensors.torch
import torch
from torch import nn

import cnndsl
from cnndsl.cli.main import main

torch.set_num_threads(1)
BODY = "conv 4 3x3; relu; pool max 2\nflatten\nfc 3\n"
MEAN, DEVIATION = (0.5, 0.4, 0.3), (0.25, 0.2, 0.5)


@pytest.fixture(scope="module", autouse=True)
def uninterpreted():
    """As where TRITON_INTERPRET is not set: it is what most people have, and faster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cnndsl.rt.module.INTERPRETED", False)
        yield


@pytest.fixture(scope="module")
def compiled(uninterpreted):
    return made()


def made():
    """A network of bytes and one of floats with the same weights."""
    torch.manual_seed(0)
    ours = cnndsl.compile(source=f"input 8 x 8 x 3 u8\n{BODY}")
    ours.input_mean.copy_(torch.tensor(MEAN))
    ours.input_deviation.copy_(torch.tensor(DEVIATION))
    floats = cnndsl.compile(source=f"input 8 x 8 x 3\n{BODY}")
    floats.load_state_dict({n: t for n, t in ours.state_dict().items() if "input_" not in n})
    return ours, floats


@pytest.fixture
def pair(compiled):
    return copy.deepcopy(compiled)


def images(count=5):
    torch.manual_seed(1)
    return torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8)


def scaled(x):
    mean, deviation = (torch.tensor(v).view(-1, 1, 1) for v in (MEAN, DEVIATION))
    return (x / 255 - mean) / deviation


@pytest.mark.parametrize("interpreted", [False, True])
def test_bytes_are_scaled_first(monkeypatch, interpreted):
    monkeypatch.setattr("cnndsl.rt.module.INTERPRETED", interpreted)
    ours, floats = made()
    for x in (images(), images().to(memory_format=torch.channels_last)):
        torch.testing.assert_close(ours(x), floats(scaled(x)), rtol=1e-5, atol=1e-6)
    y = torch.tensor([0, 1, 2, 0, 1])
    ours.loss(images(), y).backward()
    floats.loss(scaled(images()), y).backward()
    for found, wanted in zip(ours.parameters(), floats.parameters(), strict=True):
        torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-4, atol=1e-6)


def test_until_told_otherwise_the_values_are_0_to_1():
    model = cnndsl.compile(source="input 4 u8\nrelu\n")
    x = torch.tensor([[0, 51, 102, 255]], dtype=torch.uint8)
    torch.testing.assert_close(model(x), torch.tensor([[0, 0.2, 0.4, 1]]))


def test_floats_are_refused(pair):
    ours, _ = pair
    with pytest.raises(TypeError, match=r"takes bytes, torch\.uint8, not torch\.float32 \(cnn li"):
        ours(scaled(images()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types(pair, dtype):
    ours, floats = pair
    found = ours.to(dtype)(images())
    assert found.dtype == dtype
    close = (
        {"rtol": 0.05, "atol": 0.05} if dtype == torch.bfloat16 else {"rtol": 1e-6, "atol": 1e-6}
    )
    torch.testing.assert_close(found, floats.to(dtype)(scaled(images()).to(dtype)), **close)


def test_it_is_a_module_as_any_other(pair):
    ours, _ = pair
    wanted = ours(images())
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(other(images()), wanted)
    other = cnndsl.compile(source=f"input 8 x 8 x 3 u8\n{BODY}")
    other.load_state_dict(ours.state_dict())
    assert torch.equal(other(images()), wanted)
    program = torch.export.export(ours, (images(),), dynamic_shapes=ours.dynamic_shapes())
    torch.testing.assert_close(program.module()(images(3)), ours(images(3)))
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images()), wanted)


def test_channels_last_bytes_are_not_copied():
    model = cnndsl.compile(
        source="input 8 x 8 x 3 u8\nconv 4 3x3; relu\nglobalpool max\nflatten\nfc 3"
    )
    model = model.to(memory_format=torch.channels_last)
    for x in (images(), images().to(memory_format=torch.channels_last)):
        assert cnndsl.copies(model, x) == []  # channels outermost are read as they lie


def test_onnx_takes_bytes(pair, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    from cnndsl.tools.onnx import export_onnx

    ours, _ = pair
    export_onnx(ours.eval(), tmp_path / "o.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "o.onnx")
    (found,) = session.run(None, {"input": images().numpy()})
    torch.testing.assert_close(torch.from_numpy(found), ours(images()), rtol=1e-4, atol=1e-5)


def test_weights_of_a_network_of_floats(pair, tmp_path, monkeypatch, capsys):
    ours, floats = pair
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.cnn").write_text(f"input 8 x 8 x 3 u8\n{BODY}")
    safetensors.torch.save_file(floats.state_dict(), "floats.safetensors")
    safetensors.torch.save_file(ours.state_dict(), "ours.safetensors")
    plain = cnndsl.load("net.cnn", weights="floats.safetensors")
    assert plain.input_mean.tolist() == [0, 0, 0]
    own = cnndsl.load("net.cnn", weights="ours.safetensors")
    assert torch.equal(own(images()), ours(images()))
    command = ["weights", "net.cnn", "--from", "floats.safetensors", "-o", "told.safetensors"]
    numbers = (",".join(map(str, v)) for v in (MEAN, DEVIATION))
    assert main([*command, "--mean", next(numbers), "--deviation", next(numbers)]) == 0
    told = cnndsl.load("net.cnn", weights="told.safetensors")
    assert torch.equal(told(images()), ours(images()))
    capsys.readouterr()
    for file in ("floats", "ours", "told"):
        picture("x.png")
        given = ["net.cnn", "--weights", f"{file}.safetensors", "--format", "json", "x.png"]
        assert main(["predict", *given]) == 0
        out, err = capsys.readouterr()
        assert ("does not say how images were scaled" in err) == (file == "floats")
        model = {"floats": plain, "ours": ours, "told": ours}[file]
        wanted = torch.softmax(model(pixels("x.png")), 1)[0]
        found = {int(c["class"]): c["probability"] for c in json.loads(out)["classes"]}
        assert [found[i] for i in range(3)] == pytest.approx(wanted.tolist(), abs=1e-6)


def picture(path):
    from PIL import Image

    Image.fromarray(images(1)[0].permute(1, 2, 0).numpy()).save(path)


def pixels(path):
    import numpy as np
    from PIL import Image

    return torch.tensor(np.array(Image.open(path))).permute(2, 0, 1)[None]


def test_eager_pytorch_is_measured_with_bytes(tmp_path, capsys):
    file = tmp_path / "net.cnn"
    file.write_text(f"input 8 x 8 x 3 u8\n{BODY}")
    assert main(["bench", str(file), "--batch", "2", "--rounds", "1", "--against", "eager"]) == 0
    assert "eager" in capsys.readouterr().out


def test_a_label_may_be_called_u8():
    model = cnndsl.compile(source="input 4 u8\nfc 3 as u8\n")
    assert isinstance(model.u8, nn.Linear)
