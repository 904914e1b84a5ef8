"""What is offered as an edit helps, and keeps what the user wrote; `--fix` goes on to the end.

`CNNDSL_MANY=1` mends 2,000 random broken files instead of a few dozen.
"""

import os
import random
import re

import pytest

from cnndsl.check import check_source
from cnndsl.diagnostics import catalogue
from cnndsl.diagnostics.fix import apply, moved
from cnndsl.source import Source
from tests.properties.author import Author
from tests.properties.fixing import errors, fix, keeps_numbers
from tests.properties.language import lines_of
from tests.properties.mistakes import MISTAKES
from tests.properties.test_mistakes import spot_in

MANY = os.environ.get("CNNDSL_MANY") == "1"
FILES = 2_000 if MANY else 24
WINDOWS = 600 if MANY else 20


def broken(seed: int) -> str:
    """A random network with one to four mistakes."""
    rng = random.Random(f"broken {seed}")
    network = Author(rng).network()
    lines = lines_of(network)
    planted = []
    for name in rng.sample(list(MISTAKES), rng.randint(1, 4)):
        place, spot = spot_in(network, rng)
        wrong = MISTAKES[name](spot)
        if wrong is not None and "repeat 1M" not in wrong.text:
            planted.append((place, wrong.text.split("\n")))
    for place, text in sorted(planted, key=lambda pair: -pair[0]):
        lines[place:place] = text
    return "\n".join(lines) + "\n"


def does_not_parse(text: str) -> int:
    return sum(error.code.startswith("E1") for error in errors(text))


def test_fix_goes_on_until_nothing_changes_and_loses_nothing(tmp_path, capsys):
    changed = 0
    for seed in range(FILES):
        text = broken(seed)
        before = errors(text)
        mended = fix(text, tmp_path)
        told = capsys.readouterr().err
        after = errors(mended)
        assert len(after) <= len(before), text
        assert does_not_parse(mended) <= does_not_parse(text), (text, mended)
        assert keeps_numbers(text, mended), (text, mended)
        assert told.count(": left E") == len(after), told
        assert (": fixed: " in told) == (mended != text), told
        assert fix(mended, tmp_path) == mended, (text, mended)
        assert ": fixed: " not in capsys.readouterr().err
        changed += mended != text
    assert changed >= FILES // 8


def wrong_examples():
    pages = [catalogue.page(code) for code in catalogue.codes()]
    return [page.wrong.text for page in pages if page.wrong.info == "cnn"]


def offered(text: str):
    source = Source("a.cnn", text)
    for diagnostic in check_source(source).diagnostics:
        for one in diagnostic.fixes:
            yield source, diagnostic, one


def test_every_edit_that_is_offered_mends_its_mistake_and_keeps_sizes():
    tried = 0
    for text in [*wrong_examples(), *map(broken, range(FILES // 2))]:
        for source, diagnostic, one in offered(text):
            if not one.edits or any(edit.span.source is not source for edit in one.edits):
                continue
            mended = apply(text, (one,))
            place = moved(one, diagnostic.span.start)
            left = [
                (d.code, d.message, d.span.start)
                for d in check_source(Source("a.cnn", mended)).diagnostics
            ]
            assert (diagnostic.code, diagnostic.message, place) not in left, (text, one.message)
            assert keeps_numbers(text, mended), (text, mended)
            tried += 1
    assert tried > 20


def test_help_names_only_what_is_in_the_file():
    seen = 0
    for text in [*wrong_examples(), *SMALL, *map(broken, range(FILES // 2))]:
        lines = text.split("\n")
        for _, _, one in offered(text):
            for kind, line in re.findall(r"`(\w+)` in line (\d+)", one.message):
                assert re.search(rf"\b{kind}\b", lines[int(line) - 1]), (text, one.message)
                seen += 1
            if "take out" in one.message or "leave out the `pool`" in one.message:
                assert "pool" in text or "stride" in text, (text, one.message)
    assert seen > 2


SMALL = [
    "input 2 x 9 x 3\nconv 8 7x7\n",
    "input 9 x 9 x 3\nconv 8 7x7\nconv 8 7x7\n",
    "input 9 x 9 x 3\npool max 3\nconv 8 7x7\n",
    "input 9 x 9 x 3\nconv 4 1x1 stride=3\nconv 8 7x7\n",
    "input 9 x 9 x 3\ncrop 3 3 0 0\nconv 8 7x7\n",
]


# ── windows of even size ─────────────────────────────────────────────────────────────────────────


def even_window(rng: random.Random) -> tuple[str, str, list[int], list[int]]:
    """A layer with `pad=same` and an even extent, its numbers, its strides, the image."""
    kind = rng.choice(["conv 8", "conv 6 _ groups=3", "pool max", "pool avg", "deconv 8"])
    while True:
        size = [rng.randint(1, 6) for _ in range(2)]
        dilation = 1 if kind == "pool avg" else rng.choice([1, 1, 1, 3])
        if any(dilation * (n - 1) % 2 for n in size):
            break
    stride = [rng.randint(1, 4) for _ in range(2)]
    options = [f"pad=same{' stride=' + 'x'.join(map(str, stride)) if rng.random() < 0.7 else ''}"]
    if "stride" not in options[0]:
        stride = size if kind.startswith("pool") else [1, 1]
    if dilation > 1:
        options.append(f"dilation={dilation}")
    name = kind.replace("_", "x".join(map(str, size)))
    if "x" not in name.split(" ", 1)[1] or kind.startswith("pool"):
        name += " " + "x".join(map(str, size))
    image = [rng.randint(20, 40) for _ in range(2)]
    return name, " ".join([name, *options]), stride, image


@pytest.mark.parametrize("seed", range(WINDOWS))
def test_an_even_window_keeps_its_size_and_gets_the_size_of_same(seed, tmp_path, capsys):
    rng = random.Random(f"even {seed}")
    name, line, stride, image = even_window(rng)
    free = not line.startswith("pool") and rng.random() < 0.2
    shape = "H x W" if free else " x ".join(map(str, image))
    text = f"input {shape} x 3\n{line}\n"
    assert [error.code for error in errors(text)] == ["E307"], text
    mended = fix(text, tmp_path)
    capsys.readouterr()
    report = check_source(
        Source("a.cnn", mended), dict(zip("HW", image, strict=True)) if free else {}
    )
    assert report.ok, mended
    assert keeps_numbers(f"\n {name}\n", mended), (text, mended)
    times = line.startswith("deconv")
    wanted = [n * s if times else -(-n // s) for n, s in zip(image, stride, strict=True)]
    assert [dim.constant for dim in report.layers[-1].output[:2]] == wanted, (text, mended)


@pytest.mark.parametrize(
    ("layer", "mended"),
    [
        ("pool max 2 pad=same", "pool max 2 ceil=yes"),
        ("pool avg 2x3 pad=same", "pool avg 2x3 ceil=yes"),
        ("pool max 4 stride=2 pad=same", "pool max 4 stride=2 pad=1 ceil=yes"),
        ("pool max 2 stride=1 pad=same", "pool max 2 stride=1 pad=1; crop 1 0 1 0"),
        ("conv 32 2x2 pad=same", "pad 0 1 0 1\nconv 32 2x2"),
        ("conv 8 1x64 pad=same", "pad 0 0 31 32\nconv 8 1x64"),
        ("conv 8 2x3 pad=same stride=2", "pad 0 1 1 1\nconv 8 2x3 stride=2"),
        ("deconv 8 4x4 stride=2 pad=same", "deconv 8 4x4 stride=2 pad=1"),
        ("deconv 8 2x2 stride=3 pad=same", "deconv 8 2x2 stride=3 output_pad=1"),
    ],
)
def test_what_is_written_for_an_even_window(layer, mended, tmp_path, capsys):
    head = "input 65 x 64 x 3\nconv 8 3x3 pad=same\n"
    tail = "\nflatten\nfc 10\n"
    written = fix(f"{head}{layer}{tail}", tmp_path)
    capsys.readouterr()
    assert written == f"{head}{mended}{tail}"


def test_a_default_of_all_layers_is_left_and_the_one_layer_gets_its_own(tmp_path, capsys):
    text = "input 28 x 28 x 3\ndefault conv pad=same\nconv 8 3x3\nconv 8 2x2\n"
    mended = fix(text, tmp_path)
    capsys.readouterr()
    assert mended == text.replace("conv 8 2x2", "pad 0 1 0 1\nconv 8 2x2 pad=0")
    assert errors(mended) == []


def test_a_window_that_is_right_elsewhere_is_not_changed_for_one_use(tmp_path, capsys):
    text = "block b(k) { conv 8 k pad=same }\ninput 28 x 28 x 3\nb 3x3\nb 2x2\n"
    assert fix(text, tmp_path) == text
    assert ": left E307: " in capsys.readouterr().err
