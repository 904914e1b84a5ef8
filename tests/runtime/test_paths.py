"""The ways to run an emitted module: PyTorch's operators, interpreted kernels, torch.compile."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from triton.runtime import interpreter

from cnndsl.check import check_source
from cnndsl.fuse.plan import step
from cnndsl.fuse.regions import parts
from cnndsl.layers.activations import Relu, Softmax
from cnndsl.layers.base import Pointwise
from cnndsl.layers.conv import Conv
from cnndsl.layers.norms import BatchNorm
from cnndsl.layers.pool import GlobalPool
from cnndsl.layers.reshape import Flatten
from cnndsl.layers.table import BY_KIND
from cnndsl.source import Source
from tests.emit.networks import KINDS, conv, fc, load, network, pool
from tests.kernels.hostile import HostileInterpreter

torch.set_num_threads(1)
# The overflow sanitizer makes integer arithmetic ten times slower; tests/kernels has it on.
interpreter.interpreter_builder.options = interpreter.InterpreterOptions(sanitize_overflow=False)

SMALL = network(
    (6, 6, 1),
    conv(2, 3, pad=1),
    Relu(),
    pool("max", 2),
    Flatten(),
    fc(3),
    Softmax(),
    name="Small",
)


def small():
    return load(SMALL)


def on_cpu(module, monkeypatch):
    """As where TRITON_INTERPRET is not set."""
    monkeypatch.setattr("cnndsl.rt.module.INTERPRETED", False)


def batch(shape, size=2):
    torch.manual_seed(1)
    return torch.randn(size, shape[-1], *shape[:-1])


def gradients(model, x, training, weights):
    """The output, the gradients of the input and of each parameter, and all buffers."""
    model = copy.deepcopy(model).train(training)
    x = x.clone().requires_grad_()
    torch.manual_seed(2)  # for dropout
    y = model(x)
    (y * weights(y)).sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in model.parameters()), *model.buffers()]


def ramp(y):
    return torch.arange(y.numel(), dtype=y.dtype).reshape(y.shape).cos()


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("training", [True, False])
def test_on_the_cpu_it_is_exactly_pytorchs_own_network(kind, training, monkeypatch):
    shape, layers, twins = KINDS[kind]
    module, model = load(network(shape, *layers))
    on_cpu(module, monkeypatch)
    twin = nn.Sequential(*twins)
    assert [v.shape for v in twin.state_dict().values()] == [
        v.shape for v in model.state_dict().values()
    ]
    values = zip(twin.state_dict(), model.state_dict().values(), strict=True)
    twin.load_state_dict(dict(values))
    found = gradients(model, batch(shape), training, ramp)
    if isinstance(layers[0], Conv):
        twin = nn.Sequential(Innermost(), twin)
    wanted = gradients(twin, batch(shape), training, ramp)
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.equal(ours, theirs)


class Innermost(nn.Module):
    """Lays images out with channels innermost, as a network does first on a CPU."""

    def forward(self, x):
        n, c, h, w = x.shape
        return x.permute(0, 2, 3, 1).flatten().view(n, h, w, c).permute(0, 3, 1, 2)


def has_batchnorm(kind):
    return any(isinstance(layer, BatchNorm) for layer in KINDS[kind][1])


WITH_KERNELS = [kind for kind in KINDS if kind != "no kernel at all"]


@pytest.mark.parametrize(
    ("kind", "training"),
    [(k, t) for k in WITH_KERNELS for t in (False, True) if has_batchnorm(k) or not t],
)
def test_kernels_compute_what_pytorch_computes(kind, training, monkeypatch):
    shape, layers, _ = KINDS[kind]
    module, model = load(network(shape, *layers))
    for norm in model.modules():  # statistics that change something
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.uniform_(-0.5, 0.5)
            norm.running_var.uniform_(0.5, 2.0)
            if norm.affine:
                nn.init.normal_(norm.weight)
    called = []
    for name, value in vars(module).items():
        if name.endswith("_op") and hasattr(value, "operators"):
            spy = _noting(value, called)
            monkeypatch.setattr(module, name, spy)
    found = gradients(model, batch(shape), training, ramp)
    assert called, "no kernel ran"
    on_cpu(module, monkeypatch)
    wanted = gradients(model, batch(shape), training, ramp)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [k for k in BY_KIND if issubclass(BY_KIND[k], Pointwise)])
def test_kernels_take_in_every_activation(kind, monkeypatch):
    module, model = load(network((6, 6, 1), conv(2, 3, pad=1), BY_KIND[kind](), pool("max", 2)))
    x = batch((6, 6, 1), 1)
    found = gradients(model, x, True, ramp)
    on_cpu(module, monkeypatch)
    for ours, theirs in zip(found, gradients(model, x, True, ramp), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_bfloat16_is_not_interpreted(monkeypatch):
    module, model = small()
    model = model.bfloat16()
    x = batch((6, 6, 1)).bfloat16()
    found = model.logits(x)
    with torch.autocast("cpu", torch.bfloat16):
        cast = model.float().logits(x.float())
    on_cpu(module, monkeypatch)
    assert torch.equal(model.bfloat16().logits(x), found)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.float().logits(x.float()), cast)


def _noting(function, called):
    def run(*arguments):
        called.append(function)
        return function(*arguments)

    return run


RESIDUAL = """
input 6 x 5 x 2
conv 4 3x3 pad=1 bias=no; batchnorm; relu
add { conv 4 3x3 pad=1 bias=no; batchnorm; relu; conv 4 3x3 pad=1; batchnorm } { skip }
relu
add { conv 6 3x3 stride=2 pad=1 bias=no; batchnorm } { conv 6 1x1 stride=2 bias=no; batchnorm }
silu
add { skip } { conv 6 1x1 }
add { conv 6 3x3 pad=1 groups=channels }{ skip }
relu6
"""


@pytest.mark.parametrize("training", [True, False])
def test_residuals(training, monkeypatch):
    graph = check_source(Source("residual.cnn", RESIDUAL)).graph
    module, model = load(graph)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.uniform_(-0.5, 0.5)
            norm.running_var.uniform_(0.5, 2.0)
            nn.init.normal_(norm.weight)
    with HostileInterpreter() as hostile:
        found = gradients(model, batch((6, 5, 2)), training, ramp)
    # `gradients` asks for that of the network's input too
    wanted = step(parts(graph))
    if training:
        assert len(hostile.launches) == wanted.forward + wanted.backward + 1
    on_cpu(module, monkeypatch)
    wanted = gradients(model, batch((6, 5, 2)), training, ramp)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


STEM = "input 16 x 14 x 3\nconv 5 7x5 stride=2 pad=3x2"


@pytest.mark.parametrize("text", [f"{STEM}; relu; pool max 3 stride=2", f"{STEM}; batchnorm; relu"])
@pytest.mark.parametrize("training", [True, False])
def test_rows_of_large_filters(text, training, monkeypatch):
    """The image is laid out, and before overlapping windows the convolution launched alone."""
    graph = check_source(Source("stem.cnn", text)).graph
    module, model = load(graph)
    with HostileInterpreter() as hostile:
        found = gradients(model, batch((16, 14, 3)), training, ramp)
    assert "conv_lay_out" in hostile.launches
    wanted = step(parts(graph))
    if training:
        assert len(hostile.launches) == wanted.forward + wanted.backward + ("batchnorm" in text)
    on_cpu(module, monkeypatch)
    wanted = gradients(model, batch((16, 14, 3)), training, ramp)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "branches",
    [
        "{ conv 4 1x1 as b; batchnorm as n } { skip }",
        "{ skip } { conv 4 1x1 as b; batchnorm as n }",
    ],
)
def test_a_residual_on_the_cpu_is_pytorchs_sum(branches, monkeypatch):
    source = Source("sum.cnn", f"input 6 x 5 x 2\nconv 4 3x3 as a; relu\nadd {branches}\nrelu\n")
    module, model = load(check_source(source).graph)
    on_cpu(module, monkeypatch)
    x = batch((6, 5, 2))
    twin = copy.deepcopy(model)
    before = F.relu(twin.a(Innermost()(x)))
    wanted = F.relu(twin.n(twin.b(before)) + before)
    assert torch.equal(model(x), wanted)
    assert torch.equal(model.n.running_var, twin.n.running_var)


def test_a_batchnorm_of_several_processes_is_pytorchs(monkeypatch):
    """SyncBatchNorm asks the others; a kernel would not, and nobody would notice."""
    module, model = load(network((5, 5, 1), conv(2, 3), BatchNorm(), Relu()))
    called = []
    monkeypatch.setattr(module, "conv1_batchnorm1_relu1_sums_op", lambda *_: called.append(1))
    twin = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))
    found = gradients(twin, batch((5, 5, 1)), True, ramp)
    assert not called
    on_cpu(module, monkeypatch)
    wanted = gradients(model, batch((5, 5, 1)), True, ramp)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)  # not in the same layout


def test_batchnorm_under_torch_compile():
    _, model = load(network((5, 5, 1), conv(2, 3, bias=False), BatchNorm(), Relu()))
    twin = copy.deepcopy(model)
    x = batch((5, 5, 1))
    y = torch.compile(model, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(y, twin(x))
    for ours, theirs in zip(model.buffers(), twin.buffers(), strict=True):
        assert torch.equal(ours, theirs)


def test_float64_can_be_checked_by_differences():
    _, model = small()
    model = model.double()
    x = batch((6, 6, 1)).double().requires_grad_()
    assert torch.autograd.gradcheck(model.logits, (x,))


def test_branches_and_their_names(monkeypatch):
    chain = network((6, 6, 1), conv(2, 3, pad=1), Relu(), conv(2, 3, pad=1), Softmax())
    first, relu, second, softmax = chain.nodes
    # relu reads the first convolution's output while the second still needs it
    nodes = (first, relu, second.replace(inputs=("conv1",)), softmax.replace(inputs=("relu1",)))
    module, model = load(chain.replace(nodes=(*nodes,), result="softmax1"))
    on_cpu(module, monkeypatch)
    x = batch((6, 6, 1))
    assert torch.equal(model(x), F.softmax(F.relu(model.conv1(Innermost()(x))), 1))


# ── what a module can do ─────────────────────────────────────────────────────────────────────────


def test_forward_logits_and_loss():
    _, model = small()
    x, y = batch((6, 6, 1)), torch.tensor([0, 2])
    assert torch.equal(model(x), F.softmax(model.logits(x), 1))
    torch.testing.assert_close(model.loss(x, y), F.cross_entropy(model.logits(x), y))
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])
    wanted = F.cross_entropy(model.logits(x), probabilities)
    assert torch.equal(model.loss(x, probabilities), wanted)
    assert model.input_shape == (1, 6, 6)
    assert model.classes == ()


def test_a_batch_of_none():
    _, model = small()
    x = torch.empty(0, 1, 6, 6, requires_grad=True)
    y = model.logits(x)
    assert y.shape == (0, 3)
    y.sum().backward()
    assert torch.equal(model.conv1.weight.grad, torch.zeros_like(model.conv1.weight))


@pytest.mark.parametrize("shape", [(1, 6, 6), (2, 1, 6, 7), (2, 2, 6, 6), (2, 36), (2, 6, 6, 1)])
def test_other_shapes_are_refused_with_the_line_that_says_which(shape):
    _, model = small()
    with pytest.raises(ValueError, match=r"Small takes \(N, 1, 6, 6\), not .*\(cnn line 1\)") as e:
        model(torch.zeros(shape))
    assert str(tuple(shape)) in str(e.value)


def free():
    """A network for images of many sizes, with symbols named as what the code around them uses."""
    return load(
        network(
            ("x", "ValueError", 2),
            conv(2, 3),
            Relu(),
            pool("max", 2),
            GlobalPool("avg"),
            Flatten(),
            fc(2),
            needs=("x >= 4", "ValueError % 2 == 0 and ValueError >= 4"),
        )
    )


@pytest.mark.parametrize("size", [(4, 4), (5, 6), (9, 8)])
def test_a_network_for_many_sizes(size, monkeypatch):
    module, model = free()
    x = torch.randn(1, 2, *size, requires_grad=True)
    found = gradients(model, x.detach(), True, ramp)
    on_cpu(module, monkeypatch)
    for ours, theirs in zip(found, gradients(model, x.detach(), True, ramp), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert model.input_shape == (2, None, None)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((3, 4), r"needs x >= 4 \(cnn line 3\), but the input is 3 x 4 x 2"),
        ((4, 5), r"needs ValueError % 2 == 0 and ValueError >= 4 \(cnn line 3\)"),
        ((0, 4), r"needs x >= 1 \(cnn line 1\)"),
    ],
)
def test_a_size_that_is_not_valid_names_the_condition(size, message):
    _, model = free()
    with pytest.raises(ValueError, match=message):
        model(torch.zeros(1, 2, *size))


def test_the_same_symbol_twice_is_a_condition():
    _, model = load(network(("H", "H", 1), conv(1, 1)))
    assert model(torch.zeros(1, 1, 3, 3)).shape == (1, 1, 3, 3)
    with pytest.raises(ValueError, match="== H"):
        model(torch.zeros(1, 1, 3, 4))


def test_copies_and_pickles():
    _, model = small()
    x = batch((6, 6, 1))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), model(x))


@pytest.mark.parametrize("interpreted", [True, False])
def test_torch_compile_takes_it_whole(interpreted, monkeypatch):
    module, model = small()
    if not interpreted:
        on_cpu(module, monkeypatch)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = batch((6, 6, 1)).requires_grad_()
    torch.testing.assert_close(compiled(x), model(x))
    compiled(x).square().sum().backward()
    found = x.grad.clone()
    x.grad = None
    model(x).square().sum().backward()
    torch.testing.assert_close(found, x.grad)


def test_torch_export_keeps_the_batch_free(monkeypatch):
    module, model = small()
    on_cpu(module, monkeypatch)
    dims = {"x": {0: torch.export.Dim("batch")}}
    program = torch.export.export(model, (batch((6, 6, 1)),), dynamic_shapes=dims)
    x = batch((6, 6, 1), 3)
    torch.testing.assert_close(program.module()(x), model(x))


def test_autocast_and_half_run(monkeypatch):
    module, model = small()
    on_cpu(module, monkeypatch)
    x = batch((6, 6, 1))
    with torch.autocast("cpu", torch.bfloat16):
        assert model.logits(x).dtype == torch.bfloat16
    assert copy.deepcopy(model).bfloat16().logits(x.bfloat16()).dtype == torch.bfloat16


def test_operators_follow_pytorchs_rules():
    module, model = small()
    space = module.NAMESPACE
    x = torch.randn(1, 1, 6, 6, requires_grad=True)
    operator = getattr(torch.ops, space).conv1_relu1_pool1.default
    weights = (model.conv1.weight.detach().requires_grad_(), model.conv1.bias.detach())
    torch.library.opcheck(operator, (x, *weights, None, None))


def test_hooks_and_frozen_weights(monkeypatch):
    _, model = small()
    seen = []
    model.register_forward_hook(lambda *_: seen.append(1))
    model.conv1.weight.requires_grad_(False)
    model(batch((6, 6, 1))).sum().backward()
    assert seen == [1]
    assert model.conv1.weight.grad is None
    assert model.conv1.bias.grad is not None
