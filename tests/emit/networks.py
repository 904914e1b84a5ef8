"""Networks for tests, made without a parser: layers in a row."""

from types import ModuleType

import torch
from torch import nn

from cnndsl.emit.module import emit
from cnndsl.graph.graph import INPUT, Constraint, Graph, Node
from cnndsl.layers.activations import Gelu, Relu, Relu6, Silu, Softmax, Tanh
from cnndsl.layers.arguments import Pair
from cnndsl.layers.base import Layer
from cnndsl.layers.conv import Conv
from cnndsl.layers.fc import FullyConnected
from cnndsl.layers.norms import BatchNorm
from cnndsl.layers.pool import GlobalPool, Pool
from cnndsl.layers.regularise import Dropout
from cnndsl.layers.reshape import Flatten
from cnndsl.layers.types import ImageType, TensorType, VectorType
from cnndsl.runtime.load import import_text
from cnndsl.sizes.dim import Dim
from cnndsl.source import Source

SOURCE = Source("net.cnn", "input\n" + "layer\n" * 2000)


def place(line: int):
    start = SOURCE.line_start(line)
    return SOURCE.span(start, start + 1)


def typed(*sizes: int | str) -> TensorType:
    dims = [Dim.symbol(size) if isinstance(size, str) else Dim.of(size) for size in sizes]
    return ImageType(*dims) if len(dims) == 3 else VectorType(*dims)


def network(
    shape: tuple[int | str, ...],
    *layers: Layer | tuple[str, Layer],
    name: str = "Net",
    needs: tuple[str, ...] = (),
    classes: tuple[str, ...] = (),
) -> Graph:
    """A chain of layers; those without a label are named by kind and count."""
    nodes: list[Node] = []
    counts: dict[str, int] = {}
    at, current = INPUT, typed(*shape)
    for line, item in enumerate(layers, 2):
        label, layer = item if isinstance(item, tuple) else (None, item)
        counts[layer.kind] = counts.get(layer.kind, 0) + 1
        path = label or f"{layer.kind}{counts[layer.kind]}"
        output = layer.output(current)
        nodes.append(Node(path, layer, (at,), current, output, place(line), label is not None))
        at, current = path, output
    return Graph(
        name,
        typed(*shape),
        tuple(nodes),
        at,
        tuple(dict.fromkeys(size for size in shape if isinstance(size, str))),
        " and ".join(needs) or "True",
        tuple(Constraint(text, text, place(3)) for text in needs),
        classes=classes,
        place=place(1),
    )


def pair(size: int | tuple[int, int]) -> Pair:
    return Pair(size, size) if isinstance(size, int) else Pair(*size)


def conv(filters: int, size: int | tuple[int, int], **given) -> Conv:
    for name in ("stride", "pad", "dilation"):
        if name in given:
            given[name] = pair(given[name])
    if "groups" in given:
        given["groups"] = Dim.of(given["groups"])
    return Conv(Dim.of(filters), pair(size), **given)


def pool(function: str, size: int | tuple[int, int], **given) -> Pool:
    for name in ("stride", "pad", "dilation"):
        if name in given:
            given[name] = pair(given[name])
    return Pool(function, pair(size), **given)


def fc(features: int, **given) -> FullyConnected:
    return FullyConnected(Dim.of(features), **given)


def lenet() -> Graph:
    return network(
        (28, 28, 1),
        conv(6, 5, pad=2),
        Relu(),
        pool("max", 2),
        conv(16, 5),
        Relu(),
        pool("max", 2),
        Flatten(),
        fc(120),
        Relu(),
        fc(84),
        Relu(),
        fc(10),
        Softmax(),
        name="LeNet",
    )


# Every kind of region, and of what stands between regions; each with a network that PyTorch's own
# modules make. `None` where there is no such twin of the same structure.
KINDS: dict[str, tuple[tuple[int, ...], tuple[Layer, ...], list[nn.Module]]] = {
    "conv": ((5, 4, 2), (conv(3, 3, pad=1),), [nn.Conv2d(2, 3, 3, padding=1)]),
    "conv without bias": (
        (5, 4, 2),
        (conv(3, (3, 1), bias=False), Relu()),
        [nn.Conv2d(2, 3, (3, 1), bias=False), nn.ReLU()],
    ),
    "stride, dilation, groups": (
        (9, 8, 4),
        (conv(6, 3, stride=2, pad=(2, 1), dilation=(2, 1), groups=2), Relu()),
        [nn.Conv2d(4, 6, 3, 2, (2, 1), (2, 1), 2), nn.ReLU()],
    ),
    "many channels": ((4, 4, 17), (conv(4, 3), Relu()), [nn.Conv2d(17, 4, 3), nn.ReLU()]),
    "conv, relu, max": (
        (6, 7, 1),
        (conv(3, 3, pad=1), Relu(), pool("max", 2)),
        [nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)],
    ),
    "conv, max, relu": (
        (6, 7, 1),
        (conv(3, 2), pool("max", 2), Relu()),
        [nn.Conv2d(1, 3, 2), nn.MaxPool2d(2), nn.ReLU()],
    ),
    "conv, relu, overlapping max": (
        (8, 7, 2),
        (conv(3, 3, stride=2, pad=1), Relu(), pool("max", 3, stride=2, pad=1, ceil=True)),
        [nn.Conv2d(2, 3, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1, ceil_mode=True)],
    ),
    "conv, relu, average": (
        (6, 6, 2),
        (conv(2, 3, pad=1), Relu(), pool("avg", 2)),
        [nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)],
    ),
    "conv, average, relu": (
        (6, 6, 2),
        (conv(2, 3), pool("avg", (2, 1), pad=(1, 0), count_pad=False), Relu()),
        [
            nn.Conv2d(2, 2, 3),
            nn.AvgPool2d((2, 1), None, (1, 0), count_include_pad=False),
            nn.ReLU(),
        ],
    ),
    "conv, batchnorm, relu, max": (
        (6, 6, 2),
        (conv(3, 3, bias=False), BatchNorm(), Relu(), pool("max", 2)),
        [nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)],
    ),
    "conv with bias, batchnorm without weights": (
        (4, 4, 1),
        (conv(2, 3), BatchNorm(affine=False, eps=1e-3)),
        [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, eps=1e-3, affine=False)],
    ),
    "conv, max, batchnorm, gelu": (
        (6, 7, 2),
        (conv(3, 3, pad=1), pool("max", 2), BatchNorm(), Gelu()),
        [nn.Conv2d(2, 3, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(3), nn.GELU()],
    ),
    "depthwise conv, batchnorm, relu6": (
        (5, 6, 4),
        (conv(4, 3, pad=1, groups=4, bias=False), BatchNorm(), Relu6()),
        [nn.Conv2d(4, 4, 3, 1, 1, 1, 4, bias=False), nn.BatchNorm2d(4), nn.ReLU6()],
    ),
    "conv, batchnorm, silu": (
        (5, 5, 2),
        (conv(3, 3, stride=2, bias=False), BatchNorm(), Silu()),
        [nn.Conv2d(2, 3, 3, 2, bias=False), nn.BatchNorm2d(3), nn.SiLU()],
    ),
    "conv, batchnorm, relu, average": (
        (7, 6, 2),
        (conv(3, 3, bias=False), BatchNorm(), Relu(), pool("avg", 2)),
        [nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2)],
    ),
    "fc": ((5,), (fc(3),), [nn.Linear(5, 3)]),
    "fc, relu, dropout": (
        (5,),
        (fc(4, bias=False), Relu(), Dropout(0.5), fc(2)),
        [nn.Linear(5, 4, bias=False), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 2)],
    ),
    "fc, batchnorm": ((5,), (fc(4), BatchNorm()), [nn.Linear(5, 4), nn.BatchNorm1d(4)]),
    "fcs of several activations": (
        (2, 3, 4),
        (
            Flatten(),
            fc(5),
            Gelu(),
            fc(4, bias=False),
            fc(6),
            Relu(),
            fc(3),
            Tanh(),
            fc(4),
            Relu(),
            fc(2),
        ),
        [
            nn.Flatten(),
            nn.Linear(24, 5),
            nn.GELU(),
            nn.Linear(5, 4, bias=False),
            nn.Linear(4, 6),
            nn.ReLU(),
            nn.Linear(6, 3),
            nn.Tanh(),
            nn.Linear(3, 4),
            nn.ReLU(),
            nn.Linear(4, 2),
        ],
    ),
    "pool too large for a kernel": (
        (20, 20, 1),
        (conv(2, 3), Relu(), pool("avg", 6)),
        [nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AvgPool2d(6)],
    ),
    "no kernel at all": (
        (6, 6, 2),
        (pool("max", 2), Relu(), GlobalPool("avg"), Flatten(), Softmax()),
        [nn.MaxPool2d(2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softmax(1)],
    ),
}


def load(graph: Graph) -> tuple[ModuleType, nn.Module]:
    """The emitted module, and a model of it with weights from a fixed seed."""
    written = emit(graph, SOURCE)
    module = import_text(written)
    torch.manual_seed(0)
    return module, getattr(module, written.name)()
