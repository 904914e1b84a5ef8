"""Where others see images, `.view` works as on those of a network that is written by hand."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import cnndsl
from cnndsl.rt import for_blocks
from tests.clients import sides

IMAGES = """
input 5 x 4 x 2
conv 3 3x3 pad=1 as first.conv; relu
conv 3 3x3 pad=1 as second.inner.conv; leaky_relu as middle
output middle
conv 2 3x3 pad=1 as last; relu
"""
MODEL = cnndsl.compile(source=IMAGES)
X = torch.randn(2, 2, 5, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["cpu", "kernels"])
def model(request, monkeypatch):
    monkeypatch.setattr("cnndsl.rt.module.INTERPRETED", request.param == "kernels")
    return type(MODEL)()


def flat(image):
    return image.view(len(image), -1)


def test_outputs_are_laid_as_inputs(model):
    x = X.clone().requires_grad_()
    found = {"y": model(x), **model.outputs(x)}
    for y in found.values():
        assert flat(y).shape[0] == 2
    (gradient,) = torch.autograd.grad(found["y"].sum(), x)
    flat(gradient)  # as a gradient penalty does
    inner = X.contiguous(memory_format=torch.channels_last)
    assert model(inner).is_contiguous(memory_format=torch.channels_last)


def test_blocks_give_rows_to_others_and_nothing_is_copied_between_them(model):
    seen = []
    x = torch.randn(2, 3, 5, 4)
    assert flat(model.second(x)).shape == (2, 60)
    model.second.register_forward_hook(lambda _block, _x, y: seen.append(flat(y)))
    with torch.no_grad():
        first = model.first(for_blocks(X))
        assert not first.is_contiguous()
        model(X)
    assert len(seen) == 1


NORMS = ["groupnorm 2", "groupnorm 4", "groupnorm 1", "layernorm", "batchnorm", "prelu"]
CRASH = """
import os, sys
os.environ["TRITON_INTERPRET"] = sys.argv[1]
import torch, cnndsl
torch.set_num_threads(1)
for norm in {norms!r}:
    for source in (
        f"input 5 x 4 x 2\\nconv 4 3x3 as c; {{norm}} as n; relu; flatten; fc 2\\n",
        f"input 5 x 4 x 2\\nconv 4 3x3 as c; pool max 2; {{norm}} as n; flatten; fc 2\\n",
        f"input 5 x 4 x 4 u8\\n{{norm}} as n; flatten; fc 2\\n",
    ):
        model = cnndsl.compile(source=source)
        x = torch.randint(256, (3, *model.input_shape))
        x = x.byte() if "u8" in source else x / 255
        for layout in (torch.contiguous_format, torch.channels_last):
            for frozen in ((), ("c",), ("c", "weight"), ("c", "bias")):
                model.zero_grad()
                for name, p in model.named_parameters():
                    p.requires_grad_(not any(part in name.split(".") for part in frozen))
                model(x.contiguous(memory_format=layout)).square().sum().backward()
    print(norm)
"""


@pytest.mark.parametrize(
    "interpreted",
    [
        "0",
        pytest.param(
            "1",
            marks=pytest.mark.skipif(
                not sides.MANY, reason="kernels come before the same operators: CNNDSL_MANY=1"
            ),
        ),
    ],
)
def test_norms_behind_frozen_layers_do_not_end_the_process(interpreted):
    """In torch 2.13, group norm's backward reads a null pointer where channels lie innermost."""
    command = [sys.executable, "-c", CRASH.format(norms=NORMS), interpreted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:-1] == NORMS, (done.returncode, done.stderr)


def test_frozen_layers_before_a_norm_learn_nothing_else_changes():
    model = cnndsl.compile(source="input 5 x 4 x 2\nconv 4 3x3 as c; groupnorm 2 as n; relu\n")
    plain = nn.Sequential(model.c, model.n, nn.ReLU())
    model.c.requires_grad_(False)
    for run in (model, plain):
        model.zero_grad()
        run(X).square().sum().backward()
        found = model.n.weight.grad.clone()
    torch.testing.assert_close(found, model.n.weight.grad)
    assert model.c.weight.grad is None
