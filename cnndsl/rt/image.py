"""Images that come as bytes: scaled, and laid out for the kernels behind, in one pass.

y = (x / 255 − mean) / deviation, with a mean and a deviation a channel. Bytes are read as they lie,
with channels outermost or innermost; y has them innermost, and is of the type that layers compute
in. Bytes have no gradient.
"""

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from .dispatch import NAMESPACE, is_opaque, needs_operators
from .module import runs_kernels, widened
from .replay import remembered
from .shared import COUNTS, count_blocks, is_lazy, launch, packed, power_of_two, refuse_launch

IMAGE_FORWARD = "(Tensor x, Tensor mean, Tensor deviation, ScalarType dtype) -> Tensor"


# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


@triton.jit(do_not_specialize=COUNTS)
def image_forward(
    x_ptr,  # bytes, of `pixels` x CHANNELS an image, of which either may be innermost
    mean_ptr,  # [CHANNELS]
    deviation_ptr,  # [CHANNELS]
    y_ptr,  # [batch, pixels, CHANNELS]
    batch,
    pixels,  # of an image
    pixel_stride,
    channel_stride,
    CHANNELS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Scale a tile of pixels."""
    CHANNEL_BLOCKS: tl.constexpr = (CHANNELS + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS
    pixel = tl.program_id(0) // CHANNEL_BLOCKS * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    channel = tl.program_id(0) % CHANNEL_BLOCKS * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    channel_mask = channel < CHANNELS
    mask = (pixel < batch * pixels)[:, None] & channel_mask[None, :]
    mean = tl.load(mean_ptr + channel, mask=channel_mask, other=0.0)
    deviation = tl.load(deviation_ptr + channel, mask=channel_mask, other=1.0)
    image = (pixel // pixels).to(tl.int64) * pixels * CHANNELS
    place = image[:, None] + pixel[:, None] % pixels * pixel_stride
    x = tl.load(x_ptr + place + channel[None, :] * channel_stride, mask=mask, other=0)
    y = (x.to(mean.dtype) - 255.0 * mean[None, :]) / (255.0 * deviation[None, :])
    offset = pixel.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=mask)


# ── launches ────────────────────────────────────────────────────────────────────────────────────


def image_outputs(x: Tensor, mean: Tensor, deviation: Tensor, dtype: torch.dtype) -> Tensor:
    """Allocate y, with channels innermost; raise for tensors that do not fit together."""
    if x.dtype != torch.uint8:
        raise TypeError(f"x is {x.dtype}: bytes are torch.uint8")
    for name, vector in (("mean", mean), ("deviation", deviation)):
        if vector.device != x.device:
            raise ValueError(f"x is on {x.device}, {name} on {vector.device}")
        if tuple(vector.shape) != (x.shape[1],):
            raise ValueError(f"{name} has shape {tuple(vector.shape)}, not ({x.shape[1]},)")
    layout = torch.channels_last if x.dim() == 4 else torch.contiguous_format
    return torch.empty(x.shape, dtype=dtype, device=x.device, memory_format=layout)


def image_values(x: Tensor, mean: Tensor, deviation: Tensor, dtype: torch.dtype) -> Tensor:
    """Give y, of the shape of x: (N, C, H, W), or (N, C)."""
    y = image_outputs(x, mean, deviation, dtype)
    if y.numel() == 0:
        return y
    channels = x.shape[1]
    all_pixels = x.numel() // channels
    pixels = all_pixels // x.shape[0]
    strides = (1, pixels)
    if not x.is_contiguous() or is_lazy(x):
        x, strides = packed(x), (channels, 1)
    block_channels = min(64, power_of_two(channels))
    block_pixels = 2048 // block_channels
    programs = count_blocks(all_pixels, block_pixels) * count_blocks(channels, block_channels)
    refuse_launch(y, programs, all_pixels)
    with torch.cuda.device_of(x):
        launch(
            image_forward,
            programs,
            x_ptr=x,
            mean_ptr=packed(widened(mean)),
            deviation_ptr=packed(widened(deviation)),
            y_ptr=y,
            batch=x.shape[0],
            pixels=pixels,
            pixel_stride=strides[0],
            channel_stride=strides[1],
            CHANNELS=channels,
            BLOCK_PIXELS=block_pixels,
            BLOCK_CHANNELS=block_channels,
            num_warps=4,
        )
    return y


# ── the way into PyTorch ────────────────────────────────────────────────────────────────────────


def image_op(name: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Register the scaling with PyTorch; the function that is returned does it.

    It takes bytes (N, C, H, W) or (N, C), and mean and deviation (C,), in whose type, or in that of
    torch.autocast, it gives the images.
    """
    compute = remembered(image_values)
    operator = torch.library.custom_op(name, compute, mutates_args=(), schema=IMAGE_FORWARD)
    operator.register_fake(image_outputs)

    def run(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        dtype = mean.dtype
        if x.device.type != "meta" and torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
        return (operator if is_opaque(x, mean) else compute)(x, mean, deviation, dtype)

    run.operators = {name: compute}
    return run


scaled_op = image_op(f"{NAMESPACE}::scaled")


def scaled(x: Tensor, mean: Tensor, deviation: Tensor, axes: int) -> Tensor:
    """Put bytes x as (x / 255 − mean) / deviation, a channel each, before `axes` of pixels."""
    if runs_kernels(mean) and not needs_operators(x):
        return scaled_op(x, mean, deviation)
    return scaled_by_operators(x, mean, deviation, axes)


def scaled_by_operators(x: Tensor, mean: Tensor, deviation: Tensor, axes: int) -> Tensor:
    """Give the same, as PyTorch's operators compute it."""
    shape = (-1, *(1,) * axes)
    shift = 255 * widened(mean).view(shape)
    factor = 255 * widened(deviation).view(shape)
    return ((x - shift) / factor).to(mean.dtype)
