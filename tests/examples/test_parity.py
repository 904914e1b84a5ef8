"""The zoo against torchvision: its state loads by name, and then all numbers are the same.

`CNNDSL_MANY=1` compares the largest networks, too, which takes a minute and 3 GB more.
"""

import os
import shutil
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from triton.runtime import interpreter

import cnndsl
from tests.examples.oracle import MODELS, fill, models, torchvision_model

torch.set_num_threads(1)
# The overflow sanitizer makes integer arithmetic ten times slower; tests/kernels has it on.
interpreter.interpreter_builder.options = interpreter.InterpreterOptions(sanitize_overflow=False)
ZOO = Path(__file__).parents[2] / "examples" / "zoo"
LARGE = ("resnet34", "vgg11", "vgg16", "vgg16_bn")
MANY = os.environ.get("CNNDSL_MANY") == "1"
SIZES = {"vgg11": (32, 33), "vgg16": (32, 33), "vgg16_bn": (32, 33)}


def interpreted(model, value, monkeypatch):
    """Whether kernels run, in Triton's interpreter, or PyTorch's operators."""
    monkeypatch.setattr("cnndsl.rt.module.INTERPRETED", value)


def numbers(model, x, y):
    """Outputs in both modes; in training the gradients of everything, and the state afterwards."""
    found = {"eval": model.eval()(x).detach()}
    x = x.clone().requires_grad_()
    torch.manual_seed(1)  # for dropout
    out = model.train()(x)
    F.cross_entropy(out, y).backward()
    found |= {"train": out.detach(), "x": x.grad}
    found |= {f"gradient of {name}": p.grad for name, p in model.named_parameters()}
    return found | dict(model.named_buffers())


def compare(ours, theirs, x, classes):
    """All numbers within 1e-4 of the largest one in their tensor, but for rounding.

    Before a batchnorm the gradient of a bias is zero, of which both sides have rounding only.
    """
    y = torch.arange(len(x)) % classes
    wanted = numbers(theirs, x, y)
    rounding = 1e-6 * max(t.abs().max().item() for n, t in wanted.items() if "gradient" in n)
    for name, found in numbers(ours, x, y).items():
        largest = wanted[name].abs().max().item()
        torch.testing.assert_close(
            found,
            wanted[name],
            rtol=1e-4,
            atol=1e-4 * largest + rounding,
            msg=lambda m, n=name: f"{n}: {m}",
        )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.skipif(n in LARGE and not MANY, reason="CNNDSL_MANY=1"))
        for n in MODELS
    ],
)
def test_torchvisions_state_gives_torchvisions_numbers(name, monkeypatch):
    torch.manual_seed(0)
    with torch.device("meta"):
        theirs, ours = torchvision_model(name), cnndsl.compile(ZOO / f"{name}.cnn")
    interpreted(ours, False, monkeypatch)
    ours.to_empty(device="cpu").load_state_dict(fill(theirs).state_dict())
    x = torch.randn(3, 3, *SIZES.get(name, (64, 69)))
    with torch.no_grad():
        found, wanted = ours.eval()(x), theirs.eval()(x)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())
    # Training in this layout: a dropout of images draws in the order of memory; and in another one
    # sums are rounded otherwise, which DenseNet's gradients show in their second digit.
    inner = {"memory_format": torch.channels_last}
    compare(ours.to(**inner), theirs.to(**inner), x.contiguous(**inner), 1000)


# ── one network a family, of the same blocks, small enough for the interpreter ───────────────────


def alexnet():
    convs = [(3, 4, 11, 4, 2), (4, 5, 5, 1, 2), (5, 4, 3, 1, 1)]
    layers = []
    for at, (channels, filters, size, stride, pad) in enumerate(convs):
        layers += [nn.Conv2d(channels, filters, size, stride, pad), nn.ReLU()]
        layers += [nn.MaxPool2d(3, 2)] if at < 1 else []
    return small(nn.Sequential(*layers), nn.Sequential(nn.Dropout(), nn.Linear(16, 5)), 2)


def vgg():
    features = models.vgg.make_layers([4, "M", 5, 6, "M", 7, "M"], batch_norm=True)
    return small(features, nn.Sequential(nn.Linear(28, 6), nn.ReLU(), nn.Linear(6, 5)), 2)


def squeezenet():
    fire = models.squeezenet.Fire
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    features = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.ReLU(), pool, fire(4, 2, 3, 3), fire(6, 3, 4, 4), pool
    )
    last = nn.Sequential(nn.Conv2d(8, 5, 1), nn.ReLU())
    return nn.Sequential(
        OrderedDict(
            features=features, last=last, avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten()
        )
    )


def resnet(block):
    wide = 4 if block is models.resnet.BasicBlock else 8
    widen = nn.Sequential(nn.Conv2d(4, wide, 1, bias=False), nn.BatchNorm2d(wide))
    halve = nn.Sequential(nn.Conv2d(wide, 2 * wide, 1, 2, bias=False), nn.BatchNorm2d(2 * wide))
    width = wide // block.expansion
    layer1 = nn.Sequential(
        block(4, width, 1, None if wide == 4 else widen), block(wide, width, 1, None)
    )
    layers = {
        "conv1": nn.Conv2d(3, 4, 7, 2, 3, bias=False),
        "bn1": nn.BatchNorm2d(4),
        "relu": nn.ReLU(),
        "maxpool": nn.MaxPool2d(3, 2, 1),
        "layer1": layer1,
        "layer2": nn.Sequential(block(wide, 2 * width, 2, halve)),
        "avgpool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "fc": nn.Linear(2 * wide, 5),
    }
    return nn.Sequential(OrderedDict(layers))


def mobilenet():
    inverted = models.mobilenetv2.InvertedResidual
    features = nn.Sequential(
        models.mobilenetv2.Conv2dNormActivation(3, 4, stride=2, activation_layer=nn.ReLU6),
        inverted(4, 4, 1, 6),
        inverted(4, 6, 2, 6),
    )
    return small(features, nn.Sequential(nn.Dropout(0.2), nn.Linear(6, 5)), 1)


def densenet():
    parts = models.densenet
    features = OrderedDict(
        conv0=nn.Conv2d(3, 8, 7, 2, 3, bias=False),
        norm0=nn.BatchNorm2d(8),
        relu0=nn.ReLU(),
        pool0=nn.MaxPool2d(3, 2, 1),
        denseblock1=parts._DenseBlock(2, 8, 4, 32, 0.0),
        transition1=parts._Transition(72, 36),
        norm5=nn.BatchNorm2d(36),
        relu5=nn.ReLU(),
    )
    return small(nn.Sequential(features), nn.Linear(36, 5), 1)


def small(features, classifier, side):
    return nn.Sequential(
        OrderedDict(
            features=features,
            avgpool=nn.AdaptiveAvgPool2d(side),
            flatten=nn.Flatten(),
            classifier=classifier,
        )
    )


HEAD = "globalpool avg\nflatten\n"
# For each: the zoo's file with its blocks, the rest in the language, its twin, the image's side.
FAMILIES = {
    "alexnet": (
        "alexnet",
        "conv 4 11x11 stride=4 pad=2 as features.0; relu; pool max 3 stride=2\n"
        "conv 5 5x5 pad=same as features.3; relu\nconv 4 3x3 pad=same as features.5; relu\n"
        "pool avg to 2x2; flatten; dropout\nfc 5 as classifier.1\n",
        alexnet,
        31,
    ),
    "vgg": (
        "vgg16_bn",
        "default conv pad=same\nconv 4 3x3 as features.0; batchnorm as features.1; relu\n"
        "pool max 2\nconv 5 3x3 as features.4; batchnorm as features.5; relu\n"
        "conv 6 3x3 as features.7; batchnorm as features.8; relu; pool max 2\n"
        "conv 7 3x3 as features.11; batchnorm as features.12; relu; pool max 2\n"
        "pool avg to 2x2; flatten\nfc 6 as classifier.0; relu; fc 5 as classifier.2\n",
        vgg,
        17,
    ),
    "squeezenet": (
        "squeezenet1_1",
        "default pool stride=2 ceil=yes\nconv 4 3x3 stride=2 as features.0; relu; pool max 3\n"
        "fire 2 3 as features.3\nfire 3 4 as features.4\npool max 3\n"
        f"conv 5 1x1 as last.0; relu\n{HEAD}",
        squeezenet,
        17,
    ),
    "resnet": (
        "resnet18",
        "conv 4 7x7 stride=2 pad=3 bias=no as conv1; batchnorm as bn1; relu\n"
        "pool max 3 stride=2 pad=1\nrepeat 2 as layer1 { residual 4 }\n"
        f"repeat 1 as layer2 {{ residual 8 }}\n{HEAD}fc 5 as fc\n",
        lambda: resnet(models.resnet.BasicBlock),
        20,
    ),
    "resnet with bottlenecks": (
        "resnet50",
        "conv 4 7x7 stride=2 pad=3 bias=no as conv1; batchnorm as bn1; relu\n"
        "pool max 3 stride=2 pad=1\nrepeat 2 as layer1 { bottleneck 2 }\n"
        f"repeat 1 as layer2 {{ bottleneck 4 stride=2 }}\n{HEAD}fc 5 as fc\n",
        lambda: resnet(models.resnet.Bottleneck),
        20,
    ),
    "mobilenet": (
        "mobilenet_v2",
        "conv 4 3x3 stride=2 pad=1 bias=no as features.0.0; batchnorm as features.0.1; relu6\n"
        f"inverted 4 as features.1\ninverted 6 stride=2 as features.2\n{HEAD}dropout p=0.2\n"
        "fc 5 as classifier.1\n",
        mobilenet,
        9,
    ),
    "densenet": (
        "densenet121",
        "conv 8 7x7 stride=2 pad=3 bias=no as features.conv0; batchnorm as features.norm0; relu\n"
        "pool max 3 stride=2 pad=1\n"
        "dense as features.denseblock1.denselayer1\ndense as features.denseblock1.denselayer2\n"
        "transition as features.transition1\n"
        f"batchnorm as features.norm5; relu\n{HEAD}fc 5 as classifier\n",
        densenet,
        17,
    ),
}


@pytest.mark.parametrize("family", list(FAMILIES))
def test_kernels_give_torchvisions_numbers_in_every_family(family, tmp_path, monkeypatch):
    torch.manual_seed(0)
    blocks, text, twin, side = FAMILIES[family]
    shutil.copy(ZOO / f"{blocks}.cnn", tmp_path / "zoo.cnn")
    file = tmp_path / "small.cnn"
    file.write_text(f'use "zoo.cnn"\ninput {side} x {side} x 3\n{text}')
    ours, theirs = cnndsl.compile(file), fill(twin())
    ours.load_state_dict(theirs.state_dict())
    interpreted(ours, True, monkeypatch)
    namespace = vars(sys.modules[type(ours).__module__])
    called = set()
    for name, value in list(namespace.items()):
        if name.endswith("_op") and hasattr(value, "operators"):
            monkeypatch.setitem(namespace, name, noting(value, name, called))
    compare(ours, theirs, torch.randn(2, 3, side, side), 5)
    assert len(called) > 3


def noting(function, name, called):
    def run(*arguments, **named):
        called.add(name)
        return function(*arguments, **named)

    return run
