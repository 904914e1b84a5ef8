"""Training and inference on the CPU: a compiled network against the same one written in PyTorch.

    python benchmarks/train_cpu.py [--rounds 15] [--batch 64] [--json]

One process and one thread; the two take turns, step by step, and each begins every other round, so
that the load of the machine hits both alike. Times are those of the processor, in which waiting for
it does not count. Prints medians of the rounds, and of their ratios eager / ours (above 1: ours is
faster), for tensors as PyTorch makes them and for channels-last ones. Both have the same weights;
their outputs are compared first.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from operator import truediv
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cnndsl

EXAMPLES = Path(__file__).parents[1] / "examples"
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}

VGG11 = "input 32 x 32 x 3\n" + "".join(
    f"conv {width} 3x3 pad=1; relu{'; pool max 2' if pool else ''}\n"
    for width, pool in (
        (64, 1),
        (128, 1),
        (256, 0),
        (256, 1),
        (512, 0),
        (512, 1),
        (512, 0),
        (512, 1),
    )
)
VGG11 += "flatten\nfc 512; relu\nfc 512; relu\nfc 10\nsoftmax\n"


class Residual(nn.Module):
    """A block of CIFAR's ResNet with the shortcut of option A: strided, and padded with zeros."""

    def __init__(self, inside: int, width: int, stride: int) -> None:
        """Widths before and after."""
        super().__init__()
        self.conv1 = nn.Conv2d(inside, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.more = stride, width - inside

    def forward(self, x: Tensor) -> Tensor:
        """As its authors write it."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.more:
            half = self.more // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))
        return F.relu(x + y)


def resnet20() -> nn.Module:
    """ResNet-20 for CIFAR, as a user writes it."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    inside = 16
    for width in (16, 32, 64):
        for number in range(3):
            layers.append(Residual(inside, width, 2 if number == 0 and width > 16 else 1))
            inside = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def lenet() -> nn.Module:
    """LeNet, as a user writes it."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def vgg11() -> nn.Module:
    """VGG-11 for images of 32 x 32, as a user writes it."""
    layers: list[nn.Module] = []
    inside = 3
    for width in (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0):
        layers += (
            [nn.Conv2d(inside, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2)]
        )
        inside = width or inside
    layers += [nn.Flatten(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(512, 10))


def networks() -> dict[str, tuple[nn.Module, nn.Module]]:
    """Each by its name: the eager one, and ours."""
    return {
        "LeNet": (lenet(), cnndsl.compile(EXAMPLES / "lenet.cnn")),
        "ResNet-20": (resnet20(), cnndsl.compile(EXAMPLES / "zoo" / "resnet20_cifar.cnn")),
        "VGG-11": (vgg11(), cnndsl.compile(source=VGG11)),
    }


def same_weights(eager: nn.Module, ours: nn.Module) -> None:
    """Give our network the eager one's parameters and buffers, which stand in the same order."""
    state = ours.state_dict()
    ours.load_state_dict(dict(zip(state, eager.state_dict().values(), strict=True)))


def training(
    logits: Callable[[Tensor], Tensor], model: nn.Module
) -> Callable[[Tensor, Tensor], None]:
    """A step of training, with SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        F.cross_entropy(logits(x), y).backward()
        optimizer.step()

    return step


def inference(logits: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], None]:
    """A batch without gradients."""

    def step(x: Tensor, y: Tensor) -> None:
        del y
        with torch.no_grad():
            logits(x)

    return step


def timed(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of a step of each, in each round."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 2):
        for name in sorted(steps, reverse=bool(number % 2)):
            start = time.thread_time()
            steps[name]()
            if number >= 2:  # the first ones warm up
                times[name].append(time.thread_time() - start)
    return times


def measure(name: str, eager: nn.Module, ours: nn.Module, batch: int, rounds: int) -> list[dict]:
    """A row for each layout, of training and of inference; small networks get more rounds."""
    same_weights(eager, ours)
    rounds *= 8 if name == "LeNet" else 1
    channels, height, width = ours.input_shape
    x, y = torch.rand(batch, channels, height, width), torch.randint(0, 10, (batch,))
    torch.testing.assert_close(ours.eval().logits(x), eager.eval()(x), rtol=1e-3, atol=1e-4)
    rows = []
    for layout, memory in LAYOUTS.items():
        a, b = eager.to(memory_format=memory), ours.to(memory_format=memory)
        given = x.contiguous(memory_format=memory)
        for kind in ("training", "inference"):
            a.train(kind == "training")
            b.train(kind == "training")
            first = training(a, a) if kind == "training" else inference(a)
            second = training(b.logits, b) if kind == "training" else inference(b.logits)
            steps = {"eager": partial(first, given, y), "ours": partial(second, given, y)}
            found = timed(steps, rounds)
            ratio = statistics.median(map(truediv, found["eager"], found["ours"]))
            middle = {each: statistics.median(times) for each, times in found.items()}
            rows.append({"network": name, "layout": layout, "kind": kind, **middle, "ratio": ratio})
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="how often each is run (15)")
    parser.add_argument("--batch", type=int, default=64, help="images in a step (64)")
    parser.add_argument("--json", action="store_true", help="one object a row")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if not arguments.json:
        print("| network | layout | what | eager ms | ours ms | eager / ours |")
        print("| --- | --- | --- | --- | --- | --- |")
    for name, (eager, ours) in networks().items():
        for row in measure(name, eager, ours, arguments.batch, arguments.rounds):
            if arguments.json:
                print(json.dumps(row), flush=True)
                continue
            times = f"{1e3 * row['eager']:.1f} | {1e3 * row['ours']:.1f}"
            print(
                f"| {name} | {row['layout']} | {row['kind']} | {times} | {row['ratio']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
