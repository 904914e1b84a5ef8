"""One mistake planted in a valid random network is one error, at its line.

`CNNDSL_MANY=1` plants each mistake in a hundred networks instead of a few.
"""

import os
import random

import pytest

from cnndsl.check import check_source
from cnndsl.source import Source
from tests.properties.author import Author
from tests.properties.language import Meaning, Text, lines_of, written
from tests.properties.mistakes import CHANGES, MISTAKES, Spot, Wrong

NETWORKS = 100 if os.environ.get("CNNDSL_MANY") == "1" else 4


@pytest.mark.parametrize("name", MISTAKES)
def test_one_mistake_is_one_error_at_its_line(name):
    planted = 0
    for seed in range(20 * NETWORKS):
        rng = random.Random(f"{name} {seed}")
        network = Author(rng).network()
        before, spot = spot_in(network, rng)
        wrong = MISTAKES[name](spot)
        if wrong is None:
            continue
        lines = lines_of(network)
        above, planted_lines = around(name, before, wrong)
        lines[before:before] = planted_lines
        text = "\n".join(lines) + "\n"
        report = check_source(Source("planted.cnn", text))
        errors = [d for d in report.diagnostics if d.severity == "error"]
        shown = [f"{d.code} {d.span.line}: {d.message}" for d in errors]
        assert len(errors) == 1, (name, before + 1, shown, text)
        assert errors[0].span.line == before + 1 + above + wrong.blamed, (name, shown, text)
        assert errors[0].code.startswith(wrong.codes), (name, shown, text)
        assert not report.ok
        planted += 1
        if planted == NETWORKS:
            return
    pytest.fail(f"{name}: planted {planted} times only")


def around(name: str, number: int, wrong: Wrong) -> tuple[int, list[str]]:
    """The lines of a mistake, with those that go back to the tensor above it, and how many go up.

    `number` makes their label one of its own.
    """
    lines = wrong.text.split("\n")
    if name not in CHANGES:
        return 0, lines
    return 1, [f"skip as safe{number}", *lines, f"from safe{number}"]


def spot_in(network, rng: random.Random) -> tuple[int, Spot]:
    """A place between two statements, as the number of lines above it, with what is known there."""
    meaning = Meaning(network.types, network.names, network.defaults)
    head = sum(isinstance(s, Text) for s in network.statements)
    end = rng.randint(min(head, len(network.statements)), len(network.statements))
    lines = 1
    for statement in network.statements[:end]:
        meaning.step(statement, network.names, "")
        lines += len(written(statement))
    labels, blocks = tuple(meaning.labels), tuple(meaning.blocks)
    return lines, Spot(rng, meaning.type, labels, blocks, tuple(network.names))
