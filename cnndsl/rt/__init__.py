"""What every emitted program imports: launches, memory, operators, refusals, geometry, the loss.

`VERSION` grows when a name goes, or means something else: a file that was emitted before then must
be compiled again. `cnndsl compile --standalone` writes this text into the file instead.
"""

import triton

from .conv_geometry import (
    ConvGeometry,
    ConvOutputs,
    conv_keeps_output,
    conv_precision,
    conv_sizes,
    conv_weights,
)
from .conv_library import conv_product
from .conv_operator import ConvLaunches, conv_op
from .conv_rows import conv_rows
from .cpu import conv_norm, in_layout_for, is_unseen, max_pool2
from .fc_operator import FcGeometry, FcLaunches, fc_op, fc_precision, fc_shape, fc_weights
from .image import scaled, scaled_by_operators
from .loss import cross_entropy
from .module import INTERPRETED, full_dtype, runs_kernels, scale_and_shift, takes_batch
from .norm_operator import NormGeometry, NormLaunches, is_norm, norm_op, norm_sizes
from .rows import (
    are_by_rows,
    are_seen_by_rows,
    for_blocks,
    laid_for,
    with_gradient_by_rows,
)
from .scale import Scale
from .shared import (
    COUNTS,
    Tile,
    allocated,
    block_size,
    channels_last,
    count_blocks,
    done,
    full,
    launch,
    measured_tile,
    new_image,
    power_of_two,
    refuse_launch,
    split_count,
)
from .windows import is_better, pixel_place, window_holding, window_pixels, windows_of_pixel

__all__ = [
    "COUNTS",
    "VERSION",
    "ConvGeometry",
    "ConvLaunches",
    "ConvOutputs",
    "FcGeometry",
    "FcLaunches",
    "NormGeometry",
    "NormLaunches",
    "Scale",
    "Tile",
    "allocated",
    "are_by_rows",
    "are_seen_by_rows",
    "block_size",
    "channels_last",
    "conv_keeps_output",
    "conv_norm",
    "conv_op",
    "conv_precision",
    "conv_product",
    "conv_rows",
    "conv_sizes",
    "conv_weights",
    "count_blocks",
    "cross_entropy",
    "done",
    "fc_op",
    "fc_precision",
    "fc_shape",
    "fc_weights",
    "for_blocks",
    "full",
    "full_dtype",
    "in_layout_for",
    "is_better",
    "is_norm",
    "is_unseen",
    "laid_for",
    "launch",
    "max_pool2",
    "measured_tile",
    "new_image",
    "norm_op",
    "norm_sizes",
    "pixel_place",
    "power_of_two",
    "refuse_launch",
    "requires",
    "runs_kernels",
    "scale_and_shift",
    "scaled",
    "scaled_by_operators",
    "split_count",
    "takes_batch",
    "window_holding",
    "window_pixels",
    "windows_of_pixel",
    "with_gradient_by_rows",
]
VERSION = 2
_HELP = "compile its .cnn file again, or install the cnndsl that wrote it"


def requires(version: int) -> None:
    """Raise ImportError unless this is the version that a file was written for.

    And unless its kernels run where those of this package do: Triton decides when one is defined.
    """
    if version != VERSION:
        raise ImportError(f"this file needs version {version} of cnndsl.rt, not {VERSION}: {_HELP}")
    if triton.knobs.runtime.interpret != INTERPRETED:
        raise ImportError("set TRITON_INTERPRET before the first import of cnndsl.rt")


def __getattr__(name: str) -> object:
    """Say more than Python does of a name that an emitted file does not find."""
    if name.startswith("_"):
        raise AttributeError(name)
    raise ImportError(f"cnndsl.rt, version {VERSION}, has no `{name}`: {_HELP}")
