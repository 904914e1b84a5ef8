"""Warnings say what is so: held against counts of pixels, and against what training changes."""

import random
from pathlib import Path

import pytest
import torch

import cnndsl
from cnndsl.check import check_source
from cnndsl.diagnostics.fix import apply
from cnndsl.source import Source

EXAMPLES = Path(__file__).parents[2] / "examples"


def report(text: str, **settings: object):
    return check_source(Source("a.cnn", text), settings)


def warnings(text: str) -> list[str]:
    found = report(text)
    assert found.ok, [d.message for d in found.diagnostics]
    return [d.code for d in found.diagnostics]


def between_windows(length: int, size: int, stride: int, pad: int, dilation: int) -> int:
    """The most pixels of the image between two windows, counted one by one."""
    extent = dilation * (size - 1) + 1
    count = (length + 2 * pad - extent) // stride + 1
    most = 0
    for i in range(count - 1):
        gap = range(i * stride - pad + extent, (i + 1) * stride - pad)
        most = max(most, sum(0 <= pixel < length for pixel in gap))
    return most


@pytest.mark.parametrize("kind", ["conv 4", "pool max"])
def test_pixels_between_windows_are_those_that_no_window_reads(kind):
    rng = random.Random(kind)
    seen = 0
    for _ in range(150):
        sides = [
            (
                rng.choice([1, 2, 3, 5, 8, 20]),
                size := rng.randint(1, 4),
                rng.randint(1, 6),
                rng.randint(0, size // 2),
                rng.choice([1, 1, 2]),
            )
            for _ in range(2)
        ]
        (h, kh, sh, ph, dh), (w, kw, sw, pw, dw) = sides
        line = f"{kind} {kh}x{kw} stride={sh}x{sw} pad={ph}x{pw} dilation={dh}x{dw}"
        found = report(f"input {h} x {w} x 3\n{line}\n")
        if not found.ok or (kh, kw) == (1, 1):
            continue
        counts = [between_windows(*side) for side in sides]
        told = [d.message for d in found.diagnostics if d.code == "W602"]
        assert bool(told) == any(counts), (h, w, line, counts)
        if told:
            count, axis = (counts[0], "row") if counts[0] else (counts[1], "column")
            said = f"1 {axis} is" if count == 1 else f"{count} {axis}s are"
            assert told == [f"between two windows {said} never read"]
            seen += 1
    assert seen > 10


@pytest.mark.parametrize(
    "text",
    [
        "input 1000 x 1 x 12\nconv 16 7x1 stride=2 pad=3x0\n",
        "input 1 x 1000 x 12\nconv 16 1x7 stride=2 pad=0x3\n",
        "input 1000 x 1 x 12\npool max 2x1 stride=2\n",
        "input 5 x 5 x 3\nconv 16 3x3 stride=7\n",
        "input H x 1 x 12\nconv 16 7x1 stride=2 pad=3x0\n",
    ],
)
def test_where_one_window_fits_nothing_lies_between_two(text):
    assert "W602" not in warnings(text)


@pytest.mark.parametrize(
    "text",
    [
        "input N x N x 3\nconv 4 2x1\npool max 2\n",
        "input N x N x 3\nconv 4 1x2\npool avg 2\n",
        "input N x N x 3\npool max 2\nconv 4 2x1\npool max 2\npool max 2\n",
        "input N x N x 3\nskip as a\npool max 2\nfrom a\ncrop 1 0 1 0\npool max 2\n",
    ],
)
def test_where_pixels_are_lost_for_every_size_none_is_promised(text):
    found = [d for d in report(text).diagnostics if d.code == "W601"]
    assert len(found) == 1
    words = " ".join([found[0].message, *(fix.message for fix in found[0].fixes)])
    assert "False" not in words
    for fix in found[0].fixes:
        if fix.edits:
            assert report(apply(text, (fix,))).diagnostics == (), words


# ── channels given first ─────────────────────────────────────────────────────────────────────────

PASSING = [
    ("1 x 28 x 28", "28 x 28 x 1", "conv 32 3x3 pad=same"),
    ("3 x 224 x 224", "224 x 224 x 3", "conv 32 7x7 stride=2 pad=3\nrelu"),
    ("3 x 480 x 640", "480 x 640 x 3", "conv 8 3x3 pad=same\npool max 2 ceil=yes"),
    ("4 x 64 x 64", "64 x 64 x 4", "pool max 2"),
    ("1 x 60 x 128", "60 x 128 x 1", "deconv 8 2x2 stride=2"),
    ("3 x 32 x 32", "32 x 32 x 3", "conv 8 3x3"),
    ("1 x 28 x 28", "28 x 28 x 1", "flatten\nfc 10"),
]


@pytest.mark.parametrize(("shape", "right", "layers"), PASSING)
def test_a_network_that_passes_with_its_channels_first_is_warned_of(shape, right, layers):
    text = f"input {shape}\n{layers}\n"
    found = [d for d in report(text).diagnostics if d.code == "W603"]
    assert [d.span.text for d in found] == [shape]
    swap = found[0].fixes[0]
    assert f"`input {right}`" in swap.message
    assert apply(text, (swap,)) == f"input {right}\n{layers}\n"
    assert "W603" not in warnings(apply(text, (swap,)))


@pytest.mark.parametrize(
    ("shape", "right", "layers"),
    [
        ("1 x 28 x 28", "28 x 28 x 1", "conv 32 3x3"),
        ("1 x 28 x 28", "28 x 28 x 1", "conv 32 3x3\nrelu\npool max 2\nflatten\nfc 10"),
        ("3 x 32 x 32", "32 x 32 x 3", "conv 32 3x3\nrelu\npool max 2"),
        ("3 x 32 x 32", "32 x 32 x 3", "conv 32 3x3 pad=same -> 32 x 32 x 32"),
        ("3 x H x W", "H x W x 3", "conv 32 3x3"),
        ("1 x H x W", "H x W x 1", "pool max 2\nconv 32 3x3"),
        ("3 x 224 x 224", "224 x 224 x 3", "conv 3 3x3 pad=same groups=3"),
    ],
)
def test_an_error_of_channels_given_first_offers_the_swap(shape, right, layers):
    text = f"input {shape}\n{layers}\n"
    first = next(d for d in report(text).diagnostics if d.severity == "error")
    assert f"height x width x channels: `input {right}`" in first.fixes[0].message
    assert apply(text, (first.fixes[0],)) == f"input {right}\n{layers}\n"
    assert not any(fix.edits for fix in first.fixes[1:])
    assert not any("take out" in fix.message for fix in first.fixes if "pool" not in layers)


@pytest.mark.parametrize(
    "text",
    [
        "input 1 x 1000 x 12\nconv 16 1x7\nflatten\nfc 3\n",
        "input 1 x 196 x 768\nconv 16 1x3\n",
        "input 4 x 4 x 128\ndeconv 64 4x4 stride=2 pad=1\n",
        "input 1 x 1 x 100\ndeconv 64 4x4\n",
        "input 3 x 3 x 64\nconv 8 3x3\n",
        "input 4 x 8 x 256\nconv 8 3x3\n",
        "input 28 x 28 x 1\nconv 8 3x3\n",
        "input 1000 x 1 x 12\nconv 16 7x1\n",
    ],
)
def test_an_honest_order_gets_no_warning(text):
    assert warnings(text) == []


def test_no_example_gets_a_warning_of_what_is_rarely_meant():
    files = [*EXAMPLES.glob("*.cnn"), *EXAMPLES.glob("zoo/*.cnn")]
    assert len(files) > 15
    for path in files:
        found = check_source(Source(path.name, path.read_text(encoding="utf-8")), {}, path.parent)
        told = {d.code for d in found.diagnostics}
        assert not told & {"W603", "W604", "W605"}, path.name


# ── layers that nothing reads ────────────────────────────────────────────────────────────────────


def unread(text: str) -> list[tuple[int, str]]:
    found = report(text)
    assert found.ok, [d.message for d in found.diagnostics]
    return [(d.span.line, d.message) for d in found.diagnostics if d.code == "W604"]


START = "input 8 x 8 x 4\nconv 4 3x3 pad=1 as a\n"
BLOCK = "block b(n) { conv n 3x3 pad=1 as c; relu }\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("conv 5 1x1\nfrom a\nrelu\n", [(3, "this `conv`: it never runs")]),
        (
            "conv 5 1x1\nrelu\nfrom a\nrelu\n",
            [(4, "this `relu`: it and the layer before it never run")],
        ),
        (
            "conv 5 1x1\nrelu as b\nfrom a\nrelu\n",
            [(4, "this `relu`: it and the layer before it never run")],
        ),
        ("relu\nadd a\nfrom a\nrelu\n", [(4, "this `add`: it and the layer before it never run")]),
        ("relu\nfrom input\nrelu\n", [(3, "this `relu`: it and the layer before it never run")]),
        (
            "relu\nfrom a\ntanh\nfrom a\nrelu\n",
            [(3, "this `relu`: it never runs"), (5, "this `tanh`: it never runs")],
        ),
        ("repeat 3 { relu; from a }\n", [(3, "this `relu`: it never runs")]),
        (BLOCK + "b 4 as x\nfrom a\nb 4 as y\n", [(4, "this block's result: 2 layers never run")]),
        (BLOCK + "b 4 as x\nfrom x.c\ntanh\n", [(3, "this `relu`: it never runs")]),
        ("relu\ntanh as b\nfrom a\nrelu\noutput b\n", []),
        ("relu as b\nfrom a\nadd b\n", []),
        ("relu as b\nfrom a\nconcat b\n", []),
        ("pool max 2\nupsample like a nearest\n", []),
        ("add { skip } { relu }\n", []),
        (BLOCK + "repeat 2 as r { b 4 }\n", []),
    ],
)
def test_what_nothing_reads_is_reported_once_for_each_chain(text, expected):
    assert unread(START + text) == [(line, f"nothing reads {what}") for line, what in expected]


def test_the_ends_of_what_nothing_reads_are_those_of_a_walk_through_the_text():
    rng = random.Random(10)
    warned = 0
    for _ in range(60):
        lines, reads = ["input 4 x 4 x 2"], dict[str, set[str]]()
        now = "input"
        for index in range(rng.randint(2, 9)):
            name = f"l{index}"
            other = rng.choice([None, None, *reads])
            lines.append(f"add {other} as {name}" if other else f"conv 2 1x1 as {name}")
            reads[name] = {now, other} - {None, "input"}
            now = name
            if rng.random() < 0.4:
                now = rng.choice([*reads])
                lines.append(f"from {now}")
        dead = set(reads) - needed(now, reads)
        ends = dead - {name for end in dead for name in reads[end]}
        told = [d for d in report("\n".join(lines)).diagnostics if d.code == "W604"]
        assert {lines[d.span.line - 1].split()[-1] for d in told} == ends, lines
        warned += bool(ends)
    assert 20 < warned < 60


def needed(name: str, reads: dict[str, set[str]]) -> set[str]:
    """A layer and all that it is computed from."""
    return {name}.union(*(needed(other, reads) for other in reads[name]))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("input 8 x 8 x 4\nglobalpool avg\nconv 8 1x1; batchnorm\nconv 4 1x1\nbatchnorm\n", [3]),
        ("input 3 x 3 x 4\nconv 8 3x3\nbatchnorm\n", [3]),
        ("input H x W x 4\npool max to 1x1\nbatchnorm\n", [3]),
        ("input H x W x 4\nbatchnorm\n", []),
        ("input 1 x 2 x 4\nbatchnorm\n", []),
        ("input 4\nbatchnorm\n", []),
        ("input 3 x 3 x 4\nconv 8 3x3\nflatten\nbatchnorm\n", []),
        ("input 3 x 3 x 4\nconv 8 3x3\ngroupnorm 2\n", []),
    ],
)
def test_batchnorm_on_one_pixel_is_reported_once(text, lines):
    found = report(text)
    assert found.ok
    assert [d.span.line for d in found.diagnostics if d.code == "W605"] == lines


def test_what_the_warnings_say_of_training_is_so():
    text = "input 3 x 3 x 4\nconv 8 3x3 as a\nconv 8 1x1 as idle\nfrom a\nbatchnorm\nflatten\n"
    assert warnings(text) == ["W604", "W605"]
    model = cnndsl.compile(source=text).train()
    with pytest.raises(ValueError, match="more than 1 value"):
        model(torch.randn(1, 4, 3, 3))
    model(torch.randn(2, 4, 3, 3)).sum().backward()
    without = {name for name, weight in model.named_parameters() if weight.grad is None}
    assert without == {"idle.weight", "idle.bias"}
