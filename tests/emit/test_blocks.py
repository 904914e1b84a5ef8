"""Blocks of a network as modules: which labels become one, which share a class, what users do."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import cnndsl
from cnndsl.check import check_source
from cnndsl.emit.module import emit
from cnndsl.source import Source

RESIDUAL = """\
input H x W x 2
block residual(filters) {
    add {
        conv filters 3x3 pad=1 as conv1; batchnorm as bn1; relu
        conv filters 3x3 pad=1 as conv2; batchnorm as bn2
    } {
        if channels == filters { skip } else { conv filters 1x1 as shortcut.0 }
    }
    relu
}
block plain(filters) {
    conv filters 3x3 pad=1; relu
}
repeat 3 as stage { residual 4 }
plain 3 as last
pool max 2
globalpool avg
flatten
fc 3 as head.fc
softmax
"""


def model_of(text: str) -> nn.Module:
    torch.manual_seed(0)
    return cnndsl.compile(source=text)


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnndsl.rt.module.INTERPRETED", False)


class Blocks(torch.fx.Tracer):
    """Sees the blocks, not what is in them."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.ModuleDict)


def classes_of(model: nn.Module) -> dict[str, str]:
    """The blocks of a network: label and class."""
    found = model.named_modules()
    return {n: type(m).__name__ for n, m in found if n and type(m).__module__[:5] != "torch"}


def test_blocks_that_are_alike_share_a_class():
    assert classes_of(model_of(RESIDUAL)) == {
        "stage": "Stage",
        "stage.0": "StageBlock0",
        "stage.1": "StageBlock1",
        "stage.2": "StageBlock1",
        "last": "Last",
        "head": "Head",
    }
    source = Source("net.cnn", RESIDUAL)
    text = emit(check_source(source).graph, source).text
    assert "# stage.1, stage.2: H x W x 4 to H x W x 4\nclass StageBlock1(nn.ModuleDict):" in text
    # Their regions are computed by the same functions.
    assert "stage.2.conv1 + stage.2.bn1 + stage.2.relu1, is the same." in text
    assert "def stage_2" not in text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        # Layers without weights that stand between belong to it; those that follow do not.
        ("conv 2 3x3 as a.0\npool avg 2\nconv 2 1x1 as a.1\nsigmoid\n", {"a": "A"}),
        # A layer with weights of its own stands between.
        ("conv 2 3x3 as a.0\nsigmoid\nconv 2 1x1 as b\nconv 2 1x1 as a.1\n", {}),
        # A tensor within is put out; the block within that does not touch it is still one.
        (
            "conv 2 3x3 as a.b.0\nconv 2 1x1 as a.b.1\nconv 2 1x1 as a.c\nconv 2 1x1 as a.d\n"
            "output a.c\n",
            {"a.b": "AB"},
        ),
        ("conv 2 3x3 as a.b\nconv 2 1x1 as a.c\noutput a.c\n", {"a": "A"}),
        # The kernel of the second branch computes the sum, of a tensor that is not in the block.
        (
            "add { conv 2 1x1 as a.b } { conv 2 1x1; sigmoid; conv 2 1x1 as c.d }\n",
            {"a": "A"},
        ),
        # It reads two tensors, of which one comes by name.
        ("relu as top\nconv 2 1x1 as a.b\nconcat top\nconv 2 1x1 as a.c\nconv 1 1x1\n", {"a": "A"}),
        (
            "block s() { conv 2 1x1 }\ns as none\ns as None_\n",
            {"none": "NoneForm2", "None_": "None"},
        ),
        ("conv 2 1x1 as a.forward\nconv 2 1x1 as a.keys\nfrom a.keys\nrelu\n", {"a": "A"}),
    ],
)
def test_what_is_a_block(text, wanted):
    text = f"input 6 x 6 x 2\n{text}"
    if "None" in wanted.values():
        wanted = {**wanted, "None_": "NoneForm3"}
    model = model_of(text)
    assert classes_of(model) == wanted
    assert torch.isfinite(model(torch.rand(2, 2, 6, 6))).all()


def test_a_block_is_called_with_what_it_reads_and_gives_what_the_next_one_reads():
    model = model_of(RESIDUAL).eval()
    seen = {}
    for name in ("stage", "stage.0", "stage.1", "stage.2", "last", "head"):
        model.get_submodule(name).register_forward_hook(
            lambda _, given, output, name=name: seen.update({name: (*given, output)})
        )
    x = torch.rand(2, 2, 6, 6)
    y = model.logits(x)
    assert list(seen) == ["stage.0", "stage.1", "stage.2", "stage", "last", "head"]
    assert seen["stage.0"][0] is seen["stage"][0]
    assert torch.equal(seen["stage"][0], x)  # perhaps with channels innermost
    assert seen["stage.1"][0] is seen["stage.0"][1]
    assert seen["stage"][1] is seen["stage.2"][1] is seen["last"][0]
    assert seen["last"][1].shape == (2, 3, 3, 3)  # with the pool that its kernel computes, too
    assert seen["head"][1] is y
    found = nn.Sequential(*(copy.deepcopy(model.stage[key]) for key in "012"))(x)
    torch.testing.assert_close(found, model.stage(x))


def test_blocks_are_recomputed_by_checkpoints():
    model = model_of(RESIDUAL)
    x, y = torch.rand(4, 2, 6, 6), torch.tensor([0, 1, 2, 0])
    other = copy.deepcopy(model)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        model.loss(x, y).backward()
        plain = len(kept)
        kept.clear()
        for block in other.stage.values():
            run = block.forward
            block.forward = lambda x, run=run: checkpoint(run, x, use_reentrant=False)
        other.loss(x, y).backward()
    assert len(kept) < plain
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_block_can_be_replaced_traced_copied_and_pickled():
    model = model_of(RESIDUAL).eval()
    x = torch.rand(2, 2, 6, 6)
    block = model.stage["1"]
    called = [n.target for n in Blocks().trace(model.stage).nodes if n.op == "call_module"]
    assert called == ["0", "1", "2"]
    exported = torch.export.export(block, (torch.ones(1, 4, 3, 3),)).module()
    torch.testing.assert_close(exported(torch.ones(1, 4, 3, 3)), block(torch.ones(1, 4, 3, 3)))
    for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert type(other) is type(block)
        torch.testing.assert_close(other(torch.ones(1, 4, 3, 3)), block(torch.ones(1, 4, 3, 3)))
    held = io.BytesIO()
    pickle.dump(model, held)
    assert held.getvalue().count(b"class StageBlock1") == 1  # the emitted file once, not per block
    torch.testing.assert_close(pickle.loads(held.getvalue())(x), model(x))
    model.stage["1"] = nn.Identity()
    assert model(x).shape == (2, 3)
