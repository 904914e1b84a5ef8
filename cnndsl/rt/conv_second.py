"""Fused convolutions by PyTorch's operators, for gradients that are differentiated again.

y = pool(activation(conv(x, weight) · scale + bias + residual)) is computed once more, from what was
kept for backward. Which pixel of a window won and which were alive are read from there, so the
slopes are those of the kernels. Knows no kernels.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .conv_geometry import ConvGeometry
from .dispatch import curved
from .module import widened


def conv_again(
    geometry: ConvGeometry,
    launches: NamedTuple,
    code: Tensor | None,
    saved: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    residual: Tensor | None,
) -> Tensor:
    """Give y."""
    g = geometry
    z = F.conv2d(x, weight, None, g.stride, g.pad, g.dilation, g.groups)
    if geometry.pool == "max":
        z = conv_winners(geometry, z, code)
    z = widened(z)
    if scale is not None:
        z = z * scale[:, None, None]
    if bias is not None:
        z = z + bias[:, None, None]
    if geometry.residual:
        z = z + residual
    if geometry.activation == "relu":
        z = torch.where(conv_dead(geometry, code, saved, z.shape), 0, z)
    elif geometry.activation != "none":
        z = curved(geometry.activation, launches, z, saved)
    if geometry.pool == "average":
        z = F.avg_pool2d(z, g.pool_size, g.pool_stride, g.pool_pad, g.ceil, g.count_pad)
    return z.to(x.dtype)


def conv_winners(geometry: ConvGeometry, z: Tensor, code: Tensor) -> Tensor:
    """Give of each window the pixel that won: its code is 1 + its position, or 0, if it is dead."""
    position = code.long() - 1
    height, width = code.shape[2:]
    pool_width = geometry.pool_size[1]
    (down, right), (below, beside) = geometry.pool_stride, geometry.pool_dilation
    rows = down * torch.arange(height, device=z.device)[:, None] - geometry.pool_pad[0]
    columns = right * torch.arange(width, device=z.device) - geometry.pool_pad[1]
    rows = rows + position // pool_width * below
    columns = columns + position % pool_width * beside
    place = torch.where(position < 0, 0, rows * z.shape[3] + columns)
    return z.flatten(2).gather(2, place.flatten(2)).view_as(place)


def conv_dead(
    geometry: ConvGeometry,
    code: Tensor | None,
    saved: Tensor | None,
    shape: torch.Size,
) -> Tensor:
    """Say of each value whether ReLU lets nothing through."""
    if geometry.pool == "none":
        return saved <= 0
    if geometry.pool == "max":
        return code == 0
    (pool_height, pool_width), (down, right) = geometry.pool_size, geometry.pool_stride
    height, width = code.shape[2:]
    # Of the last windows, parts may lie outside.
    sides = ((height - 1) * down + pool_height, (width - 1) * right + pool_width)
    top, left = geometry.pool_pad
    sides = max(sides[0], top + shape[2]), max(sides[1], left + shape[3])
    dead = torch.ones((*shape[:2], *sides), dtype=torch.bool, device=code.device)
    for position in range(pool_height * pool_width):
        row, column = position // pool_width, position % pool_width
        below, beside = row + down * (height - 1) + 1, column + right * (width - 1) + 1
        dead[:, :, row:below:down, column:beside:right] &= (code >> position & 1) == 0
    return dead[:, :, top : top + shape[2], left : left + shape[3]]
