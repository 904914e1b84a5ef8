"""Compile the kernels of some regions for a GPU that is not there; a JSON object a kernel.

Runs as a process of its own, with the real compiler: `python -m tests.kernels.compile_all sm_90`.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from cnndsl.kernels.conv_op import ConvGeometry, conv_op
from cnndsl.kernels.fc_op import FcGeometry, fc_op
from cnndsl.kernels.loss import loss_op

from cnndsl.runtime.target import compile_launch, measure, record_model

from .regions import LAUNCHES, conv_geometry
from .test_fc import LAUNCHES as FC_LAUNCHES

POOL2: dict[str, Any] = {"activation": "relu", "pool_size": 2}
POOL3: dict[str, Any] = {"activation": "relu", "pool_size": 3, "pool_stride": 2, "pool_pad": 1}

# LeNet, the digits' network, and layers of 64 channels and more.
CONVOLUTIONS: dict[str, tuple[ConvGeometry, tuple[int, int]]] = {
    "lenet1": (conv_geometry(1, 6, 5, pad=2, **POOL2), (28, 28)),
    "lenet2": (conv_geometry(6, 16, 5, **POOL2), (14, 14)),
    "digits2": (conv_geometry(16, 32, 3, pad=1, **POOL2), (8, 8)),
    "wide": (conv_geometry(64, 128, 3, pad=1, **POOL2), (32, 32)),
    "strided": (conv_geometry(64, 64, 3, pad=1, stride=2, scale=True, activation="relu"), (32, 32)),
    "overlapping": (conv_geometry(64, 64, 3, pad=1, **POOL3), (32, 32)),
    "average": (conv_geometry(64, 64, 3, **{**POOL3, "pool": "average"}, ceil=True), (33, 33)),
    "stem": (conv_geometry(3, 64, 7, stride=2, pad=3, scale=True, **POOL3), (64, 64)),
}
FC = {
    "fc1": FcGeometry(400, 120, activation="relu"),
    "fc3": FcGeometry(84, 10),
}


class Region(torch.nn.Module):
    """One region, with its parameters, as an emitted module has it."""

    def __init__(self, run: Callable[..., Any], shape: tuple[int, ...], vectors: int) -> None:
        super().__init__()
        self.run = run
        self.weight = torch.nn.Parameter(torch.empty(shape, device="meta"))
        self.vectors = torch.nn.ParameterList(
            torch.nn.Parameter(torch.empty(shape[0], device="meta")) for _ in range(vectors)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(x.requires_grad_(), self.weight, *self.vectors)


class Loss(torch.nn.Module):
    """The loss of logits, as an emitted module has it."""

    def __init__(self) -> None:
        super().__init__()
        self.target = torch.nn.Buffer(torch.empty(64, dtype=torch.int64, device="meta"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cross_entropy(x.requires_grad_(), self.target.long())


cross_entropy = loss_op("compiled::cross_entropy")


def regions() -> dict[str, tuple[torch.nn.Module, tuple[int, ...]]]:
    found: dict[str, tuple[torch.nn.Module, tuple[int, ...]]] = {"loss": (Loss(), (64, 1000))}
    for name, (geometry, size) in CONVOLUTIONS.items():
        run = globals()[name] = conv_op(f"compiled::{name}", geometry, LAUNCHES)
        shape = (geometry.filters, geometry.channels, *geometry.kernel)
        module = Region(run, shape, geometry.bias + geometry.scale)
        found[name] = module, (64, geometry.channels, *size)
    for name, geometry in FC.items():
        run = globals()[name] = fc_op(f"compiled::{name}", geometry, FC_LAUNCHES)
        found[name] = Region(run, (geometry.outputs, geometry.features), 1), (64, geometry.features)
    return found


def main(target: str) -> None:
    # Where PyTorch multiplies in TF32, as it does in convolutions by default.
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    for name, (module, shape) in regions().items():
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            for launch in record_model(module, shape, dtype):
                usage = measure(compile_launch(launch, target)).json()
                print(json.dumps({"region": name, **usage}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
