"""What PyTorch's users do with a module, done with one that `cnndsl.compile` gave.

Each with kernels, in Triton's interpreter, and with PyTorch's operators, as on a CPU.
"""

import copy
import os
import pickle
import subprocess
import sys

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint
from triton.runtime import interpreter

import cnndsl

torch.set_num_threads(1)
interpreter.interpreter_builder.options = interpreter.InterpreterOptions(sanitize_overflow=False)

TEXT = """\
model Residual
input H x W x 1
require H % 2 == 0, W % 2 == 0
conv 2 3x3 pad=same as first; relu
pool max 2
add { conv 2 3x3 pad=same as body.second; batchnorm as body.norm } { skip }
relu
globalpool avg
flatten
fc 3 as head
softmax
"""
MANY = os.environ.get("CNNDSL_MANY") == "1"
CLASS = type(cnndsl.compile(source=TEXT))


@pytest.fixture(params=["kernels", "operators"])
def model(request, monkeypatch):
    """A model whose layers run as kernels, or as PyTorch's operators."""
    interpreted = request.param == "kernels"
    monkeypatch.setattr("cnndsl.rt.module.INTERPRETED", interpreted)
    torch.manual_seed(0)
    return CLASS()


def batch(size=3):
    torch.manual_seed(1)
    return torch.randn(size, 1, 6, 4)


LABELS = torch.tensor([0, 2, 1])


def step(model, run=None):
    """A loss, and all gradients."""
    model.zero_grad()
    run = model.logits if run is None else run
    loss = F.cross_entropy(run(batch()), LABELS)
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters())]


def same(one, other, **tolerance):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.parametrize("training", [True, False])
def test_torch_compile_without_a_graph_break(model, training):
    """`fullgraph` raises at a break."""
    torch._dynamo.reset()
    other = copy.deepcopy(model.train(training))
    compiled = torch.compile(other, fullgraph=True, dynamic=True, backend="aot_eager")
    same(step(other, compiled), step(model, model))
    same(other.buffers(), model.buffers())
    x = torch.randn(2, 1, 8, 6)
    torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inductor's own
def test_torch_compile_with_inductor(model, request):
    """The default backend, which writes C++ here."""
    if "kernels" in request.node.callspec.id and not MANY:
        pytest.skip("a minute: CNNDSL_MANY=1")
    if " " in torch.__file__:
        pytest.skip("inductor cannot link where torch lies in a folder with a space in its name")
    torch._dynamo.reset()
    model.eval()
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(batch()), model(batch()))


def test_torch_export_is_whole_and_can_be_saved(model, tmp_path):
    model.eval()
    program = cnndsl.export_program(model)
    torch.export.save(program, tmp_path / "model.pt2")
    run = torch.export.load(tmp_path / "model.pt2").module()
    for size in ((2, 2), (6, 4), (8, 10)):
        x = torch.randn(2, 1, *size)
        torch.testing.assert_close(run(x), model(x))
    with pytest.raises((AssertionError, RuntimeError)):
        run(torch.randn(1, 1, 3, 4))


def test_torch_export_by_hand(model):
    """With what the module itself tells; the program is of PyTorch's operators."""
    model.eval()
    x = torch.randn(2, 1, 8, 12)
    program = torch.export.export(model, (x,), dynamic_shapes=model.dynamic_shapes())
    other = torch.randn(3, 1, 10, 6)
    torch.testing.assert_close(program.module()(other), model(other))
    assert {n.target.namespace for n in program.graph.nodes if hasattr(n.target, "namespace")} <= {
        "aten"
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_keeps_weights_and_gradients_in_float32(model, dtype):
    with torch.autocast("cpu", dtype):
        logits = model.logits(batch())
        assert logits.dtype == dtype
        loss = F.cross_entropy(logits, LABELS)
    loss.backward()
    for parameter in model.parameters():
        assert parameter.dtype == parameter.grad.dtype == torch.float32
    torch.testing.assert_close(logits.float(), model.logits(batch()), rtol=0.05, atol=0.05)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of infinity in the interpreter
def test_gradient_scaling(model):
    """A step with scaled losses is the step without; one with infinite gradients is left out."""
    plain = copy.deepcopy(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (model, plain)]
    scaler.scale(model.loss(batch(), LABELS)).backward()
    scaler.step(optimizers[0])
    scaler.update()
    plain.loss(batch(), LABELS).backward()
    optimizers[1].step()
    same(model.parameters(), plain.parameters(), rtol=1e-4, atol=1e-6)
    before = [p.detach().clone() for p in model.parameters()]
    optimizers[0].zero_grad()
    scaler.scale(model.loss(batch(), LABELS) * float("inf")).backward()
    scaler.step(optimizers[0])
    scaler.update()
    same(model.parameters(), before)
    assert scaler.get_scale() < 1024


def test_gradient_checkpointing(model):
    model.eval()  # in training, batchnorm would count the batch twice
    plain = step(model)
    same(step(model, lambda x: checkpoint(model.logits, x, use_reentrant=False)), plain)
    run = model.body.forward
    model.body.forward = lambda x: checkpoint(run, x, use_reentrant=False)
    same(step(model), plain)


def test_copies_are_independent(model):
    other = copy.deepcopy(model)
    assert torch.equal(other.eval()(batch()), model.eval()(batch()))
    with torch.no_grad():
        other.first.weight.zero_()
    assert model.first.weight.abs().sum() > 0
    assert copy.copy(model).first is model.first


def test_pickles_in_this_process(model):
    model.note = "kept"
    other = pickle.loads(pickle.dumps(model.eval()))
    assert type(other) is CLASS
    assert not other.training
    assert other.note == "kept"
    assert torch.equal(other(batch()), model(batch()))


def test_pickles_in_another_process(tmp_path):
    """One that never compiled anything, and whose cache of emitted files is empty."""
    model = cnndsl.compile(source=TEXT).eval()
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    torch.save(model, tmp_path / "model.pt")
    safetensors.torch.save_file(model.state_dict(), tmp_path / "state.safetensors")
    code = (
        "import pickle, torch, safetensors.torch\n"
        "state = safetensors.torch.load_file('state.safetensors')\n"
        "whole = torch.load('model.pt', weights_only=False)\n"
        "for m in (pickle.load(open('model.pkl', 'rb')), whole):\n"
        "    assert all(torch.equal(state[n], t) for n, t in m.state_dict().items())\n"
        "    assert not m.training and m(torch.zeros(2, 1, 4, 6)).shape == (2, 3)\n"
        "print(type(m).__name__)"
    )
    environment = {"PATH": "/usr/bin", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout == "Residual\n", done.stderr


def test_moving_and_casting(model):
    x = batch()
    assert copy.deepcopy(model).to("meta").first.weight.is_meta
    double = copy.deepcopy(model).to(torch.float64).eval()
    torch.testing.assert_close(double(x.double()).float(), model.eval()(x))
    assert copy.deepcopy(model).half().logits(x.half()).dtype == torch.float16
    assert copy.deepcopy(model).to(torch.bfloat16).logits(x.bfloat16()).dtype == torch.bfloat16


def test_hooks(model):
    seen = []
    handles = [
        model.register_forward_pre_hook(lambda _, inputs: seen.append(("in", inputs[0].shape))),
        model.register_forward_hook(lambda _, __, output: seen.append(("out", output.shape))),
        model.register_full_backward_hook(lambda *_: seen.append(("back", None))),
        model.head.weight.register_hook(lambda g: seen.append(("weight", g.shape))),
        model.body.register_forward_hook(
            lambda _, __, output: seen.append(("block", output.shape))
        ),
        model.body.register_full_backward_hook(lambda _, __, g: seen.append(("into", g[0].shape))),
    ]
    model(batch().requires_grad_()).sum().backward()
    assert dict(seen) == {
        "in": (3, 1, 6, 4),
        "out": (3, 3),
        "back": None,
        "weight": (3, 2),
        "block": (3, 2, 3, 2),
        "into": (3, 2, 3, 2),
    }
    for handle in handles:
        handle.remove()
    model(batch())
    assert len(seen) == 6


def test_functional_call(model):
    model.eval()
    other = CLASS().eval()
    state = dict(other.state_dict())
    found = torch.func.functional_call(model, state, (batch(),))
    assert torch.equal(found, other(batch()))


def test_a_tensor_that_outlived_a_transform(model):
    x, left = batch().contiguous(memory_format=torch.channels_last), []
    torch.func.grad(lambda t: (left.append(t), t.sum())[1])(x)
    assert torch._C._functorch.is_functorch_wrapped_tensor(left[0])
    torch.testing.assert_close(model.eval()(left[0]), model(x))


def test_channels_last(model):
    plain = step(model.eval())
    model.to(memory_format=torch.channels_last)
    x = batch().expand(-1, 1, -1, -1).contiguous(memory_format=torch.channels_last)
    same(step(model, lambda _: model.logits(x)), plain)


def test_state_dicts_go_around(model, tmp_path):
    safetensors.torch.save_file(model.state_dict(), tmp_path / "state.safetensors")
    other = CLASS()
    other.load_state_dict(safetensors.torch.load_file(tmp_path / "state.safetensors"))
    assert torch.equal(other.eval()(batch()), model.eval()(batch()))
    assert list(other.state_dict()) == [
        "first.weight",
        "first.bias",
        "body.second.weight",
        "body.second.bias",
        "body.norm.weight",
        "body.norm.bias",
        "body.norm.running_mean",
        "body.norm.running_var",
        "body.norm.num_batches_tracked",
        "head.weight",
        "head.bias",
    ]
    with pytest.raises(RuntimeError, match=r"Missing key.*head\.weight"):
        other.load_state_dict({n: t for n, t in model.state_dict().items() if n != "head.weight"})


def test_exponential_moving_average(model):
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    average.update_parameters(model)
    first = model.head.weight.detach().clone()
    with torch.no_grad():
        model.head.weight.add_(1)
    average.update_parameters(model)
    torch.testing.assert_close(average.module.head.weight, first + 0.5)
    assert average.eval()(batch()).shape == (3, 3)


def test_a_frozen_trunk_stays_and_its_head_learns(model):
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.eval().loss(batch(), LABELS).backward()
    optimizer.step()
    assert model.first.weight.grad is None
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == {"head.weight", "head.bias"}
