"""Compile the kernels of some regions for a GPU that is not there; a JSON object a kernel.

Runs as a process of its own, with the real compiler: `python -m tests.kernels.compile_all sm_90`,
and behind it the names of some regions, or none for all.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from cnndsl.kernels.conv_geometry import ConvGeometry
from cnndsl.kernels.conv_op import conv_op
from cnndsl.kernels.fc_op import FcGeometry, fc_op
from cnndsl.kernels.loss import loss_op
from cnndsl.kernels.norm_op import NormGeometry, norm_op

from cnndsl.runtime.target import DTYPES as NAMES
from cnndsl.runtime.target import compile_launch, measure, record_model

from .norms import NORM_LAUNCHES, norm_geometry
from .regions import LAUNCHES, conv_geometry
from .test_fc import LAUNCHES as FC_LAUNCHES

DTYPES = (torch.float32, torch.bfloat16)
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
# In float32 and bfloat16 only: float16 gives the same code as the latter.
MORE: dict[str, tuple[ConvGeometry, tuple[int, int]]] = {
    "residual": (
        conv_geometry(64, 64, 3, pad=1, scale=True, residual=True, activation="relu"),
        (32, 32),
    ),
    "depthwise": (
        conv_geometry(64, 64, 3, pad=1, groups=64, scale=True, activation="output"),
        (32, 32),
    ),
    "pooled": (
        conv_geometry(64, 128, 3, pad=1, scale="pool", pool_size=2, activation="input"),
        (32, 32),
    ),
}
# Where a library multiplies: one pass each way does the rest.
LIBRARY = {"forward": "library", "backward": "library"}
MORE |= {
    f"{name}_library": (geometry._replace(**LIBRARY), size)
    for name, (geometry, size) in (CONVOLUTIONS | MORE).items()
    if name in ("wide", "overlapping", "average", "residual", "depthwise", "pooled")
}
STEM, STEM_SIZE = CONVOLUTIONS["stem"]
MORE["stem_staged"] = (STEM._replace(forward="staged", backward="library"), STEM_SIZE)
# The convolution of training, and the batchnorm behind it.
NORMED: dict[str, tuple[ConvGeometry, NormGeometry, tuple[int, int]]] = {
    "plain_normed": (
        conv_geometry(64, 128, 3, pad=1, bias=False, statistics=True),
        norm_geometry(128, activation="relu"),
        (32, 32),
    ),
    "residual_normed": (
        conv_geometry(64, 64, 1, bias=False, statistics=True),
        norm_geometry(64, activation="input", residual=True),
        (32, 32),
    ),
    "stem_normed": (
        conv_geometry(3, 64, 7, stride=2, pad=3, bias=False, statistics=True),
        norm_geometry(64, **POOL3),
        (64, 64),
    ),
    "average_normed": (
        conv_geometry(64, 64, 3, bias=False, statistics=True),
        norm_geometry(64, **{**POOL3, "pool": "average"}),
        (33, 33),
    ),
    "pooled_normed": (
        conv_geometry(64, 128, 3, pad=1, pool_size=2, statistics=True),
        norm_geometry(128, activation="input"),
        (32, 32),
    ),
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


class Normed(Region):
    """A convolution, with the batchnorm that training puts behind it."""

    def __init__(self, run: Any, normalise: Any, shape: tuple[int, ...], vectors: int) -> None:
        super().__init__(run, shape, vectors)
        self.normalise = normalise
        self.norm = torch.nn.BatchNorm2d(shape[0], device="meta")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z, sums = super().forward(x)
        return self.normalise(z, sums, self.norm)


def with_residual(run: Any, geometry: ConvGeometry) -> Any:
    """Give a region something to add, of the shape of its output."""

    def added(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        y = x.new_empty((x.shape[0], geometry.filters, *x.shape[2:])).requires_grad_()
        return run(x, *parameters, residual=y)

    return added


def with_residual_behind(run: Any) -> Any:
    """Give a batchnorm something to add, of the shape of its input."""

    def added(z: torch.Tensor, sums: torch.Tensor, norm: torch.nn.BatchNorm2d) -> torch.Tensor:
        return run(z, sums, norm, torch.empty_like(z).requires_grad_())

    return added


def regions() -> dict[str, tuple[torch.nn.Module, tuple[int, ...]]]:
    found: dict[str, tuple[torch.nn.Module, tuple[int, ...]]] = {"loss": (Loss(), (64, 1000))}
    for name, (geometry, size) in (CONVOLUTIONS | MORE).items():
        run = globals()[name] = conv_op(f"compiled::{name}", geometry, LAUNCHES)
        shape = (geometry.filters, geometry.channels // geometry.groups, *geometry.kernel)
        run = with_residual(run, geometry) if geometry.residual else run
        module = Region(run, shape, geometry.bias + (geometry.scale != "none"))
        found[name] = module, (64, geometry.channels, *size)
    for name, (geometry, normed, size) in NORMED.items():
        run = globals()[name] = conv_op(f"compiled::{name}", geometry, LAUNCHES)
        norm = norm_op(f"compiled::{name}_norm", normed, NORM_LAUNCHES)
        globals()[f"{name}_norm"] = norm
        shape = (geometry.filters, geometry.channels // geometry.groups, *geometry.kernel)
        normalise = with_residual_behind(norm) if normed.residual else norm
        found[name] = Normed(run, normalise, shape, geometry.bias), (64, geometry.channels, *size)
    for name, geometry in FC.items():
        run = globals()[name] = fc_op(f"compiled::{name}", geometry, FC_LAUNCHES)
        found[name] = Region(run, (geometry.outputs, geometry.features), 1), (64, geometry.features)
    return found


def main(target: str, *names: str) -> None:
    # Where PyTorch multiplies in TF32, as it does in convolutions by default.
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    for name, (module, shape) in regions().items():
        if names and name not in names:
            continue
        for dtype in DTYPES if name in MORE or name in NORMED else (*DTYPES, torch.float16):
            for launch in record_model(module, shape, dtype):
                usage = measure(compile_launch(launch, target)).json()
                # A kernel that reads statistics first has these, not the region's type.
                print(json.dumps({**usage, "region": name, "dtype": NAMES[dtype]}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
