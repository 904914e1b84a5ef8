"""Small networks of each kind of region, in the language and as somebody writes them by hand."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cnndsl


@dataclass(frozen=True)
class Kind:
    """A network; `layers` are those of its hand-written twin, which `run` calls."""

    text: str
    layers: Callable[[], list[nn.Module]]
    run: Callable[..., Tensor]
    shape: tuple[int, ...]
    training: bool = False
    dtype: torch.dtype = torch.float32


class Plain(nn.Module):
    """The network as written by hand."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.layers = nn.ModuleList(kind.layers())
        self.run = kind.run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, *self.layers)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self(x), y)


def norm_max(x: Tensor, a: nn.Module, n: nn.Module, b: nn.Module) -> Tensor:
    return b(F.max_pool2d(F.relu(n(a(x))), 2).flatten(1))


def norm_add(x: Tensor, a: nn.Module, b: nn.Module, n: nn.Module, c: nn.Module) -> Tensor:
    x = F.relu(a(x))
    return c(F.silu(n(b(x)) + x).mean((2, 3)))


def sums(x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module, d: nn.Module) -> Tensor:
    x = F.silu(a(x))
    x = F.relu(b(x) + x)
    return d(F.leaky_relu(c(x) + x, 0.1).flatten(1))


def curved(x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module, d: nn.Module) -> Tensor:
    x = F.gelu(F.max_pool2d(a(x), 2))
    x = F.avg_pool2d(b(x), 3, 1, 1, count_include_pad=False)
    return d(torch.tanh(c(x)).flatten(1))


NORM = """\
input 6 x 6 x 2
conv 3 3x3 bias=no; batchnorm; relu; pool max 2
flatten
fc 3
"""
NORM_ADD = """\
input 4 x 4 x 2
conv 3 3x3 pad=same; relu
add { conv 3 3x3 pad=same; batchnorm } { skip }
silu
globalpool avg
flatten
fc 3
"""
KINDS = {
    "relu and max": Kind(
        "input 6 x 7 x 2\nconv 3 3x3 pad=1; relu; pool max 3 stride=2 pad=1 dilation=1\n"
        "conv 3 2x2; relu; pool max 2\nflatten\nfc 4; relu\nfc 3",
        lambda: [
            nn.Conv2d(2, 3, 3, padding=1),
            nn.Conv2d(3, 3, 2),
            nn.Linear(3, 4),
            nn.Linear(4, 3),
        ],
        lambda x, a, b, c, d: d(
            F.relu(c(F.max_pool2d(F.relu(b(F.max_pool2d(F.relu(a(x)), 3, 2, 1))), 2).flatten(1)))
        ),
        (2, 2, 6, 7),
    ),
    "average": Kind(
        "input 5 x 5 x 2\nconv 3 3x3 pad=1; relu; pool avg 3 stride=2 pad=1\n"
        "flatten\nfc 4; sigmoid\nfc 3",
        lambda: [nn.Conv2d(2, 3, 3, padding=1), nn.Linear(27, 4), nn.Linear(4, 3)],
        lambda x, a, b, c: c(torch.sigmoid(b(F.avg_pool2d(F.relu(a(x)), 3, 2, 1).flatten(1)))),
        (2, 2, 5, 5),
    ),
    "curved": Kind(
        "input 6 x 6 x 2\nconv 3 3x3 pad=1; pool max 2; gelu\n"
        "conv 2 1x1; pool avg 3 stride=1 pad=1 count_pad=no\nconv 2 2x2; tanh\nflatten\nfc 3",
        lambda: [
            nn.Conv2d(2, 3, 3, padding=1),
            nn.Conv2d(3, 2, 1),
            nn.Conv2d(2, 2, 2),
            nn.Linear(8, 3),
        ],
        curved,
        (2, 2, 6, 6),
    ),
    "sums": Kind(
        "input 3 x 3 x 2\nconv 2 1x1; silu\nadd { conv 2 3x3 pad=same } { skip }\nrelu\n"
        "add { conv 2 1x1 } { skip }\nleaky_relu slope=0.1\nflatten\nfc 3",
        lambda: [
            nn.Conv2d(2, 2, 1),
            nn.Conv2d(2, 2, 3, padding=1),
            nn.Conv2d(2, 2, 1),
            nn.Linear(18, 3),
        ],
        sums,
        (2, 2, 3, 3),
    ),
    "norm in training": Kind(
        NORM,
        lambda: [nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.Linear(12, 3)],
        norm_max,
        (3, 2, 6, 6),
        training=True,
    ),
    "norm in inference": Kind(
        NORM,
        lambda: [nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.Linear(12, 3)],
        norm_max,
        (2, 2, 6, 6),
    ),
    "norm and sum in training": Kind(
        NORM_ADD,
        lambda: [
            nn.Conv2d(2, 3, 3, padding=1),
            nn.Conv2d(3, 3, 3, padding=1),
            nn.BatchNorm2d(3),
            nn.Linear(3, 3),
        ],
        norm_add,
        (3, 2, 4, 4),
        training=True,
    ),
    "norm and sum in inference": Kind(
        NORM_ADD,
        lambda: [
            nn.Conv2d(2, 3, 3, padding=1),
            nn.Conv2d(3, 3, 3, padding=1),
            nn.BatchNorm2d(3),
            nn.Linear(3, 3),
        ],
        norm_add,
        (2, 2, 4, 4),
    ),
    "depthwise and deconv": Kind(
        "input 4 x 4 x 2\nconv 4 3x3 groups=channels; relu6\n"
        "deconv 2 2x2 stride=2; relu\nflatten\nfc 3",
        lambda: [nn.Conv2d(2, 4, 3, groups=2), nn.ConvTranspose2d(4, 2, 2, 2), nn.Linear(32, 3)],
        lambda x, a, b, c: c(F.relu(b(F.relu6(a(x)))).flatten(1)),
        (2, 2, 4, 4),
    ),
    "vectors": Kind(
        "input 5\nfc 4; gelu\nfc 4; tanh\nfc 4; relu\nfc 3",
        lambda: [nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)],
        lambda x, a, b, c, d: d(F.relu(c(torch.tanh(b(F.gelu(a(x))))))),
        (2, 5),
    ),
    "bytes": Kind(
        "input 4 x 4 x 2 u8\nconv 3 3x3; silu\nflatten\nfc 3",
        lambda: [nn.Conv2d(2, 3, 3), nn.Linear(12, 3)],
        lambda x, a, b: b(F.silu(a(x / 255)).flatten(1)),
        (2, 2, 4, 4),
        dtype=torch.uint8,
    ),
}
PATHS = ("operators", "kernels")


@cache
def compiled(text: str) -> nn.Module:
    """Ours, to be copied."""
    return cnndsl.compile(source=text)


def pair(name: str, path: str, monkeypatch: Any) -> tuple[Plain, nn.Module]:
    """The hand-written module, and ours with its weights, whose layers run on this path."""
    kind = KINDS[name]
    torch.manual_seed(0)
    plain = Plain(kind).train(kind.training)
    for norm in plain.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.uniform_(-0.5, 0.5)
            norm.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
    ours = copy.deepcopy(compiled(kind.text)).train(kind.training)
    monkeypatch.setattr("cnndsl.rt.module.INTERPRETED", path == "kernels")
    names = [n for n in ours.state_dict() if not n.startswith("input_")]
    state = dict(zip(names, plain.state_dict().values(), strict=True))
    ours.load_state_dict(state, strict=False)
    return plain, ours


def batch(name: str) -> tuple[Tensor, Tensor]:
    """Images and their classes."""
    kind = KINDS[name]
    torch.manual_seed(1)
    x = torch.randn(kind.shape)
    if kind.dtype == torch.uint8:
        x = torch.randint(0, 256, kind.shape, dtype=torch.uint8)
    return x, torch.arange(kind.shape[0]) % 3
