"""The emitted file as text: its layout, its names, and that nothing foreign gets into it."""

import ast
import builtins
import keyword
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from cnndsl.emit import names
from cnndsl.emit.guard import Unsafe, inspect
from cnndsl.emit.module import emit, unbound
from cnndsl.graph.graph import Graph
from cnndsl.layers.activations import Gelu, Relu
from cnndsl.layers.norms import BatchNorm
from cnndsl.layers.reshape import Flatten
from cnndsl.source import Source
from tests.emit.networks import KINDS, SOURCE, conv, fc, lenet, load, network, pool

ROOT = Path(__file__).parent.parent.parent
# With strings and sizes of which the formatter could have opinions.
EXTRA = {
    "symbols": network(
        ("H", "W", 3), conv(4, 3), Relu(), needs=("H >= 3", "W % 2 == 0 and W >= 4", "H == 2*W")
    ),
    "class names": network(
        (4,), fc(3), classes=('say "a"', "it's", "a very long name of a class of images " * 3)
    ),
    "dotted labels": network(
        (8, 8, 3),
        ("features.0", conv(64, (3, 1), stride=(2, 1), pad=(1, 0), dilation=(2, 1), bias=False)),
        ("features.norm", BatchNorm(eps=0.001, momentum=0.01, affine=False)),
        ("features.block.0.conv", conv(2, 3)),
    ),
    "long labels": network((8, 8, 1), ("a" * 90, conv(2, 3)), ("b" * 40, Relu())),
    "long labels of blocks": network(
        (8, 8, 1),
        (f"{'a' * 50}.{'b' * 50}.{'c' * 20}", conv(2, 3)),
        (f"{'a' * 50}.{'b' * 50}.{'d' * 20}", conv(2, 1)),
    ),
    "lenet": lenet(),
}


def graphs() -> dict[str, Graph]:
    return {name: network(shape, *layers) for name, (shape, layers, _) in KINDS.items()} | EXTRA


def ruff(*arguments: str, text: str) -> str:
    command = [sys.executable, "-m", "ruff", *arguments, "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT).stdout


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {name: emit(graph, SOURCE).text for name, graph in graphs().items()}


@pytest.mark.parametrize("name", list(graphs()))
def test_the_formatter_would_change_nothing(texts, name):
    text = texts[name]
    assert ruff("format", "--isolated", "--diff", text=text) == ""
    assert ruff("format", "--diff", "--stdin-filename", "tests/golden/x.py", text=text) == ""


def test_the_linter_has_nothing_to_say(texts, tmp_path):
    for number, text in enumerate(texts.values()):
        (tmp_path / f"module_{number}.py").write_text(text, encoding="utf-8")
    own = [sys.executable, "-m", "ruff", "check", "--isolated", "."]
    done = subprocess.run(own, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "All checks passed!\n"


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in graphs()
        if name not in ("long labels", "long labels of blocks", "class names")
    ],
)
def test_the_linter_of_this_project_has_nothing_to_say(texts, name):
    given = ("check", "--quiet", "--stdin-filename", "tests/golden/x.py")
    assert ruff(*given, text=texts[name]) == ""


def test_the_same_bytes_under_any_hash_seed():
    code = "from tests.emit.test_module import *; print(emit(lenet(), SOURCE).text)"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "PATH": ""},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_two_networks_never_share_operators():
    def space(graph: Graph, source: Source = SOURCE) -> str:
        return emit(graph, source).text.partition("NAMESPACE = ")[2].partition("\n")[0]

    one = network((4, 4, 1), conv(2, 3))
    assert space(one) == space(one)
    assert space(one) != space(network((4, 4, 1), conv(3, 3)))
    assert space(one) != space(one, Source("other", "# another source"))


def test_regions_that_differ_in_numbers_share_their_kernels(texts):
    text = texts["lenet"]
    assert text.count("def conv_few_relu_max2_forward(") == 1
    assert "Its kernels are those of region 1." in text
    assert text.count("Its kernels are those of region 3.") == 2


def test_fully_connected_layers_share_kernels_that_ask_their_constants(texts):
    def sets(text: str) -> int:
        return len(re.findall(r"^def fc(?!\w*launch)\w*_weight_gradient\(", text, re.MULTILINE))

    assert sets(texts["lenet"]) == 1
    # One for each activation, of which those without one take the first.
    assert sets(texts["fcs of several activations"]) == 3
    # What no layer of the network needs is not asked.
    assert 'if C.activation != "none":' in texts["lenet"]
    assert 'C.activation == "input"' not in texts["lenet"]
    assert 'C.activation == "input"' in texts["fcs of several activations"]
    assert "if C.bias:" in texts["fcs of several activations"]
    assert "C.pixels == 1" in texts["lenet"]
    for asked in ("C.pixels == 1", "C.activation ==", "C.bias"):
        assert asked not in texts["fc"]


def test_convolutions_share_kernels_that_ask_their_constants():
    """In inference, in training, with a batchnorm or none, of few channels or many: one text."""
    layers = (
        conv(4, 3, pad=1, bias=False),
        BatchNorm(),
        Relu(),
        conv(4, 3, pad=1),
        Relu(),
        conv(4, 1),
        BatchNorm(affine=False),
        conv(20, 3, pad=1),
        conv(20, 3, pad=1, bias=False),
        BatchNorm(),
        Gelu(),
        conv(20, 1),
    )
    text = emit(network((6, 6, 3), *layers), SOURCE).text
    kernels = re.findall(r"^def ((?:conv|norm)(?!\w*launch)\w*_forward)\(", text, re.MULTILINE)
    # With ReLU or no activation, and with GELU.
    assert kernels == [
        "conv_forward",
        "norm_forward",
        "conv_scale_gelu_forward",
        "norm_gelu_forward",
    ]
    assert 'if C.taps == "packed":' in text
    assert 'if C.scale == "sum":' in text
    assert 'C.scale == "pool"' not in text
    assert "if C.statistics:" in text
    assert "C.residual" not in text
    assert "if C.affine:" in text


def test_what_no_region_needs_is_not_there(texts):
    assert "triton" not in texts["no kernel at all"].partition('"""\n\n')[2]
    assert "scale_ptr" not in texts["conv"]
    assert '"average"' not in texts["conv, relu, max"]
    assert "winner" not in texts["conv"]
    assert "scale_and_shift" not in texts["conv"]


# ── names ────────────────────────────────────────────────────────────────────────────────────────


def test_the_names_that_torch_keeps_are_known():
    own = {n for n in (*dir(nn.Module()), *dir(nn.ModuleDict())) if not n.startswith("_")}
    assert own - names.MODULE_NAMES == set()


def hostile_labels() -> list[str]:
    text = emit(lenet(), SOURCE).text
    found = {n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)}
    found |= {n.arg for n in ast.walk(ast.parse(text)) if isinstance(n, ast.arg)}
    found |= set(dir(nn.Module)) | set(keyword.kwlist) | set(dir(builtins))
    found |= {"x", "y", "self", "_", "__a", "layer", "layer_", "forward_", "Net", "refuse_input"}
    return sorted(n for n in found if n.isidentifier())


def test_labels_may_be_any_name(monkeypatch):
    labels = hostile_labels()
    assert len(labels) > 300
    _, model = load(network((2,), *((label, fc(2)) for label in labels)))
    assert len(list(model.parameters())) == 2 * len(labels)
    monkeypatch.setattr("cnndsl.rt.module.INTERPRETED", False)
    assert model.logits(torch.ones(1, 2)).shape == (1, 2)


def test_dotted_labels_may_have_any_parts(monkeypatch):
    labels = ["a.forward", "a.keys", "a.class", "a", "a.0.b", "a.0", "a.b.items", "b.0.1.2", "b.x"]
    _, model = load(network((2,), *((label, fc(2)) for label in labels)))
    monkeypatch.setattr("cnndsl.rt.module.INTERPRETED", False)
    assert {"a.weight", "b.0.1.2.weight", "b.x.weight"} <= set(model.state_dict())
    assert model.logits(torch.ones(1, 2)).shape == (1, 2)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("LeNet", "LeNet"),
        ("nn", "nn_"),
        ("class", "class_"),
        ("my net-2", "my_net_2"),
        ("7", "layer7"),
        ("__x", "layer__x"),
    ],
)
def test_the_name_of_the_class(name, wanted):
    assert emit(network((2,), fc(2), name=name), SOURCE).name == wanted


@pytest.mark.parametrize(
    ("paths", "wanted"),
    [
        (("conv1", "relu1"), "conv1_relu1"),
        (("features.0", "features.1", "features.2"), "features_0_1_2"),
        (("layer1.0.conv1", "layer1.0.bn1"), "layer1_0_conv1_bn1"),
        (("a.b", "c.d"), "a_b_c_d"),
        (("a.b",), "a_b"),
    ],
)
def test_a_region_is_named_by_its_layers(paths, wanted):
    assert names.joined(paths) == wanted


def test_state_has_the_labels_as_names():
    graph = network(
        (8, 8, 3),
        ("features.0", conv(4, 3)),
        ("features.1", BatchNorm()),
        ("features.2", Relu()),
        ("pool", pool("max", 6)),
        ("flat", Flatten()),
        ("classifier.6", fc(2)),
    )
    _, model = load(graph)
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert list(model.state_dict()) == [
        "features.0.weight",
        "features.0.bias",
        *(f"features.1.{name}" for name in norm),
        "classifier.6.weight",
        "classifier.6.bias",
    ]


# ── what must not get into a file ────────────────────────────────────────────────────────────────


def test_class_names_reach_the_file_as_literals_only():
    nasty = ('"""', "'''\nimport os", "\\", "{x}", "\x00\u202e", "']); print(1)  #")
    _, model = load(network((2,), fc(len(nasty)), classes=nasty))
    assert model.classes == nasty
    text = emit(network((2,), fc(6), classes=nasty), SOURCE).text
    assert all(c.isprintable() or c == "\n" for c in text)


def test_no_text_of_the_source_and_no_path_gets_into_the_file():
    source = Source("/home/somebody/net.cnn", "# a secret comment\n" * 40)
    text = emit(network((4, 4, 1), conv(2, 3)), source).text
    assert "somebody" not in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("import os\n", "an import"),
        ("from .x import y\n", "an import"),
        ("from os import path\n", "an import"),
        ("eval('1')\n", "the name 'eval'"),
        ("open('x')\n", "the name 'open'"),
        ("getattr(1, 'x')\n", "the name 'getattr'"),
        ("x = ().__class__\n", "`.__class__`"),
        ("import torch\ntorch.load('x')\n", "`.load`"),
        ("import torch\ntorch.utils.cpp_extension.load('x')\n", "`.load`"),
        ("__import__('os')\n", "the name '__import__'"),
        ("def f():\n    global x\n", "a Global"),
        ("f = lambda: 1\n", "a Lambda"),
        ("é = 1\n", "the name"),
        ("async def f():\n    pass\n", "a AsyncFunctionDef"),
        ("try:\n    pass\nexcept ValueError:\n    pass\n", "a Try"),
        ("del x\n", "a Delete"),
    ],
)
def test_the_guard_refuses_what_the_emitter_never_writes(text, what):
    with pytest.raises(Unsafe, match="line ") as caught:
        inspect(text)
    assert what in str(caught.value)


def test_conditions_hold_nothing_but_arithmetic():
    graph = network(("H", 4, 1), conv(2, 3), needs=("H >= exit()",))
    with pytest.raises((ValueError, TypeError)):
        emit(graph, SOURCE)


def test_a_symbol_that_no_input_tells_is_named():
    graph = network(("H", "W", 3), conv(2, 3))
    assert unbound(graph) == ()
    assert unbound(graph.replace(symbols=("H", "W", "width"))) == ("width",)
