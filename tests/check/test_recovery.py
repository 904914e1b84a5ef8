"""The checker goes on after a mistake: what is known stays known, and nothing is invented."""

import pytest

from cnndsl.check import check_source
from cnndsl.source import Source


def errors(text):
    report = check_source(Source("mistakes.cnn", text))
    assert not report.ok
    return [d for d in report.diagnostics if d.severity == "error"]


def places(text):
    return [(d.code, d.span.line) for d in errors(text)]


WRONG = {  # each line is wrong on an image of 12 x 12 x 6, by its arguments alone
    "conv 8 4x4 pad=same": "E307",
    "conv 8 1x64 pad=same": "E307",
    "deconv 8 2x2 pad=same": "E307",
    "pool max 2 pad=same stride=1": "E307",
    "pool max 2 pad=2": "E308",
    "pool avg 1x3 pad=0x2": "E308",
    "pool avg 2 dilation=2": "E310",
    "deconv 8 2x2 stride=2 output_pad=2": "E314",
    "conv 8 1x1 groups=3": "E306",
    "deconv 8 1x1 groups=3": "E306",
    "take 3 3": "E317",
}
UNKNOWN = {  # ways in which nothing, or not the size, is known of what arrives
    "a misspelt layer": "cnov 8 3x3",
    "a failed convolution": "conv 6 4x4 pad=same",
    "a wrong option": "conv 6 3x3 padd=1",
    "a layer of an unknown size": "conv 6 breadth",
    "an unknown label": "from nowhere",
    "an unknown block": "bottleneck 6",
    "branches that differ": "add { skip } { conv 6 3x3 }",
    "a syntax error": "conv 6 3 x 3 )",
    "an undecided if": "if breadth > 3 { conv 6 3x3 }",
    "an unknown count": "repeat often { conv 6 3x3 }",
    "a hole without a solution": "conv 6 3x3 stride=? -> 99 x 99 x 6",
    "a layer on the wrong kind": "flatten; conv 6 3x3",
}


@pytest.mark.parametrize("way", UNKNOWN)
@pytest.mark.parametrize("line", WRONG)
def test_rules_on_arguments_alone_are_asked_after_any_mistake(way, line):
    found = places(f"input 12 x 12 x 6\n{UNKNOWN[way]}\n{line}\n")
    assert found[-1] == (WRONG[line], 3)
    assert [at for _, at in found] == [2, 3]


@pytest.mark.parametrize("line", WRONG)
def test_rules_on_arguments_alone_are_asked_without_an_input(line):
    assert places(f"{line}\n") == [(code, 1) for code in sorted(["E209", WRONG[line]])]


KNOWN = {  # what is known behind a line with a mistake: lines that show it, and their codes
    "conv 8 4x4 pad=same": ["conv 8 1x1 groups=3: E306", "groupnorm 3: E306", "fc 3: E303"],
    "conv 8 3x3 padd=1": ["shuffle 3: E306", "take 0 9: E317", "fc 3: E303"],
    "conv 8": ["groupnorm 3: E306", "fc 3: E303"],
    "conv 8 5x5 2": ["groupnorm 3: E306"],
    "conv 8 3x3 groups=4": ["conv 4 99x1: E301", "groupnorm 3: E306", "skip -> 9 x 10 x 8: E305"],
    "conv 8 99x99": ["groupnorm 3: E306", "skip -> 4 x 4 x 9: E305"],
    "deconv 8 2x2 output_pad=2": ["groupnorm 3: E306"],
    "pool max 2 pad=2": ["groupnorm 4: E306", "fc 3: E303"],
    "pool 2": ["groupnorm 4: E306"],
    "pool min 2": ["skip -> 6 x 7 x 6: E305", "groupnorm 4: E306"],
    "pool max 2 bias=no": ["groupnorm 4: E306"],
    "pool to 3x3": ["skip -> 3 x 4 x 6: E305", "groupnorm 4: E306"],
    "globalpool": ["pool max 2: E301", "groupnorm 4: E306"],
    "batchnorm epsilon=1": ["skip -> 12 x 13 x 6: E305", "groupnorm 4: E306"],
    "relu 3": ["skip -> 12 x 13 x 6: E305"],
    "dropout p=2": ["skip -> 12 x 13 x 6: E305"],
    "crop 20 0 0 0": ["groupnorm 4: E306"],
    "take 0 9": ["skip -> 12 x 13 x 3: E305"],
    "upsample 2 cubic": ["skip -> 24 x 25 x 6: E305", "groupnorm 4: E306"],
    "upsample like nowhere": ["groupnorm 4: E306", "fc 3: E303"],
    "shuffle 4": ["skip -> 12 x 13 x 6: E305"],
    "groupnorm 4": ["skip -> 12 x 13 x 6: E305"],
    "flatten 2": ["conv 8 3x3: E302"],
    "fc 10": ['labels "a" "b" "c": E215', "skip -> 11: E305"],
    "flatten; fc 10 bais=no": ['labels "a" "b" "c": E215', "conv 8 3x3: E302"],
    "flatten; fc breadth": ["conv 8 3x3: E302"],
    "add { skip } { conv 6 3x3 }": ["groupnorm 4: E306", "fc 3: E303"],
    "add { skip } { conv 8 1x1 }": ["skip -> 12 x 13 x 7: E305"],
    "add { skip } { cnov 6 }": ["skip -> 12 x 13 x 6: E305"],
    "concat { conv 8 1x1 } { cnov 3 }": ["skip -> 12 x 13 x 6: E305"],
    "concat { conv 8 1x1 } { conv 8 3x3 }": ["groupnorm 3: E306"],
    "add { relu }": ["skip -> 12 x 13 x 6: E305"],
    "conv 8 3x3 -> 12 x 12 x 8": ["conv 8 11x1: E301", "skip -> 12 x 12 x 8: E305"],
    "conv 8 3x3 -> 12 x 12 x 9": ["groupnorm 3: E306"],
    "conv 8 3x3 -> breadth x 10 x 8": ["skip -> 12 x 12 x 8: E305"],
    "conv 8 3x3 -> 800": ["conv 8 11x1: E301"],
    "conv 8 4x4 pad=same -> 4 x 4 x 8": ["conv 8 5x1: E301", "groupnorm 3: E306"],
    "cnov 3 -> 4 x 4 x 8": ["conv 8 5x1: E301", "groupnorm 3: E306", "fc 3: E303"],
    "conv 8 3x3 pad=? -> 13 x 13 x 8": ["conv 8 14x1: E301"],
    "conv 8 3x3 pad=?": ["groupnorm 3: E306"],
    "repeat often { conv 6 3x3 pad=1 }": ["skip -> 12 x 13 x 6: E305"],
    "repeat often { conv 6 3x3 }": ["groupnorm 4: E306"],
    "if breadth > 3 { conv 6 3x3 }": ["groupnorm 4: E306", "fc 3: E303"],
    "if breadth > 3 { relu } else { tanh }": ["skip -> 12 x 13 x 6: E305"],
    "block b(n) { conv n 3x3; conv 8 3x3 }; b": ["groupnorm 3: E306"],
    "block b(n) { conv 8 3x3; relu }; b 3 4": ["groupnorm 3: E306", "skip -> 10 x 11 x 8: E305"],
}
CASES = [(line, *shown.rsplit(": ", 1)) for line, all_shown in KNOWN.items() for shown in all_shown]


@pytest.mark.parametrize(("line", "shows", "code"), CASES)
def test_what_is_known_behind_a_mistake_stays_known(line, shows, code):
    found = places(f"input 12 x 12 x 6\n{line}\n{shows}\n")
    assert len(found) == 2, found
    assert found[0][1] == 2
    assert found[1] == (code, 3)


SILENT = {  # what may be right, whatever the mistake turns out to be
    "cnov 8 3x3 as lost": ["output lost"],
    "conv breadth 3x3 as lost": ["output lost"],
    "cnov 8 3x3": ["conv 3 99x99", "fc 3", "groupnorm 7", "add { skip } { conv 3 1x1 }"],
    "conv 8 4x4 pad=same": ["conv 3 99x99", "flatten; fc 3", "skip -> 40 x 40 x 8", "crop 9 9 9 9"],
    "conv 8 3x3 padd=5": ["conv 3 15x15", "pool max 20", "add { skip } { conv 8 3x3 pad=1 }"],
    "take 0 9": ["groupnorm 5", "take 0 8"],
    "flatten; conv 8 3x3": ["fc 10", "conv 8 3x3", "globalpool avg", "flatten"],
    "fc 10": ["fc 12", "conv 8 3x3", "flatten"],
    "default conv padd=same": ["conv 8 3x3 -> 12 x 12 x 8", "conv 8 13x13"],
    "default cnov pad=same": ["conv 8 3x3 -> 12 x 12 x 8", "add { skip } { conv 6 3x3 }"],
    "if breadth > 3 { conv 6 99x99; fc 3; add nowhere } else { fc 3 }": ["conv 8 3x3"],
    "if breadth > 3 { conv 8 1x1 }": ["groupnorm 4"],
    "repeat often { conv 8 3x3 }": ["pool max 11", "groupnorm 8"],
    "block b(n) { relu; if n > 0 { b n - 1 } }; b breadth": ["relu"],
    "conv breadth 3x3": ["groupnorm 7", "conv 8 3x3"],
    "skip as input": ["relu"],
    "multiply { skip } { cnov }": ["multiply { skip } { pad 0 0 0 0 }"],
    "cnov": ["expect params == 7", "expect height == 3", "expect receptive_field == 3"],
    "add { skip } { globalpool avg }": ["conv 3 13x1"],
}
QUIET = [(line, quiet) for line, all_quiet in SILENT.items() for quiet in all_quiet]


@pytest.mark.parametrize(("line", "quiet"), QUIET)
def test_nothing_is_invented_behind_a_mistake(line, quiet):
    found = places(f"input 12 x 12 x 6\n{line}\n{quiet}\n")
    assert [at for _, at in found] == [2], found


def test_an_undecided_branch_is_read_for_misspelt_words():
    found = places("input 8 x 8 x 4\nif breadth > 3 {\ncnov 3\n} else {\nrelu slope=2\n}\n")
    assert found == [("E211", 2), ("E201", 3), ("E204", 5)]


def test_several_mistakes_on_one_line():
    assert places("input 8 x 8 x 4\nconv 6 4x4 pad=same groups=3 bias=7\n") == [
        ("E307", 2),
        ("E306", 2),
        ("E206", 2),
    ]
    assert places("input 8 x 8 x 4\npool avg 2 pad=2 dilation=2\n") == [("E308", 2), ("E310", 2)]
    assert places("input 8 x 8 x 4\ncrop 9 0 9 0\n") == [("E316", 2), ("E316", 2)]
    assert places("input 8 x 8 x 4\nadd { skip } { conv 6 3x3 }\n") == [("E304", 2), ("E304", 2)]


def test_known_branches_are_compared_beside_an_unknown_one():
    text = "input 8 x 8 x 4\nadd { cnov 3 } { conv 4 1x1 } { conv 6 1x1 }\nrelu -> 8 x 8 x 4\n"
    assert places(text) == [("E304", 2), ("E201", 2)]
    text = "input 8 x 8 x 4\ncnov 3\nadd { skip } { conv 4 3x3 }\n"
    (_, second) = errors(text)
    assert second.caption == "? and ? − 2 rows"


def test_false_assertions_in_a_chain_are_each_named_with_true_numbers():
    found = errors(
        "input 28 x 28 x 1\nconv 6 4x4 -> 24 x 24 x 6\npool max 2 -> 11 x 11 x 6\nconv 16 3x3\n"
        "pool max 2 -> 3 x 3 x 16\nflatten -> 144\nfc 10\n"
    )
    assert [(d.span.line, d.message) for d in found] == [
        (2, "this layer's output is 25 x 25 x 6, not 24 x 24 x 6"),
        (3, "this layer's output is 12 x 12 x 6, not 11 x 11 x 6"),
        (5, "this layer's output is 5 x 5 x 16, not 3 x 3 x 16"),
        (6, "this layer's output is 400, not 144"),
    ]


def test_six_mistakes_are_six_errors():
    text = (
        "input 60 x 128 x 1\nconv 8 1x64 pad=same\nconv 16 1x16 pad=same\npool max 2 pad=2\n"
        "deconv 8 2x2 stride=2 output_pad=2\npool avg 2 dilation=2\nconv 8 3x3 groups=3\n"
    )
    codes = ["E307", "E307", "E308", "E314", "E310", "E306"]
    assert places(text) == list(zip(codes, range(2, 8), strict=True))


def test_a_size_by_name_stands_where_a_size_stands():
    report = check_source(Source("m.cnn", "input 12 x 12 x 6\nlet side = 3x3\nconv 6 side\n"))
    assert report.ok


def test_free_sizes_stay_known_behind_a_mistake():
    text = "input H x W x 3\nconv 8 4x3 pad=1 groups=2\npool max 2\nskip -> (H - 1) // 2 x 9 x 8\n"
    assert ("E306", 2) in places(text)
    assert places("input H x W x 3\ncnov 3\nconv 8 3x3\nflatten -> 8\nfc 3\n") == [("E201", 2)]
    text = "input H x W x 3\nrequire H % wide == 0\npool max 2\nupsample 2 nearest as a\nadd a a\n"
    assert places(text) == [("E211", 2)]


def test_what_is_unknown_is_null_in_the_report():
    report = check_source(Source("m.cnn", "input 8 x 8 x 1\nconv 4 2x2 pad=same\nconv 8 1x1\n"))
    assert [layer.output for layer in report.layers] == [(), ()]
    assert report.totals is None
    report = check_source(Source("m.cnn", "input 8 x 8 x 1\nconv 4 3x3 -> 8 x 8 x 4\n"))
    assert [str(dim) for dim in report.layers[0].output] == ["6", "6", "4"]
