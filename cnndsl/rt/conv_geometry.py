"""What is fixed in a fused convolution: its geometry, its sizes, and what it refuses.

A region computes y = pool(activation(conv(x, weight) · scale + bias + residual)); all but the
convolution may be absent, and the scale may stand behind the pool.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .module import INTERPRETED, is_unaltered, plain_weights
from .shared import Tile, power_of_two, refuse_residual, refuse_tensors
from .windows import windows_of_pixel


class ConvGeometry(NamedTuple):
    """All that is fixed in a region; pairs are (height, width).

    `forward` and `backward` say whose products are taken: "fused", in the kernels that do all the
    rest too, or "library", in PyTorch's own, beside one pass of ours that does the rest. "staged"
    is such a pass behind a kernel of ours that only multiplies.
    """

    channels: int
    filters: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    bias: bool = True
    scale: str = "none"
    residual: bool = False
    activation: str = "none"
    pool: str = "none"
    pool_size: tuple[int, int] = (1, 1)
    pool_stride: tuple[int, int] = (1, 1)
    pool_pad: tuple[int, int] = (0, 0)
    pool_dilation: tuple[int, int] = (1, 1)
    ceil: bool = False
    count_pad: bool = True
    window: str = "one"
    taps: str = "packed"
    statistics: bool = False
    forward: str = "fused"
    backward: str = "fused"
    # Measured ones: kernel, type, images at most, tile; else the rule of `…_tile` chooses.
    tiles: tuple[tuple[str, str, int, Tile], ...] = ()

    @property
    def forward_groups(self) -> int:
        """Count the groups in the forward kernel: one, where something else multiplied before."""
        return self.groups if self.forward == "fused" else 1

    @property
    def row_terms(self) -> int:
        """Count the terms of a row of a filter, of four channels; a power of two."""
        return max(16, power_of_two(4 * self.kernel[1]))

    @property
    def windows(self) -> tuple[int, int]:
        """Count the windows of the pool that may hold one pixel, along each axis."""
        return windows_of_pixel(self.pool_size, self.pool_stride, self.pool_dilation)

    @property
    def tap_step(self) -> tuple[int, int]:
        """Tell how far apart the taps are that reach a pixel: STEP of `conv_first`."""
        return conv_steps(self.stride, self.dilation)[0]

    @property
    def tap_inverse(self) -> tuple[int, int]:
        """Give INVERSE of `conv_first` for the taps."""
        return conv_steps(self.stride, self.dilation)[1]

    @property
    def window_step(self) -> tuple[int, int]:
        """Give STEP of `conv_first` for the places in a window of the pool."""
        return conv_steps(self.pool_stride, self.pool_dilation)[0]

    @property
    def window_inverse(self) -> tuple[int, int]:
        """Give INVERSE of `conv_first` for the places in a window of the pool."""
        return conv_steps(self.pool_stride, self.pool_dilation)[1]


class ConvOutputs(NamedTuple):
    """What forward computes; None for a part that a region has no use for.

    y: (N, filters, H, W). code, like y: the position that won, or a bit a live position. before,
    like y: what the activation was given. sums: [tiles, 3, filters], of a tile's values
    the count, the mean, and the sum of squared distances to it.
    """

    y: Tensor
    code: Tensor | None
    before: Tensor | None
    sums: Tensor | None


class ConvSizes(NamedTuple):
    """Heights and widths: of the input, of the convolution, and after the pool."""

    height: int
    width: int
    conv_height: int
    conv_width: int
    out_height: int
    out_width: int


def conv_steps(strides: tuple[int, int], dilations: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Give STEP and INVERSE of `conv_first`, a pair each."""
    steps = [s // math.gcd(s, d) for s, d in zip(strides, dilations, strict=True)]
    divided = [d // math.gcd(s, d) for s, d in zip(strides, dilations, strict=True)]
    inverses = [pow(d, -1, step) for d, step in zip(divided, steps, strict=True)]
    return (steps[0], steps[1]), (inverses[0], inverses[1])


def window_count(size: int, window: int, stride: int, pad: int, dilation: int, ceil: bool) -> int:
    """How many windows fit along an axis, as PyTorch counts them."""
    span = size + 2 * pad - dilation * (window - 1) - 1
    if not ceil:
        return span // stride + 1
    count = -(-span // stride) + 1
    # A window that would start in the padding behind the image is dropped.
    if (count - 1) * stride >= size + pad:
        count -= 1
    return count


def conv_sizes(geometry: ConvGeometry, height: int, width: int) -> ConvSizes:
    """O = ⌊(I + 2P − D(K−1) − 1)/S⌋ + 1, for the convolution and then for the pool."""
    conv, out = [], []
    for axis, size in enumerate((height, width)):
        conv.append(
            window_count(
                size,
                geometry.kernel[axis],
                geometry.stride[axis],
                geometry.pad[axis],
                geometry.dilation[axis],
                False,
            )
        )
        out.append(
            window_count(
                conv[axis],
                geometry.pool_size[axis],
                geometry.pool_stride[axis],
                geometry.pool_pad[axis],
                geometry.pool_dilation[axis],
                geometry.ceil,
            )
        )
    return ConvSizes(height, width, *conv, *out)


def conv_weights(
    layer: nn.Module,
    geometry: ConvGeometry,
) -> tuple[Tensor | None, Tensor | None]:
    """Give weight and bias of a layer; None for both unless it is the one that was compiled."""
    g = geometry
    if (
        is_unaltered(layer, nn.Conv2d)
        and layer.stride == g.stride
        and layer.padding == g.pad
        and layer.dilation == g.dilation
        and layer.groups == g.groups
        and layer.padding_mode == "zeros"
    ):
        return plain_weights(layer, (g.filters, g.channels // g.groups, *g.kernel), g.bias)
    return None, None


def conv_code_dtype(geometry: ConvGeometry) -> torch.dtype | None:
    """What a value of `ConvOutputs.code` is; None where a region needs none.

    A maximum keeps the position that won, in a byte. An average of ReLUs keeps a bit for each
    position that lives.
    """
    positions = geometry.pool_size[0] * geometry.pool_size[1]
    if geometry.pool == "max":
        return torch.uint8
    if geometry.pool == "average" and geometry.activation == "relu":
        return torch.uint8 if positions <= 8 else torch.int32
    return None


def conv_keeps_output(geometry: ConvGeometry) -> bool:
    """Tell whether backward reads y: the slope follows from it, and no byte says it."""
    unpooled_relu = geometry.activation == "relu" and geometry.pool == "none"
    return geometry.activation == "output" or unpooled_relu


def refuse_geometry(geometry: ConvGeometry) -> None:
    """Raise for a region that these kernels cannot compute, whatever its input."""
    positions = geometry.pool_size[0] * geometry.pool_size[1]
    if geometry.channels % geometry.groups or geometry.filters % geometry.groups:
        raise ValueError(f"{geometry.groups} groups divide neither channels nor filters evenly")
    terms = geometry.kernel[0] * geometry.kernel[1] * geometry.channels
    if geometry.filters * terms >= 2**31:
        raise ValueError("a weight of 2³¹ values or more")
    if geometry.pool == "max" and positions > 255:
        raise ValueError(f"a byte cannot tell which of {positions} pixels of a window won")
    if geometry.pool == "average" and geometry.activation == "relu" and positions > 31:
        raise ValueError(f"{positions} bits a window, for the live pixels of an average, exceed 31")
    if geometry.pool == "average" and geometry.activation not in ("none", "relu"):
        raise ValueError("an average keeps no slope for each pixel: only ReLU may stand before it")
    if geometry.pool != "none" and geometry.residual:
        raise ValueError("a region with a residual has no pool")
    if geometry.forward not in ("fused", "library", "staged"):
        raise ValueError(f"there is no way forward named {geometry.forward!r}")
    if geometry.backward not in ("fused", "library"):
        raise ValueError(f"there is no way backward named {geometry.backward!r}")
    if geometry.forward == "staged" and geometry.groups > 1:
        raise ValueError("a convolution of several groups is not staged")
    if geometry.scale == "pool" and geometry.pool != "max":
        raise ValueError("a scale behind the pool needs a maximum")


def refuse_conv(
    geometry: ConvGeometry,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    residual: Tensor | None,
) -> ConvSizes:
    """Give the sizes; raise for tensors that do not fit together or do not fit the region."""
    shape = (geometry.filters, geometry.channels // geometry.groups, *geometry.kernel)
    has_scale = geometry.scale != "none"
    vectors = [("bias", bias, geometry.bias), ("scale", scale, has_scale)]
    refuse_tensors(x, weight, shape, vectors)
    if x.dim() != 4 or x.shape[1] != geometry.channels:
        raise ValueError(f"x has shape {tuple(x.shape)}, not (N, {geometry.channels}, H, W)")
    sizes = conv_sizes(geometry, x.shape[2], x.shape[3])
    if min(sizes) < 1:
        raise ValueError(f"an input of {sizes.height} x {sizes.width} is too small for this region")
    if (residual is not None) != geometry.residual:
        raise ValueError(f"this region takes {'a' if geometry.residual else 'no'} residual")
    if geometry.residual:
        refuse_residual(x, residual, (x.shape[0], geometry.filters, *sizes[4:]))
    return sizes


def conv_settings() -> str:
    """Give what else a launch looks at: how PyTorch's own convolutions may multiply float32."""
    return torch.backends.cudnn.conv.fp32_precision


def conv_precision(x: Tensor) -> str:
    """Multiply float32 as PyTorch's own convolutions may: in TF32, unless that is forbidden."""
    is_free = x.dtype == torch.float32 and not INTERPRETED
    return "tf32" if conv_settings() == "tf32" and is_free else "ieee"
