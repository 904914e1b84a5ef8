"""What a CPU computes where nothing looks on: the layers' values, from the weights as they are."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

import cnndsl
from cnndsl.rt import cpu

torch.set_num_threads(1)

TEXT = """
input 12 x 10 x 3
conv 6 3x3 pad=1 bias=no as c1; batchnorm as n1; relu; pool max 2
add { conv 6 3x3 pad=1 as c2; batchnorm as n2; relu6; conv 6 1x1 as c3; batchnorm as n3 } { skip }
relu as sum
conv 6 3x3 pad=1 groups=channels as c4; pool max 2; batchnorm as n4; silu
conv 5 3x3 pad=1 as c5; relu; pool avg 2 ceil=yes
conv 4 1x1 as c6; relu
flatten
fc 3
output sum
"""
CLASS = type(cnndsl.compile(source=TEXT))
CONV = nn.Conv2d(2, 2, 1)
X = torch.randn(4, 3, 12, 10, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def model(monkeypatch):
    """A model with statistics that change something; everything is worth folding."""
    monkeypatch.setattr("cnndsl.rt.module.INTERPRETED", False)
    monkeypatch.setattr("cnndsl.rt.cpu.LEAST_TO_LOOK_FOR", 0)
    monkeypatch.setattr("cnndsl.rt.cpu.LEAST_TO_FOLD_FOR_A_WEIGHT", 0)
    torch.manual_seed(0)
    model = CLASS().eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.uniform_(-0.5, 0.5)
            norm.running_var.uniform_(0.5, 2.0)
            nn.init.normal_(norm.weight)
    return model


def plainly(model, x=X):
    """Layer by layer, in the words of a user."""
    m = model
    x = F.max_pool2d(F.relu(m.n1(m.c1(x))), 2)
    y = m.n3(m.c3(F.relu6(m.n2(m.c2(x)))))
    total = F.relu(x + y)
    x = F.silu(m.n4(F.max_pool2d(m.c4(total), 2)))
    x = F.avg_pool2d(F.relu(m.c5(x)), 2, ceil_mode=True)
    return m.fc1(torch.flatten(F.relu(m.c6(x)), 1)), total


def agrees(model):
    with torch.no_grad():
        wanted, total = plainly(model)
        found, other = model.logits(X), model.outputs(X)["sum"]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
    torch.testing.assert_close(other, total, rtol=1e-5, atol=1e-5 * float(total.abs().max()))
    return found


def folds(monkeypatch):
    """Count what is folded."""
    seen = []
    scale_and_shift = cpu.scale_and_shift

    def counted(norm, bias):
        seen.append(norm)
        return scale_and_shift(norm, bias)

    monkeypatch.setattr(cpu, "scale_and_shift", counted)
    return seen


def test_inference_folds_batchnorm_and_gives_the_layers_values(model, monkeypatch):
    seen = folds(monkeypatch)
    given = X.clone()
    agrees(model)
    # n4 stands behind a pool, where no weight can take it in
    assert seen[:3] == [model.n1, model.n2, model.n3]
    assert model.n4 not in seen
    assert torch.equal(X, given)


def change_by_loading(model):
    torch.manual_seed(5)
    model.load_state_dict(CLASS().state_dict())


def change_by_a_step(model):
    model.train().loss(X, torch.tensor([0, 1, 2, 0])).backward()
    torch.optim.SGD(model.parameters(), lr=0.5).step()
    model.eval()


def change_in_place(model):
    with torch.no_grad():
        model.c2.weight.mul_(2)
        model.n1.running_var.add_(1)


def change_data(model):
    model.c1.weight.data.neg_()  # nothing counts such a change
    model.n3.bias.data.add_(3)


def change_the_memory(model):
    model.n2.weight.detach().numpy()[:] = 0.5


@pytest.mark.parametrize(
    "change",
    [change_by_loading, change_by_a_step, change_in_place, change_data, change_the_memory],
)
def test_changed_weights_are_seen_at_once(model, change):
    before = agrees(model)
    change(model)
    assert not torch.allclose(agrees(model), before)


def test_training_and_gradients_fold_nothing(model, monkeypatch):
    seen = folds(monkeypatch)
    wanted = plainly(model, cpu.in_layout_for(X, model.c1))[0]
    found = model.logits(X)
    assert torch.equal(found, wanted)
    ours = torch.autograd.grad(found.sum(), list(model.parameters()))
    theirs = torch.autograd.grad(wanted.sum(), list(model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    twin = copy.deepcopy(model).train()
    with torch.no_grad():  # statistics move without gradients, too
        model.train().logits(X)
        plainly(twin, cpu.in_layout_for(X, model.c1))
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), twin.buffers(), strict=True))
    assert not seen


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_fold_nothing(model, monkeypatch, dtype):
    seen = folds(monkeypatch)
    with torch.no_grad():
        assert torch.isfinite(model.to(dtype).logits(X.to(dtype))).all()
        with torch.autocast("cpu", torch.bfloat16):
            model.float().logits(X)
    assert not seen


def test_hooks_see_what_each_layer_gives(model):
    seen = {}
    for name in ("c1", "n1", "c2", "n2", "c3", "n3", "c5", "c6"):
        getattr(model, name).register_forward_hook(
            lambda _m, _x, y, name=name: seen.update({name: y})
        )
    with torch.no_grad():
        model.logits(X)
        found = dict(seen)
        plainly(model)
    assert len(found) == 8
    for name, value in seen.items():
        torch.testing.assert_close(found[name], value)
        assert found[name].is_contiguous()  # as in a network written by hand
    assert (found["n1"] < 0).any()  # no ReLU has been there


def test_a_hook_on_all_modules_sees_them(model):
    seen = []
    handle = register_module_forward_hook(lambda module, _x, y: seen.append((module, y)))
    try:
        with torch.no_grad():
            model.logits(X)
    finally:
        handle.remove()
    assert (dict(seen)[model.n2] > 6).any() or (dict(seen)[model.n2] < 0).any()


def test_a_layer_in_anothers_place_is_asked(model):
    with torch.no_grad():
        wanted = model.logits(X)
        model.n1 = nn.Sequential(model.n1)
        torch.testing.assert_close(model.logits(X), wanted)
        model.c3.forward = torch.zeros_like
        assert not torch.allclose(model.logits(X), wanted)


def test_nan_and_infinity_go_through(model):
    x = X.clone()
    x[1, 0, 3, 3] = float("nan")
    x[2, 1, 4, 4] = float("inf")
    with torch.no_grad():
        found, wanted = model.outputs(x)["sum"], plainly(model, x)[1]
    assert torch.equal(found.isnan(), wanted.isnan())
    assert found.isnan().any()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("size", [(2, 2), (5, 4), (6, 7)])
@pytest.mark.parametrize("channels", [1, 3, 8])
def test_the_pool_of_slices_is_pytorchs(size, channels):
    x = torch.randn(2, channels, *size)
    x[0, 0, 0, 1] = float("nan")
    x[1, 0, :2, :2] = -float("inf")
    for given in (x, cpu.in_layout_for(x, CONV), x.double(), x.bfloat16(), x[:0]):
        with torch.no_grad():
            found = cpu.max_pool2(given)
        torch.testing.assert_close(found, F.max_pool2d(given, 2), rtol=0, atol=0, equal_nan=True)


def test_channels_are_laid_innermost_without_a_copy_where_they_are():
    image = X.contiguous(memory_format=torch.channels_last)
    assert cpu.in_layout_for(image, CONV) is image
    grey = torch.randn(2, 1, 5, 4)
    assert cpu.in_layout_for(grey, CONV).data_ptr() == grey.data_ptr()
    assert cpu.in_layout_for(grey, CONV).stride() == (20, 1, 4, 1)
    assert torch.equal(cpu.in_layout_for(grey, CONV), grey)


def test_vmap_and_fake_tensors_pass(model):
    with torch.no_grad():
        wanted = model.logits(X)
        found = torch.func.vmap(lambda x: model.logits(x[None])[0])(X)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
            assert model.logits(mode.from_tensor(X)).shape == wanted.shape


def test_few_images_are_laid_as_the_weights_that_outweigh_them():
    conv, image = nn.Conv2d(64, 64, 3), torch.randn(1, 64, 4, 4)
    inner = image.contiguous(memory_format=torch.channels_last)
    for given in (image, inner):  # 36,864 weights, 1,024 values
        assert cpu.in_layout_for(given, conv).is_contiguous()
    assert cpu.in_layout_for(image, nn.Conv2d(64, 64, 1)).stride() == inner.stride()  # 4,096
    conv.to(memory_format=torch.channels_last)
    assert cpu.in_layout_for(image, conv).stride() == inner.stride()
    conv.to(memory_format=torch.contiguous_format)
    more = torch.randn(4, 64, 4, 4)
    assert cpu.in_layout_for(
        more, conv
    ).is_contiguous()  # the gradient of weights is laid anew, too
    with torch.no_grad():
        assert not cpu.in_layout_for(more, conv).is_contiguous()
