"""Each layer's lines with an argument garbled, in each place: reports, and never a crash.

`CNNDSL_MANY=1` tries all; else every fortieth.
"""

import itertools
import os
from collections.abc import Iterator

from cnndsl.check import check_source
from cnndsl.layers.base import Layer
from cnndsl.source import Source

EVERY = 1 if os.environ.get("CNNDSL_MANY") == "1" else 40
HEADS = ("input 28 x 28 x 8", "input 64", "input H x W x 8")
GARBLED = (
    *("?", "?7", "? 7", "7?", "? ?", "?x3", "3x?", "(?)", "?+1", "p=?", "x", "3x", "=3", "to"),
    *("-1", "1.5", "yes", "max", '"a"', "H", "like", "nobody"),
)


def forms(of: type[Layer] = Layer) -> Iterator[type[Layer]]:
    for form in of.__subclasses__():
        yield form
        yield from forms(form)


def lines() -> Iterator[str]:
    """An argument replaced, one before it, and all behind it gone."""
    for form in forms():
        for example in getattr(form, "examples", ()):
            words = example.split()
            for place, text in itertools.product(range(1, len(words)), GARBLED):
                yield " ".join([*words[:place], text, *words[place + 1 :]])
                yield " ".join([*words[:place], text, *words[place:]])
                yield " ".join([*words[: place + 1], text])


def test_no_garbled_argument_breaks_the_checker():
    tried = list(itertools.product(lines(), HEADS))[::EVERY]
    assert len(tried) > 600
    for line, head in tried:
        text = f"{head}\n{line}\nrelu\n"
        try:
            check_source(Source("garbled.cnn", text))
        except Exception as error:
            raise AssertionError(text) from error


def test_a_hole_where_no_argument_may_stand():
    text = "input 28 x 28 x 3\npool avg to ?7\nflatten; fc 10\n"
    (found,) = check_source(Source("hole.cnn", text)).diagnostics
    assert found.code == "E203"


def test_an_empty_branch_and_an_argument_of_a_layer_without_any():
    for branches in ("{ } { conv 4 3x3 }", "{ conv 4 3x3 } { }", "{ } { }", "{ } { pad 1 1 1 1 }"):
        for merge in ("add", "concat", "multiply"):
            text = f"input 8 x 8 x 4\n{merge} {branches}\nrelu x 3\n"
            assert not check_source(Source("empty.cnn", text)).ok
