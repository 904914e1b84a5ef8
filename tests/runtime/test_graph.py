"""A step as a CUDA graph, on a stand-in that notes what PyTorch does and does it again.

The stand-in keeps to what a graph does: a capture changes no tensor that was there before, a replay
works on the same memory, and nothing may ask for a value while it captures.
"""

import copy
from contextlib import contextmanager, nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import cnndsl
from cnndsl.runtime import graph
from cnndsl.train.examples import Batch
from cnndsl.train.learner import Learner
from cnndsl.train.recipe import Recipe

torch.set_num_threads(1)
WARM_UP = graph.WARM_UP


def tensors(values):
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors(value)


class Recorder(TorchDispatchMode):
    """Does each operator, notes it, and remembers what the tensors that it changes held before."""

    def __init__(self):
        super().__init__()
        self.noted, self.before, self.own = [], {}, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.name() == "aten::_local_scalar_dense":
            raise RuntimeError("operation not permitted when stream is capturing")
        for place, argument in enumerate(func._schema.arguments):
            # Batchnorm's schema does not say that it writes running statistics.
            if not argument.name.startswith("running_") and (
                argument.alias_info is None or not argument.alias_info.is_write
            ):
                continue
            given = args[place] if place < len(args) else kwargs.get(argument.name)
            for tensor in tensors([given]):
                address = tensor.untyped_storage().data_ptr()
                if address not in self.own and id(tensor) not in self.before:
                    self.before[id(tensor)] = (tensor, tensor.clone())
        found = func(*args, **kwargs)
        self.own |= {t.untyped_storage().data_ptr() for t in tensors([found])} - {
            t.untyped_storage().data_ptr() for t in tensors([*args, *kwargs.values()])
        }
        self.noted.append((func, args, kwargs, found))
        return found


class Gpu:
    """What `graph` takes of torch.cuda."""

    def __init__(self):
        self.events, self.capturing = [], False
        gpu = self

        class Graph:
            def replay(self):
                gpu.events.append("replay")
                with torch.no_grad():
                    for func, args, kwargs, found in self.noted:
                        again = func(*args, **kwargs)
                        for old, new in zip(tensors([found]), tensors([again]), strict=True):
                            if old.data_ptr() != new.data_ptr():
                                old.copy_(new)

        self.CUDAGraph = Graph

    def Stream(self):  # noqa: N802 -- PyTorch's name
        return self

    def current_stream(self):
        return self

    def wait_stream(self, other):
        self.events.append("wait")

    def is_current_stream_capturing(self):
        return self.capturing

    def device(self, _):
        return nullcontext()

    @contextmanager
    def stream(self, _):
        self.events.append("beside")
        yield

    @contextmanager
    def graph(self, made):
        self.events.append("capture")
        self.capturing = True
        try:
            with Recorder() as recorder:
                yield
        finally:
            self.capturing = False
            for tensor, before in recorder.before.values():
                tensor.data.copy_(before)
        made.noted = recorder.noted


@pytest.fixture
def gpu(monkeypatch):
    made = Gpu()
    names = "CUDAGraph Stream current_stream is_current_stream_capturing device stream graph"
    for name in names.split():
        monkeypatch.setattr(torch.cuda, name, getattr(made, name))
    monkeypatch.setattr(graph, "gpu_of", lambda _: torch.device("cpu"))
    return made


class Net(nn.Module):
    """Something with dropout, batchnorm and a loss of its own."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3)
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(3 * 4 * 4, 3)

    def forward(self, x):
        return self.head(self.drop(F.relu(self.norm(self.conv(x))).flatten(1)))

    def loss(self, x, y):
        return F.cross_entropy(self(x), y)


def net(dropout=0.0):
    torch.manual_seed(0)
    return Net(dropout)


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)


def adamw(model):
    return torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)


def batches(count, sizes=(4,)):
    draw = torch.Generator().manual_seed(1)
    for number in range(count):
        size = sizes[number % len(sizes)]
        yield (
            torch.randn(size, 1, 6, 6, generator=draw),
            torch.randint(3, (size,), generator=draw),
        )


def plain(model, optimizer, x, y, clip=0.0):
    optimizer.zero_grad()
    loss = model.loss(x, y)
    loss.backward()
    if clip:
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss.detach()


def close(ours, theirs):
    for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [sgd, adamw])
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_elsewhere_it_is_the_plain_step_to_the_bit(make, clip):
    ours, theirs = net(0.5), net(0.5)
    first, second = make(ours), make(theirs)
    step = cnndsl.graph_step(ours, first, clip=clip)
    for number, (x, y) in enumerate(batches(3)):
        torch.manual_seed(number)
        found = step(x, y)
        torch.manual_seed(number)
        assert torch.equal(found, plain(theirs, second, x, y, clip))
        assert not found.requires_grad
    for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("make", [sgd, adamw])
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_replays_learn_what_plain_steps_learn(gpu, make, clip):
    """With a schedule, and every third batch a smaller one."""
    ours, theirs = net(), net()
    first, second = make(ours), make(theirs)
    schedules = [torch.optim.lr_scheduler.StepLR(o, 2, 0.5) for o in (first, second)]
    step = cnndsl.graph_step(ours, first, ours.loss, clip=clip)
    losses = []
    for x, y in batches(12, (4, 4, 2)):
        kept = x.clone()
        losses.append((step(x, y), plain(theirs, second, x, y, clip)))
        x.fill_(float("nan"))  # the graph has inputs of its own
        assert kept.isfinite().all()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)
        for schedule in schedules:
            schedule.step()
        assert first.param_groups[0]["lr"] == second.param_groups[0]["lr"]
    for found, wanted in losses:  # none was written over by a later replay
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    close(ours, theirs)
    # each of the first three: another stream waits, runs, and is waited for
    assert gpu.events == ["wait", "beside", "wait"] * WARM_UP + ["capture"] + ["replay"] * 5


def test_dropout_draws_anew_in_each_replay(gpu):
    model = net(0.5)
    step = cnndsl.graph_step(model, torch.optim.SGD(model.parameters(), lr=0.0))
    (batch,) = batches(1)
    losses = {float(step(*batch)) for _ in range(WARM_UP + 6)}
    assert len(losses) > WARM_UP + 2
    assert gpu.events.count("replay") == 6


def freeze(model, optimizer):
    model.conv.weight.requires_grad_(False)


def decay(model, optimizer):
    optimizer.param_groups[0]["weight_decay"] = 0.1


def infer(model, optimizer):
    model.norm.eval()


def move(model, optimizer):
    model.head.weight.data = model.head.weight.data.clone()


def load(model, optimizer):
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def momentum(model, optimizer):
    model.norm.momentum = 0.5


def eps(model, optimizer):
    model.norm.eps = 0.1


def hook(model, optimizer):
    model.conv.register_forward_hook(lambda module, given, found: 2 * found)


def hook_of_a_weight(model, optimizer):
    model.head.bias.register_hook(lambda gradient: 3 * gradient)


def hook_of_the_optimizer(model, optimizer):
    def double(own, *_):
        for parameter in own.param_groups[0]["params"]:
            parameter.grad.mul_(2)

    optimizer.register_step_pre_hook(double)


def forward(model, optimizer):
    model.drop.forward = torch.neg


def replace(model, optimizer):
    model.drop = nn.Tanh()


def thaw(model, optimizer):
    group = optimizer.param_groups[0]
    group["params"] = [p for p in group["params"] if p is not model.head.weight]


CHANGES = [freeze, decay, infer, move, load, momentum, eps, hook, hook_of_a_weight]
CHANGES += [hook_of_the_optimizer, forward, replace, thaw]


@pytest.mark.parametrize("make", [sgd, adamw])
@pytest.mark.parametrize("change", CHANGES)
def test_what_a_graph_keeps_makes_a_new_one_when_it_changes(gpu, make, change):
    ours, theirs = net(), net()
    first, second = make(ours), make(theirs)
    step = cnndsl.graph_step(ours, first)
    for number, (x, y) in enumerate(batches(2 * WARM_UP + 6)):
        if number == WARM_UP + 2:
            change(ours, first)
            change(theirs, second)
        step(x, y)
        plain(theirs, second, x, y)
    assert gpu.events.count("capture") == 2
    close(ours, theirs)


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        (torch.backends.cudnn.conv, "fp32_precision", "ieee"),
        (torch.backends.cuda.matmul, "fp32_precision", "tf32"),
        (torch.backends.cudnn, "enabled", False),
        (torch.backends.cudnn, "deterministic", True),
        (torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", False),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_setting_of_pytorch_makes_a_new_graph(gpu, owner, name, value):
    model = net()
    step = cnndsl.graph_step(model, sgd(model))
    (batch,) = batches(1)
    before = getattr(owner, name)
    assert before != value
    try:
        for _ in range(WARM_UP + 1):
            step(*batch)
        setattr(owner, name, value)
        for _ in range(2 * WARM_UP + 2):
            step(*batch)
    finally:
        setattr(owner, name, before)
    assert gpu.events.count("capture") == 2


def test_autocast_makes_new_graphs(gpu, monkeypatch):
    model = net()
    step = cnndsl.graph_step(model, sgd(model))
    (batch,) = batches(1)
    for enabled, dtype in ((False, torch.half), (True, torch.half), (True, torch.bfloat16)):
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda _, on=enabled: on)
        monkeypatch.setattr(torch, "get_autocast_dtype", lambda _, kind=dtype: kind)
        for _ in range(WARM_UP + 1):
            step(*batch)
    assert gpu.events.count("capture") == 3


def test_a_rate_of_a_dropout_and_of_a_loss_make_new_graphs(gpu):
    model = net(0.5)
    judge = nn.CrossEntropyLoss()
    step = cnndsl.graph_step(model, sgd(model), lambda x, y: judge(model(x), y))
    (batch,) = batches(1)
    for rate in (0.5, 0.1, 0.9):
        model.drop.p = rate
        for _ in range(WARM_UP + 1):
            step(*batch)
    assert gpu.events.count("capture") == 3

    class Loss(nn.CrossEntropyLoss):
        def forward(self, x, y):
            return super().forward(model(x), y)

    judge = Loss()
    gpu.events.clear()
    step = cnndsl.graph_step(model, sgd(model), judge)
    for smoothing in (0.0, 0.1):
        judge.label_smoothing = smoothing
        for _ in range(WARM_UP + 1):
            step(*batch)
    assert gpu.events.count("capture") == 2


def test_a_layer_that_counts_its_calls_is_not_captured(gpu):
    """What it counts may decide what it computes."""

    class Counts(nn.Identity):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return x * self.calls

    def counting():
        model = net()
        model.drop = Counts()
        return model

    ours, theirs = counting(), counting()
    first, second = sgd(ours), sgd(theirs)
    step = cnndsl.graph_step(ours, first)
    for x, y in batches(WARM_UP + 3):
        step(x, y)
        plain(theirs, second, x, y)
    close(ours, theirs)


def test_the_state_of_its_optimizer_fits_a_plain_one(gpu):
    """Counts on the CPU, and `capturable` as it was given."""
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    graph.Capturable(optimizer)
    assert optimizer.param_groups[0]["capturable"]
    for parameter in model.parameters():
        optimizer.state[parameter]["step"] = torch.tensor(3.0, device="meta")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "cpu", lambda t: torch.tensor(3.0) if t.is_meta else t)
        state = optimizer.state_dict()
    assert not state["param_groups"][0]["capturable"]
    assert {each["step"].device.type for each in state["state"].values()} == {"cpu"}
    assert optimizer.state[model.head.bias]["step"].is_meta  # its own stays where it is
    other = torch.optim.AdamW(net().parameters(), lr=0.01)
    other.load_state_dict(state)
    assert not other.param_groups[0]["capturable"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: torch.optim.Adagrad(p), "Adagrad cannot be captured .* AdamW"),
        (lambda p: torch.optim.LBFGS(p), "LBFGS cannot be captured"),
        (lambda p: torch.optim.SGD(p, differentiable=True), "differentiable"),
        (lambda p: torch.optim.SGD(p, lr=torch.tensor(0.1)), "as a number"),
    ],
)
def test_optimizers_that_cannot_be_captured_are_refused(gpu, make, message):
    model = net()
    with pytest.raises(ValueError, match=message):
        cnndsl.graph_step(model, make(model.parameters()))


def test_a_model_without_a_loss_needs_one():
    model = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="graph_step\\(model, optimizer, loss\\)"):
        cnndsl.graph_step(model, sgd(model))


def test_a_loss_that_waits_for_the_gpu_is_named(gpu):
    model = net()

    def loss(x, y):
        found = model.loss(x, y)
        return found if found.item() > 0 else found * 2

    step = cnndsl.graph_step(model, sgd(model), loss)
    (batch,) = batches(1)
    for _ in range(WARM_UP):
        step(*batch)
    with pytest.raises(RuntimeError, match=r"waits for the GPU.*not permitted"):
        step(*batch)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training_replays_gradients(gpu, optimizer):
    """As `cnndsl train` does on a GPU: gradients by a graph, the update behind the checks."""
    recipe = Recipe(optimizer=optimizer, smoothing=0.1, clip=1.0, ema=0.5, flip=True)
    learners = [Learner(net(), recipe, 20, torch.device("cpu")) for _ in range(2)]
    learners[0]._captured = graph.Captured(learners[0]._capturable, learners[0].model, tuple)
    for number, (x, y) in enumerate(batches(9, (4, 4, 3))):
        sums = []
        for learner in learners:
            sums.append(learner.gradients(Batch(x, y, 0, len(y)), number))
            learner.update()
        assert sums[0].right == sums[1].right
        assert sums[0].loss == pytest.approx(sums[1].loss, rel=1e-5)
    close(learners[0].judged, learners[1].judged)
    assert gpu.events.count("capture") == 1
    assert gpu.events.count("replay") == 3


def test_which_recipes_are_graphed():
    assert Recipe().may_be_graphed
    for settings in ({"no_graph": True}, {"accumulate": 2}, {"dtype": "fp16"}):
        assert not Recipe(**settings).may_be_graphed


def test_training_goes_on_where_a_step_cannot_be_captured(gpu):
    """A layer that waits for the GPU costs the graphs, not the training."""

    class Waits(nn.Identity):
        def forward(self, x):
            return x if x.sum().item() == x.sum().item() else x * 2

    def waiting():
        model = net()
        model.register_module("waits", Waits())
        model.register_forward_pre_hook(lambda m, given: (m.waits(given[0]),))
        return model

    learners = [Learner(waiting(), Recipe(), 20, torch.device("cpu")) for _ in range(2)]
    learners[0]._captured = graph.Captured(learners[0]._capturable, learners[0].model, tuple)
    for number, (x, y) in enumerate(batches(WARM_UP + 2)):
        batch = Batch(x, y, 0, len(y))
        if number == WARM_UP:
            with pytest.warns(UserWarning, match=r"(?s)waits for the GPU.*goes on without graphs"):
                learners[0].gradients(batch, number)
        else:
            learners[0].gradients(batch, number)
        learners[1].gradients(batch, number)
        for learner in learners:
            learner.update()
    close(learners[0].judged, learners[1].judged)
    assert gpu.events.count("replay") == 0
