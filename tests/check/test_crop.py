"""A forgotten crop: where the skip is larger, it is cropped, and never made smaller otherwise."""

import pytest

from cnndsl.check import check_source
from cnndsl.cli.main import main
from cnndsl.source import Source


def unet(size, merge, levels=4, body="    conv n 3x3; relu\n    conv n 3x3; relu"):
    """A U-Net of valid convolutions; `merge` is written with `LABEL` where the skip comes in."""
    channels = [4 * 2**level for level in range(levels)]
    lines = [f"input {size} x 1", f"block double(n) {{\n{body}\n}}"]
    for level, n in enumerate(channels, 1):
        lines += [f"double {n}", f"skip as enc{level}", "pool max 2"]
    lines.append(f"double {2 * channels[-1]}")
    for level, n in reversed(list(enumerate(channels, 1))):
        lines += [f"deconv {n} 2x2 stride=2", merge.replace("LABEL", f"enc{level}"), f"double {n}"]
    return "\n".join([*lines, "conv 2 1x1"]) + "\n"


def mended(text, tmp_path, capsys):
    """The text after `--fix`, which leaves no error, and what was said."""
    path = tmp_path / "unet.cnn"
    path.write_text(text)
    main(["check", str(path), "--fix"])
    told = capsys.readouterr().err
    after = path.read_text()
    assert ": left E" not in told, (after, told)
    return after


def sizes(text, **settings):
    report = check_source(Source("a.cnn", text), settings)
    assert report.ok, text
    return [dim.constant for dim in report.layers[-1].output]


@pytest.mark.parametrize(
    "merge",
    [
        "concat LABEL",
        "concat { from LABEL } { skip }",
        "add { skip } { from LABEL }",
        "concat { from LABEL } { relu; conv 8 1x1 }",
        "concat { relu } { from LABEL; relu }",
    ],
)
def test_a_forgotten_crop_is_mended_at_every_level(merge, tmp_path, capsys):
    after = mended(unet("572 x 572", merge), tmp_path, capsys)
    assert sizes(after) == [388, 388, 2]
    assert after.count("crop like") == 4
    assert "upsample" not in after


@pytest.mark.parametrize("merge", ["add LABEL", "concat { from LABEL } { skip }"])
def test_a_forgotten_crop_is_mended_for_free_sizes(merge, tmp_path, capsys):
    after = mended(unet("H x W", merge, 2), tmp_path, capsys)
    assert sizes(after, H=188, W=188) == [148, 148, 2]
    assert after.count("crop like") == 2


@pytest.mark.parametrize("merge", ["concat { from LABEL } { skip }"])
def test_each_level_of_a_large_network_gets_its_edit_at_once(merge):
    body = "    repeat 2 { conv n 3x3; batchnorm; relu }\n    repeat 15 { conv n 1x1; relu }"
    report = check_source(Source("a.cnn", unet("572 x 572", merge, body=body)))
    assert len(report.layers) > 330
    assert [d.code for d in report.diagnostics] == ["E304"] * 4
    for diagnostic in report.diagnostics:
        assert "crop like" in diagnostic.fixes[0].edits[-1].text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (  # a label would be taken in the second use
            "block b(n) {\n    add { skip } {\n        conv n 3x3\n        relu\n    }\n}\n"
            "b 8\nb 8\n",
            "    add { crop 1 1 1 1 } {",
        ),
        ("repeat 3 { add { conv 8 2x4 } { skip } }\n", "crop 0 1 1 2"),
        (
            "repeat 3 as r {\n    skip as x\n    conv 8 3x3\n    add x\n}\n",
            "    add { skip } { from x; crop like conv1 }",
        ),
        ("concat { conv 8 3x1 } { conv 8 1x3 }\n", "{ conv 8 3x1; crop 0 0 1 1 } { conv 8 1x3; cr"),
        ("multiply { conv 8 3x3 } { sigmoid }\n", "{ conv 8 3x3 as conv1 } { sigmoid; crop like"),
        (
            "conv 8 3x3 as a\nconv 8 3x3 as b\nconv 8 3x3 as c\nfrom b\nconcat a c\n",
            "concat { crop like c } { from a; crop like c } { from c }",
        ),
    ],
)
@pytest.mark.parametrize("size", ["40 x 40", "H x W"])
def test_a_crop_where_the_merge_stands(size, text, line, tmp_path, capsys):
    after = mended(f"input {size} x 8\n{text}", tmp_path, capsys)
    assert line in after
    assert "upsample" not in after


def test_where_the_current_tensor_is_larger_it_is_cropped():
    text = "input 20 x 20 x 3\nconv 8 3x3 as a\nconv 8 3x3 as b\nfrom a\nadd b\n"
    (error,) = check_source(Source("a.cnn", text)).diagnostics
    edits = [edit.text for fix in error.fixes for edit in fix.edits]
    assert edits == ["crop like b\n", "crop 1 1 1 1\n"]
