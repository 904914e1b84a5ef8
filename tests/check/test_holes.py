"""Holes in every argument of every layer: the value that was taken out is found again."""

import os
import random
from time import thread_time

import pytest

from cnndsl.check import check_source
from cnndsl.check.bind import Unsolved, written
from cnndsl.check.search import Search
from cnndsl.layers import arguments
from cnndsl.layers.arguments import Pair
from cnndsl.layers.base import Merge
from cnndsl.layers.table import LAYERS
from cnndsl.layers.window import same
from cnndsl.source import Source
from tests.layers.drawing import Case, draw, shape

ONE, TWO = Pair(1, 1), Pair(2, 2)
ROUNDS = 40 if os.environ.get("CNNDSL_MANY") == "1" else 1
SLOTS = [
    (form, name)
    for form in LAYERS
    if not issubclass(form, Merge) and not any(s.way == "like" for s in form.slots.values())
    for name in form.slots
]


def check(text: str):
    return check_source(Source("a.cnn", text))


def drawn(form, rng: random.Random) -> tuple[Case, object]:
    """A valid layer, whose padding is no more than half a window, on a tensor, and its output."""
    while True:
        case = draw(form, rng)
        if len(case.types) > 1 or not check(text_of(case)).ok:
            continue
        pad, size = getattr(case.layer, "pad", ONE), getattr(case.layer, "size", TWO)
        if pad == "same" or not isinstance(size, Pair):
            return case, case.layer.output(case.x)
        if all(2 * p <= n for p, n in zip(pad.values(), size.values(), strict=True)):
            return case, case.layer.output(case.x)


def text_of(case: Case, hole: str = "", after: object = None) -> str:
    parts = [case.layer.kind]
    for name, slot in case.layer.slots.items():
        value = getattr(case.layer, name)
        if name == hole:
            parts.append(written(slot, name, "?"))
        elif value != slot.default:
            parts.append(written(slot, name, slot.kind.write(value)))
    expected = f" -> {shape(after)}" if after is not None else ""
    return f"input {shape(case.x)}\n{' '.join(parts)}{expected}\n"


def meant(case: Case, name: str) -> object:
    """The value in numbers."""
    value = getattr(case.layer, name)
    if value == "same":
        return same(case.layer.size, case.layer.dilation)
    return value if value is not None else case.layer.size


@pytest.mark.parametrize(("form", "name"), SLOTS, ids=lambda v: getattr(v, "__name__", v))
def test_a_value_that_is_taken_out_is_among_those_that_are_found(form, name):
    slot = form.slots[name]
    for seed in range(ROUNDS):
        case, after = drawn(form, random.Random(f"{form.__name__} {name} {seed}"))
        text = text_of(case, name, after)
        report = check(text)
        value = meant(case, name)
        if report.ok:
            (layer,) = [layer for layer in report.layers if layer.kind == form.kind]
            assert layer.args[name] == slot.kind.data(value), text
            continue
        (error,) = [d for d in report.diagnostics if d.severity == "error"]
        assert error.code == "E313", (text, error.message)
        if "does not depend on it" in error.message:
            assert isinstance(slot.kind, arguments.Number) or form.kind == "lrn", text
            continue
        told = [fix.message.partition(",")[0] for fix in error.fixes]
        if f"write `{written(slot, name, slot.kind.write(value))}`" not in told:
            assert int(error.message.split()[0]) > len(told), (text, told)
            known = {n: getattr(case.layer, n) for n in form.slots if n != name}
            found = Search(Unsolved(form, known, {}, (name,), ()), case.x, after).solutions()
            assert value in [getattr(layer, name) for layer in found] or len(found) >= 200, text


@pytest.mark.parametrize(
    ("shape", "line", "right"),
    [
        ("28 x 28 x 1", "conv 8 1x7 pad=? -> 28 x 28 x 8", {"pad": [0, 3]}),
        ("28 x 60 x 1", "conv 8 3x3 pad=1 stride=? -> 28 x 30 x 8", {"stride": [1, 2]}),
        ("28 x 60 x 1", "conv 8 ? -> 28 x 58 x 8", {"size": [1, 3]}),
        ("28 x 60 x 1", "conv ? 1x3 pad=? -> 28 x 60 x 8", {"filters": 8, "pad": [0, 1]}),
        (
            "21 x 22 x 16",
            "deconv 8 3x3 stride=2x3 output_pad=? -> 43 x 67 x 8",
            {"output_pad": [0, 1]},
        ),
        ("28 x 28 x 8", "upsample ? nearest -> 56 x 56 x 8", {"factor": 2}),
        ("28 x 30 x 8", "pool avg to ? -> 7 x 3 x 8", {"to": [7, 3]}),
        ("28 x 30 x 8", "pool max ? -> 14 x 10 x 8", {"size": [2, 3]}),
        ("28 x 30 x 8", "pool max 3x2 dilation=? stride=1 -> 24 x 27 x 8", {"dilation": [2, 3]}),
        ("27 x 27 x 8", "pool max 2 ceil=? -> 14 x 14 x 8", {"ceil": True}),
        ("28 x 30 x 8", "pad 1 ? 0 ? -> 30 x 33 x 8", {"bottom": 1, "right": 3}),
        ("28 x 30 x 8", "crop ? 0 2 ? -> 27 x 20 x 8", {"top": 1, "right": 8}),
        ("28 x 30 x 8", "take ? 6 -> 28 x 30 x 4", {"first": 2}),
        ("100", "fc ? -> 10", {"features": 10}),
        ("H x W x 3", "conv ? 3x5 pad=? -> H x W x 8", {"filters": 8, "pad": [1, 2]}),
        ("H x W x 3", "conv 8 2x4 stride=? -> H // 2 x W // 4 x 8", {"stride": [2, 4]}),
        ("H x W x 3", "deconv 8 4x4 stride=? pad=1x0 -> 2 * H x 4 * W x 8", {"stride": [2, 4]}),
        ("H x W x 3", "upsample ? nearest -> 3 * H x 3 * W x 3", {"factor": 3}),
    ],
)
def test_each_axis_is_solved_by_itself(shape, line, right):
    text = f"input {shape}\n{line}\n"
    if shape.startswith("H") and "//" in line:
        text = text.replace("\nconv", "\nrequire H % 2 == 0, W % 4 == 0\nconv")
    report = check(text)
    assert report.ok, [d.message for d in report.diagnostics]
    assert {name: report.layers[0].args[name] for name in right} == right


def test_several_solutions_are_listed_squares_first():
    report = check("input 28 x 28 x 1\nconv 8 3x3 stride=? -> 4 x 4 x 8\n")
    (error,) = report.diagnostics
    assert error.code == "E313"
    assert [fix.message for fix in error.fixes] == [
        "write `stride=7`",
        "write `stride=8`",
        "write `stride=7x8`",
        "write `stride=8x7`",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "conv 8 3x3 pad=? -> 29 x 28 x 8",
        "pool max ? -> 6 x 6 x 1",
        "upsample ? nearest -> 28 x 56 x 1",
        "conv 8 1x1 groups=? -> 28 x 28 x 9",
    ],
)
def test_what_nothing_solves_says_how_far_was_looked(line):
    report = check(f"input 28 x 28 x 1\n{line}\n")
    (error,) = report.diagnostics
    assert error.code == "E312"
    if "=" in line.split("?")[0] or "pool" in line:
        assert "groups" in line or any("looked for from" in note for note in error.notes)


# ── many holes ───────────────────────────────────────────────────────────────────────────────────


def test_lines_that_are_alike_are_solved_once():
    text = "input 28 x 60 x 1\n" + "conv 8 ? -> 28 x 58 x 8\nconv 8 1x3 pad=0x2\n" * 300
    report = check_source(Source("a.cnn", text))
    assert report.ok
    assert len({str(layer.args["size"]) for layer in report.layers}) == 1  # all 1x3


def test_of_too_many_holes_the_first_are_solved_and_the_others_named():
    lines = [f"from s\nconv {n} ? -> 28 x 58 x {n}\n" for n in range(1, 401)]
    text = "input 28 x 60 x 1\nskip as s\n" + "".join(lines)
    start = thread_time()
    report = check_source(Source("a.cnn", text))
    assert thread_time() - start < 4  # 20 seconds for 2,000 lines before there was a bound
    assert {d.code for d in report.diagnostics if d.severity == "error"} == {"E312"}
    (first, *_) = [d for d in report.diagnostics if d.severity == "error"]
    assert first.message == "this file has too many holes `?`: no value was looked for here"
    assert first.span.line > 50
    assert [fix.message for fix in first.fixes] == ["fill in some of the holes above"]


def test_a_factor_for_each_side_is_said_as_a_size():
    text = "input 28 x 28 x 8\nupsample ? nearest -> 28 x 56 x 8\n"
    (error,) = check_source(Source("a.cnn", text)).diagnostics
    assert error.code == "E312"
    assert [fix.message for fix in error.fixes] == [
        "for that height and width: `upsample to 28x56`"
    ]
    assert check_source(Source("a.cnn", text.replace("?", "to 28x56"))).ok
