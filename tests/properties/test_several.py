"""Several independent mistakes in a valid random network: each is reported at its line, none else.

Wrong lines are inserted, and lines of the network are broken whose output the lines below read.
`CNNDSL_MANY=1` tries 5,000 files and prints the share of the mistakes that is found.
"""

import os
import random
import re

from cnndsl.check import check_source
from cnndsl.source import Source
from tests.properties.author import Author
from tests.properties.language import lines_of
from tests.properties.mistakes import CHANGES, MISTAKES
from tests.properties.test_mistakes import around, spot_in

FILES = 5_000 if os.environ.get("CNNDSL_MANY") == "1" else 30
# Nothing below these is looked at, or what they say of the whole file hides another one of theirs.
ENDS = {
    "too many layers",
    "an endless block",
    "a lonely bracket",
    "a string that does not end",
    "another file",
    "an expectation that is wrong",
}
NAMES = ("l8", "e8", "e9", "z9", "b8")
# A line of the network is broken so that what it makes stays known: its size, or its channels.
BROKEN = (
    (re.compile(r"^conv (\w+) (\w+)(?= |$)"), r"conv \1 \2 bias=5", "E206 E205"),
    (re.compile(r"^(batchnorm|layernorm)\b"), r"\1 epsilom=1", "E204"),
    (re.compile(r"^fc (\w+)(?= |$)"), r"fc \1 bias=5", "E206 E205"),
    (re.compile(r"^(relu|tanh|silu|gelu|sigmoid)\b"), r"\1 slope=2", "E204"),
)


def planted(seed):
    """A text with mistakes, and the line and the codes of each."""
    rng = random.Random(f"several {seed}")
    network = Author(rng).network()
    lines = lines_of(network)
    if not check_source(Source("whole.cnn", "\n".join(lines) + "\n")).ok:
        return "", []
    used: set[str] = set()  # two mistakes that define one name would be a third one
    wrong: list[tuple[int, list[str], tuple[str, ...], int]] = []
    for name in rng.sample(sorted(MISTAKES.keys() - ENDS), rng.randint(2, 4)):
        before, spot = spot_in(network, rng)
        made = MISTAKES[name](spot)
        names = {word for word in NAMES if made is not None and word in made.text}
        if made is None or names & used or any(before == other[0] for other in wrong):
            continue
        used |= names
        above, text = around(name, before, made)
        if name not in CHANGES:
            text = [f"skip as safe{before}", *text, f"from safe{before}"]
            above = 1
        wrong.append((before, text, made.codes, above + made.blamed))
    expected: list[tuple[str, tuple[str, ...]]] = []
    marks = {before: (text, codes, at) for before, text, codes, at in wrong}
    out: list[str] = []
    broken = rng.randrange(len(lines))
    for number in range(len(lines) + 1):
        if number in marks:
            text, codes, at = marks[number]
            expected.append((len(out) + at + 1, codes))
            out += text
        if number == len(lines):
            break
        line = lines[number]
        for pattern, bad, codes in BROKEN if number >= broken else ():
            # At the top: a block may not be called, and an `if` not be taken.
            if pattern.match(line) and "bias" not in line and "slope" not in line:
                line = pattern.sub(bad, line)
                expected.append((len(out) + 1, tuple(codes.split())))
                broken = len(lines) + 1
                break
        out.append(line)
    return "\n".join(out) + "\n", expected


def test_each_of_several_mistakes_is_reported_and_none_is_invented():
    found = asked = 0
    for seed in range(FILES):
        text, expected = planted(seed)
        if not expected:
            continue
        report = check_source(Source("several.cnn", text))
        shown = [(d.span.line, d.code) for d in report.diagnostics if d.severity == "error"]
        for line, codes in expected:
            asked += 1
            found += any(at == line and code.startswith(codes) for at, code in shown)
        invented = [s for s in shown if s[0] not in {line for line, _ in expected}]
        assert not invented, (seed, invented, expected, text)
    print(f"{found} of {asked} mistakes in {FILES} files: {found / asked:.2%}")
    assert found >= 0.99 * asked
