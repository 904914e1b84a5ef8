"""Sizes against Python's integers, and their text against what it evaluates to."""

import copy
import pickle
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnndsl.sizes.dim import Dim
from cnndsl.sizes.limits import MAX_WEIGHT, TooLarge, UndefinedDivision
from tests.sizes.strategies import grid, sizes, values

H, W = Dim.symbol("H"), Dim.symbol("W")


@settings(max_examples=300)
@given(sizes(products=True), values)
def test_a_size_computes_what_python_computes(pair, at):
    size, meaning = pair
    assert size.evaluate(at) == meaning(at)


@settings(max_examples=300)
@given(sizes(products=True), values)
def test_the_text_evaluates_to_the_same(pair, at):
    size, meaning = pair
    assert eval(str(size), {}, dict(at)) == meaning(at)


@settings(max_examples=150)
@given(sizes(products=True), sizes(products=True), sizes(products=True))
def test_equal_by_construction_is_equal(one, two, three):
    a, b, c = one[0], two[0], three[0]
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a * b == b * a
    assert a * (b + c) == a * b + a * c
    assert a - a == 0
    assert Dim.sum((a, b, c)) == a + b + c


@settings(max_examples=200)
@given(sizes(products=True), sizes(products=True), st.integers(1, 9), st.integers(1, 9))
def test_divisions_that_mean_the_same_are_equal(one, two, k, n):
    a, b = one[0], two[0]
    assert (a + k * b) // k == a // k + b
    assert (n * a) // (n * k) == a // k
    assert (a % k) + k * (a // k) == a
    assert (H * n + k) // k // n == (H * n + k) // (k * n)


@settings(max_examples=300)
@given(sizes(products=True), values)
def test_no_value_is_below_the_least(pair, at):
    least = pair[0].least()
    assert least is None or least <= pair[0].evaluate(at)


def test_the_least_is_reached_where_nothing_is_subtracted():
    assert ((H + 31) // 32 * W - 1).least() == 0
    assert (3 * H * W + 2 * ((H + 1) // 2)).least() == 5
    assert Dim.of(-7).least() == -7
    assert (H - W).least() is None
    assert (5 - H // 2).least() is None


@settings(max_examples=100)
@given(sizes(products=True), sizes(products=False), values)
def test_substitution_commutes_with_evaluation(one, two, at):
    size, inner = one[0], two[0]
    replaced = size.substitute({"H": inner})
    assert replaced.evaluate(at) == size.evaluate({**at, "H": inner.evaluate(at)})


@settings(max_examples=100)
@given(sizes(products=True))
def test_factors_multiply_to_the_size(pair):
    size = pair[0]
    content, parts = size.factors()
    product = Dim.of(content)
    for part in parts:
        product = product * part
    assert product == size


@settings(max_examples=100)
@given(sizes(products=True), sizes(products=True))
def test_an_exact_quotient_is_exact(one, two):
    a, b = one[0], two[0]
    if b != 0:
        assert (a * b).exact_quotient(b) == a
        quotient = a.exact_quotient(b)
        assert quotient is None or quotient * b == a


@pytest.mark.parametrize(
    ("size", "text", "pretty"),
    [
        (H // 2, "H // 2", "⌊H/2⌋"),
        ((H + 1) // 2, "(H + 1) // 2", "⌊(H + 1)/2⌋"),
        (64 * (H // 4) * (W // 4), "64*(H // 4)*(W // 4)", "64·⌊H/4⌋·⌊W/4⌋"),
        (H - 4, "H - 4", "H − 4"),
        (5 - H, "5 - H", "5 − H"),
        (2 * (H // 16), "2*(H // 16)", "2·⌊H/16⌋"),
        (H // 2 // 2, "H // 4", "⌊H/4⌋"),
        ((2 * H + 3) // 2, "H + 1", "H + 1"),
        ((H + 5) // 2, "(H + 1) // 2 + 2", "⌊(H + 1)/2⌋ + 2"),
        (4 * H // 6, "2*H // 3", "⌊2·H/3⌋"),
        ((H - 7) // 4 + 1, "(H - 3) // 4", "⌊(H − 3)/4⌋"),
        (H % 16, "H % 16", "H mod 16"),
        (-(H // 2), "-(H // 2)", "−⌊H/2⌋"),
        (-(H % 2), "-(H % 2)", "−(H mod 2)"),
        (16 * (H - 4) * (W - 4), "16*(H - 4)*(W - 4)", "16·(H − 4)·(W − 4)"),
        ((H // 2 - 3) * (H // 2 - 3), "(H // 2 - 3)*(H // 2 - 3)", "(⌊H/2⌋ − 3)²"),
        (Dim.of(25), "25", "25"),
        (Dim.of(-1), "-1", "-1"),
    ],
)
def test_text_reads_as_written_by_hand(size, text, pretty):
    assert str(size) == text
    assert size.pretty() == pretty


def test_resnets_chain_stays_small():
    x = H
    for kernel, stride, pad in [(7, 2, 3), *[(3, 2, 1), (3, 1, 1)] * 4]:
        x = (x + 2 * pad - kernel) // stride + 1
    assert str(x) == "(H + 31) // 32"


def test_equal_sizes_are_one_object():
    assert H // 2 // 2 is H // 4
    assert Dim.symbol("H") is H
    assert {H // 4: 1}[H // 2 // 2] == 1
    assert Dim.of(3) == 3
    assert hash(Dim.of(3)) == hash(3)
    assert H != 3


def test_sizes_are_data():
    size = (H + 1) // 2 * W
    assert pickle.loads(pickle.dumps(size)) == size
    assert copy.deepcopy(size) == size
    with pytest.raises(AttributeError):
        size.constant = 3
    assert size.symbols == {"H", "W"}
    assert not size.is_linear
    assert (H // 2 + W).is_linear
    assert not (H * W // 2).is_linear


def test_division_by_anything_but_a_positive_number_is_refused():
    for divisor in (0, -2, W, H):
        with pytest.raises(UndefinedDivision, match="positive numbers only"):
            H // divisor
    with pytest.raises(ZeroDivisionError):
        Dim.of(7) // 0
    assert Dim.of(7) // Dim.of(-2) == -4
    assert Dim.of(-7) % 4 == 1
    assert (64 * H).exact_quotient(H) == 64
    assert H.exact_quotient(W) is None
    with pytest.raises(TypeError):
        H + "1"


def _squared():
    x = H + W
    for _ in range(40):
        x = x * x


def _summed():
    x = H
    for i in range(10_000):
        x = x + Dim.symbol(f"s{i}")


def _nested():
    x = H
    for i in range(10_000):
        x = 2 * x // 3 + W // (i + 2)


def _multiplied():
    x = Dim.of(3)
    for _ in range(40):
        x = x * x


@pytest.mark.parametrize("grow", [_squared, _summed, _nested, _multiplied])
def test_growth_without_end_is_refused(grow):
    with pytest.raises(TooLarge, match="more than"):
        grow()


def test_a_deep_network_costs_no_more_than_its_layers():
    x = H
    for _ in range(MAX_WEIGHT):
        x = (x + 2 - 3) // 1 + 1
    assert x is H


def test_plain_numbers_load_no_isl():
    code = (
        "import sys; from cnndsl.sizes.dim import Dim; Dim.of(3) * 2;"
        "print(sorted(m for m in ('islpy', 'dataclasses', 'inspect') if m in sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "[]"


def test_the_grid_of_the_tests_is_whole():
    assert grid("HW", 2) == [
        {"H": 1, "W": 1},
        {"H": 1, "W": 2},
        {"H": 2, "W": 1},
        {"H": 2, "W": 2},
    ]
