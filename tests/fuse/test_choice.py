"""Whose products a region takes, and what that leaves to launch."""

import pytest

from cnndsl.check import check_source
from cnndsl.fuse.choice import Choice, Taps, Way, choice
from cnndsl.fuse.plan import Step, plan, step
from cnndsl.fuse.regions import Region, parts
from cnndsl.fuse.text import dump
from cnndsl.layers.conv import Conv
from cnndsl.layers.pool import Pool
from cnndsl.layers.types import ImageType
from cnndsl.source import Source

STAGED = Choice("packed", "staged", "library")
LIBRARY = Choice("packed", "library", "library")


def choices(taps: Taps, backward: Way) -> Choice:
    return Choice(taps, "fused", backward)


def regions(text: str) -> list[Region]:
    graph = check_source(Source("x.cnn", text)).graph
    assert graph is not None
    return [part for part in parts(graph) if isinstance(part, Region)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        # first layers read each pixel once
        ("input 32 x 32 x 3; conv 64 3x3 pad=1; relu; pool max 2", choices("packed", "fused")),
        ("input H x W x 3; conv 64 7x7 stride=2 pad=3; relu", choices("rows", "fused")),
        (
            "input H x W x 3; conv 64 7x7 stride=2 pad=3; relu; pool max 3 stride=2",
            Choice("rows", "staged", "library"),
        ),
        ("input 28 x 28 x 1; conv 6 5x5; relu; pool max 2", choices("packed", "fused")),
        ("input 28 x 28 x 6; conv 16 5x5", choices("packed", "fused")),
        ("input 32 x 32 x 3; conv 8 3x3 dilation=2", choices("packed", "fused")),
        # but for many terms they read the pixels of a large image again for each tile of them
        ("input 224 x 224 x 6; conv 64 5x5", choices("packed", "library")),
        ("input H x W x 6; conv 64 5x5", choices("packed", "library")),
        ("input 28 x 28 x 1; conv 6 5x5; relu; pool max 3 stride=2", STAGED),
        # from 16 channels on
        ("input 8 x 8 x 16; conv 16 3x3", choices("apart", "library")),
        ("input 8 x 8 x 32; conv 32 3x3 groups=2", choices("apart", "library")),
        (
            "input 8 x 8 x 16; conv 16 3x3; pool max 3 stride=2",
            Choice("apart", "library", "library"),
        ),
        # groups of few channels
        ("input 8 x 8 x 32; conv 32 3x3 groups=32", LIBRARY),
    ],
)
def test_whose_products(text, wanted):
    (region,) = regions(text)
    assert isinstance(region.anchor.layer, Conv)
    assert isinstance(region.anchor.arrives, ImageType)
    pool = region.pool.layer if region.pool else None
    assert isinstance(pool, Pool | None)
    assert choice(region.anchor.layer, region.anchor.arrives, pool) == wanted


@pytest.mark.parametrize(
    ("text", "gradients", "products"),
    [
        ("conv 16 3x3; relu; pool max 2", ("convolution with bias",), ("input", "weight")),
        ("conv 16 3x3 bias=no; relu", ("convolution",), ("input", "weight")),
        ("conv 16 3x3", ("bias",), ("input", "weight")),
        ("conv 16 3x3 bias=no", (), ("input", "weight")),
        ("conv 16 3x3 groups=16", ("bias",), ("output", "input", "weight")),
        ("conv 16 3x3; batchnorm; relu", ("batchnorm", "sums", "bias"), ("input", "weight")),
    ],
)
def test_one_pass_and_the_librarys_products(text, gradients, products):
    (region,) = regions(f"input 8 x 8 x 16\n{text}")
    assert plan(region).gradients == gradients
    assert plan(region).products == products


STEM = "input 64 x 64 x 3; conv 8 7x7 stride=2 pad=3"


def test_a_convolution_before_overlapping_windows_is_launched_alone():
    (region,) = regions(f"{STEM}; relu; pool max 3 stride=2")
    found = plan(region)
    assert found.inference == found.forward
    assert found.forward == ("rows of the image", "the convolution", "the output")
    assert found.products == ("input", "weight")
    assert found.sentences()[0].startswith("forward: 3 launches, for rows of the image, ")


def test_rows_are_laid_out_in_each_direction():
    (region,) = regions(f"{STEM}; batchnorm; relu; pool max 3 stride=2")
    found = plan(region)
    assert found.inference == ("rows of the image", "the convolution", "the output")
    assert len(found.forward) == 4
    assert found.gradients == ("batchnorm", "sums", "input", "weight", "rows of the image", "bias")
    assert found.sentences()[0].startswith("forward in inference: 3 launches")


@pytest.mark.parametrize(
    ("text", "inference", "training"),
    [
        ("conv 16 3x3 groups=16; batchnorm; relu", True, True),
        ("conv 16 3x3; batchnorm; relu; pool max 3 stride=2", True, False),
        ("conv 16 3x3; batchnorm; relu", False, False),
    ],
)
def test_a_convolution_of_the_library_is_told(text, inference, training):
    (region,) = regions(f"input 8 x 8 x 16\n{text}")
    behind = ", behind a product of PyTorch's library"
    first, second = plan(region).sentences()[:2]
    assert (first.startswith("forward in inference"), first.endswith(behind)) == (True, inference)
    assert (second.startswith("forward in training"), second.endswith(behind)) == (True, training)


def test_the_dump_counts_the_products():
    graph = check_source(Source("x.cnn", "input 8 x 8 x 16; conv 16 3x3; relu")).graph
    assert graph is not None
    # that of the network's input is not asked for
    assert step(parts(graph)) == Step(1, 1, 1)
    text = dump(parts(graph))
    assert "1 launch forward, 1 backward; 1 product of PyTorch's library" in text
    assert "PyTorch's library multiplies for those of input and weight" in text
