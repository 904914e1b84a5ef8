"""Sizes under a promise: shorter, and the same number for every size that is promised."""

import os
import random

import pytest

from cnndsl.check import check_source
from cnndsl.check.annotate import annotate
from cnndsl.check.report import to_json
from cnndsl.graph.text import table
from cnndsl.sizes import Condition
from cnndsl.sizes.dim import Dim
from cnndsl.sizes.promised import Promised, remainders
from cnndsl.source import Source

MANY = 20 if os.environ.get("CNNDSL_MANY") else 1
H, W = Dim.symbol("H"), Dim.symbol("W")


def check(text: str):
    report = check_source(Source("a.cnn", text))
    assert report.ok, [d.message for d in report.diagnostics]
    return report


def random_size(rng: random.Random, depth: int = 3) -> Dim:
    """A size as networks make them: windows over windows, sums and products."""
    dim = rng.choice([H, W])
    for _ in range(rng.randint(1, 2 * max(1, depth))):
        match rng.randrange(6):
            case 0 | 1 | 2:
                dim = (dim + rng.randint(-9, 40)) // rng.choice([2, 2, 3, 4, 8]) + rng.randint(0, 2)
            case 3:
                dim = dim * rng.choice([2, 3, 4])
            case 4 if depth:
                dim = dim + random_size(rng, depth - 2)
            case _ if depth > 2:
                dim = dim * random_size(rng, 0)
            case _:
                dim = dim + 1
    return dim


def test_what_is_simplified_has_the_same_value_for_all_promised_sizes():
    rng = random.Random(8)
    changed = 0
    for _ in range(600 * MANY):
        known = {
            name: (k := rng.choice([2, 3, 4, 6, 8, 16, 32]), rng.randrange(k)) for name in "HW"
        }
        if rng.random() < 0.5:
            known = {name: (k, 0) for name, (k, _) in known.items()}
        if rng.random() < 0.2:
            del known["W"]
        dim = random_size(rng)
        promise = Promised(known)
        simple = promise.simplified(dim)
        for _ in range(12):
            values = {}
            for name in "HW":
                k, r = known.get(name, (1, 0))
                values[name] = rng.randint(1, 60) * k + r
            assert simple.evaluate(values) == dim.evaluate(values), (str(dim), str(simple), known)
            # Without floors, the text for people is the same number as a fraction.
            text = promise.pretty(simple)
            if "⌊" not in text and not set(text) & set("⁰¹²³⁴⁵⁶⁷⁸⁹%"):
                python = text.replace("·", "*").replace("−", "-")
                assert abs(eval(python, dict(values)) - dim.evaluate(values)) < 1e-6, (text, known)
        changed += simple != dim
    assert changed > 200


@pytest.mark.parametrize(
    ("size", "expected", "shown"),
    [
        (2 * ((H + 31) // 32), "H // 16", "H/16"),
        ((H + 3) // 32, "H // 32", "H/32"),
        (32 * ((H + 31) // 32), "H", "H"),
        (3 * (H // 32), "3*(H // 32)", "3·H/32"),
        ((H + 1) // 2 + 1, "H // 2 + 1", "H/2 + 1"),
        ((H + 70) // 64, "(H + 64) // 64", None),
        ((H - 3) // 4, "H // 4 - 1", "H/4 − 1"),
        ((W + 1) // 2, "(W + 1) // 2", "⌊(W + 1)/2⌋"),
    ],
)
def test_the_simple_form_under_a_promise(size, expected, shown):
    promise = Promised({"H": (32, 0)})
    simple = promise.simplified(size)
    assert simple.evaluate({"H": 96, "W": 5}) == size.evaluate({"H": 96, "W": 5})
    if shown is not None:
        assert (str(simple), promise.pretty(simple)) == (expected, shown)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([(H % 32, "==", 0)], {"H": (32, 0)}),
        ([(H % 32, "==", 5), (H, ">=", 40)], {"H": (32, 5)}),
        ([(H % 4, "==", 2), (H % 6, "==", 4)], {"H": (12, 10)}),
        ([(H, ">=", 7)], {}),
        ([(H, "==", W)], {}),
        ([(H % 8, "==", 0), (H, "==", W)], {"H": (8, 0), "W": (8, 0)}),
    ],
)
def test_what_a_promise_leaves_of_each_symbol(conditions, expected):
    promise = Condition.always(("H", "W"))
    for left, operator, right in conditions:
        promise = promise & Condition.compare(left, operator, right)
    found = remainders(promise)
    assert {name: found[name] for name in expected if name in found} == expected
    for name, (k, r) in found.items():
        assert promise.implies(Condition.compare(Dim.symbol(name) % k, "==", r))


UNET = """input H x W x 3
require H % 32 == 0, W % 32 == 0
conv 8 3x3 stride=2 pad=1 as a
conv 8 3x3 stride=2 pad=1
conv 8 3x3 stride=2 pad=1
pool max 3 stride=2 pad=1
conv 8 3x3 stride=2 pad=1
deconv 8 2x2 stride=2
upsample 8 nearest
add a
"""


def test_the_table_comments_and_json_show_the_simple_form():
    report = check(UNET)
    text = table(report.graph, report.facts, explain=True)
    assert "H/16 x W/16 x 8" in text
    assert "O = (H − 1)·S + K = (⌊H/32⌋ − 1)·2 + 2 = 2·⌊H/32⌋ = H/16" in text
    assert "256·H/32·W/32" in text
    comments = annotate(report.graph.nodes[0].span.source, report.graph)
    assert "deconv 8 2x2 stride=2           # H/16 x W/16 x 8" in comments
    layers = to_json(report, [])["layers"]
    assert layers[5]["output"] == ["H // 16", "W // 16", 8]
    assert "+ 31" not in str(to_json(report, []))


LAYERS = [
    "conv 4 3x3 stride=2 pad=1",
    "pool max 3 stride=2 pad=1",
    "pool avg 2 ceil=yes",
    "conv 4 7x7 stride=4 pad=3",
    "deconv 4 2x2 stride=2",
    "upsample 2 nearest",
    "conv 4 3x3",
]


def test_random_networks_show_what_numbers_give():
    rng = random.Random(80)
    for _ in range(12 * MANY):
        k = rng.choice([4, 8, 16, 32])
        lines = [f"input H x W x 2\nrequire H % {k} == 0, W % {k} == 0, H >= 256, W >= 256"]
        lines += [rng.choice(LAYERS) for _ in range(rng.randint(2, 5))]
        text = "\n".join(lines)
        free = check(text)
        values = {"H": k * rng.randint(64, 80), "W": k * rng.randint(64, 80)}
        known = check_source(Source("a.cnn", text), values)
        assert known.ok
        for one, other in zip(free.layers, known.layers, strict=True):
            for field in ("input", "output"):
                dims = [eval(str(dim), dict(values)) for dim in getattr(one, field)]
                assert dims == [dim.constant for dim in getattr(other, field)], text
            for field in ("params", "macs", "bytes"):
                assert eval(str(getattr(one, field)), dict(values)) == getattr(other, field), text
        assert free.totals.macs.evaluate(values) == known.totals.macs
        assert free.totals.training_bytes.evaluate(values) == known.totals.training_bytes
