"""Host time: what Python costs for a forward pass and for a step of training.

    python benchmarks/host.py [FILE.cnn] [--batch 2] [--rounds 200] [--gpu]

On a GPU this is the time until the calls return: the queue of the device is emptied before each.
Without one (the default) Triton is given a driver that launches nothing: its compiler, its binder
and all of our own Python run as they would, on tensors of the CPU, whose values mean nothing then.
What is missing there is the last step of a launch, in C. A small batch keeps the CPU's memory out
of it, which is slower to get than a GPU's. The least time is that of a machine without other work.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import triton
from torch import nn

import cnndsl

EXAMPLES = Path(__file__).parents[1] / "examples"


class NoDriver:
    """What Triton asks of a driver, for an H100 that does not run anything."""

    class launcher_cls:  # noqa: N801 (Triton's name)
        """Takes the place of the last step of a launch."""

        def __init__(self, *_given: object) -> None:
            """Made for each kernel."""

        def __call__(self, *_given: object) -> None:
            """Launch nothing."""

    class utils:  # noqa: N801 (Triton's name)
        """What a driver knows of the device."""

        @staticmethod
        def load_binary(*_given: object) -> tuple[int, int, int, int, int]:
            """Give module, function, registers, spills, and the most threads of a block."""
            return 1, 1, 0, 0, 1024

        @staticmethod
        def get_device_properties(_device: int) -> dict[str, int]:
            """Give the most shared memory of a block."""
            return {"max_shared_mem": 232448}

    def get_current_target(self) -> object:
        """Compile for sm_90."""
        return triton.backends.compiler.GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        """Give the device's number."""
        return 0

    def get_current_stream(self, _device: int) -> int:
        """Give the stream's address."""
        return 0


def without_gpu() -> None:
    """Let modules take tensors of the CPU to its kernels, and launch nothing."""
    triton.runtime.driver.set_active(NoDriver())
    # What takes tensors of the CPU to the kernels; nothing has asked it yet.
    for name, module in sys.modules.items():
        if name.startswith("cnndsl.rt.") and hasattr(module, "INTERPRETED"):
            module.INTERPRETED = True


def measure(calls: dict[str, Callable[[], object]], rounds: int, wait: Callable[[], None]) -> None:
    """Print the median of each, in turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 5):
        for name, call in calls.items():
            wait()
            start = time.perf_counter()
            call()
            if number >= 5:
                times[name].append(1e6 * (time.perf_counter() - start))
    for name, found in times.items():
        print(f"{name:<44} {statistics.median(found):8.1f} µs  (least {min(found):.1f})")


def main() -> None:
    """Measure one network."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", nargs="?", default=str(EXAMPLES / "lenet.cnn"))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--gpu", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = cnndsl.compile(options.file)
    device = "cuda" if options.gpu else "cpu"
    model.to(device)
    regions = regions_of(model)
    if not options.gpu:
        without_gpu()
    layer = next(node for node in cnndsl.check(options.file).layers)
    height, width, channels = (int(str(size)) for size in layer.input)
    x = torch.randn(options.batch, channels, height, width, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.zeros(options.batch, dtype=torch.long, device=device)
    wait = torch.cuda.synchronize if options.gpu else lambda: None

    def forward() -> None:
        with torch.no_grad():
            model.logits(x)

    def step() -> None:
        model.zero_grad()
        model.loss(x, y).backward()

    print(
        f"{options.file}, batch {options.batch}, {device}, torch {torch.__version__}, "
        f"triton {triton.__version__}"
    )
    measure({"forward": forward, "forward, loss, backward": step}, options.rounds, wait)
    print(f"{len(regions)} regions")


def regions_of(model: nn.Module) -> list[str]:
    """Name the regions' functions."""
    return [n for n, v in type(model).forward.__globals__.items() if hasattr(v, "operators")]


if __name__ == "__main__":
    main()
