"""Lines as beginners write them, and what the first fix makes of each."""

import pytest
import torch

import cnndsl
from cnndsl.check import check_source
from cnndsl.diagnostics.fix import apply
from cnndsl.source import Source

IMAGE = "input 28 x 28 x 3\n"
LINES = [
    ("dense 10", "fc 10"),
    ("linear 10", "fc 10"),
    ("maxpool", "pool max 2"),
    ("maxpool 2", "pool max 2"),
    ("avgpool 3 stride=2", "pool avg 3 stride=2"),
    ("globalavgpool", "globalpool avg"),
    ("convo 10 5x5 padding=2", "conv 10 5x5 pad=2"),
    ("convolution 10 5x5 strides=2 padding=valid", "conv 10 5x5 stride=2 pad=0"),
    ("conv2d 10 5x5 use_bias=False", "conv 10 5x5 bias=no"),
    ("conv3x3 6 stride=2", "conv 6 3x3 stride=2"),
    ("conv5 6", "conv 6 5x5"),
    ("batchnorm2d 3", "batchnorm"),
    ("batchnorm 3", "batchnorm"),
    ("leakyrelu 0.1", "leaky_relu 0.1"),
    ("leaky_relu alpha=0.1", "leaky_relu slope=0.1"),
    ("instancenorm", "groupnorm channels"),
    ("activation relu", "relu"),
    ("conv 10 5x5 same", "conv 10 5x5 pad=same"),
    ("pool max 3 stride=1 same", "pool max 3 stride=1 pad=same"),
    ("conv 6 5x5 relu", "conv 6 5x5; relu"),
    ("conv 6 5x5 -> relu", "conv 6 5x5; relu"),
    ("conv 6 5x5 as c1 -> batchnorm", "conv 6 5x5 as c1; batchnorm"),
    ("conv 6 5x5 batchnorm relu", "conv 6 5x5; batchnorm; relu"),
    ("conv 6 5x5 relu as c1 -> 24 x 24 x 6", "conv 6 5x5 as c1 -> 24 x 24 x 6; relu"),
    ("conv 6 5x5 activation=relu", "conv 6 5x5; relu"),
    ('conv 6 5x5 activation="relu" as c1', "conv 6 5x5 as c1; relu"),
    ("conv 6 5x5 nobias", "conv 6 5x5 bias=no"),
    ("conv 6 5x5 bias=0", "conv 6 5x5 bias=no"),
    ("pool max 3 ceil=1", "pool max 3 ceil=yes"),
    ("batchnorm affine=0", "batchnorm affine=no"),
    ("hswish", "hardswish"),
    ("hsigmoid", "hardsigmoid"),
    ("conv 6 5x5 stride 2", "conv 6 5x5 stride=2"),
    ("pool 2 max", "pool max 2"),
    ("pool 3x3 avg stride=1", "pool avg 3x3 stride=1"),
    ("upsample nearest 2", "upsample 2 nearest"),
    ("conv 5x5 6", "conv 6 5x5"),
    ("conv 5x5 6 pad=2", "conv 6 5x5 pad=2"),
    ("deconv 2x2 6 stride=2", "deconv 6 2x2 stride=2"),
    ("conv 6 5*5", "conv 6 5x5"),
    ("pool max 2*2", "pool max 2x2"),
    ("conv 6 5x5 pad=2*2", "conv 6 5x5 pad=2x2"),
    ("conv 6 5X5", "conv 6 5x5"),
    ("conv 6 5x5, relu", "conv 6 5x5; relu"),
    ("conv 6, 5x5, relu, pool max 2", "conv 6 5x5; relu; pool max 2"),
    ("dropout rate=0.5", "dropout p=0.5"),
    ("globalpool", "globalpool avg"),
    ("upsample 2x2 nearest", "upsample 2 nearest"),
    ("conv 6 (5, 5)", "conv 6 5x5"),
    ("conv 6 [5, 5]", "conv 6 5x5"),
    ("conv 6 5x5 pad=valid", "conv 6 5x5 pad=0"),
    ('conv 6 5x5 pad="valid"', "conv 6 5x5 pad=0"),
    ("conv 6 5x5 padding=valid", "conv 6 5x5 pad=0"),
    ("conv filters=6 kernel_size=5", "conv 6 5"),
    ("conv size=3 filters=32", "conv 32 3"),
    ("conv kernel_size=3 filters=32 pad=1", "conv 32 3 pad=1"),
    ("conv 6 kernel_size=5x5", "conv 6 5x5"),
    ("conv kernel_size=5 6", "conv 6 5"),
    ("conv(6, 5, padding=2)", "conv 6 5 pad=2"),
    ("relu()", "relu"),
    ("relu(x)", "relu"),
    ("flatten()", "flatten"),
    ("softmax(dim=1)", "softmax"),
    ("RELU", "relu"),
    ("dropout 20%", "dropout 0.2"),
    ("dropout 20", "dropout 0.2"),
    ("dropout p=35", "dropout p=0.35"),
    ("residual { conv 3 3x3 pad=same }", "add { skip } { conv 3 3x3 pad=same }"),
    (
        "repeat 5 { conv 3 3x3 pad=same } as L",
        "repeat 5 as L { conv 3 3x3 pad=same }",
    ),
    ("repeat 2 {\n    relu\n} as L", "repeat 2 as L {\n    relu\n}"),
]


@pytest.mark.parametrize(("line", "wanted"), LINES)
def test_the_first_fix_of_a_line_is_what_was_meant(line, wanted):
    source = Source("line.cnn", f"{IMAGE}{line}\n")
    report = check_source(source)
    assert not report.ok
    fix = next(f for d in report.diagnostics for f in d.fixes if f.edits)
    text = apply(source.text, (fix,)).removeprefix(IMAGE).rstrip("\n")
    assert text == wanted
    after = check_source(Source("line.cnn", f"{IMAGE}{text}\n"))
    # A fully connected layer still wants `flatten`; nothing else is left.
    errors = {d.code for d in after.diagnostics if d.severity == "error"}
    assert errors <= ({"E303"} if "fc" in wanted else set())


@pytest.mark.parametrize(
    "line", ["conv 6 (5*5)", "conv 2*3 3x3", "let k = 2\nconv 6 2*k", "upsample 2*2 nearest"]
)
def test_products_that_are_meant_are_taken(line):
    assert check_source(Source("line.cnn", f"{IMAGE}{line}\n")).ok


@pytest.mark.parametrize("word", ["lstm", "conv1d", "selu"])
def test_layers_that_are_not_here_say_what_to_do(word):
    (found,) = check_source(Source("line.cnn", f"{IMAGE}{word} 4\n")).diagnostics
    assert found.code == "E201"
    assert not found.fixes[0].edits


def test_the_input_can_be_read_again():
    text = "input 8 x 8 x 4\nconv 4 3x3 pad=1; relu\nadd input as a\nfrom input; relu\nconcat a\n"
    model = cnndsl.compile(source=text).eval()
    x = torch.randn(2, 4, 8, 8)
    (conv,) = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    wanted = torch.cat([x.relu(), conv(x).relu() + x], 1)
    torch.testing.assert_close(model(x), wanted)


def test_the_input_is_no_output():
    assert not check_source(Source("out.cnn", f"{IMAGE}relu\noutput input\n")).ok


def test_a_label_in_a_block_may_be_called_input():
    block = "block b { conv 5 3x3 as input; relu; from input; relu }"
    report = check_source(Source("own.cnn", f"{IMAGE}{block}\nb as one\n"))
    assert str(report.layers[-1].output[-1]) == "5"
