"""Every layer against PyTorch: a new line in the table of layers is tested without a new test.

`CONFORMANCE_DRAWS=1100` draws that many configurations of each layer, above 40,000 in all.
"""

import os
import random
import re

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cnndsl.check import check_source
from cnndsl.layers.base import Layer, Merge
from cnndsl.layers.table import BY_KIND, FORMS, LAYERS
from cnndsl.layers.types import ImageType, VectorType
from cnndsl.rt.scale import Scale  # noqa: F401 (what layers write is evaluated here)
from cnndsl.sizes.dim import Dim
from cnndsl.source import Source
from tests.layers.drawing import Case, Holder, check, draw, draw_layer, image, run, source, tensor

DRAWS = int(os.environ.get("CONFORMANCE_DRAWS", "120"))

every_form = pytest.mark.parametrize("form", LAYERS, ids=lambda form: form.__name__)


def accepted_cases(form: type[Layer], draws: int):
    """Cases that the checker accepts, with the report."""
    rng = random.Random(form.__name__)
    for _ in range(draws):
        case = draw(form, rng)
        report = check(case)
        if report.ok:
            yield case, report


@every_form
def test_accepted_exactly_when_pytorch_runs_and_with_its_shape(form):
    rng = random.Random(form.__name__)
    accepted = 0
    for _ in range(DRAWS):
        case = draw(form, rng)
        report = check(case)
        if any(d.code == "E307" for d in report.diagnostics):
            continue  # `same` with an even extent is a rule of the language: its padding is uneven
        out = run(case)
        what = f"{case.layer.write()} on {case.types}"
        if isinstance(out, str):
            assert not report.ok, f"{what}: PyTorch refuses it: {out}"
            continue
        messages = [d.message for d in report.diagnostics]
        assert report.ok, f"{what}: PyTorch runs it, but {messages}"
        got = [dim.constant for dim in report.layers[-1].output]
        want = list(out.shape[1:]) if out.ndim == 2 else [*out.shape[2:], out.shape[1]]
        assert got == want, what
        accepted += 1
    assert accepted >= DRAWS // 5  # else nothing was compared


@every_form
def test_weights_are_those_of_the_module(form):
    for case, report in accepted_cases(form, 40):
        text = case.layer.module(case.x)
        module = eval(text) if text else nn.Identity()
        want = {n: (tuple(p.shape), True) for n, p in module.named_parameters()}
        want |= {n: (tuple(b.shape), False) for n, b in module.named_buffers() if b.ndim}
        weights = case.layer.weights(case.x)
        got = {w.name: (tuple(d.constant for d in w.shape), w.trained) for w in weights}
        assert got == want, case.layer.write()
        count = sum(p.numel() for p in module.parameters())
        assert report.layers[-1].params == Dim.of(count), case.layer.write()


@every_form
def test_macs_are_those_that_pytorch_counts(form):
    for case, report in accepted_cases(form, 30):
        holder, values = Holder(case).eval(), [tensor(type_) for type_ in case.types]
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            holder(*values)
        images, flops_a_mac = 2, 2
        counted = counter.get_total_flops() // (images * flops_a_mac)
        assert report.layers[-1].macs == Dim.of(counted), case.layer.write()


@every_form
def test_round_trip_through_text(form):
    rng = random.Random(form.__name__)
    for _ in range(60):
        layer = draw_layer(form, rng)
        case = draw(form, rng)
        first = case.types[0] if form.accepts == (VectorType,) else image(60, 60, 60)
        case = Case(case.layer if len(case.types) == 2 else layer, (first, *case.types[1:]))
        report = check(case)
        if report.graph is not None:
            assert report.graph.nodes[-1].layer == case.layer


@every_form
def test_gradients_flow(form):
    """In training, through whatever PyTorch text a layer has, into its input and its weights."""
    for case, _ in accepted_cases(form, 10):
        holder = Holder(case)
        values = [tensor(type_).requires_grad_() for type_ in case.types]
        holder(*values).sum().backward()
        read = values[:1] if len(case.types) == 2 and not isinstance(case.layer, Merge) else values
        assert all(value.grad is not None for value in read), case.layer.write()
        assert all(p.grad is not None for p in holder.parameters()), case.layer.write()


# ── sizes with symbols ───────────────────────────────────────────────────────────────────────────


def with_symbols(case: Case) -> Case:
    """The case with free sizes in its first tensor; of merges, in all that are as large."""
    first = case.types[0]
    names = [Dim.symbol(name) for name in ("H", "W", "C")]
    free = ImageType(*names) if isinstance(first, ImageType) else VectorType(names[2])
    types = [free, *case.types[1:]]
    if isinstance(case.layer, Merge):
        types = [free if type_ == first else type_ for type_ in case.types]
    return Case(case.layer, tuple(types))


def holds(claim, values: dict[str, int]) -> bool:
    left, right = claim.left.evaluate(values), claim.right.evaluate(values)
    return left >= right if claim.operator == ">=" else left == right


@every_form
def test_symbols_give_what_numbers_give(form):
    """Conditions, shapes, parameters and MACs, computed once and put in, or computed anew."""
    rng = random.Random(form.__name__)
    for _ in range(60):
        case = draw(form, rng)
        free = with_symbols(case)
        claims = list(free.layer.requires(free.x))
        for _ in range(5):
            values = {name: rng.choice([1, 2, 3, 5, 6, 8, 12, 33]) for name in "HWC"}
            known = Case(case.layer, tuple(_at(t, values) for t in free.types))
            good = all(holds(c, {}) for c in known.layer.requires(known.x))
            if isinstance(known.layer, Merge) and _new_gate(free, known):
                continue  # an image that happens to be 1 x 1 is a gate, one that is so always
            assert all(holds(c, values) for c in claims) == good, (case.layer.write(), values)
            if not good:
                continue
            assert _at(free.layer.output(free.x), values) == known.layer.output(known.x)
            assert _numbers(free, values) == _numbers(known, {}), case.layer.write()


def _at(type_, values):
    return type(type_)(*(Dim.of(dim.evaluate(values)) for dim in type_.dims))


def _numbers(case: Case, values) -> tuple:
    weights = [(w.name, w.count.evaluate(values)) for w in case.layer.weights(case.x)]
    return weights, case.layer.macs(case.x).evaluate(values)


def _new_gate(free: Case, known: Case) -> bool:
    one = (Dim.of(1), Dim.of(1))
    return any(
        a.dims[:2] != one and b.dims[:2] == one
        for a, b in zip(free.types, known.types, strict=True)
    )


@every_form
def test_the_valid_set_is_where_numbers_are_accepted(form):
    """`valid` of a whole file with a free height and width, evaluated by Python."""
    if ImageType not in form.accepts or issubclass(form, Merge):
        return
    rng = random.Random(form.__name__)
    for _ in range(8):
        case = draw(form, rng)
        first = case.types[0]
        if not isinstance(first, ImageType):
            continue
        lines = source(case).text.split("\n", 1)[1]
        free = check_source(Source("free.cnn", f"input H x W x {first.channels}\n{lines}"))
        if any(d.code == "E309" for d in free.diagnostics):
            continue
        assert all(d.code[:2] in ("E3", "E4", "W6") for d in free.diagnostics)
        for _ in range(5):
            values = {name: rng.choice([1, 2, 3, 5, 6, 8, 12, 33]) for name in "HW"}
            text = f"input {values['H']} x {values['W']} x {first.channels}\n{lines}"
            known = check_source(Source("known.cnn", text))
            if free.valid != "False" and _always_refused(free):
                assert not known.ok
            else:
                assert eval(free.valid, dict(values)) == known.ok, (text, free.valid)


def _always_refused(report) -> bool:
    """Whether a mistake has nothing to do with the free sizes."""
    return any(d.code.startswith("E3") for d in report.diagnostics)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("input H x W x 8\ndeconv 4 2x2 stride=2", ("2*H", "2*W", "4")),
        ("input H x W x 8\nupsample 3 nearest", ("3*H", "3*W", "8")),
        ("input H x W x 8\npad 1 2 0 3", ("H + 3", "W + 3", "8")),
        ("input H x W x 8\ncrop 1 1 0 2", ("H - 2", "W - 2", "8")),
        ("input H x W x 8\npool avg to 7x5", ("7", "5", "8")),
        (
            "input H x W x 8\npool max 2 as a\nupsample 2 nearest\ncrop like a",
            ("H // 2", "W // 2", "8"),
        ),
        ("input H x W x 8\nconv 8 3x3 as a\npool max 2\nupsample like a", ("H - 2", "W - 2", "8")),
        ("param width\ninput 9 x 9 x 3\nconv 2*width 1x1\ntake 0 width", ("9", "9", "width")),
        ("param width\ninput 9 x 9 x 3\nconv 2*width 1x1\nshuffle 2", ("9", "9", "2*width")),
        ("param width\ninput 9 x 9 x 3\nconv 2*width 1x1\ngroupnorm width", ("9", "9", "2*width")),
        (
            "param width\ninput 9 x 9 x 3\nconv 4*width 1x1\nconv channels 3x3 groups=channels",
            ("7", "7", "4*width"),
        ),
        (
            "param width\ninput 9 x 9 x 3\nconv 4*width 1x1\ndeconv 2*width 2x2 groups=width",
            ("10", "10", "2*width"),
        ),
        (
            "input H x W x 8\nconcat { pool max 2 } { conv 4 2x2 stride=2 }",
            ("H // 2", "W // 2", "12"),
        ),
    ],
)
def test_free_sizes(text, wanted):
    report = check_source(Source("free.cnn", text + "\n"))
    errors = [d.message for d in report.diagnostics if d.code < "W"]
    assert not errors
    assert tuple(str(dim) for dim in report.layers[-1].output) == wanted


# ── the table ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("form", "line"), [(form, line) for form in LAYERS for line in form.examples]
)
def test_examples_check_clean(form, line):
    dims = "64" if form.accepts == (VectorType,) else "33 x 33 x 12"
    label = re.search(r"like (\w+)", line)
    above = f"skip as first\npool max 3 as {label[1]}\nfrom first\n" if label else ""
    report = check_source(Source("example.cnn", f"input {dims}\n{above}{line}\n"))
    assert report.ok, [d.message for d in report.diagnostics]
    written = report.graph.nodes[-1].layer.write()
    assert written == (line.split(" ")[0] if issubclass(form, Merge) else line)


def test_every_form_is_found_by_its_word():
    assert sorted(f.__name__ for forms in FORMS.values() for f in forms) == sorted(
        form.__name__ for form in LAYERS
    )
    assert {kind: forms[0] for kind, forms in FORMS.items()} == BY_KIND
    for forms in FORMS.values():
        ways = [frozenset(s.way for s in f.slots.values()) & {"to", "like"} for f in forms]
        assert len(set(ways)) == len(ways)  # else nothing tells the forms apart


def test_every_layer_says_what_it_is():
    for form in LAYERS:
        assert form.examples, form.__name__
        assert "." in (form.__doc__ or ""), form.__name__
