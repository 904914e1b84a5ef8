"""Each layer in ONNX, of fixed and of free sizes: run in onnxruntime, or refused."""

import os
import random

import numpy as np
import onnxruntime
import pytest
import torch

import cnndsl

torch.set_num_threads(1)
MANY = os.environ.get("CNNDSL_MANY") == "1"  # all of them: ten minutes

LAYERS = """\
conv 8 3x3 pad=1
conv 8 3x1 stride=2x1 pad=1x0
conv 8 3x3 dilation=2 groups=4 bias=no
deconv 6 2x2 stride=2
deconv 6 3x3 stride=2 pad=1 output_pad=1
deconv 6 3x3 dilation=2 groups=2 bias=no
pool max 2
pool max 3 stride=2 ceil=yes
pool max 2 dilation=2
pool avg 3 stride=2 pad=1
pool avg 3 stride=2 pad=1 ceil=yes
pool avg 3 stride=2 pad=1 count_pad=no
pool avg to 1x1
pool max to 1x1
pool avg to 3x5
pool max to 2x2
globalpool avg
globalpool max
relu
relu6
leaky_relu slope=0.2
gelu
silu
sigmoid
tanh
hardswish
hardsigmoid
elu
prelu
batchnorm
batchnorm affine=no
layernorm
groupnorm 2
lrn size=3 alpha=1e-3 beta=0.5 k=1
dropout
dropout2d 0.2
softmax
upsample 2 nearest
upsample 2 bilinear
upsample to 20x24
upsample to 20x24 bilinear
pad 1 2 3 4
crop 1 2 1 0
take 2 6
shuffle 4
scale
droppath 0.1
skip
add { conv 8 3x3 pad=1 } { skip }
multiply { globalpool avg; conv 8 1x1; sigmoid } { skip }
concat { conv 3 1x1 } { pool max 3 stride=1 pad=1 }
globalpool avg; flatten; fc 5 bias=no; softmax
globalpool avg; flatten; batchnorm; relu; layernorm; groupnorm 2; prelu; scale; take 0 4; softmax
relu as p; pool max 2; upsample like p bilinear
relu as p; conv 8 3x3 as q; from p; crop like q
""".splitlines()
SIZES = ("17 x 8", "H x W", "H x H", "H x 9")
ALL = [(size, layer) for size in SIZES for layer in LAYERS]
# What failed, and a sample of the others.
KNOWN = [("17 x 8", "pool max to 2x2"), ("H x W", "silu"), ("H x W", "pool max to 2x2")]
CASES = ALL if MANY else [*KNOWN, *random.Random(13).sample(ALL, 1)]


@pytest.mark.parametrize(("size", "layer"), CASES)
def test_onnxruntime_computes_what_pytorch_does_or_the_layer_is_refused(tmp_path, size, layer):
    before = "conv 8 3x3 pad=1\n" if layer == "silu" else ""
    model = cnndsl.compile(source=f"input {size} x 8\n{before}{layer}\n").eval()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.2, 1)
    path = tmp_path / "model.onnx"
    is_whole = layer.endswith("to 1x1")
    if layer.startswith("pool") and " to " in layer and "H" in size and not is_whole:
        with pytest.raises(cnndsl.ExportError, match="--set H=224"):
            cnndsl.export_onnx(model, path)
        assert not path.exists()
        return
    cnndsl.export_onnx(model, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch, *sizes in ((1, 16, 12), (2, 17, 23), (2, 9, 9)):
        free = dict(zip("HW", sizes, strict=True))
        height, width = (free.get(word) or int(word) for word in size.split(" x "))
        x = torch.randn(batch, 8, height, width)
        (found,) = session.run(None, {"input": x.numpy()})
        np.testing.assert_allclose(found, model(x).detach().numpy(), rtol=1e-3, atol=1e-4)


def test_what_the_exporter_cannot_write_is_refused_in_a_sentence(tmp_path, monkeypatch):
    from cnndsl.tools import onnx

    def fails(*_, **__):
        raise RuntimeError("\x1b[96mThis is step 3/3\x1b[0m") from ValueError("no such operator")

    monkeypatch.setattr(onnx, "_export", fails)
    model = cnndsl.compile(source="input 4 x 4 x 1\nrelu\n")
    with pytest.raises(cnndsl.ExportError, match="in ONNX's operators: no such operator"):
        cnndsl.export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
