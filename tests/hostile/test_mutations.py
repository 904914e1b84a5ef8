"""Mutated sources: no exception, and every diagnostic inside the file.

`CNNDSL_MANY=1` makes 20,000 instead of a few hundred.
"""

import os
import random
from pathlib import Path

from cnndsl.check import check_source
from cnndsl.source import Source

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").rglob("*.cnn"))
COUNT = 20_000 if os.environ.get("CNNDSL_MANY") == "1" else 400
PIECES = (
    *'(){}=;,?-><+*/%#"\n0123456789xHW',
    " -> ",
    "same",
    "pad=",
    "to ",
    "like ",
    "as ",
    "H",
    "repeat 3 {",
    "if H > 3 {",
    "add ",
    "//",
    "1M",
    "5x5",
    "conv ",
    "pool max ",
    "require ",
    "param p\n",
    "let a = ",
    "block b(n) {",
    "×",
    "é",
)


def mutated(text, rng):
    for _ in range(rng.randint(1, 4)):
        place, length = rng.randrange(len(text) + 1), rng.choice([0, 0, 1, 2, 8])
        other = rng.randrange(len(text) + 1)
        piece = rng.choice([rng.choice(PIECES), text[other : other + rng.choice([3, 12, 40])]])
        text = text[:place] + piece + text[place + length :]
    return text


def test_no_mutation_breaks_the_checker():
    texts = [path.read_text(encoding="utf-8") for path in EXAMPLES]
    accepted = 0
    for seed in range(COUNT):
        rng = random.Random(seed)
        text = mutated(rng.choice(texts), rng)
        try:
            report = check_source(Source("mutated.cnn", text))
        except Exception as error:
            raise AssertionError(f"seed {seed}:\n{text}") from error
        for diagnostic in report.diagnostics:
            spans = [diagnostic.span, *(label.span for label in diagnostic.labels)]
            assert all(0 <= s.start <= s.end <= len(s.source.text) for s in spans), seed
            assert diagnostic.message, seed
        accepted += report.ok
    assert 0 < accepted < COUNT
