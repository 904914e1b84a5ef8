"""Training and inference on the CPU: a compiled network against the same one written in PyTorch.

    python benchmarks/train_cpu.py [--rounds 31] [--batch 64] [--json]

One thread each. The two take turns, step by step, and each begins every other round, so that the
load of the machine hits both alike. Each has a process of its own: where memory lies, and whether
the C library has to fetch it from the system again, depends on all that a process did before; it
keeps what is freed, as in `cnndsl train`. Times are those of the processor, in which waiting for it
does not count. Prints medians of the rounds, and of their ratios eager / ours (above 1: ours is
faster), for tensors as PyTorch makes them and for channels-last ones. Both have the same weights;
their outputs are compared first.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import product
from multiprocessing.connection import Connection
from operator import truediv
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cnndsl
from cnndsl.cli.memory import keep_freed

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


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "LeNet": (lenet, lambda: cnndsl.compile(EXAMPLES / "lenet.cnn")),
    "ResNet-20": (resnet20, lambda: cnndsl.compile(EXAMPLES / "zoo" / "resnet20_cifar.cnn")),
    "VGG-11": (vgg11, lambda: cnndsl.compile(source=VGG11)),
}


def network(name: str) -> tuple[nn.Module, nn.Module]:
    """The eager one, and ours with the same weights, whose parameters stand in the same order."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    eager, ours = (make() for make in NETWORKS[name])
    ours.load_state_dict(dict(zip(ours.state_dict(), eager.state_dict().values(), strict=True)))
    return eager, ours


def compare(name: str) -> None:
    """Refuse to measure what computes something else."""
    eager, ours = network(name)
    x = torch.rand(8, *ours.input_shape)
    torch.testing.assert_close(ours.eval().logits(x), eager.eval()(x), rtol=1e-3, atol=1e-4)


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


def work(asked: Connection, name: str, who: str, layout: str, kind: str, batch: int) -> None:
    """Take a step whenever asked, and answer with its seconds."""
    keep_freed()
    eager, ours = network(name)
    model = ours if who == "ours" else eager
    logits = model.logits if who == "ours" else model
    memory = LAYOUTS[layout]
    model.to(memory_format=memory).train(kind == "training")
    step = training(logits, model) if kind == "training" else inference(logits)
    x = torch.rand(batch, *ours.input_shape).contiguous(memory_format=memory)
    y = torch.randint(0, 10, (batch,))
    while asked.recv():
        start = time.thread_time()
        step(x, y)
        asked.send(time.thread_time() - start)


@contextmanager
def worker(*arguments: object) -> Generator[Connection]:
    """A process that does `work`."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=work, args=(there, *arguments))
    process.start()
    there.close()
    try:
        yield here
        here.send(False)
    finally:
        here.close()
        process.join()


def measure(name: str, layout: str, kind: str, batch: int, rounds: int) -> dict:
    """A row; small networks get more rounds."""
    rounds *= 8 if name == "LeNet" else 1
    times: dict[str, list[float]] = {"eager": [], "ours": []}
    with (
        worker(name, "eager", layout, kind, batch) as eager,
        worker(name, "ours", layout, kind, batch) as ours,
    ):
        workers = {"eager": eager, "ours": ours}
        for number in range(rounds + 2):
            for who in sorted(workers, reverse=bool(number % 2)):
                workers[who].send(True)
                seconds = workers[who].recv()
                if number >= 2:  # the first ones warm up
                    times[who].append(seconds)
    middle = {who: statistics.median(found) for who, found in times.items()}
    ratio = statistics.median(map(truediv, times["eager"], times["ours"]))
    return {"network": name, "layout": layout, "kind": kind, **middle, "ratio": ratio}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=31, help="how often each is run (31)")
    parser.add_argument("--batch", type=int, default=64, help="images in a step (64)")
    parser.add_argument("--json", action="store_true", help="one object a row")
    arguments = parser.parse_args()
    if not arguments.json:
        print("| network | layout | what | eager ms | ours ms | eager / ours |")
        print("| --- | --- | --- | --- | --- | --- |")
    for name, layout, kind in product(NETWORKS, LAYOUTS, ("training", "inference")):
        if (layout, kind) == ("contiguous", "training"):
            compare(name)
        row = measure(name, layout, kind, arguments.batch, arguments.rounds)
        if arguments.json:
            print(json.dumps(row), flush=True)
            continue
        times = f"{1e3 * row['eager']:.1f} | {1e3 * row['ours']:.1f}"
        print(f"| {name} | {layout} | {kind} | {times} | {row['ratio']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
