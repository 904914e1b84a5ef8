"""Batchnorm in training: a mean and a variance for each channel, from those of tiles.

The kernel before has written what its tiles hold. Means and squared distances are merged as Chan,
Golub and LeVeque have it (1983), which loses nothing where the mean is large, in a fixed order, so
that the same input gives the same bits.
"""

import triton
import triton.language as tl
from torch import Tensor

from cnndsl.rt.shared import COUNTS, count_blocks, full, launch

# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


@triton.jit(do_not_specialize=COUNTS)
def norm_statistics(
    sums_ptr,  # [tiles, 3, CHANNELS]: of a tile's values count, mean, squared distances
    mean_ptr,  # [CHANNELS]
    inverse_ptr,  # [CHANNELS]: 1 / √(variance + eps)
    running_mean_ptr,  # [CHANNELS], followed with `momentum`
    running_var_ptr,
    tiles,
    values,  # of a channel
    momentum,
    CHANNELS: tl.constexpr,
    EPS: tl.constexpr,  # a number as exact as the type
    BLOCK_TILES: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Merge the tiles: first each lane those that it meets, then all lanes."""
    channel = tl.program_id(0) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    channel_mask = channel < CHANNELS
    kind = sums_ptr.dtype.element_ty
    count = tl.zeros((BLOCK_TILES, BLOCK_CHANNELS), kind)
    mean = tl.zeros((BLOCK_TILES, BLOCK_CHANNELS), kind)
    squares = tl.zeros((BLOCK_TILES, BLOCK_CHANNELS), kind)
    for step in range((tiles + BLOCK_TILES - 1) // BLOCK_TILES):
        tile = step * BLOCK_TILES + tl.arange(0, BLOCK_TILES)
        mask = (tile < tiles)[:, None] & channel_mask[None, :]
        row = tile.to(tl.int64) * (3 * CHANNELS)
        place = sums_ptr + row[:, None] + channel[None, :]
        more = tl.load(place, mask=mask, other=0.0)
        distance = tl.load(place + CHANNELS, mask=mask, other=0.0) - mean
        spread = tl.load(place + 2 * CHANNELS, mask=mask, other=0.0)
        share = more / tl.where(count + more == 0, 1.0, count + more)
        # A lane without a tile keeps what it has, whatever that is.
        mean += tl.where(mask, distance * share, 0.0)
        squares += tl.where(mask, spread + distance * distance * count * share, 0.0)
        count += more
    center = tl.sum(mean * count, axis=0) / values
    distance = tl.where(count > 0, mean - center[None, :], 0.0)
    variance = tl.sum(squares + distance * distance * count, axis=0) / values
    tl.store(mean_ptr + channel, center, mask=channel_mask)
    if kind == tl.float64:
        inverse = 1.0 / tl.sqrt(variance + EPS)
    else:
        inverse = tl.div_rn(1.0, tl.sqrt_rn(variance + EPS))
    tl.store(inverse_ptr + channel, inverse, mask=channel_mask)
    # What is followed is the variance without bias.
    variance *= values / tl.maximum(values - 1, 1).to(kind)
    running = full(tl.load(running_mean_ptr + channel, mask=channel_mask, other=0.0))
    running = (1 - momentum) * running + momentum * center
    kind = running_mean_ptr.dtype.element_ty
    tl.store(running_mean_ptr + channel, running.to(kind), mask=channel_mask)
    running = full(tl.load(running_var_ptr + channel, mask=channel_mask, other=0.0))
    running = (1 - momentum) * running + momentum * variance
    kind = running_var_ptr.dtype.element_ty
    tl.store(running_var_ptr + channel, running.to(kind), mask=channel_mask)


# ── launches ────────────────────────────────────────────────────────────────────────────────────


def norm_launch_statistics(
    sums: Tensor,
    mean: Tensor,
    inverse: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    values: int,
    eps: float,
) -> None:
    """Launch the kernel that merges the tiles, which fills mean and inverse."""
    channels = sums.shape[2]
    launch(
        norm_statistics,
        count_blocks(channels, 8),
        sums_ptr=sums,
        mean_ptr=mean,
        inverse_ptr=inverse,
        running_mean_ptr=running_mean,
        running_var_ptr=running_var,
        tiles=sums.shape[0],
        values=values,
        momentum=momentum,
        CHANNELS=channels,
        EPS=eps,
        BLOCK_TILES=64,
        BLOCK_CHANNELS=8,
        num_warps=4,
    )
