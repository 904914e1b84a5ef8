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


def test_an_input_of_bytes_is_counted_as_it_comes_and_scaled():
    report = check("input 4 x 5 x 3 u8\nrelu\nexpect training_bytes == 24 + 60 + 240 + 240\n")
    assert report.ok
    assert report.totals.buffers.constant == 6  # a mean and a deviation a channel
    assert not check("input 4 x 5 x 3\nrelu\nexpect training_bytes == 564\n").ok
    unknown = check("input 4 x 5 x C u8\nrelu\n")
    assert codes(unknown) == ["E206"]
    assert "each channel has a mean and a deviation" in messages(unknown)
    assert check("input 4 x 5 x C u8\nrelu\n", C=3).ok
    assert check("input 4 x 4 x u8\nrelu\n").symbols == ("u8",)


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
    assert codes(report) == ["E301", "E303"]  # `conv 4` makes an image, whatever its input is


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
        ("pool max 2 to 3", "E203", "2"),
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
        "pool max 2 stride 2",
        "maxpool 2",
        "pool 2",
        "fc 10",
        "conv 6 9x9",
        "conv 6 4x4 pad=same",
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
    assert codes(check("input 8 x 8 x 1\npool max 1 stride=2\n")) == []


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
    assert "61,706" in report.diagnostics[0].notes[0]


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


def test_a_known_number_of_features_leaves_a_finite_set_of_sizes():
    text = "input H x W x 3\nconv 16 3x3 pad=same\npool max 4\nflatten -> 400\nfc 10\n"
    report = check(text)
    assert codes(report) == ["E401"]
    sizes = [(h, w) for h in range(1, 130) for w in range(1, 130)]
    valid = {(h, w) for h, w in sizes if eval(report.valid, {}, {"H": h, "W": w})}
    assert valid == {(h, w) for h, w in sizes if (h // 4) * (w // 4) == 25}
    mended = check(edited(text, report.diagnostics[0].fixes[0]))
    assert mended.ok, messages(mended)
    assert mended.totals.params.constant == 448 + 4010


def test_groups_and_a_free_width():
    text = "param width\ninput 8 x 8 x 3\nconv width 3x3\nconv 8 3x3 groups=4\n"
    report = check(text)
    assert codes(report) == ["E401"]
    assert "width % 4 == 0" in report.diagnostics[0].message
    assert check(text, width=12).ok


# ── blocks, branches, holes ──────────────────────────────────────────────────────────────────────

UNET = """\
input H x W x 3
default conv bias=no
block double(c) {
    conv c 3x3 pad=1; batchnorm; relu
    conv c 3x3 pad=1; batchnorm; relu
}
block up(c) { deconv c 2x2 stride=2 }
double 64; skip as enc1; pool max 2
double 128; skip as enc2; pool max 2
double 256; skip as enc3; pool max 2
double 512; skip as enc4; pool max 2
double 1024
up 512; concat enc4; double 512
up 256; concat enc3; double 256
up 128; concat enc2; double 128
up 64; concat enc1; double 64
conv 1 1x1 bias=yes
"""


def edited(text, fix):
    for edit in sorted(fix.edits, key=lambda e: -e.span.start):
        text = text[: edit.span.start] + edit.text + text[edit.span.end :]
    return text


def test_unet_is_refused_with_its_condition_and_two_fixes_that_mend_it():
    report = check(UNET)
    assert codes(report) == ["E304"]
    assert report.valid == "H >= 16 and H % 16 == 0 and W >= 16 and W % 16 == 0"
    (error,) = report.diagnostics
    assert error.span.line == 13
    assert "H % 16 == 0" in error.message
    assert "H = 40 gives 4 and 5" in error.notes[0]
    fixes = [fix for fix in error.fixes if fix.edits]
    assert len(fixes) == 3
    for fix in fixes:
        mended = check(edited(UNET, fix))
        assert mended.ok, (fix.message, messages(mended))
        assert mended.totals.params.constant == 31_037_633


VGG = "input H x W x 3\n" + "conv 8 3x3 pad=same; relu; pool max 2\n" * 3


def test_pools_of_free_sizes_warn_once_of_what_they_lose_and_for_which_sizes():
    report = check(VGG)
    assert report.ok
    (warning,) = report.diagnostics
    assert warning.code == "W601"
    assert warning.message == (
        "the last row or column may never be read, unless H % 2 == 0 and W % 2 == 0"
    )
    assert warning.notes[0] == "for example, W = 33 leaves the last column out here"
    assert [label.span.line for label in warning.labels] == [3, 4]
    promise = warning.fixes[0]
    assert "`require H % 8 == 0, W % 8 == 0`" in promise.message
    assert check(edited(VGG, promise)).diagnostics == ()
    assert check(VGG, H=24, W=8).diagnostics == ()
    assert codes(check(VGG, H=24, W=12)) == ["W601"]  # 3 columns before the last pool


def test_the_promise_that_keeps_all_pixels_keeps_the_lower_bounds_too():
    text = "input H x W x 3\nconv 8 5x5\npool max 3\n"
    (warning,) = check(text).diagnostics
    assert "up to 2 rows or up to 2 columns may never be read" in warning.message
    assert "H % 3 == 1" in warning.message
    assert check(edited(text, warning.fixes[0])).diagnostics == ()
    assert check(edited(text, warning.fixes[0])).valid == (
        "H >= 7 and H % 3 == 1 and W >= 7 and W % 3 == 1"
    )
    promised = "input H x W x 3\nrequire H >= 9, W == 10\nconv 8 5x5\npool max 3\n"
    (warning,) = check(promised).diagnostics
    assert "column" not in warning.message
    assert "`require H % 3 == 1`" in warning.fixes[0].message


def test_pools_that_lose_nothing_of_free_sizes_do_not_warn():
    for line in ("pool max 3 stride=2 pad=1", "pool max 2 ceil=yes", "pool max 3 stride=1"):
        assert codes(check(f"input H x W x 3\n{line}\n")) == [], line
    even = "input H x W x 3\nrequire H % 2 == 0, W % 2 == 0\n"
    assert codes(check(f"{even}pool max 2\n")) == []
    even += "require H >= 4, W >= 4\n"
    assert codes(check(f"{even}pool max 2\npool max 2\n")) == ["W601"]


def test_a_message_tells_how_the_size_came_about():
    lines = ["input 4096 x 64 x 1", *["conv 4 3x3 pad=1; relu", "pool max 2"] * 4, "conv 4 9x9"]
    (error,) = check("\n".join(lines)).diagnostics
    assert error.notes[1] == (
        "its width: 64 → 32 (pool, line 3) → 16 (pool, line 5) → 8 (pool, line 7)"
        " → 4 (pool, line 9)"
    )
    lines = ["input 4096 x 4096 x 1", *["pool max 2"] * 9, "conv 4 9x9"]
    (error,) = check("\n".join(lines)).diagnostics
    assert error.notes[1].startswith("its height: … → 512 → 256 (pool, line 5) → 128 ")
    assert error.notes[1].endswith(" → 8 (pool, line 10)")


RESNET18 = """\
input H x W x 3
default conv bias=no
block residual(c, s) {
    add {
        conv c 3x3 stride=s pad=1 as conv1; batchnorm as bn1; relu
        conv c 3x3 pad=1 as conv2; batchnorm as bn2
    } {
        if channels != c {
            conv c 1x1 stride=s as downsample.0; batchnorm as downsample.1
        } else { skip }
    }
    relu
}
block basic(c, stride=1) {
    if channels == c { residual c 1 } else { residual c stride }
}
conv 64 7x7 stride=2 pad=3 as conv1; batchnorm as bn1; relu
pool max 3 stride=2 pad=1
repeat 2 as layer1 { basic 64 }
repeat 2 as layer2 { basic 128 stride=2 }
repeat 2 as layer3 { basic 256 stride=2 }
repeat 2 as layer4 { basic 512 stride=2 }
expect receptive_field == 435
globalpool avg; flatten
fc 1000 as fc
"""


def test_resnet18_has_the_published_numbers_and_names_for_every_size():
    report = check(RESNET18)
    assert report.ok, messages(report)
    assert report.valid == "H >= 1 and W >= 1"
    assert report.totals.params.constant == 11_689_512
    assert report.totals.macs.evaluate({"H": 224, "W": 224}) == 1_814_073_344
    names = {layer.name for layer in report.layers}
    assert {"conv1", "layer1.0.conv1", "layer2.0.downsample.0", "layer4.1.bn2", "fc"} <= names
    inner = next(n for n in report.graph.nodes if n.path == "layer2.0.downsample.0")
    assert [call.span.line for call in inner.calls] == [20, 15]


@pytest.mark.parametrize(
    ("body", "code", "at"),
    [
        ("block b(c) { conv c 3x3 }\nb", "E202", "b"),
        ("block b(c) { conv c 3x3 }\nb 4 5", "E203", "5"),
        ("block b(c) { conv c 3x3 }\nb 4 d=5", "E204", "d=5"),
        ("block b(c) { conv c 3x3 }\nb 4 c=5", "E205", "c=5"),
        ("block relu(c) { conv c 3x3 }", "E208", "relu"),
        ("block b() { relu }\nblock b() { relu }", "E208", "b"),
        ("bolck 4", "E201", "bolck"),
        ("default cnv pad=same", "E201", "cnv"),
        ("default conv padd=same", "E204", "padd"),
        ("repeat channels - 5 { relu }", "E206", "channels - 5"),
        ("repeat 3 { conv 3 3x3 pad=same as same_name }", "E208", "same_name"),
        ("from nowhere", "E218", "nowhere"),
        ("output nowhere", "E218", "nowhere"),
        ("add { relu }", "E217", "add { relu }"),
        ("add { relu } { conv 4 1x1 }", "E304", "add { relu } { conv 4 1x1 }"),
        ("upsample like nowhere", "E218", "nowhere"),
        ("pool max ? -> 5 x 5 x 3", "E312", "?"),
        ("conv 3 ? pad=?", "E312", "?"),
        ("conv 3 ? pad=? -> 8 x 8 x 3", "E313", "?"),
        ("block b(n) { relu; b n }\nb 1", "E506", None),
        (f"relu as {'.'.join(['a'] * 65)}", "E506", None),
        (
            f"block b {{ relu as {'.'.join(['a'] * 33)} }}\nb as {'.'.join(['c'] * 33)}",
            "E506",
            None,
        ),
        ("repeat 100_000 { relu }", "E505", "relu"),
        ('use "other.cnn"', "E216", '"other.cnn"'),
    ],
)
def test_one_mistake_in_the_whole_language(body, code, at):
    report = check(f"input 8 x 8 x 3\nconv 3 1x1\n{body}\n")
    errors = [(d.code, d.span.text) for d in report.diagnostics if d.severity == "error"]
    assert errors == [(code, at if at is not None else errors[0][1])]


def test_an_if_on_a_free_size_is_decided_by_a_promise():
    text = "input H x W x 3\n{}if H >= 64 {{ pool max 4 }}\nconv 2 1x1\n"
    assert codes(check(text.format(""))) == ["E405"]
    assert check(text.format("require H >= 64, W >= 4\n")).ok
    small = check(text.format("require H < 64\n"))
    assert [layer.kind for layer in small.layers] == ["conv"]


def test_holes_are_filled():
    report = check(
        "input 28 x 28 x 3\nconv ? 3x3 pad=? -> 28 x 28 x 64\npool max ? -> 14 x 14 x 64\n"
    )
    assert report.ok, messages(report)
    assert [layer.args["pad"] for layer in report.layers] == [[1, 1], [0, 0]]
    assert report.layers[1].args["size"] == [2, 2]


def test_branches_by_label_and_outputs():
    report = check(
        "input 8 x 8 x 3\nconv 4 1x1 as a\nconv 4 3x3 pad=same as b\nadd a\n"
        "concat a b -> 8 x 8 x 12\noutput b\nfrom a\nconv 2 1x1\n"
    )
    assert report.ok, messages(report)
    assert report.graph.outputs == (("b", "b"),)
    assert [layer.inputs for layer in report.layers] == [
        ("input",),
        ("a",),
        ("b", "a"),
        ("add1", "a", "b"),
        ("a",),
    ]


def test_blocks_see_where_they_are_defined_not_where_they_are_used():
    text = "let c = 2\nblock b() { conv c 1x1 }\ninput 8 x 8 x 3\nblock outer(c) { b }\nouter 5\n"
    assert check(text).layers[0].output[-1].constant == 2


def test_use_takes_blocks_of_a_file_below_the_folder(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "blocks.cnn").write_text(
        "let c = 5\nblock stage() { conv c 3x3; relu }\n"
    )
    (tmp_path.parent / "secret.cnn").write_text("block stage() { relu }\n")
    (tmp_path / "link.cnn").symlink_to(tmp_path / "parts" / "blocks.cnn")
    main = tmp_path / "main.cnn"

    def run(path):
        text = f'use "{path}"\ninput 8 x 8 x 1\nstage\n'
        main.write_text(text)
        return check_source(Source(str(main), text), {}, tmp_path)

    assert run("parts/blocks.cnn").layers[0].output[-1].constant == 5
    for bad in ("../secret.cnn", str(tmp_path / "parts" / "blocks.cnn"), "link.cnn", "no.cnn"):
        assert "E216" in codes(run(bad)), bad
    (tmp_path / "parts" / "blocks.cnn").write_text('use "../main.cnn"\n')
    assert "E216" in codes(run("parts/blocks.cnn"))
