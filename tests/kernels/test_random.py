"""Random regions in the hostile interpreter, outputs poisoned, forward and backward.

`CNNDSL_MANY=1` draws 240 instead of a few.
"""

import os
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from cnndsl.rt.conv_geometry import ConvGeometry, conv_sizes

from .hostile import HostileInterpreter
from .norms import check_whole, norm_geometry
from .regions import Case, check, conv_geometry

COUNT = 240 if os.environ.get("CNNDSL_MANY") == "1" else 8
# About the sizes of blocks, and small ones, which are most networks' first layers.
CHANNELS = (1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 65)


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Have every tensor that nobody filled hold NaN, or the largest integer."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


def draw_pool(r: random.Random, channels: int) -> dict[str, Any]:
    if channels > 17 or r.random() < 0.35:
        return {}
    size = r.choice([2, 2, 2, 3, (1, 2), (3, 2)])
    if r.random() < 0.4:
        return {"pool_size": size}
    stride = r.choice([1, 2, 3])
    pool: dict[str, Any] = {"pool_size": size, "pool_stride": stride, "ceil": r.random() < 0.3}
    least = size if isinstance(size, int) else min(size)
    pool["pool_pad"] = r.randint(0, least // 2)
    if r.random() < 0.3:
        return {**pool, "pool": "average", "count_pad": r.random() < 0.5}
    return {**pool, "pool_dilation": r.choice([1, 1, 2])}


def draw_conv(r: random.Random) -> tuple[ConvGeometry, tuple[int, int, int]]:
    """Draw a convolution with what it is followed by, and a batch that fits."""
    while True:
        groups = r.choice([1, 1, 1, 1, 2, 3])
        channels, filters = groups * r.choice(CHANNELS), groups * r.choice(CHANNELS)
        kernel = r.choice([1, 1, 2, 3, 3, 3, 5, (1, 3), (3, 1)])
        pool = draw_pool(r, max(channels, filters))
        given: dict[str, Any] = {
            **pool,
            "groups": groups,
            "stride": r.choice([1, 1, 1, 2, 3, (2, 1)]),
            "dilation": r.choice([1, 1, 1, 2, (1, 2)]),
            "pad": r.choice([0, 1, 1, 2]),
            "bias": r.random() < 0.7,
            "residual": not pool and r.random() < 0.4,
        }
        is_average = pool.get("pool") == "average"
        given["activation"] = r.choice(["none", "relu"] + ["output", "input"] * (not is_average))
        scales = ["none", "sum"] + ["pool"] * bool(pool and not is_average)
        given["scale"] = r.choice(scales)
        geometry = conv_geometry(channels, filters, kernel, **given)
        shape = (r.randint(1, 3), r.randint(1, 9), r.randint(1, 9))
        sizes = conv_sizes(geometry, *shape[1:])
        if min(sizes) >= 1 and sizes.conv_height * sizes.conv_width * channels < 2000:
            return geometry, shape


def fits(pool: dict[str, Any], height: int, width: int) -> bool:
    return min(conv_sizes(conv_geometry(1, 1, 1, **pool), height, width)) >= 1


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("seed", range(COUNT))
def test_a_random_region(seed: int, hostile: HostileInterpreter) -> None:
    r = random.Random(seed)
    geometry, shape = draw_conv(r)
    if seed % 3 or geometry.pool == "average":
        dtype = r.choice([torch.float32, torch.float32, torch.float16, torch.bfloat16])
        check(Case(geometry, shape, dtype=dtype, seed=seed))
        return
    # In training, the same convolution with a batchnorm and what follows that.
    conv = geometry._replace(scale="none", residual=False, activation="none")
    sizes = conv_sizes(conv, *shape[1:])
    pool = draw_pool(r, geometry.filters) if geometry.pool == "none" else {}
    if not pool or not fits(pool, sizes.out_height, sizes.out_width):
        pool = {"residual": r.random() < 0.5}
    values = shape[0] * sizes.out_height * sizes.out_width
    if values < 6:  # so few have hardly a variance, and errors without bounds
        shape = (shape[0] + 6, *shape[1:])
    activation = r.choice(["none", "relu", "output", "input"])
    norm = norm_geometry(geometry.filters, affine=r.random() < 0.8, activation=activation, **pool)
    check_whole(conv, norm, shape, seed=seed)
