"""Images of few channels, laid out so that a row of a filter reads one run of memory.

Three channels of a pixel take six bytes, which no wide load can begin at. So a pixel gets four, the
fourth zero, and the image its padding: a filter of seven pixels then reads 28 values in a run, and
no bound need be checked.
"""

import triton
import triton.language as tl
from torch import Tensor

from .conv_geometry import ConvGeometry
from .shared import COUNTS, count_blocks, launch, new_image, refuse_launch

# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


@triton.jit(do_not_specialize=COUNTS)
def conv_lay_out(
    x_ptr,  # [batch, height, width, CHANNELS]
    rows_ptr,  # [batch, padded_height, padded_width, 4]
    batch,
    height,
    width,
    padded_height,
    padded_width,
    CHANNELS: tl.constexpr,
    PAD: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
):
    """Copy pixels to where they lie between zeros."""
    pixel = tl.program_id(0) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    channel = tl.arange(0, 4)
    row = pixel // padded_width % padded_height - PAD[0]
    column = pixel % padded_width - PAD[1]
    image = (pixel // (padded_height * padded_width)).to(tl.int64)
    inside = (image < batch) & (row >= 0) & (row < height)
    inside &= (column >= 0) & (column < width)
    place = ((image * height + row) * width + column) * CHANNELS
    x = tl.load(
        x_ptr + place[:, None] + channel[None, :],
        mask=inside[:, None] & (channel < CHANNELS)[None, :],
        other=0.0,
    )
    offset = pixel.to(tl.int64)[:, None] * 4 + channel[None, :]
    tl.store(rows_ptr + offset, x, mask=(image < batch)[:, None])


# ── launches ────────────────────────────────────────────────────────────────────────────────────


def conv_rows(geometry: ConvGeometry, x: Tensor) -> Tensor:
    """Give x (N, C, H, W) with 4 channels, innermost, and with its padding; of an even width."""
    height = x.shape[2] + 2 * geometry.pad[0]
    width = x.shape[3] + 2 * geometry.pad[1]
    width += width % 2
    shape = (x.shape[0], 4, height, width)
    rows = new_image(x, shape)
    pixels = x.shape[0] * height * width
    block_pixels = 256
    programs = count_blocks(pixels, block_pixels)
    refuse_launch(rows, programs, pixels)
    launch(
        conv_lay_out,
        programs,
        x_ptr=x,
        rows_ptr=rows,
        batch=x.shape[0],
        height=x.shape[2],
        width=x.shape[3],
        padded_height=height,
        padded_width=width,
        CHANNELS=geometry.channels,
        PAD=geometry.pad,
        BLOCK_PIXELS=block_pixels,
        num_warps=4,
    )
    return rows
