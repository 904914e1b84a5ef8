"""Runs the samples by which PyTorch tests conv2d and max_pool2d through the kernels of regions.

`python -m tests.kernels.samples` prints, for each of the two, how many there are, how many ran, and
why the others did not; `--every N` runs every Nth. A process of its own, because PyTorch's
`torch.testing._internal`, which has them (its "OpInfo"), changes settings of the process.
"""

import argparse
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest import mock

os.environ["TRITON_INTERPRET"] = "1"

import torch
import torch.nn.functional as F
from torch import Tensor

from cnndsl.rt.conv_geometry import ConvGeometry

from .hostile import HostileInterpreter
from .regions import Case, check, conv_geometry, ours

FORWARD, BACKWARD = ("fused", "library", "staged"), ("fused", "library")


def pair(value: Any) -> tuple[int, int]:
    down, right = (value, value) if isinstance(value, int) else value
    return down, right


def conv_sample(sample: Any) -> tuple[ConvGeometry, Tensor, Tensor, Tensor | None] | str:
    """Give a sample of conv2d as a region with its tensors, or why it is none."""
    x, (weight, bias), given = sample.input, sample.args, dict(sample.kwargs)
    if x.dim() == 3:
        return "an image without a batch"
    dilation, pad = pair(given.get("dilation", 1)), given.get("padding", 0)
    kernel = tuple(weight.shape[2:])
    if pad == "same":
        reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        if any(r % 2 for r in reach):
            return "`same` around a filter of even reach, which pads one side more"
        pad = (reach[0] // 2, reach[1] // 2)
    geometry = conv_geometry(
        x.shape[1],
        weight.shape[0],
        kernel,
        stride=pair(given.get("stride", 1)),
        pad=(0, 0) if pad == "valid" else pair(pad),
        dilation=dilation,
        groups=given.get("groups", 1),
        bias=bias is not None,
    )
    return geometry, x, weight, bias


def pool_sample(sample: Any) -> tuple[ConvGeometry, Tensor, Tensor, None] | str:
    """Give a sample of max_pool2d as a region: behind a convolution that changes nothing."""
    x, given = sample.input, sample.kwargs
    if x.dim() == 3:
        return "an image without a batch"
    if given["return_indices"]:
        return "also returns indices, which no layer does"
    if x.shape[0] == 0:
        return "a batch of none, which launches nothing"
    size = pair(given["kernel_size"])
    geometry = conv_geometry(
        x.shape[1],
        x.shape[1],
        1,
        bias=False,
        pool_size=size,
        pool_stride=pair(given["stride"] or size),
        pool_pad=pair(given["padding"]),
        pool_dilation=pair(given["dilation"]),
        ceil=given["ceil_mode"],
    )
    return geometry, x, torch.eye(x.shape[1])[:, :, None, None], None


def samples(name: str) -> Iterator[Any]:
    # The import would forbid to set a flag, which kernels do where a library multiplies.
    flags = mock.patch.object(torch.backends, "disable_global_flags")
    with flags, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db

        for op in op_db:
            if op.name == name:
                yield from op.sample_inputs("cpu", torch.float32, requires_grad=False)


def run(geometry: ConvGeometry, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Compare output and gradients with float64, each against its bound."""
    case = Case(geometry, (x.shape[0], x.shape[2], x.shape[3]))
    case.x, case.weight, case.bias = x, weight, bias
    with HostileInterpreter():
        found = ours(case)
    check(case, found)
    if geometry.pool == "max":
        g = geometry
        wanted = F.max_pool2d(x, g.pool_size, g.pool_stride, g.pool_pad, g.pool_dilation, g.ceil)
        assert torch.equal(found.y, wanted)


def report(name: str, every: int) -> dict[str, Any]:
    """Run every Nth of the samples that differ; say how many ran, and of the others why not."""
    torch.manual_seed(0)
    convert = conv_sample if name.endswith("conv2d") else pool_sample
    reasons: Counter[str] = Counter()
    distinct: dict[Any, tuple[ConvGeometry, Tensor, Tensor, Tensor | None]] = {}
    count = 0
    for sample in samples(name):
        count += 1
        found = convert(sample)
        if isinstance(found, str):
            reasons[found] += 1
        elif (found[0], found[1].shape) in distinct:
            reasons["as an earlier one"] += 1
        else:
            distinct[found[0], found[1].shape] = found
    ran = 0
    for place, (geometry, *tensors) in enumerate(distinct.values()):
        if place % every:
            continue
        # Every way of computing it gets its share.
        forward = FORWARD[place // every % 3] if geometry.groups == 1 else "fused"
        backward = BACKWARD[place // every % 2]
        run(geometry._replace(forward=forward, backward=backward), *tensors)
        ran += 1
    all_of_them = {"name": name, "samples": count, "distinct": len(distinct), "ran": ran}
    return {**all_of_them, "not": dict(reasons)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.kernels.samples", description=__doc__)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="run every Nth")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, every in (("conv2d", -(-arguments.every // 8)), ("max_pool2d", arguments.every)):
        print(json.dumps(report(f"nn.functional.{name}", every)), flush=True)


if __name__ == "__main__":
    main()
