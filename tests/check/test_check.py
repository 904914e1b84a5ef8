"""The checker through its door: what it accepts, what it counts, and what it says."""

import pytest

from cnndsl.check import check_source
from cnndsl.source import Source

LENET = """\
input 28 x 28 x 1
conv 6 5x5 pad=same; relu; pool max 2
conv 16 5x5; relu; pool max 2 -> 5 x 5 x 16
flatten
fc 120; relu; fc 84; relu; fc 10
softmax
"""


def check(text, **settings):
    return check_source(Source("model.cnn", text), settings)


def codes(report):
    return [d.code for d in report.diagnostics]


def messages(report):
    return "\n".join(d.message for d in report.diagnostics)


def test_lenet_has_the_published_counts():
    totals = check(LENET).totals
    assert totals.params.constant == 61_706
    assert totals.macs.constant == 416_520
    assert totals.weight_bytes.constant == 246_824
    assert totals.receptive_field.size[0].constant == 16


def test_layers_are_named_by_kind_and_count_or_by_label():
    report = check("input 8 x 8 x 1\nconv 2 3x3\nconv 4 3x3 as deep.conv\nconv 8 3x3\n")
    assert [layer.name for layer in report.layers] == ["conv1", "deep.conv", "conv3"]
    assert [layer.inputs for layer in report.layers] == [("input",), ("conv1",), ("deep.conv",)]


def test_receptive_field_with_its_stride_and_offset():
    report = check("input 32 x 32 x 1\nconv 4 5x5 pad=same\npool max 2\nconv 4 3x3 dilation=2\n")
    field = report.layers[-1].receptive_field
    assert [size.constant for size in field.size] == [14, 14]  # 5, then 6, then 6 + 2·2·2
    assert field.stride == (2, 2)
    assert field.offset == (-2, -2)


def test_three_mistakes_are_three_errors_at_their_places():
    report = check(
        "input 32 x 32 x 3\nconv 16 3x3 padding=1\nrelu\nmaxpool 2\nflatten\nfc 10 bias=maybe\n"
    )
    assert not report.ok
    found = [(d.code, d.span.line, d.span.text) for d in report.diagnostics]
    assert found == [("E204", 2, "padding"), ("E201", 4, "maxpool"), ("E206", 6, "maybe")]
    assert report.graph is None


def test_a_mistake_infects_nothing_below_it():
    report = check("input 8 x 8 x 1\nconv 2 30x30\nconv 4 3x3\nfc 10\npool max 50\n")
    assert codes(report) == ["E301"]


def test_after_a_mistake_an_assertion_is_believed():
    report = check("input 8 x 8 x 1\nconv 2 30x30 -> 4 x 4 x 2\npool max 5\n")
    assert [(d.code, d.span.line) for d in report.diagnostics] == [("E301", 2), ("E301", 3)]


@pytest.mark.parametrize(
    ("line", "code", "at"),
    [
        ("conv 6", "E202", "conv 6"),
        ("pool 2", "E202", "pool 2"),
        ("fc 10", "E303", "fc"),
        ("conv 6 5x5 2", "E203", "2"),
        ("conv 6 5x5 strid=2", "E204", "strid"),
        ("conv filters=6 5x5", "E204", "filters=6"),
        ("conv 6 5x5 pad=1 pad=2", "E205", "pad=2"),
        ("conv 6 5x5 stride=0", "E206", "0"),
        ("conv 6 5x5 pad=sane", "E206", "sane"),
        ("pool average 2", "E206", "average"),
        ("conv 6 5x5 bias=True", "E206", "True"),
        ("conv n 5x5", "E211", "n"),
        ("conv 6 9x9", "E301", "9x9"),
        ("conv 6 3x3 dilation=4", "E301", "3x3"),
        ("conv 6 4x4 pad=same", "E307", "4x4"),
        ("conv 6 3x3 groups=4", "E306", "groups=4"),
        ("pool max 2 pad=2", "E308", "pad=2"),
        ("relu -> 8 x 8 x 4", "E305", "8 x 8 x 4"),
        ("pool max 2 to 3", "E203", "to 3"),
    ],
)
def test_one_mistake_is_one_error_at_its_place(line, code, at):
    report = check(f"input 8 x 8 x 3\nconv 3 1x1\n{line}\n")
    errors = [(d.code, d.span.text) for d in report.diagnostics if d.severity == "error"]
    assert errors == [(code, at)]
    assert report.diagnostics[0].span.line == 3


def test_every_fix_with_edits_makes_its_error_go():
    """A fix that is offered must help: the error is gone after it."""
    lines = [
        "conv 6 5x5 padding=2",
        "conv 6 5x5 2",
        "maxpool 2",
        "pool 2",
        "fc 10",
        "conv 6 9x9",
        "conv 6 4x4 pad=same",
        "conv 6 3x3 groups=4",
        "pool max 2 pad=2",
        "pool average 2",
        "conv 6 5x5 stride=0",
        "relu -> 8 x 8 x 4",
    ]
    for line in lines:
        text = f"input 8 x 8 x 3\n{line}\n"
        (error,) = check(text).diagnostics
        fixes = [fix for fix in error.fixes if fix.edits]
        assert fixes, line
        for fix in fixes:
            edited = text
            for edit in sorted(fix.edits, key=lambda e: -e.span.start):
                edited = edited[: edit.span.start] + edit.text + edited[edit.span.end :]
            assert error.code not in codes(check(edited)), (line, fix.message, edited)


def test_origin_of_a_size_is_shown():
    report = check("input 12 x 12 x 3\nconv 8 5x5\npool max 2\nconv 16 5x5\n")
    (error,) = report.diagnostics
    (label,) = error.labels
    assert label.span.text == "pool max 2"
    assert "4 x 4 x 8" in label.message
    assert "(4 − 5)/1 + 1 = 0" in error.notes[0]


def test_lost_pixels_are_a_warning_only_where_there_are_some():
    assert codes(check("input 7 x 7 x 1\npool max 2\n")) == ["W601"]
    assert check("input 7 x 7 x 1\npool max 2\n").ok
    assert codes(check("input 8 x 8 x 1\npool max 2\n")) == []
    assert codes(check("input 7 x 7 x 1\npool max 2 ceil=yes\n")) == []
    assert codes(check("input 8 x 8 x 1\npool max 3 stride=2 pad=1\n")) == []


def test_skipped_pixels_are_a_warning_but_for_1x1():
    assert codes(check("input 8 x 8 x 1\nconv 2 2x2 stride=3\n")) == ["W602"]
    assert codes(check("input 8 x 8 x 1\nconv 2 1x1 stride=2\n")) == []


def test_names_and_settings():
    text = "param width = 8\nlet twice = 2 * width\ninput 8 x 8 x 1\nconv twice 3x3\n"
    assert check(text).layers[0].output[-1].constant == 16
    assert check(text, width=5).layers[0].output[-1].constant == 10
    assert codes(check(text, widht=5)) == ["E213"]


def test_current_sizes_are_names():
    report = check("input 8 x 8 x 6\nconv channels 3x3 groups=channels\n")
    assert report.ok
    assert report.totals.params.constant == 6 * 9 + 6


def test_expectations():
    assert check(LENET + "expect params == 61_706, macs <= 5M, training_bytes <= 2MiB\n").ok
    report = check(LENET + "expect params == 61_707\n")
    assert codes(report) == ["E311"]
    assert "61706" in report.diagnostics[0].notes[0]


def test_input_and_model_stand_once_and_input_first():
    assert codes(check("conv 2 3x3\n")) == ["E209"]
    assert codes(check("")) == ["E209"]
    assert codes(check("input 8 x 8 x 1\ninput 8 x 8 x 1\nrelu\n")) == ["E210"]
    assert codes(check("model A\nmodel B\ninput 8 x 8 x 1\nrelu\n")) == ["E210"]
    assert codes(check("input 8 x 8\nrelu\n")) == ["E214"]
    assert codes(check("input 1 x 8 x 8 x 1\nrelu\n")) == ["E214"]


def test_labels_must_fit():
    assert check('input 8\nfc 2\nlabels "a" "b"\n').ok
    assert codes(check('input 8\nfc 3\nlabels "a" "b"\n')) == ["E215"]


# ── free sizes ───────────────────────────────────────────────────────────────────────────────────


def test_lower_bounds_are_inferred():
    report = check("input H x W x 3\nconv 8 3x3\npool max 2\nconv 8 3x3\npool max 2\n")
    assert report.ok
    assert report.symbols == ("H", "W")
    assert report.valid == "H >= 10 and W >= 10"


@pytest.mark.parametrize("size", [10, 11, 12, 13, 64, 225])
def test_free_sizes_agree_with_given_ones(size):
    text = "input H x W x 3\nconv 8 3x3 stride=2\npool max 3 stride=2 ceil=yes\nconv 4 1x1\n"
    free, given = check(text), check(text, H=size, W=size + 3)
    values = {"H": size, "W": size + 3}
    for layer, other in zip(free.layers, given.layers, strict=True):
        assert [d.evaluate(values) for d in layer.output] == [d.constant for d in other.output]
        assert layer.macs.evaluate(values) == other.macs.constant
    assert eval(free.valid, {}, values) == given.ok


def test_other_conditions_must_be_promised():
    text = (
        "input H x W x 3\npool max 2 -> H // 2 x W // 2 x 3\n"
        "conv 4 1x1 stride=2 -> H // 4 x W // 4 x 4\n"
    )
    report = check(text)
    assert codes(report) == ["E401"]
    (error,) = report.diagnostics
    assert "H % 4" in error.message
    (edit,) = error.fixes[0].edits
    mended = text[: edit.span.start] + edit.text + text[edit.span.end :]
    assert check(mended).ok


def test_a_promise_must_suffice():
    assert codes(check("input H x W x 3\nrequire H >= 4, W >= 5\nconv 8 5x5\n")) == ["E402"]
    assert check("input H x W x 3\nrequire H >= 5, W >= 5\nconv 8 5x5\n").ok
    assert codes(check("input H x W x 3\nrequire H >= 32\nrequire H < 16\nrelu\n")) == ["E403"]


def test_weights_cannot_depend_on_the_image():
    assert codes(check("input H x W x 3\nflatten\nfc 10\n")) == ["E309"]
    assert check("input H x W x 3\nflatten\nfc 10\n", H=8, W=8).ok


def test_groups_and_a_free_width():
    text = "param width\ninput 8 x 8 x 3\nconv width 3x3\nconv 8 3x3 groups=4\n"
    report = check(text)
    assert codes(report) == ["E401"]
    assert "width % 4 == 0" in report.diagnostics[0].message
    assert check(text, width=12).ok
