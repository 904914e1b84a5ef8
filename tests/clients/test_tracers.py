"""Tracers, counters and saved files see PyTorch's operators, as of a module written by hand.

On the path of kernels, in Triton's interpreter; `test_transforms` has what transforms.
"""

import os
import subprocess
import sys

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

import tests.examples.oracle  # noqa: F401 (lets torchvision be imported)
from tests.clients.kinds import KINDS, batch, pair

MANY = os.environ.get("CNNDSL_MANY") == "1"
NAMES = ("sums", "relu and max", "norm and sum in inference", "bytes") if MANY else ("sums",)
pytestmark = [
    pytest.mark.parametrize("name", NAMES),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # PyTorch's own, of torch.jit
]


def flops(model, *given, back=True):
    with FlopCounterMode(display=False) as counter:
        found = model(*given)
        if back:
            found.sum().backward()
    return counter.get_total_flops()


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_flops(name, monkeypatch):
    plain, ours = pair(name, "kernels", monkeypatch)
    x, _ = batch(name)
    assert flops(ours, x) == flops(plain, x) > 0


def test_flops_of_backward_alone(name, monkeypatch):
    """What was computed by kernels before is counted by what each operator stands for."""
    plain, ours = pair(name, "kernels", monkeypatch)
    x, _ = batch(name)
    found = []
    for model in (plain, ours):
        y = model(x).sum()
        with FlopCounterMode(display=False) as counter:
            y.backward()
        found.append(counter.get_total_flops())
    assert found[0] == found[1] > 0


def test_meta(name, monkeypatch):
    """Shapes alone have the operators, and so the counts, of the plain module."""
    plain, ours = pair(name, "kernels", monkeypatch)
    x = batch(name)[0].to("meta")
    plain, ours = plain.to("meta"), ours.to("meta")
    assert ours(x).shape == plain(x).shape
    assert flops(ours, x) == flops(plain, x) > 0


def test_symbolic_trace(name, monkeypatch):
    _, ours = pair(name, "kernels", monkeypatch)
    x, _ = batch(name)
    traced = torch.fx.symbolic_trace(ours)
    close(traced(x), ours(x))
    layers = {type(m) for m in traced.modules() if not list(m.children())}
    assert torch.nn.Conv2d in layers
    assert torch.nn.Linear in layers


def test_feature_extractor(name, monkeypatch):
    from torchvision.models.feature_extraction import (
        create_feature_extractor,
        get_graph_node_names,
    )

    plain, ours = pair(name, "kernels", monkeypatch)
    x, _ = batch(name)
    names = get_graph_node_names(ours)[1]
    assert not any("weight" in name for name in names)
    node = next(name for name in names if "conv" in name)
    found = create_feature_extractor(ours, [node])(x)[node]
    seen = []
    plain.layers[0].register_forward_hook(lambda _, __, y: seen.append(y))
    plain(x)
    close(found, seen[0])


def test_make_fx(name, monkeypatch):
    _, ours = pair(name, "kernels", monkeypatch)
    x, _ = batch(name)
    traced = make_fx(ours)(x)
    targets = [node.target for node in traced.graph.nodes]
    assert {t.namespace for t in targets if hasattr(t, "namespace")} == {"aten"}
    close(traced(x), ours(x))


LOADER = """\
import sys, torch
assert not any(name.startswith(("cnndsl", "triton.language")) for name in sys.modules)
x, wanted = torch.load("values.pt")
run = {loader}
torch.testing.assert_close(run(x), wanted, rtol=1e-4, atol=1e-5)
print("same")
"""


def in_a_fresh_process(folder, loader, x, wanted):
    torch.save((x, wanted.detach()), folder / "values.pt")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADER.format(loader=loader)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "same\n", done.stderr


@pytest.mark.skipif(not MANY, reason="`saved` in test_libraries.py has one: CNNDSL_MANY=1")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # sizes are looked at
def test_a_trace_is_loaded_where_this_module_is_not(name, monkeypatch, tmp_path):
    _, ours = pair(name, "kernels", monkeypatch)
    x, _ = batch(name)
    torch.jit.trace(ours, x).save(tmp_path / "traced.pt")
    in_a_fresh_process(tmp_path, "torch.jit.load('traced.pt')", x, ours(x))


@pytest.mark.skipif(not MANY, reason="`saved` in test_libraries.py has one: CNNDSL_MANY=1")
@pytest.mark.filterwarnings("ignore:The TorchScript type system")  # of a layer of PyTorch's own
def test_a_script_is_loaded_where_this_module_is_not(name, monkeypatch, tmp_path):
    _, ours = pair(name, "kernels", monkeypatch)
    x, _ = batch(name)
    torch.jit.script(ours).save(tmp_path / "scripted.pt")
    in_a_fresh_process(tmp_path, "torch.jit.load('scripted.pt')", x, ours(x))


@pytest.mark.skipif(not MANY, reason="`saved` in test_libraries.py has one: CNNDSL_MANY=1")
@pytest.mark.parametrize("strict", [False, True])
def test_an_export_is_loaded_where_this_module_is_not(name, strict, monkeypatch, tmp_path):
    _, ours = pair(name, "kernels", monkeypatch)
    x, _ = batch(name)
    torch.export.save(torch.export.export(ours, (x,), strict=strict), tmp_path / "exported.pt2")
    in_a_fresh_process(tmp_path, "torch.export.load('exported.pt2').module()", x, ours(x))


def test_a_compiler_sees_a_region_as_one_operator(name, monkeypatch):
    _, ours = pair(name, "kernels", monkeypatch)
    seen = []

    def backend(graph, _):
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph

    torch._dynamo.reset()
    x, _ = batch(name)
    close(torch.compile(ours, backend=backend, fullgraph=True)(x), ours(x))
    assert any("cnndsl" in target for target in seen)


def test_a_transform_that_is_compiled(name, monkeypatch):
    plain, ours = pair(name, "kernels", monkeypatch)
    if KINDS[name].training:
        pytest.skip("an image by itself has no statistics")
    torch._dynamo.reset()
    x, _ = batch(name)
    run = torch.compile(
        lambda x: torch.vmap(lambda image: ours(image[None])[0])(x), backend="eager", fullgraph=True
    )
    close(run(x), plain(x))
