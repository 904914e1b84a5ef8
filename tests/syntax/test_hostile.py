"""No text makes the parser raise, hang or grow; every refusal has a place."""

import random
import time
import tracemalloc

import pytest

from cnndsl.syntax import limits, tree
from tests.syntax.networks import EVERYTHING, LENET, good, read

WORDS = """
    a 1 ( { } ) " a. 1. 1x 5x5 5x5x5 28x -> = == + - * // % < >= , ; ? # x × as to like not and or
    else if add repeat block let param input model labels use from output default require expect
    skip relu conv pad=1 "t" “ é − 1e9 1e999 _ 0x1 @ [ : .5 \\ $ ! & \u3042
"""
PIECES = WORDS.split()
BLANKS = (" ", "", "\n", "\t", "\r\n", " # c\n", "\n    ")


def checked(text):
    """Parse it and hold what must hold for every text."""
    file, found = read(text)
    assert isinstance(file, tree.File)
    for diagnostic in found:
        span = diagnostic.span
        assert 0 <= span.start <= span.end <= len(text)
        assert diagnostic.code[0] == "E"
        assert diagnostic.message
        for fix in diagnostic.fixes:
            for edit in fix.edits:
                assert 0 <= edit.span.start <= edit.span.end <= len(text)
    if not found:
        assert not any(isinstance(s, tree.Broken) for s in file.statements)
    else:
        assert file.statements
    return found


def mutations(count, seed):
    generator = random.Random(seed)
    alphabet = '(){}"#x×=-><+*/%,;?.\n\r\t 0159aZ_“é\u202e\0'
    for _ in range(count):
        text = generator.choice((LENET, EVERYTHING))
        for _ in range(generator.randint(1, 6)):
            start = generator.randrange(len(text) + 1)
            end = min(len(text), start + generator.choice((0, 1, 1, 5, 40)))
            match generator.randrange(4):
                case 0:
                    new = "".join(generator.choices(alphabet, k=generator.randint(1, 3)))
                case 1:
                    new = ""
                case 2:
                    new = f" {generator.choice(PIECES)} "
                case _:
                    other = generator.randrange(len(text))
                    new = text[other : other + 30]
            text = text[:start] + new + text[end:]
        yield text


def test_two_thousand_mutated_sources():
    broken = sum(bool(checked(text)) for text in mutations(2_000, seed=1))
    assert broken > 1_000


def test_a_thousand_soups_of_words():
    generator = random.Random(2)
    for _ in range(1_000):
        count = generator.randint(1, 60)
        words = generator.choices(PIECES, k=count)
        checked("".join(word + generator.choice(BLANKS) for word in words))


@pytest.mark.parametrize("text", [LENET, EVERYTHING])
def test_every_beginning_of_a_file(text):
    for end in range(len(text)):
        checked(text[:end])


# ── time and memory ──────────────────────────────────────────────────────────────────────────────

SHORT = 'a 1 ( { } ) not 1+ “ a( 28x 28x1 1. a. . é # x ; "'
LINES = '1 ( { } ) " conv=5 blok{ k=3 relu->'
UNITS = (
    *SHORT.split(),
    *(line + "\n" for line in LINES.split()),
    *("a ", "1 ", "( ", "{ ", "} ", "- ", "not ", " ", "\n", "\t", "\r", "\r\n", "\n{\n"),
    *("else if a { } ", "if a { } else ", "block a {\n", "block a {\n)\n", "repeat 2 {\n(\n"),
    *("}{", "( }\n", "(\nlet a\n", "add { skip } { ", "conv as a 3\n", "input 3 x3\n"),
    *("let a = (1\n", "labels a\n", "conv 1, 2\n", "conv 5 x 5\n", "let a = 1; ", "(" * 70 + "\n"),
    *("#" * 50 + "\n", "a" * 500 + " "),
)


def repeated(unit, size):
    return unit * max(1, size // len(unit.encode()))


@pytest.mark.parametrize("unit", UNITS)
def test_a_file_of_one_thing(unit):
    """1 MiB of it, and as much as stays below the limit of tokens."""
    tokens = max(1, len(limits.tokens_of(unit * 100)))
    few = unit * min(limits.MAX_TOKENS * 100 // tokens, limits.MAX_BYTES // len(unit.encode()))
    for text in (repeated(unit, limits.MAX_BYTES), few):
        start = time.process_time()
        checked(text)
        assert time.process_time() - start < 2


def test_time_grows_with_the_file():
    line = "conv 6 5x5 pad=same -> 5 x 5 x C\n"
    times = []
    for count in (600, 2_400):
        start = time.process_time()
        assert len(good(line * count)) == count
        times.append(time.process_time() - start)
    assert times[1] < 12 * times[0]


def test_the_largest_file_takes_little_memory():
    text = "conv 6 5x5 pad=same -> 5 x 5 x C\n" * 3_000
    tracemalloc.start()
    try:
        good(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 60 << 20


# ── the limits ───────────────────────────────────────────────────────────────────────────────────


def refused(text):
    (found,) = checked(text)
    return found.code, found.span.line, found.span.column


def test_one_mebibyte_is_the_largest_file():
    assert checked("#" * limits.MAX_BYTES) == ()
    assert refused("#" * (limits.MAX_BYTES + 1)) == ("E510", 1, 1)
    assert refused("×" * (limits.MAX_BYTES // 2 + 1))[0] == "E510"
    assert checked("#" + "×" * (limits.MAX_BYTES // 2 - 1)) == ()


def test_the_number_of_words_and_signs():
    assert len(good("a\n" * (limits.MAX_TOKENS // 2))) == limits.MAX_TOKENS // 2
    assert refused("a\n" * (limits.MAX_TOKENS // 2) + "b") == ("E511", 20_001, 1)


def test_levels_of_brackets():
    deep = limits.MAX_NESTING
    good("let a = " + "(" * deep + "1" + ")" * deep)
    assert refused("let a = " + "(" * (deep + 1) + "1" + ")" * (deep + 1)) == ("E512", 1, 73)
    good("repeat 2 {\n" * deep + "}\n" * deep)
    assert refused("repeat 2 {\n" * (deep + 1) + "}\n" * (deep + 1)) == ("E512", 65, 10)
    # a `)` does not make room for a `{`
    assert "E512" in [d.code for d in checked("repeat 2 {\n)\n" * 65 + "}\n" * 65)]


def test_levels_of_else_if_and_of_operators():
    deep = limits.MAX_NESTING - 1  # the last one has a `{` of its own
    good("if a { }" + " else if b { }" * deep + "\nif a { }" + " else if b { }" * deep)
    assert refused("if a { }" + " else if b { }" * (deep + 1))[0] == "E512"
    many = limits.MAX_OPERATORS
    good("let a = 1" + " + 1" * many + "\nlet b = " + "-" * many + "1")
    for text in ("1" + " + 1" * (many + 1), "-" * (many + 1) + "1", "not " * (many + 1) + "a"):
        assert refused(f"let a = {text}")[0] == "E512"


def test_a_tree_is_never_deeper_than_a_walk_can_go():
    deep, many = limits.MAX_NESTING, limits.MAX_OPERATORS
    text = "repeat 2 {\n" * deep + "let a = 1" + " + 1" * many + "\n" + "}\n" * deep
    (statement,) = good(text)
    hash(statement)
    assert "Repeat" in repr(statement)


def test_digits_of_a_number():
    good("fc 1234567890123456789")
    good("fc 1_234_567_890_123_456_789")
    assert refused("fc 12345678901234567890") == ("E513", 1, 4)
    assert refused("fc 0.12345678901234567890") == ("E513", 1, 4)
    assert refused("input 1x1x12345678901234567890") == ("E513", 1, 7)
    assert refused("fc " + "9" * 100_000)[0] == "E513"


# ── characters that are refused ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("character", ["\0", "\u202e", "\u2066", "\u200f", "\u061c"])
def test_characters_that_hide_text(character):
    for text in (
        f"relu\nfc 3 # {character}",
        f'relu\nuse  "{character}',
        f"relu\nabcdefg{character}",
    ):
        assert refused(text)[:2] == ("E116", 2)


def test_half_of_a_character():
    assert refused("relu # \ud800") == ("E115", 1, 8)


def test_blanks_that_are_none():
    for character in "\u200b\ufeff\u00ad\u2028\x0b\x0c\x1b\x7f":
        ((code, line, column),) = [refused(f"relu\nfc{character} 3")]
        assert (code, line, column) == ("E101", 2, 3)
