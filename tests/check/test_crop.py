"""A forgotten crop: where the skip is larger, it is cropped, and never made smaller otherwise."""

import pytest

from cnndsl.check import check_source
from cnndsl.cli.main import main
from cnndsl.source import Source

UNET = """\
input {size} x 1
block double(n) {{
    conv n 3x3; relu
    conv n 3x3; relu
}}
double 8 as enc1; pool max 2{ceil}
double 16 as enc2; pool max 2{ceil}
double 32
deconv 16 2x2 stride=2
{merge} enc2
double 16
deconv 8 2x2 stride=2 as up1
{merge} enc1
double 8
conv 2 1x1
"""


@pytest.mark.parametrize("merge", ["concat", "add"])
@pytest.mark.parametrize("size", ["188 x 188", "H x W"])
def test_a_forgotten_crop_is_mended_at_every_level(size, merge, tmp_path, capsys):
    text = UNET.format(size=size, merge=merge, ceil=" ceil=yes")
    path = tmp_path / "unet.cnn"
    path.write_text(text)
    main(["check", str(path), "--fix"])
    mended = path.read_text()
    told = capsys.readouterr().err
    settings = {} if "H" not in size else {"H": 188, "W": 188}
    report = check_source(Source("a.cnn", mended), settings)
    assert report.ok, (mended, told)
    assert "upsample" not in mended
    assert mended.count("crop like") == 2
    assert [dim.constant for dim in report.layers[-1].output] == [148, 148, 2]


def test_where_the_current_tensor_is_larger_it_is_cropped():
    text = "input 20 x 20 x 3\nconv 8 3x3 as a\nconv 8 3x3 as b\nfrom a\nadd b\n"
    (error,) = check_source(Source("a.cnn", text)).diagnostics
    assert [edit.text for fix in error.fixes for edit in fix.edits] == ["crop like b\n"]
