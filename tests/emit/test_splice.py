"""Kernel text for one region: switches settled, holes filled, dead code gone, layout kept."""

import pytest

from cnndsl.emit.fit import fit
from cnndsl.emit.prune import prune
from cnndsl.emit.settle import Several, settle
from cnndsl.emit.splice import (
    bare,
    definitions,
    docstring,
    fill,
    loosen,
    rename,
    without_field,
)

KERNEL = '''\
@triton.jit
def kernel(a, POOL: tl.constexpr, BIAS: tl.constexpr):
    """What it does."""
    # about the first step
    x = tl.load(a)  # a comment · on a line

    if POOL == "max":
        # why a maximum
        y = x

        if BIAS:
            y += 1
        # the end of the maximum
    elif POOL == "average":
        y = x / 2
    else:
        y = 0
        # the end of nothing
    # about the bias
    if BIAS and POOL != "none":
        y += 1
    if x > 0:
        y = 1
    elif POOL in ("max", "average"):
        y = 2
    else:
        y = 3
    tl.store(a, y)
'''


@pytest.mark.parametrize(
    ("switches", "body"),
    [
        (
            {"POOL": "max", "BIAS": False},
            """\
    x = tl.load(a)  # a comment · on a line

    # why a maximum
    y = x

    # the end of the maximum
    if x > 0:
        y = 1
    else:
        y = 2
    tl.store(a, y)
""",
        ),
        (
            {"POOL": "none", "BIAS": True},
            """\
    x = tl.load(a)  # a comment · on a line

    y = 0
    # the end of nothing
    if x > 0:
        y = 1
    else:
        y = 3
    tl.store(a, y)
""",
        ),
        (
            {"POOL": "average"},
            """\
    x = tl.load(a)  # a comment · on a line

    y = x / 2
    # about the bias
    if BIAS:
        y += 1
    if x > 0:
        y = 1
    else:
        y = 2
    tl.store(a, y)
""",
        ),
    ],
)
def test_dead_branches_go_and_comments_stay(switches, body):
    settled = settle(KERNEL, switches)
    assert settled.partition("# about the first step\n")[2] == body


def test_a_switch_with_several_values_settles_what_is_the_same_for_each():
    several = {"C.kind": Several(frozenset({"max", "none"})), "C.on": Several(frozenset({1, 2}))}
    for test, value in (
        ("C.kind == 'average'", False),
        ("C.kind != 'average'", True),
        ("C.kind in ('max', 'none')", True),
        ("C.kind", True),
        ("not C.kind", False),
        ("C.on and C.kind == 'average'", False),
        ("C.kind == 'average' or C.on", True),
    ):
        settled = settle(f"if {test}:\n    a = 1\nelse:\n    a = 2\n", several)
        assert settled == f"a = {1 if value else 2}\n", test
    for test in ("C.kind == 'max'", "C.on == 1", "C.on > x", "(C.kind, 1) == ('max', 1)"):
        text = f"if {test}:\n    a = 1\n"
        assert settle(text, several) == text, test


def test_what_is_settled_of_an_open_test_goes():
    switches = {"C.on": True, "C.off": False, "C.pool": "max"}
    for test, left in (
        ("C.on and x", "x"),
        ("x or C.off", "x"),
        ("x > 1 and C.on and y", "x > 1 and y"),
        ("(x or C.off) and y", "x and y"),
        ("(x or C.off or z) and y", "(x or z) and y"),
        ("C.on and (x or y)", "x or y"),
        ("not C.off and not x", "not x"),
        ("x and (C.pool == 'none' or y or C.off)", "x and y"),
    ):
        assert settle(f"if {test}:\n    a = 1\n", switches) == f"if {left}:\n    a = 1\n", test
    text = "if a:\n    b = 1\nelif (\n    x\n    and C.on\n):\n    # why\n    b = 2\n"
    assert settle(text, switches) == "if a:\n    b = 1\nelif x:\n    # why\n    b = 2\n"


def test_an_open_test_before_nothing_goes():
    inner = "    if OFF:\n        a = 1\n"
    off = {"OFF": False}
    assert settle(f"if x:\n{inner}b = 1\n", off) == "b = 1\n"
    assert settle(f"if x:\n{inner}else:\n    # why\n    b = 1\n", off) == (
        "if not x:\n    # why\n    b = 1\n"
    )
    assert settle(f"if x == 1:\n{inner}else:\n    b = 1\n", off) == "if x != 1:\n    b = 1\n"
    assert settle(f"if x and y:\n{inner}else:\n    b = 1\n", off) == (
        "if not (x and y):\n    b = 1\n"
    )
    assert settle(f"if x:\n    b = 1\nelse:\n{inner}", off) == "if x:\n    b = 1\n"
    assert settle(f"if x:\n    b = 1\nelif y:\n{inner}", off) == "if x:\n    b = 1\n"
    three = f"if x:\n{inner}elif y:\n    b = 1\nelse:\n    b = 2\n"
    assert settle(three, off) == "if x:\n    pass\nelif y:\n    b = 1\nelse:\n    b = 2\n"


def test_without_switches_nothing_changes():
    assert settle(KERNEL, {}) == KERNEL


def test_an_open_first_test_and_a_dead_second_one():
    text = "if x:\n    a = 1\nelif OFF:\n    a = 2\nelif y:\n    a = 3\n"
    assert settle(text, {"OFF": False}) == "if x:\n    a = 1\nelif y:\n    a = 3\n"


def test_a_dead_first_test_makes_the_second_the_first():
    text = "if OFF:\n    a = 1\nelif x:\n    a = 2\nelse:\n    a = 3\n"
    assert settle(text, {"OFF": False}) == "if x:\n    a = 2\nelse:\n    a = 3\n"


def test_switches_of_launches_are_fields():
    text = "if geometry.pool == 'max' and not geometry.bias:\n    a = 1\n"
    assert settle(text, {"geometry.pool": "max", "geometry.bias": False}) == "a = 1\n"
    assert settle(text, {"geometry.pool": "none"}) == "\n"


def test_a_hole_takes_the_place_of_its_stub():
    text = "@triton.jit\ndef hole(z):\n    return z\n\n\ndef after():\n    pass\n"
    filled = fill(text, {"hole": "@triton.jit\ndef hole(z):\n    return -z\n", "other": ""})
    assert filled == text.replace("return z", "return -z")


def test_names_change_where_they_are_code_or_quoted_as_code():
    text = "def f(x):\n    # as `f` and f\n    return f(x) + x.f + len('f')\n"
    assert rename(text, {"f": "g"}) == (
        "def g(x):\n    # as `g` and f\n    return g(x) + x.f + len('f')\n"
    )


def test_sizes_that_a_symbol_decides_are_no_constants():
    parameters = ("height", "width", "H")
    text = "".join(["def f(\n", *(f"    {p}: tl.constexpr,\n" for p in parameters), "): ...\n"])
    loose = loosen(text, frozenset({"height"}))
    assert loose == text.replace("height: tl.constexpr", "height")
    assert loosen(text, frozenset()) == text


def test_a_field_and_a_property_that_no_region_uses_go():
    text = """class Geometry(NamedTuple):
    first: int
    # Of what is wide.
    width: int = 1

    @property
    def area(self) -> int:
        return self.width


class Other:
    pass
"""
    without = without_field(without_field(text, "width"), "area")
    assert without == "class Geometry(NamedTuple):\n    first: int\n\n\nclass Other:\n    pass\n"


def test_the_definitions_of_a_file_without_what_stands_around_them():
    text = '"""What it is.\n\nMore."""\n\nimport torch\nfrom .other import (\n    a,\n)\n\n'
    text += "# ── kernels ──────\n\nLIMIT = 3\n\n\ndef f():\n    return LIMIT\n"
    found, imports = bare(text)
    assert found == "LIMIT = 3\n\n\ndef f():\n    return LIMIT\n"
    assert [statement.names[0].name for statement in imports] == ["torch"]
    assert docstring(text) == "What it is.\n\nMore."
    assert definitions(found) == ("LIMIT", "f")


# ── what nothing uses ────────────────────────────────────────────────────────────────────────────

LAUNCH = """\
@triton.jit
def helper(x, WIDTH: tl.constexpr, UNUSED: tl.constexpr):
    return x + WIDTH


@triton.jit
def dead(x):
    return x


@triton.jit
def kernel(
    a_ptr,  # [N]
    b_ptr,  # [N], read by nothing
    WIDTH: tl.constexpr,
    UNUSED: tl.constexpr,
):
    idle = tl.load(b_ptr)
    also_idle = idle + 1
    value = helper(tl.load(a_ptr), WIDTH, UNUSED)
    tl.store(a_ptr, value)


# about the launch
def launch(a, b):
    size = 1
    size = 2
    kernel[(1,)](
        a_ptr=a,
        b_ptr=b,  # a comment that goes with it
        WIDTH=size,
        UNUSED=3,
    )
"""


def test_what_nothing_uses_is_removed_through_calls():
    assert (
        prune(LAUNCH, ["launch"])
        == """\
@triton.jit
def helper(x, WIDTH: tl.constexpr):
    return x + WIDTH


@triton.jit
def kernel(
    a_ptr,  # [N]
    WIDTH: tl.constexpr,
):
    value = helper(tl.load(a_ptr), WIDTH)
    tl.store(a_ptr, value)


# about the launch
def launch(a, _b):
    size = 2
    kernel[(1,)](
        a_ptr=a,
        WIDTH=size,
    )
"""
    )


def test_a_kernel_that_is_passed_around_keeps_its_parameters():
    text = "@triton.jit\ndef f(a, b):\n    return a\n\n\ndef g():\n    return f\n"
    assert prune(text, ["g"]) == text


def test_a_remembered_launch_loses_what_its_kernel_does_not_take():
    text = LAUNCH.replace("    kernel[(1,)](\n", "    launch(\n        kernel,\n        1,\n")
    text = text.replace("def launch(", "def launch_kernel(")
    assert prune(text, ["launch_kernel"]).endswith(
        """\
def launch_kernel(a, _b):
    size = 2
    launch(
        kernel,
        1,
        a_ptr=a,
        WIDTH=size,
    )
"""
    )


SECOND = """@triton.jit
def f(x_ptr, y_ptr, feature):
    for step in range(3):
        place = step + feature
        column = place
        x = tl.load(x_ptr + column)
    tl.store(y_ptr + place + column, x)
"""


def test_a_value_has_one_name():
    assert prune(SECOND, ["f"]) == SECOND.replace("        column = place\n", "").replace(
        "column", "place"
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("column = place", "column = place\n        place += 1"),  # is not what it was
        ("column = place", "if step:\n            column = place"),  # or of an earlier step
        ("place = step + feature", "feature += column\n        place = step + feature"),
    ],
)
def test_two_values_keep_their_names(before, after):
    text = SECOND.replace(before, after)
    assert prune(text, ["f"]) == text


def test_lines_with_effects_stay():
    text = "def g(x):\n    y = tl.atomic_add(x, 1)\n    z = kernel[(1,)](x)\n    return x\n"
    assert prune(text, ["g"]) == text


# ── lines that became too long ───────────────────────────────────────────────────────────────────


def test_long_calls_and_definitions_are_spread():
    name = "a_rather_long_name_of_a_function_in_a_region_of_a_network"
    text = f"def {name}(first: int, second: tuple[int, int]) -> int:\n"
    text += f"    return {name}(first, (1, 2))\n"
    assert fit(text) == (
        f"def {name}(\n    first: int,\n    second: tuple[int, int],\n) -> int:\n"
        f"    return {name}(first, (1, 2))\n"
    )


def test_what_cannot_be_spread_stays():
    text = f"x = {' + '.join(['value'] * 20)}\ny = sum(value for value in {'[1]' * 30})\n"
    assert fit(text) == text


def test_brackets_behind_a_keyword_are_no_call() -> None:
    """A comma would make a tuple of what stands in them, which is always true."""
    long = " or ".join(f"a_condition_with_a_long_name_{number}" for number in range(4))
    text = f"found = not ({long})\n"
    assert fit(text) == text
