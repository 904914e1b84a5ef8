"""Layers that have no kernel are called as modules, and those that have one until they change."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import cnndsl
from cnndsl.runtime.load import origin_of
from cnndsl.tools.bench import eager
from tests.clients import sides

TEXT = """
input 6 x 6 x 2
conv 4 3x3 pad=1 as conv; relu; pool max 2
scale as scale
deconv 4 2x2 stride=2 as deconv
groupnorm 2 as group
prelu as slopes
batchnorm as batch
pool max 2
layernorm as norm
flatten
scale as scale_of_vector
batchnorm as batch_of_vector
fc 5 as fc1; relu
fc 3 as fc2
"""
OURS = cnndsl.compile(source=TEXT)
PLAIN = type(eager(OURS, origin_of(OURS)))
LAYERS = [name for name, _ in OURS.named_children()]
X = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([1, 0, 2])


class Viewing(nn.Module):
    """Around a layer; it takes images as they lie in a network written by hand."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) + x.flatten(1).mean() * self.takes_view(x)

    @staticmethod
    def takes_view(x):
        # LayerNorm gets a permuted image in any network.
        return 1.0 if x.shape[-1] == 4 and x.dim() == 4 else x.view(len(x), -1).mean()


def replace(model, name):
    model.set_submodule(name, Viewing(model.get_submodule(name)))


def hook(model, name):
    model.get_submodule(name).register_forward_hook(lambda _layer, _x, y: y * 2)


def backward_hook(model, name):
    def change(_layer, given, _from):
        return (given[0] * 3,)

    model.get_submodule(name).register_full_backward_hook(change)


def parametrize(model, name):
    class Doubled(nn.Module):
        def forward(self, weight):
            return weight * 2

    nn.utils.parametrize.register_parametrization(
        model.get_submodule(name), "weight", Doubled(), unsafe=True
    )


def step(model):
    model.eval()  # statistics of three images would turn rounding into differences
    x = X.clone().requires_grad_()
    logits = model(x)
    F.cross_entropy(logits, Y).backward()
    found = {"y": logits.detach(), "x": x.grad}
    return found | {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("change", [replace, hook, backward_hook, parametrize])
@pytest.mark.parametrize("name", LAYERS)
def test_each_layer_is_called(name, change, monkeypatch):
    monkeypatch.setattr("cnndsl.rt.module.INTERPRETED", False)
    found = []
    for kind in (type(OURS), PLAIN):
        model = sides.started(kind())
        change(model, name)
        found.append(step(model))
    sides.same(*found)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        (nn.Conv2d, "forward"),
        (nn.Conv2d, "_conv_forward"),
        (nn.BatchNorm2d, "forward"),
        (nn.Linear, "forward"),
    ],
)
@pytest.mark.parametrize("side", ["cpu", "kernels"])
def test_methods_patched_on_a_class_are_run(kind, method, side, monkeypatch):
    found = {}
    old = getattr(kind, method)
    for name in ("plain", side):
        with sides.side(name) as (model, _), monkeypatch.context() as patched:
            patched.setattr(kind, method, lambda *given: old(*given) * 2)
            found[name] = sides.inference(model)
    sides.same(found[side], found["plain"])


def test_fc_takes_vectors_of_another_rank(monkeypatch):
    found = []
    monkeypatch.setattr("cnndsl.rt.module.INTERPRETED", True)
    for kind in (type(OURS), PLAIN):
        model = sides.started(kind())
        model.fc1 = nn.Sequential(model.fc1, nn.Unflatten(1, (1, 5)))
        found.append({"y": model.eval()(X).detach()})
    assert found[0]["y"].shape == (3, 1, 3)
    sides.same(*found)


def test_profiles_name_regions():
    with sides.side("kernels") as (model, _):
        logits = model(sides.X)
    assert type(logits.grad_fn).__name__ == "flatten1_headBackward"
