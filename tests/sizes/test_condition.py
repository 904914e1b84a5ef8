"""Conditions against their meaning in Python, on all small values, and the cases people know."""

import time
from itertools import pairwise
from math import lcm

import pytest
from hypothesis import HealthCheck, assume, given, settings

from cnndsl.sizes.condition import Condition, TooHard, Undecidable, budget
from cnndsl.sizes.dim import Dim
from cnndsl.sizes.formula import balanced, write
from tests.sizes.strategies import OPERATORS, conditions, decided, grid

H, W = Dim.symbol("H"), Dim.symbol("W")
compare = Condition.compare
slow = [HealthCheck.too_slow]


def check_text(condition, meaning, symbols, most):
    """The text, the promise and the membership against the meaning, for all small values."""
    text = compile(str(condition), "text", "eval")
    promise = [compile(part, "promise", "eval") for part in condition.requirements()]
    for at in grid(symbols, most):
        wanted = bool(meaning(at))
        assert condition.contains(at) == wanted, at
        assert bool(eval(text, {}, dict(at))) == wanted, (str(condition), at)
        assert all(eval(part, {}, dict(at)) for part in promise) == wanted, at
    for mark in ("exists", "floor", "[", "{", "infty"):
        assert mark not in str(condition) + condition.pretty()


@settings(max_examples=250, suppress_health_check=slow)
@given(conditions("H", leaves=3))
@decided
def test_text_of_one_symbol(pair):
    check_text(*pair, "H", 50)


@settings(max_examples=100, suppress_health_check=slow)
@given(conditions("HW", leaves=3))
@decided
def test_text_of_two_symbols(pair):
    check_text(*pair, "HW", 14)


@settings(max_examples=100, suppress_health_check=slow)
@given(conditions("HW", leaves=2), conditions("HW", leaves=2))
@decided
def test_laws_of_given_and_implies(one, two):
    (a, f), (b, g) = one, two
    assert (a.given(b) & b) == (a & b)
    assert a.given(b).holds == b.implies(a)
    assert (a & b).implies(a)
    assert a.implies(a | b)
    assert ~~a == a
    assert ~(a & b) == (~a | ~b)
    if a.implies(b):
        assert all(g(at) for at in grid("HW", 10) if f(at))


@settings(max_examples=100, suppress_health_check=slow)
@given(conditions("HW", leaves=2))
@decided
def test_examples_are_examples(pair):
    condition, meaning = pair
    full = condition & Condition.always("HW")
    members = [at for at in grid("HW", 10) if meaning(at)]
    found = full.smallest()
    assert (found is None) == full.never
    if found is not None:
        assert meaning(found)
        assert all(list(at.values()) >= list(found.values()) for at in members)
    for example in (full.counterexample(), full.typical_counterexample()):
        assert (example is None) == full.holds
        assert example is None or not meaning(example)


@settings(max_examples=100, suppress_health_check=slow)
@given(conditions("HW", leaves=2))
@decided
def test_lower_bounds_and_the_rest_are_the_whole(pair):
    condition, _ = pair
    assume(not condition.never)
    bounds = Condition.always(condition.symbols)
    for name, low in condition.lower_bounds().items():
        assert low > 1
        bounds = bounds & compare(Dim.symbol(name), ">=", low)
    assert (condition.without_lower_bounds() & bounds) == condition


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (compare(H, ">=", 63), "H >= 63"),
        (compare(H, "<", 8), "H <= 7"),
        (compare(H, ">=", 32) & compare(H % 16, "==", 0), "H >= 32 and H % 16 == 0"),
        (compare(H, ">=", 7) & compare(H % 16, "==", 0), "H >= 16 and H % 16 == 0"),
        (compare(2 * (H // 16), "==", H // 8), "H % 16 <= 7"),
        (compare(H // 4, "==", 7) & compare(H, "<=", 29), "28 <= H <= 29"),
        (compare(H, "==", 28) | compare(H, "==", 32), "H == 28 or H == 32"),
        (compare(H % 4, "==", 0) | compare(H % 4, "==", 1), "H % 4 <= 1"),
        (compare(H % 3, "==", 0) | compare(H % 4, "==", 0), "H % 3 == 0 or H % 4 == 0"),
        (compare(H % 3, "!=", 0) & compare(H % 4, "!=", 0), "H % 3 != 0 and H % 4 != 0"),
        (compare(H, ">=", 9) & compare(H % 5, "!=", 2), "H >= 9 and H % 5 != 2"),
        (compare(H, "==", 5) | compare(H, ">=", 10), "H == 5 or H >= 10"),
        (
            compare(H, "==", 3) | (compare(H, ">=", 7) & compare(H % 2, "==", 0)),
            "H == 3 or (H >= 8 and H % 2 == 0)",
        ),
        (compare(H % 1_000_003, "!=", 0), "H % 1000003 != 0"),
        (compare(H, "==", W), "H == W"),
        (compare(W, "!=", H), "H != W"),
        (compare(2 * H, "==", W), "W == 2*H"),
        (compare(W, "==", 2 * (H // 2)), "W == 2*(H // 2)"),
        (compare(H // 2, "==", W // 2), "H // 2 == W // 2"),
        (compare(H, "==", W) & compare(H % 16, "==", 0), "H >= 16 and H % 16 == 0 and H == W"),
        (compare(H, ">=", W) & compare(W, ">=", 16) & compare(H, ">=", 9), "W >= 16 and H >= W"),
        (compare((H + W) % 4, "==", 0), "(H + W) % 4 == 0"),
        (compare(H, "==", 3) | compare(W, "==", 3), "H == 3 or W == 3"),
        (compare(H - W, "<=", 3), "H <= W + 3"),
        (compare(H, ">=", 3) & compare(W, "<=", 9), "H >= 3 and W <= 9"),
        (Condition.always("HW"), "H >= 1 and W >= 1"),
        (Condition.always(""), "True"),
        (~Condition.always("H"), "False"),
        (compare(Dim.of(3), ">=", 4), "False"),
        (
            compare(16 * (H // 4) * (W // 4), "==", 400),
            "(4 <= H <= 7 and 100 <= W <= 103) or (20 <= H <= 23 and 20 <= W <= 23)"
            " or (100 <= H <= 103 and 4 <= W <= 7)",
        ),
        (compare((H - 4) * (H - 4), "==", 49), "H == 11"),
    ],
)
def test_text_in_lowest_terms(condition, text):
    assert str(condition) == text


def test_text_for_messages_and_promises():
    both = compare(H, ">=", 9) & compare(H % 16, "==", 0) & compare(W % 2, "==", 0)
    assert both.pretty() == "H ≥ 16 and H is a multiple of 16 and W ≥ 2 and W is even"
    assert both.requirements() == ("H % 16 == 0", "W % 2 == 0")
    assert compare(H, "!=", W).pretty() == "H ≠ W"
    assert Condition.always("H").requirements() == ()


def _convolved(steps):
    valid, x = Condition.always("H"), H
    for kernel, stride, pad in steps:
        valid = valid & compare(x + 2 * pad - kernel, ">=", 0)
        x = (x + 2 * pad - kernel) // stride + 1
    return valid, x


def test_resnet_50_takes_every_size():
    stages = [(1, 3), (2, 4), (2, 6), (2, 3)]
    body = [step for stride, n in stages for step in [(3, stride, 1), *[(3, 1, 1)] * (n - 1)]]
    valid, x = _convolved([(7, 2, 3), (3, 2, 1), *body])
    assert valid.holds
    assert str(x) == "(H + 31) // 32"


def test_alexnet_needs_63_pixels():
    pools = (3, 2, 0)
    steps = [(11, 4, 2), pools, (5, 1, 2), pools, (3, 1, 1), (3, 1, 1), (3, 1, 1), pools]
    valid, _ = _convolved(steps)
    assert str(valid) == "H >= 63"
    assert valid.lower_bounds() == {"H": 63}
    assert valid.without_lower_bounds().holds
    assert valid.counterexample() == {"H": 1}
    assert valid.typical_counterexample() == {"H": 32}


def test_a_u_net_of_four_levels():
    valid = Condition.always("HW")
    for size in (H, W):
        levels = [size]
        for _ in range(4):
            valid = valid & compare(levels[-1], ">=", 2)
            levels.append(levels[-1] // 2)
        up = levels.pop()
        for skipped in reversed(levels):
            up = up * 2
            valid = valid & compare(up, "==", skipped)
    assert str(valid) == "H >= 16 and H % 16 == 0 and W >= 16 and W % 16 == 0"
    assert valid.smallest() == {"H": 16, "W": 16}
    assert valid.typical_counterexample() == {"H": 32, "W": 33}
    assert not valid.without_lower_bounds().holds
    promised = compare(H % 32, "==", 0) & compare(W % 16, "==", 0)
    assert promised.implies(valid)
    assert valid.given(compare(H % 16, "==", 0)).requirements() == ("W % 16 == 0",)


def test_finite_sets_are_listed():
    few = compare(H // 4, "==", 7)
    assert few.first_members(4) == tuple({"H": n} for n in range(28, 32))
    assert few.first_members(3) is None
    assert few.upper_bounds() == {"H": 31}
    assert compare(H, ">=", 3).first_members(100) is None


def test_products_of_symbols():
    with pytest.raises(Undecidable, match="products of symbols"):
        compare(H * W, ">=", 6)
    with pytest.raises(Undecidable):
        compare(H * W + H, "==", 7 * W)
    assert compare(H * W, "==", W * H).holds
    assert compare(2 * H * W, "==", 7).never
    solved = compare((H - 4) * (W - 4), "==", 6)
    check_text(solved, lambda v: (v["H"] - 4) * (v["W"] - 4) == 6, "HW", 14)
    unequal = compare(H * W, "!=", 6)
    check_text(unequal, lambda v: v["H"] * v["W"] != 6, "HW", 14)


def test_membership_needs_every_symbol():
    with pytest.raises(KeyError):
        compare(H, ">=", W).contains({"H": 3})
    assert not compare(H, "<=", 9).contains({"H": 0})


def test_every_comparison_of_a_remainder_is_written_right():
    for k in (2, 3, 4):
        for shift in (-2, 0, 1, 3):
            for times in (-3, -2, -1, 1, 2):
                for offset in range(-6, 7):
                    size = times * ((H + shift) % k) + offset
                    for operator, compares in OPERATORS.items():
                        code = compile(write(balanced(size, operator)), "text", "eval")
                        for h in range(1, 6):
                            wanted = compares(size.evaluate({"H": h}), 0)
                            assert eval(code, {}, {"H": h}) == wanted, (size, operator)


PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)


def _not_one_by_primes():
    condition = Condition.always("H")
    with budget():
        for prime in PRIMES:
            condition = condition & compare(H % prime, "!=", 1)
        return str(condition)


def _nested(levels):
    x, y = H, H
    for i in range(levels):
        x, y = (2 * x + i) // PRIMES[i + 1], (3 * y + i) // PRIMES[-i]
    return str(compare(x, "==", y))


def _related():
    names = [Dim.symbol(f"s{i:02}") for i in range(12)]
    condition = Condition.always("")
    for a, b in pairwise(names):
        condition = condition & compare(3 * a, "!=", 2 * b)
    return str(condition)


def _tangled():
    x = H
    for prime in PRIMES[:3]:
        x = 2 * x // prime + W // (prime + 1)
    return str(compare(x, "==", 7 * W // 5))


@pytest.mark.parametrize("question", [_not_one_by_primes, lambda: _nested(10), _related, _tangled])
def test_what_is_too_hard_is_refused_in_time(question, capfd):
    started = time.process_time()
    with pytest.raises(TooHard):
        question()
    assert time.process_time() - started < 5
    assert capfd.readouterr() == ("", "")


def test_a_spent_budget_spoils_nothing():
    with pytest.raises(TooHard, match="more operations than allowed"), budget(300):
        str(compare(H % 16, "==", 0) & compare(W % 12, "==", 0))
    assert str(compare(H % 16, "==", 0)) == "H >= 16 and H % 16 == 0"


def test_one_budget_serves_all_questions_inside():
    def ask(times):
        with budget(20_000):
            for n in range(times):
                assert compare(H % 16, "==", n % 16).typical_counterexample()

    ask(2)
    with pytest.raises(TooHard):
        ask(10_000)


def test_many_remainders_at_once():
    condition = Condition.always("H")
    for prime in PRIMES:
        condition = condition & compare(H % prime, "==", 1)
    assert str(condition) == f"H % {lcm(*PRIMES)} == 1"
