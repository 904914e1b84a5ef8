"""Compile the kernels of some regions for GPUs that are not there; a JSON object a kernel.

Runs as a process of its own, with the real compiler: `python -m tests.kernels.compile_all sm_90`,
with `--only wide fc1` of some regions, with `--free` as for a network whose sizes are symbols.
`--table` prints the table of `tests/golden/static/` in place of the objects, and what is wrong with
it; `make static-oldest` does so with the oldest Triton. What was compiled once is taken from
Triton's cache: regions that share a kernel cost no more.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
import triton

from cnndsl.rt.conv_geometry import ConvGeometry
from cnndsl.rt.conv_operator import conv_op
from cnndsl.rt.fc_operator import FcGeometry, fc_op, fc_shape
from cnndsl.rt.image import image_op
from cnndsl.rt.loss import loss_op
from cnndsl.rt.norm_operator import NormGeometry, norm_op
from cnndsl.runtime.target import DTYPES as NAMES
from cnndsl.runtime.target import compile_launch, measure, record_model

from .norms import NORM_LAUNCHES, norm_geometry
from .regions import FC_LAUNCHES, LAUNCHES, conv_geometry
from .static import faults, table

POOL2: dict[str, Any] = {"activation": "relu", "pool_size": 2}
POOL3: dict[str, Any] = {"activation": "relu", "pool_size": 3, "pool_stride": 2, "pool_pad": 1}

# LeNet, the digits' network, layers of 64 channels and more, and what may stand around them.
CONVOLUTIONS: dict[str, tuple[ConvGeometry, tuple[int, int]]] = {
    "lenet1": (conv_geometry(1, 6, 5, pad=2, **POOL2), (28, 28)),
    "lenet2": (conv_geometry(6, 16, 5, **POOL2), (14, 14)),
    "digits2": (conv_geometry(16, 32, 3, pad=1, **POOL2), (8, 8)),
    "wide": (conv_geometry(64, 128, 3, pad=1, **POOL2), (32, 32)),
    "strided": (conv_geometry(64, 64, 3, pad=1, stride=2, scale=True, activation="relu"), (32, 32)),
    "overlapping": (conv_geometry(64, 64, 3, pad=1, **POOL3), (32, 32)),
    "average": (conv_geometry(64, 64, 3, **{**POOL3, "pool": "average"}, ceil=True), (33, 33)),
    "stem": (conv_geometry(3, 64, 7, stride=2, pad=3, scale=True, **POOL3), (64, 64)),
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
CONVOLUTIONS |= {
    f"{name}_library": (geometry._replace(**LIBRARY), size)
    for name, (geometry, size) in CONVOLUTIONS.items()
    if name in ("wide", "overlapping", "average", "residual", "depthwise", "pooled")
}
STEM, STEM_SIZE = CONVOLUTIONS["stem"]
CONVOLUTIONS["stem_staged"] = (STEM._replace(forward="staged", backward="library"), STEM_SIZE)
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
    "fc_library": FcGeometry(400, 120, activation="relu", forward="library", backward="library"),
    # Behind an image: LeNet's, one of more channels, and one of channels that fill no load.
    "flat1": FcGeometry(400, 120, activation="relu", size=(5, 5)),
    "flat_wide": FcGeometry(3136, 128, activation="relu", size=(7, 7)),
    "flat_ragged": FcGeometry(972, 10, size=(9, 18)),
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


class Image(torch.nn.Module):
    """Bytes scaled, as an emitted module does it first."""

    input_dtype = torch.uint8

    def __init__(self) -> None:
        super().__init__()
        self.vectors = torch.nn.ParameterList(torch.empty(3, device="meta") for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, deviation = self.vectors
        return scaled(x, mean.detach(), deviation.detach()) * mean[:, None, None]


cross_entropy = loss_op("compiled::cross_entropy")
scaled = image_op("compiled::scaled")


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
    found: dict[str, tuple[torch.nn.Module, tuple[int, ...]]] = {
        "loss": (Loss(), (64, 1000)),
        "image": (Image(), (64, 3, 32, 32)),
    }
    for name, (geometry, size) in CONVOLUTIONS.items():
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
        shape = (geometry.outputs, geometry.features)
        found[name] = Region(run, shape, 1), (64, *fc_shape(geometry))
    return found


# float16 gives the code of bfloat16, but for a conversion here and there: so a region of each kind
# of product shows that it does, and the others are not compiled for it.
HALF = ("wide", "lenet1", "fc1", "flat1", "loss")
# float32 where TF32 is forbidden: no matrix unit, other tiles.
EXACT = ("lenet1", "wide", "overlapping", "stem", "average", "stem_staged", "fc1", "flat1")
# float64, which is for checks of gradients: each form of a kernel once.
DOUBLE = ("wide", "overlapping", "stem_staged", "pooled_library", "plain_normed", "fc1", "flat1")


def variants(name: str) -> Iterator[tuple[torch.dtype, str]]:
    """Give the types in which a region is compiled, and how float32 is multiplied."""
    yield torch.float32, "tf32"
    yield torch.bfloat16, "tf32"
    if name in HALF:
        yield torch.float16, "tf32"
    if name in EXACT:
        yield torch.float32, "ieee"
    if name in DOUBLE:
        yield torch.float64, "ieee"


# Of images; the emitter leaves those open that a symbol decides.
SIZES = {f"{prefix}{side}" for prefix in ("", "conv_", "out_") for side in ("height", "width")}


def free_sizes() -> None:
    """Make the sizes of images values at run time, in all kernels of this process."""
    for name, module in list(sys.modules.items()):
        if name.startswith(("cnndsl.kernels.", "cnndsl.rt.")):
            for value in vars(module).values():
                for parameter in value.params if isinstance(value, triton.JITFunction) else ():
                    if parameter.name in SIZES:
                        vars(parameter)["is_constexpr"] = False


def usages(target: str, only: list[str] | None = None) -> list[dict[str, Any]]:
    """Compile all kernels, or those of some regions, and say what each uses."""
    compiled, names = [], []
    for name, (module, shape) in regions().items():
        for dtype, precision in variants(name) if not only or name in only else ():
            torch.backends.cuda.matmul.fp32_precision = precision
            torch.backends.cudnn.conv.fp32_precision = precision
            for launch in record_model(module, shape, dtype):
                compiled.append(compile_launch(launch, target))
                # A kernel that reads statistics first has these, not the region's type.
                row = {"region": name, "kernel": launch.kernel, "dtype": NAMES[dtype]}
                names.append(row)
    found = zip(measure(compiled), names, strict=True)
    return [usage.json() | name for usage, name in found]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.kernels.compile_all")
    parser.add_argument("targets", nargs="+", help="sm_80, sm_90, sm_100, gfx942, …")
    parser.add_argument("--only", nargs="+", help="of these regions")
    parser.add_argument("--free", action="store_true", help="sizes of images are open")
    parser.add_argument("--table", action="store_true", help="a table, and what is wrong with it")
    arguments = parser.parse_args()
    if arguments.free:
        free_sizes()
    wrong: list[str] = []
    for target in arguments.targets:
        found = usages(target, arguments.only)
        if not arguments.table:
            for usage in found:
                print(json.dumps(usage))
            continue
        print(f"Triton {triton.__version__}, {target}\n\n{table(found)}", flush=True)
        wrong += faults(found)
    for line in wrong:
        print(line)
    if arguments.table:
        print(f"{len(wrong)} faults")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
