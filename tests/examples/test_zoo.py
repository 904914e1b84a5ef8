"""The zoo: published networks, with the numbers and the names that were published with them."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F

import cnndsl
from cnndsl.source import Source
from cnndsl.syntax.format import format_text
from tests.examples.oracle import MODELS, torchvision_model

torch.set_num_threads(1)
ZOO = Path(__file__).parent.parent.parent / "examples" / "zoo"
FILES = sorted(path.stem for path in ZOO.glob("*.cnn"))


class Published(NamedTuple):
    """MACs are those of convolutions and fully connected layers, at the usual size."""

    params: int
    macs: int
    sees: int | None = None  # the pixels, along a side, under the last pixel before it is pooled
    least: int = 1  # the smallest height and width
    size: int = 224


PUBLISHED = {
    "alexnet": Published(61_100_840, 714_188_480, sees=195, least=63),
    "vgg11": Published(132_863_336, 7_609_090_048, sees=150, least=32),
    "vgg16": Published(138_357_544, 15_470_264_320, sees=212, least=32),
    "vgg16_bn": Published(138_365_992, 15_470_264_320, sees=212, least=32),
    "squeezenet1_0": Published(1_248_424, 818_924_576, least=21),
    "squeezenet1_1": Published(1_235_496, 349_151_936, least=17),
    "resnet18": Published(11_689_512, 1_814_073_344, sees=435),
    "resnet34": Published(21_797_672, 3_663_761_408, sees=899),
    "resnet50": Published(25_557_032, 4_089_184_256, sees=427),
    "mobilenet_v2": Published(3_504_872, 300_774_272),
    "densenet121": Published(7_978_856, 2_834_161_664, least=29),
    "resnet20_cifar": Published(269_722, 40_551_040, size=32),
    "allcnn_c": Published(1_369_738, 270_798_336, size=32),
    "nin": Published(966_986, 222_486_528, size=32),
    "darknet19": Published(20_842_376, 2_790_989_824, least=32),
    "unet": Published(31_037_633, 734_976 * 224 * 224, least=16),
}


def path(name):
    return ZOO / f"{name}.cnn"


def at(name, size):
    """The report for square images of that size."""
    free = cnndsl.check(path(name)).symbols
    return cnndsl.check(path(name), **dict.fromkeys(free, size))


def test_every_file_is_held_to_published_numbers():
    assert set(FILES) == set(PUBLISHED)
    assert set(MODELS) <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_counts(name):
    published = PUBLISHED[name]
    report = cnndsl.check(path(name))
    assert report.ok
    assert report.totals.params.constant == published.params
    usual = dict.fromkeys(report.symbols, published.size)
    assert report.totals.macs.evaluate(usual) == published.macs


@pytest.mark.parametrize("name", [name for name, known in PUBLISHED.items() if known.sees])
def test_receptive_field(name):
    layers = {layer.name: layer for layer in cnndsl.check(path(name)).layers}
    whole = next(x for x in layers.values() if x.kind == "globalpool" or "to" in x.args)
    field = layers[whole.inputs[0]].receptive_field
    assert [side.constant for side in field.size] == [PUBLISHED[name].sees] * 2


@pytest.mark.parametrize("name", FILES)
def test_valid_sizes(name):
    report = cnndsl.check(path(name))
    if name == "unet":
        expected = "H >= 16 and H % 16 == 0 and W >= 16 and W % 16 == 0"
    elif report.symbols:
        expected = "H >= {0} and W >= {0}".format(PUBLISHED[name].least)
    else:
        expected = "True"
    assert report.valid == expected


# Their pools leave out the last rows and columns of some images: those of odd size, mostly. The
# others have padding there, or round up, or take one size, or promise what they need.
LOSING = {"alexnet", "darknet19", "densenet121", "vgg11", "vgg16", "vgg16_bn"}


@pytest.mark.parametrize("name", FILES)
def test_no_warnings_at_the_usual_size_and_of_free_ones_only_what_pools_lose(name):
    assert at(name, PUBLISHED[name].size).diagnostics == ()
    codes = [d.code for d in cnndsl.check(path(name)).diagnostics]
    assert codes == (["W601"] if name in LOSING else [])


@pytest.mark.parametrize("name", FILES)
def test_layout(name):
    text = path(name).read_text()
    assert format_text(Source(name, text)) == text


@pytest.mark.parametrize("size", [16, 32, 48, 240, 1024])
def test_unet_has_its_macs_at_every_size(size):
    macs = cnndsl.check(path("unet")).totals.macs
    assert macs.evaluate({"H": size, "W": 3 * size}) == 734_976 * size * (3 * size)
    assert at("unet", size).totals.macs.constant == 734_976 * size * size


def test_unet_is_refused_without_its_promise():
    lines = path("unet").read_text().splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith("require"))
    report = cnndsl.check(source=text)
    assert [(d.code, d.span.text) for d in report.diagnostics] == [("E304", "concat encoder4")]
    assert report.valid == cnndsl.check(path("unet")).valid


# ── names and shapes ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def compiled(monkeypatch):
    """Compiles a file to a module that runs PyTorch's operators, as where nothing interprets."""

    def module(name, device="meta"):
        with torch.device(device):
            model = cnndsl.compile(path(name))
        monkeypatch.setattr("cnndsl.rt.module.INTERPRETED", False)
        return model

    return module


@pytest.mark.parametrize("name", MODELS)
def test_the_state_has_torchvisions_names_and_shapes_in_its_order(name, compiled):
    with torch.device("meta"):
        theirs = torchvision_model(name)
    ours, wanted = (
        [(key, value.shape) for key, value in model.state_dict().items()]
        for model in (compiled(name), theirs)
    )
    assert ours == wanted


@pytest.mark.parametrize("name", FILES)
def test_it_runs(name, compiled):
    side = PUBLISHED[name].size
    report = at(name, side)
    *spatial, channels = (dim.constant for dim in report.layers[-1].output)
    y = compiled(name).eval()(torch.empty(2, 3, side, side, device="meta"))
    assert tuple(y.shape) == (2, channels, *spatial)


# ── values ───────────────────────────────────────────────────────────────────────────────────────


def resnet20(state, x):
    """The paper's network, shortcuts by option A."""

    def normalised(key, x):
        mean, variance, weight, bias = (
            state[f"{key}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, weight, bias)

    x = F.relu(normalised("bn1", F.conv2d(x, state["conv1.weight"], padding=1)))
    for layer in (1, 2, 3):
        for block in (0, 1, 2):
            key, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            y = F.conv2d(x, state[f"{key}.conv1.weight"], padding=1, stride=stride)
            y = F.relu(normalised(f"{key}.bn1", y))
            y = normalised(f"{key}.bn2", F.conv2d(y, state[f"{key}.conv2.weight"], padding=1))
            missing = y.shape[1] - x.shape[1]
            x = x[:, :, ::stride, ::stride]
            x = F.relu(y + F.pad(x, (0, 0, 0, 0, missing // 2, missing // 2)))
    return F.linear(x.mean((2, 3)), state["linear.weight"], state["linear.bias"])


def test_resnet20_takes_the_papers_shortcuts(compiled):
    torch.manual_seed(0)
    model = compiled("resnet20_cifar", "cpu").eval()
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model.logits(x), resnet20(model.state_dict(), x))
