"""Lines of other frameworks: each row of the table proposes a line that means what the row means.

PyTorch's rows are held against the modules themselves, Keras's against its documented sizes.
`CNNDSL_MANY=1` draws more arguments.
"""

import os
import random
import re
import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnndsl.check import check_source
from cnndsl.diagnostics.fix import apply
from cnndsl.source import Source
from cnndsl.syntax.foreign.table import MISSING, ROWS
from cnndsl.syntax.foreign.translate import Signature
from cnndsl.syntax.foreign.words import LAYERS, OPTIONS

DRAWN = 60 if os.environ.get("CNNDSL_MANY") == "1" else 4
HEIGHT, WIDTH, CHANNELS = 24, 20, 8
IMAGE = f"input {HEIGHT} x {WIDTH} x {CHANNELS}"
ON_VECTORS = ("Linear", "Dense", "BatchNorm1d", "LayerNorm", "LayerNormalization")


def diagnosed(line, above=IMAGE):
    source = Source("foreign.cnn", f"{above}\n{line}\n")
    return source, check_source(source)


def mended(line, above=IMAGE):
    """The text that the first fix makes of a file, and what checking says of it."""
    source, report = diagnosed(line, above)
    fix = next((f for d in report.diagnostics for f in d.fixes if f.edits), None)
    assert fix is not None, (line, [(d.code, d.message) for d in report.diagnostics])
    text = apply(source.text, (fix,))
    return text.removeprefix(f"{above}\n").rstrip("\n"), check_source(Source("mended.cnn", text))


# ── PyTorch ──────────────────────────────────────────────────────────────────────────────────────

VALUES = {
    "in_channels": [CHANNELS],
    "in_features": [CHANNELS],
    "num_features": [CHANNELS],
    "num_channels": [CHANNELS],
    "normalized_shape": [CHANNELS],
    "num_parameters": [CHANNELS],
    "out_channels": [4, 16],
    "out_features": [10],
    "kernel_size": [1, 2, 3, (3, 5), (5, 5)],
    "stride": [1, 2, (1, 2)],
    "padding": [0, 1, (1, 0)],
    "output_padding": [0],
    "dilation": [1, 2],
    "groups": [1, 2, 4],
    "num_groups": [1, 2, 8],
    "bias": [True, False],
    "eps": [1e-5, 0.001],
    "momentum": [0.1, 0.01],
    "affine": [True],
    "ceil_mode": [True, False],
    "count_include_pad": [True, False],
    "output_size": [1, (1, 1), 7, (3, 5)],
    "negative_slope": [0.01, 0.2],
    "alpha": [0.0001, 0.002],
    "beta": [0.75, 0.5],
    "k": [1.0, 2.0],
    "size": [5, 3],
    "scale_factor": [2, 3],
    "mode": ["nearest", "bilinear"],
    "p": [0.2, 0.5],
    "inplace": [True, False],
    "dim": [1],
}
FIXED = {  # where a layer takes other values than others of that name
    "ZeroPad2d": {"padding": [2, (1, 2, 3, 4)]},
    "ELU": {"alpha": [1.0]},
    "Upsample": {"size": [None]},
    "UpsamplingNearest2d": {"size": [None]},
    "AvgPool2d": {"padding": [0]},
    "MaxPool2d": {"padding": [0], "kernel_size": [2, 3, (3, 2)]},
    "avg_pool2d": {"padding": [0]},
    "max_pool2d": {"padding": [0], "kernel_size": [2, 3, (3, 2)]},
    "elu": {"alpha": [1.0]},
    "flatten": {"start_dim": [1]},
    "ConvTranspose2d": {"padding": [0, 1]},
    "interpolate": {"size": [None]},
    "pad": {"pad": [(1, 2, 0, 3)], "mode": ["constant"]},
}
TORCH = [row for row in ROWS if row.framework == "PyTorch"]
MODULES = [row for row in TORCH if Signature(row).name[0].isupper()]
FUNCTIONS = [row for row in TORCH if Signature(row).name[0].islower()]


def name_of(row):
    return Signature(row).name


def draw(signature, rng, always=()):
    """Arguments by their names: the required ones, and some of the others."""
    values = VALUES | FIXED.get(signature.name, {})
    given = {}
    for name in signature.names:
        needed = name in signature.required or name in always
        if name in values and (needed or rng.random() < 0.4):
            given[name] = rng.choice(values[name])
    return given


def written(given, signature, rng):
    """The arguments as Python writes them, the first ones often without their names."""
    words, by_place = [], rng.random() < 0.7
    for name in signature.names:
        by_place = by_place and name in given
        if name in given:
            words.append(repr(given[name]) if by_place else f"{name}={given[name]!r}")
    return ", ".join(words)


def shape_of(report):
    return tuple(dim.constant for dim in report.layers[-1].output)


@pytest.mark.parametrize("row", MODULES, ids=name_of)
def test_a_module_of_pytorch_becomes_the_same_layer(row):
    signature = Signature(row)
    always = {"InstanceNorm2d": ["affine"], "PReLU": ["num_parameters"]}.get(signature.name, [])
    always += ["scale_factor"] * signature.name.startswith("Upsampl")
    always += ["dim"] * (signature.name == "Softmax")
    for seed in range(DRAWN):
        rng = random.Random(f"{signature.name} {seed}")
        given = draw(signature, rng, always)
        on_vector = signature.name in ON_VECTORS
        module = getattr(nn, signature.name)(**given)
        x = torch.zeros((2, CHANNELS) if on_vector else (2, CHANNELS, HEIGHT, WIDTH))
        wanted = module(x).shape[1:]
        line = f"{rng.choice(['nn.', 'torch.nn.'])}{signature.name}("
        line += f"{written(given, signature, rng)})"
        text, report = mended(line, f"input {CHANNELS}" if on_vector else IMAGE)
        assert report.ok, (line, text, [d.message for d in report.diagnostics])
        made = shape_of(report)
        assert (made if len(made) == 1 else (made[2], *made[:2])) == tuple(wanted), (line, text)
        counted = sum(p.numel() for p in module.parameters())
        assert report.totals.params.constant == counted, (line, text)


@pytest.mark.parametrize("row", FUNCTIONS, ids=name_of)
def test_a_function_of_pytorch_becomes_the_same_layer(row):
    signature = Signature(row)
    x = torch.zeros(2, CHANNELS, HEIGHT, WIDTH)
    if signature.name in ("view", "reshape"):
        for line in (f"x.{signature.name}(x.size(0), -1)", f"x = x.{signature.name}(-1, 3840)"):
            assert mended(line)[0] == "flatten"
        return
    always = {"interpolate": ["scale_factor"], "softmax": ["dim"], "flatten": ["start_dim"]}
    always = always.get(signature.name, [])
    for seed in range(DRAWN):
        rng = random.Random(f"{signature.name} {seed}")
        given = draw(signature, rng, always)
        function = getattr(F, signature.name, None) or getattr(torch, signature.name)
        wanted = function(x, **given).shape[1:]
        rest = ", ".join(f"{name}={value!r}" for name, value in given.items())
        owner = "F" if hasattr(F, signature.name) else "torch"
        line = f"x = {owner}.{signature.name}(x{', ' if rest else ''}{rest})"
        text, report = mended(line)
        assert report.ok, (line, text, [d.message for d in report.diagnostics])
        made = shape_of(report)
        assert (made if len(made) == 1 else (made[2], *made[:2])) == tuple(wanted), (line, text)


# ── Keras ────────────────────────────────────────────────────────────────────────────────────────

# A line, what it is here, and the shape that Keras documents for it on 24 x 20 x 8.
KERAS = [
    ('Conv2D(16, (3, 3), padding="same", activation="relu")', "conv 16 3x3 pad=same; relu", None),
    ("Conv2D(16, 3, strides=2)", "conv 16 3x3 stride=2", (11, 9, 16)),
    ('Conv2D(16, 2, padding="same")', "pad 0 1 0 1; conv 16 2x2", (24, 20, 16)),
    ('Conv2D(16, 4, padding="same")', "pad 1 2 1 2; conv 16 4x4", (24, 20, 16)),
    ('Conv2D(16, 1, strides=2, padding="same")', "conv 16 1x1 stride=2", (12, 10, 16)),
    ("Conv2D(filters=4, kernel_size=(1, 5))", "conv 4 1x5", (24, 16, 4)),
    ('DepthwiseConv2D(3, padding="same")', "conv channels 3x3 pad=same groups=channels", None),
    (
        "SeparableConv2D(16, 3)",
        "conv channels 3x3 groups=channels bias=no; conv 16 1x1",
        (22, 18, 16),
    ),
    ("Conv2DTranspose(4, 2, strides=2)", "deconv 4 2x2 stride=2", (48, 40, 4)),
    (
        'Conv2DTranspose(4, 3, strides=2, padding="same")',
        "deconv 4 3x3 stride=2; crop 0 1 0 1",
        (48, 40, 4),
    ),
    (
        'Conv2DTranspose(4, 4, strides=2, padding="same")',
        "deconv 4 4x4 stride=2 pad=1",
        (48, 40, 4),
    ),
    ("Conv2DTranspose(4, 1, strides=2)", "deconv 4 1x1 stride=2 output_pad=1", (48, 40, 4)),
    ("MaxPooling2D()", "pool max 2", (12, 10, 8)),
    ("MaxPooling2D((2,2))", "pool max 2", (12, 10, 8)),
    ("MaxPool2D(3, strides=2)", "pool max 3 stride=2", (11, 9, 8)),
    ('MaxPooling2D(2, padding="same")', "pool max 2 ceil=yes", (12, 10, 8)),
    ('MaxPooling2D(3, strides=1, padding="same")', "pool max 3 stride=1 pad=same", (24, 20, 8)),
    (
        'AveragePooling2D(3, strides=1, padding="same")',
        "pool avg 3 stride=1 pad=same count_pad=no",
        (24, 20, 8),
    ),
    ("GlobalAveragePooling2D()", "globalpool avg; flatten", (8,)),
    ("GlobalMaxPooling2D(keepdims=True)", "globalpool max", (1, 1, 8)),
    ("BatchNormalization()", "batchnorm eps=0.001 momentum=0.01", None),
    ("BatchNormalization(momentum=0.9, epsilon=1e-5)", "batchnorm", None),
    ("LayerNormalization()", "layernorm 0.001", None),
    ("GroupNormalization(groups=4)", "groupnorm 4 eps=0.001", None),
    ('Activation("swish")', "silu", None),
    ("ReLU(max_value=6)", "relu6", None),
    ("layers.LeakyReLU()", "leaky_relu 0.3", None),
    ("LeakyReLU(alpha=0.1)", "leaky_relu 0.1", None),
    ("keras.layers.ELU()", "elu", None),
    ("PReLU(shared_axes=[1, 2])", "prelu", None),
    ("layers.Softmax()", "softmax", None),
    ("SpatialDropout2D(0.25)", "dropout2d 0.25", None),
    ("layers.Flatten()", "flatten", (3840,)),
    ("layers.Identity()", "skip", None),
    ("UpSampling2D((2, 2), interpolation='bilinear')", "upsample 2 bilinear", (48, 40, 8)),
    ("ZeroPadding2D(((0, 1), (2, 3)))", "pad 0 1 2 3", (25, 25, 8)),
    ("Cropping2D(2)", "crop 2 2 2 2", (20, 16, 8)),
]


@pytest.mark.parametrize(("line", "wanted", "shape"), KERAS, ids=lambda value: str(value)[:40])
def test_a_line_of_keras_becomes_one_of_ours(line, wanted, shape):
    for form in (line, f"model.add({line})", f"x = {line}(x)", f"{line},"):
        text, report = mended(form)
        assert text == wanted
        assert report.ok
        if shape is not None:
            assert shape_of(report) == shape


def test_every_row_of_keras_is_tried():
    tried = {re.match(r"(?:[a-z]+\.)*(\w+)", line)[1] for line, _, _ in KERAS}
    tried |= {"Dense", "Dropout", "Input", "InputLayer"}  # below
    assert {name_of(row) for row in ROWS if row.framework == "Keras"} == tried


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ('Dense(10, activation="softmax")', "fc 10; softmax"),
        ("layers.Dropout(0.3)", "dropout 0.3"),
        ("Linear(8, 10)", "fc 10"),
        ("Dropout(0.2)", "dropout 0.2"),
        ("nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))", "fc 4; relu; fc 2"),
        ("self.fc1 = nn.Linear(8, 10)", "fc 10 as fc1"),
        ("x = F.relu(F.dropout(x, 0.5))", "dropout; relu"),
        ("relu()", "relu"),
        ("relu(x)", "relu"),
        ("Dense(\n    10,  # classes\n    use_bias=False,\n)", "fc 10 bias=no"),
    ],
)
def test_lines_on_a_vector(line, wanted):
    text, report = mended(line, "input 8")
    assert text == wanted
    assert report.ok


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("Input(shape=(28, 28, 1))", "input 28 x 28 x 1"),
        ("keras.Input((None, None, 3))", "input H x W x 3"),
        ("InputLayer(input_shape=(784,))", "input 784"),
        ("InputLayer(shape=(8, 8, 3))", "input 8 x 8 x 3"),
        ("input(28, 28, 1)", "input 28 x 28 x 1"),
        (
            "Conv2D(32, 3, activation='relu', input_shape=(28, 28, 1))",
            "input 28 x 28 x 1; conv 32 3x3; relu",
        ),
    ],
)
def test_what_comes_in(line, wanted):
    source = Source("first.cnn", f"{line}\nrelu\n")
    (found,) = [d for d in check_source(source).diagnostics if d.code == "E118"]
    assert apply(source.text, found.fixes) == f"{wanted}\nrelu\n"


# ── Darknet and Caffe ────────────────────────────────────────────────────────────────────────────

KEYED = [
    (
        "[convolutional]\nbatch_normalize=1\nfilters=32\nsize=3\nstride=1\npad=1\nactivation=leaky",
        "conv 32 3x3 pad=1 bias=no; batchnorm momentum=0.01; leaky_relu 0.1",
    ),
    ("[convolutional]\n# head\nfilters = 5\nactivation=linear\n", "conv 5 1x1"),
    ("[maxpool]\nsize=2\nstride=2", "pool max 2 ceil=yes"),
    ("[maxpool]\nsize=3\nstride=1", "pool max 3 stride=1 pad=1"),
    ("[avgpool]", "globalpool avg"),
    ("[dropout]\nprobability=.5", "dropout 0.5"),
    ("[softmax]\ngroups=1", "softmax"),
    ("[upsample]\nstride=2", "upsample 2 nearest"),
    ("convolution_param { num_output: 20 kernel_size: 5 }", "conv 20 5x5"),
    (
        'layer {\n  name: "c"\n  type: "Convolution"\n  bottom: "data"\n  top: "c"\n'
        "  convolution_param {\n    num_output: 20\n    kernel_size: 5\n    pad: 2\n  }\n}",
        "conv 20 5x5 pad=2",
    ),
    (
        'layer { type: "Pooling" pooling_param { pool: MAX kernel_size: 3 stride: 2 } }',
        "pool max 3 stride=2 ceil=yes",
    ),
    ('layer { name: "r" type: "ReLU" bottom: "a" top: "a" }', "relu"),
    ('layer { type: "Dropout" dropout_param { dropout_ratio: 0.4 } }', "dropout 0.4"),
]


@pytest.mark.parametrize(("lines", "wanted"), KEYED)
def test_sections_and_layers_become_lines(lines, wanted):
    text, report = mended(lines)
    assert text == wanted
    assert report.ok


# ── what is not the same is said, and not written ────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nn.Conv2d(8, 16, 3, padding_mode='reflect')", "padding_mode"),
        ("Conv2D(16, 3, strides=2, padding='same')", "stride"),
        ("Conv2D(16, 3, kernel_initializer='he_normal')", "kernel_initializer"),
        ("Conv2D(16, 3, activation='mish')", "mish"),
        ("Conv2D(16, 3, data_format='channels_first')", "data_format"),
        ("MaxPooling2D(3, strides=2, padding='same')", "same"),
        ("nn.InstanceNorm2d(8)", "factor"),
        ("nn.PReLU()", "slope"),
        ("nn.ELU(alpha=0.5)", "alpha"),
        ("nn.Upsample(scale_factor=2, mode='bilinear', align_corners=True)", "align_corners"),
        ("nn.Upsample(scale_factor=1.5)", "1.5"),
        ("nn.GELU('tanh')", "approximate"),
        ("x = torch.flatten(x)", "start_dim"),
        ("LeakyReLU()", "leaky_relu 0.3"),
        ("nn.LSTM(8, 4)", "convolutional"),
        ("nn.Conv2d(8, 16)", "kernel_size"),
        ("nn.Conv2d(8, 16, 3, colour=1)", "colour"),
        ("x = self.conv1(x)", "forward"),
        ("x = self.pool(F.relu(self.conv1(x)))", "forward"),
        ("[maxpool]\nsize=2\nstride=1", "one side"),
        ("[convolutional]\nfilters=4\nbinary=1\nactivation=relu", "binary"),
        ("[yolo]\nmask=1", "detection"),
        ('layer { type: "Convolution" convolution_param { num_output: 20 } }', "kernel_size"),
        (
            'layer { type: "InnerProduct" inner_product_param { num_output: 9 '
            'weight_filler { type: "xavier" } } }',
            "weight_filler",
        ),
    ],
)
def test_what_is_not_the_same_is_said_without_an_edit(line, said):
    _, report = diagnosed(line)
    found = [d for d in report.diagnostics if d.code == "E118"]
    assert len(found) == 1
    words = [found[0].message, *found[0].notes, *(fix.message for fix in found[0].fixes)]
    assert any(said in text for text in words), words
    assert not any(fix.edits for fix in found[0].fixes)


@pytest.mark.parametrize("name", sorted(MISSING))
def test_what_has_no_counterpart_says_what_to_do(name):
    owner = "nn." if name[0].isupper() else "model."
    _, report = diagnosed(f"{owner}{name}(3)")
    assert [d.code for d in report.diagnostics] == ["E118"]
    assert report.diagnostics[0].fixes[0].message == MISSING[name]


# ── whole files, single words, and other texts ───────────────────────────────────────────────────

CLASS = """\
import torch.nn as nn
from torch import optim
input 24 x 24 x 8
class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(8, 16, 3, padding=1)  # first
        self.norm = nn.BatchNorm2d(16)
model = nn.Sequential(
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(16 * 12 * 12, 10),
)
"""


def test_a_file_of_python_becomes_a_network_line_by_line():
    text = CLASS
    for _ in range(6):
        source = Source("net.cnn", text)
        report = check_source(source)
        edits = [next((f for f in d.fixes if f.edits), None) for d in report.diagnostics]
        text = apply(text, [fix for fix in edits if fix is not None])
    report = check_source(Source("net.cnn", text))
    assert report.ok, text
    assert report.model == "Net"
    assert "# first" in text
    assert [layer.name for layer in report.layers][:2] == ["conv1", "norm"]
    assert shape_of(report) == (10,)


@pytest.mark.parametrize("word", sorted(LAYERS))
def test_a_word_for_a_layer_names_ours(word):
    _, report = diagnosed(word)
    (found,) = [d for d in report.diagnostics if d.code == "E201"]
    meant = LAYERS[word].split(" ")[0]
    assert meant in found.fixes[0].message


@pytest.mark.parametrize("word", ["padding", "strides", "dilation_rate", "use_bias", "group"])
def test_a_word_for_an_option_becomes_ours_with_the_name_of_the_layer(word):
    value = "True" if word == "use_bias" else "1"
    text, report = mended(f"conv2d 16 3x3 {word}={value}")
    assert text == f"conv 16 3x3 {OPTIONS[word]}={'yes' if word == 'use_bias' else '1'}"
    assert report.ok


@pytest.mark.parametrize(
    "text",
    [
        "nn.Conv2d(" * 20_000,
        "nn.Conv2d(" + "(" * 200_000,
        "a=" * 300_000,
        "nn.Conv2d(3, 4, 3)\n" * 20_000,
        "[convolutional]\n" * 30_000,
        "[convolutional]\n" + "filters=3\n" * 9_000,
        "layer {" * 20_000,
        "layer { a: " * 12_000,
        "x = f(\n" * 30_000,
        "nn.X(" + "1+" * 100_000 + "1)",
        "nn.X(" + "9" * 100_000 + ")",
        "nn.X(" + "9*" * 300 + "9)",
        "F.relu(" * 300 + "x" + ")" * 300,
        "nn.Sequential(" + "nn.ReLU(), " * 5_000 + ")",
        ".a" * 200_000,
        "import a\n" * 40_000,
        "class " + "A" * 500_000,
    ],
    ids=lambda text: text[:12].replace("\n", " "),
)
def test_long_texts_take_little_time(text):
    start = time.process_time()
    assert not check_source(Source("long.cnn", f"{IMAGE}\n{text}\n")).ok
    assert time.process_time() - start < 4
