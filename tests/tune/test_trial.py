"""Real regions in Triton's interpreter: each way, and tiles that no rule chooses.

`CNNDSL_MANY=1` tries all candidates of more regions, and compiles some for a GPU.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from triton.runtime import interpreter

import cnndsl
from cnndsl.fuse.choices import Choices, Chosen, kernels, layers, title
from cnndsl.fuse.pins import Tile
from cnndsl.fuse.ways import allowed
from cnndsl.runtime.load import origin_of
from cnndsl.tune.built import Built
from cnndsl.tune.candidates import candidates, ways
from cnndsl.tune.chooser import choose
from cnndsl.tune.door import Shape, following, tasks
from cnndsl.tune.expected import mistake
from cnndsl.tune.subject import Subject
from cnndsl.tune.task import DIRECTIONS, Static
from tests.fuse.pinning import graph_of, pin_for, regions

ROOT = Path(__file__).parent.parent.parent
MANY = os.environ.get("CNNDSL_MANY") == "1"
# A first layer whose filters also read rows, with a pool; a batchnorm behind a pool, with
# statistics; a residual; activations whose slope follows from what they give or are given.
FIRST = "input 9 x 9 x 3; conv 5 3x3 pad=1; relu; pool max 2"
OTHERS = {
    "batchnorm": "input 7 x 7 x 16; relu; conv 17 3x3; pool max 2; batchnorm; relu",
    "residual": "input 5 x 5 x 16; relu as a; conv 16 3x3 pad=1; add a; relu",
    "overlap": "input 9 x 9 x 2; conv 4 5x5 stride=2 pad=2; gelu; pool max 3 stride=2 pad=1",
    "average": "input 8 x 8 x 16; relu; conv 4 3x3 bias=no; relu; pool avg 2",
    "groups": "input 6 x 6 x 8; relu; conv 8 3x3 groups=4; sigmoid",
    "fc": "input 40; relu; fc 20; tanh",
    "flatten": "input 2 x 3 x 12; relu; flatten; fc 20; tanh",
}


class Interpreted:
    """Kernels are interpreted, so the compiler says nothing, and all take as long."""

    device = torch.device("cpu")

    def static(self, questions):
        return [Static() for _ in questions]

    def time(self, calls):
        return [100.0 for _ in calls]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """See tests/kernels/conftest.py."""
    options = interpreter.InterpreterOptions(sanitize_overflow=False)
    monkeypatch.setattr(interpreter.interpreter_builder, "options", options)


def subjects(text: str, images: int = 2):
    graph, _ = graph_of(text)
    for task in tasks(graph, regions(graph)[-1], Shape(images, (), torch.float32)):
        yield task, Subject(task, Interpreted())


def problems(text: str, some: int | None) -> dict[str, str]:
    """What is wrong with each candidate; `some` tiles of a kernel are tried."""
    found = {}
    for task, subject in subjects(text):
        for direction in DIRECTIONS:
            tried = dict.fromkeys(kernels(task.region, None), 0)
            wanted = subject.expected(direction) if subject.tiles(*_rule(task, direction)) else ()
            for candidate in candidates(task, direction, subject):
                if some is not None and candidate.tiles:
                    name = f"{candidate.way} {candidate.taps} {candidate.tiles[0][0]}"
                    tried[name] = tried.get(name, 0) + 1
                    if tried[name] > some:
                        continue
                wanted = wanted or subject.expected(direction)
                results = subject.run(candidate)
                assert len(results) == len(wanted)
                text = "; ".join(filter(None, map(mistake, results, wanted)))
                found[f"{task.role} {direction} {candidate.name}"] = text
    return found


def _rule(task, direction):
    return ways(task, direction)[0], direction


def test_each_way_computes_what_pytorch_computes():
    found = problems(FIRST, 0)
    assert len(found) == 8
    assert not any(found.values()), found
    for way in ("fused, packed", "library", "staged, packed", "fused, rows", "staged, rows"):
        assert f"whole forward {way}" in found


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.skipif(not MANY, reason="Triton's interpreter takes long: CNNDSL_MANY=1")
def test_each_candidate_of_more_regions(name):
    found = problems(OTHERS[name], None)
    assert not any(found.values()), found


@pytest.mark.parametrize("name", ["fc", "flatten"])
def test_the_ways_and_tiles_of_a_fully_connected_layer(name):
    found = problems(OTHERS[name], None)
    assert len(found) > 12
    assert {"whole forward library", "whole backward library"} <= set(found)
    assert not any(found.values()), found


def test_a_kernel_that_leaves_something_out_is_not_chosen(monkeypatch):
    """Really wrong tensors, from a really broken launch: one tile forgets its last program."""
    ((task, subject),) = subjects("input 40; relu; fc 20; tanh")
    whole = Built.operators

    def broken(self, tiles=(), dtype=""):
        operators = whole(self, tiles, dtype)
        if not tiles or tiles[0][1].stages != 4:
            return operators
        launch = self.space["launch"]

        def less(kernel, programs, **arguments):
            launch(kernel, max(1, programs - 1), **arguments)
            if programs == 1:
                arguments["y_ptr"][-1, -1] += 1

        def forward(*given):
            self.space["launch"] = less
            try:
                return operators.forward(*given)
            finally:
                self.space["launch"] = launch

        return operators.replace(forward=forward)

    monkeypatch.setattr(Built, "operators", broken)
    means = subject._means
    means.time = lambda calls: [1.0] * len(calls)

    class Device(Interpreted):
        name, versions, shared_limit = "interpreter", {}, 2**20
        is_capturing = staticmethod(lambda: False)
        is_alive = staticmethod(lambda: True)
        open = staticmethod(lambda task: subject)

    verdict = choose(task, Device())
    bad = [row for row in verdict.rows if row.us is None]
    assert [row.name for row in bad if row.direction == "forward"] == [
        row.name
        for row in verdict.rows
        if row.direction == "forward" and "forward" in row.name and "4 stages" in row.name
    ]
    assert bad[0].why.startswith("is wrong: ")
    assert all(t.tile.stages != 4 for t in verdict.pin.tiles)


def test_a_model_follows_a_pin_and_computes_the_same():
    """End to end: other ways each, tiles that no rule chooses, forward and backward."""
    text = "model Pinned\ninput 9 x 9 x 3\nconv 5 3x3 pad=1; relu; pool max 2\nflatten; fc 3\n"
    torch.manual_seed(0)
    model = cnndsl.compile(source=text)
    origin = origin_of(model)
    assert origin is not None
    found = []
    for region in regions(origin.graph):
        options = allowed(region, "whole")
        choice = options[-2] if options else None  # rows, staged, fused
        pin = pin_for(region, choice, Tile(16, 32, 16, 4, 3))
        found.append(Chosen(title(region), layers(region), (("whole", pin),)))
    tuned = following(model, origin, Choices(tuple(found)))
    x = torch.randn(3, 3, 9, 9)
    y = tuned(x)
    y.sum().backward()
    grads = [p.grad.clone() for p in tuned.parameters()]
    tuned.zero_grad()
    vars(sys.modules[type(tuned).__module__])["runs_kernels"] = lambda x: False
    exact = tuned.double()(x.double())
    exact.sum().backward()
    torch.testing.assert_close(y.double(), exact, rtol=1e-5, atol=1e-5)
    for found_one, p in zip(grads, tuned.parameters(), strict=True):
        torch.testing.assert_close(found_one.double(), p.grad, rtol=1e-5, atol=1e-5)


CODE = """
from contextlib import closing

import torch
from cnndsl.fuse.pins import Tile
from cnndsl.tune.candidates import ways
from cnndsl.tune.compilers import Compilers
from cnndsl.tune.door import Shape, tasks
from cnndsl.tune.subject import Subject
from cnndsl.tune.task import Candidate
from tests.fuse.pinning import graph_of, regions

class Means:
    device = torch.device("cpu")
    def static(self, questions):
        return compilers.compile(questions)

graph, _ = graph_of("input 32 x 32 x 16; conv 64 3x3; relu; pool max 2")
(task,) = tasks(graph, regions(graph)[0], Shape(2, (), torch.bfloat16))
with closing(Compilers("sm_90", 2)) as compilers:
    subject = Subject(task, Means())
    subject._of(ways(task, "forward")[0])
    first = Candidate("forward", ways(task, "forward")[0])
    large = first.replace(tiles=(("forward", Tile(256, 128, 64, 4, 4)),))
    for used in subject.static([first, large]):
        print(used.registers > 0, used.spills > 0, used.shared_bytes, used.error)
with closing(Compilers("sm_1", 1)) as compilers:
    print(subject.static([first])[0].error[:100])
"""


@pytest.mark.skipif(not MANY, reason="compiles for half a minute: CNNDSL_MANY=1")
def test_candidates_are_compiled_in_other_processes_without_a_gpu():
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, large, unknown = done.stdout.splitlines()
    assert first.startswith("True False ")
    assert large.startswith("True True ")  # it spills
    assert "no target is called 'sm_1'" in unknown
