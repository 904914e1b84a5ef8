"""What all fused convolutions of a module share: their geometry, and the way into PyTorch.

A region computes y = pool(activation(conv(x, weight) · scale + bias)); scale, bias, activation and
pool may each be absent. This file knows sizes, checks, memory and autograd. It does not know how
anything is computed: that is for the kernels, which it is handed as functions.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import triton
from torch import Tensor


class ConvGeometry(NamedTuple):
    """All that is fixed in a region; pairs are (height, width)."""

    channels: int
    filters: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    bias: bool = True
    scale: bool = False
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


class ConvLaunches(NamedTuple):
    """The functions of a region that launch its kernels."""

    forward: Callable[..., None]
    input_gradient: Callable[..., None]
    weight_gradient: Callable[..., Tensor]
    bias_gradient: Callable[..., Tensor]


class ConvTile(NamedTuple):
    """The share of one program: a tile of a matrix product, terms a step; warps and stages."""

    rows: int
    columns: int
    terms: int
    warps: int
    stages: int


class ConvSizes(NamedTuple):
    """Heights and widths: of the input, of the convolution, and after the pool."""

    height: int
    width: int
    conv_height: int
    conv_width: int
    out_height: int
    out_width: int


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


def block_size(size: int, most: int) -> int:
    """Give the least power of two that holds the size, from 16, the least a matrix unit takes."""
    return min(most, max(16, triton.next_power_of_2(size)))


def channels_last(tensor: Tensor) -> Tensor:
    """Give the tensor with channels innermost in memory: itself, if it already is so."""
    return tensor.contiguous(memory_format=torch.channels_last)


def new_image(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Allocate an (N, C, H, W) tensor with channels innermost in memory."""
    return torch.empty(
        shape,
        dtype=like.dtype,
        device=like.device,
        memory_format=torch.channels_last,
    )


def kept_dtype(geometry: ConvGeometry, dtype: torch.dtype) -> torch.dtype | None:
    """What forward keeps for backward beside x and y; None if nothing.

    A maximum keeps the position that won, in a byte. An average of ReLUs keeps a bit for each
    position that lives. An activation whose slope follows from its input keeps that.
    """
    positions = geometry.pool_size[0] * geometry.pool_size[1]
    if geometry.pool == "max":
        return torch.uint8
    if geometry.pool == "average" and geometry.activation == "relu":
        return torch.uint8 if positions <= 8 else torch.int32
    if geometry.activation == "input":
        return dtype
    return None


def keeps_output(geometry: ConvGeometry) -> bool:
    """Tell whether backward reads y: the slope follows from it, and no byte says it."""
    unpooled_relu = geometry.activation == "relu" and geometry.pool == "none"
    return geometry.activation == "output" or unpooled_relu


def conv_outputs(geometry: ConvGeometry, x: Tensor) -> tuple[Tensor, Tensor]:
    """Allocate y and what is kept for backward, shaped as y (no elements if nothing is)."""
    sizes = conv_sizes(geometry, x.shape[2], x.shape[3])
    shape = (x.shape[0], geometry.filters, sizes.out_height, sizes.out_width)
    y = new_image(x, shape)
    kept = kept_dtype(geometry, x.dtype)
    if kept is None:
        return y, x.new_empty(0, dtype=torch.uint8)
    return y, torch.empty_like(y, dtype=kept)


def refuse_geometry(geometry: ConvGeometry) -> None:
    """Raise for a region that these kernels cannot compute, whatever its input."""
    positions = geometry.pool_size[0] * geometry.pool_size[1]
    if geometry.channels % geometry.groups or geometry.filters % geometry.groups:
        raise ValueError(f"{geometry.groups} groups divide neither channels nor filters evenly")
    if geometry.filters * geometry.kernel[0] * geometry.kernel[1] * geometry.channels >= 2**31:
        raise ValueError("a weight of 2³¹ values or more")
    if geometry.pool == "max" and positions > 255:
        raise ValueError(f"a byte cannot tell which of {positions} pixels of a window won")
    if geometry.pool == "average" and geometry.activation == "relu" and positions > 31:
        raise ValueError(f"{positions} bits a window, for the live pixels of an average, exceed 31")
    if geometry.pool == "average" and geometry.activation not in ("none", "relu"):
        raise ValueError("an average keeps no slope for each pixel: only ReLU may stand before it")
    if geometry.pool != "none" and geometry.activation == "input":
        raise ValueError("an activation whose slope needs its input cannot be followed by a pool")


def refuse_inputs(
    geometry: ConvGeometry,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
) -> None:
    """Raise for tensors that do not fit together or do not fit the region."""
    for name, vector, expected in (("bias", bias, geometry.bias), ("scale", scale, geometry.scale)):
        if (vector is not None) != expected:
            raise ValueError(f"this convolution takes {'a' if expected else 'no'} {name}")
        if vector is not None and vector.device != x.device:
            raise ValueError(f"x is on {x.device}, {name} on {vector.device}")
        if vector is not None and tuple(vector.shape) != (geometry.filters,):
            raise ValueError(f"{name} has shape {tuple(vector.shape)}, not ({geometry.filters},)")
    if weight.device != x.device:
        raise ValueError(f"x is on {x.device}, weight on {weight.device}")
    if weight.dtype != x.dtype or x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise TypeError(
            f"x is {x.dtype}, weight {weight.dtype}: both must be one of float32/16/b16"
        )
    if x.dim() != 4 or x.shape[1] != geometry.channels:
        raise ValueError(f"x has shape {tuple(x.shape)}, not (N, {geometry.channels}, H, W)")
    shape = (geometry.filters, geometry.channels // geometry.groups, *geometry.kernel)
    if tuple(weight.shape) != shape:
        raise ValueError(f"weight has shape {tuple(weight.shape)}, not {shape}")
    sizes = conv_sizes(geometry, x.shape[2], x.shape[3])
    if min(sizes) < 1:
        raise ValueError(f"an input of {sizes.height} x {sizes.width} is too small for this region")


def refuse_launch(x: Tensor, programs: int, pixels: int) -> None:
    """Raise where no kernel can run, or where 32 bits are too few.

    Programs, pixels and the place of a value within its image are counted in 32 bits; an image
    starts at a 64-bit address. The margin is for tiles that are not full.
    """
    if not x.is_cuda and not triton.knobs.runtime.interpret:
        raise RuntimeError(f"x is on {x.device}: Triton needs a GPU, or TRITON_INTERPRET=1")
    if max(programs, pixels, x[:1].numel()) >= 2**31 - 2**20:
        raise ValueError("this batch has 2³¹ pixels or more, or an image 2³¹ values: split it")


def conv_precision(x: Tensor) -> str:
    """Multiply float32 as PyTorch's own convolutions may: in TF32, unless that is forbidden."""
    if triton.knobs.runtime.interpret or torch.backends.cudnn.conv.fp32_precision != "tf32":
        return "ieee"
    return "tf32"


def conv_gradients(
    geometry: ConvGeometry,
    launches: ConvLaunches,
    gradient: Tensor,
    kept: Tensor,
    y: Tensor | None,
    x: Tensor | None,
    weight: Tensor | None,
    scale: Tensor | None,
    size: Sequence[int],
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of x, weight, bias and scale that are needed; the others are empty.

    With z = conv(x, weight) · scale + bias and dz its gradient: dx = dconv(dz, weight · scale),
    dweight = raw · scale and dscale = Σ raw · weight, where raw is an unscaled weight's gradient.
    """
    dx, dweight, dbias, dscale = empty_gradients(geometry, gradient, size, needs)
    if gradient.numel() == 0:
        return dx, dweight.zero_(), dbias.zero_(), dscale.zero_()
    gradient = channels_last(gradient)
    with torch.cuda.device_of(gradient):
        if needs[0]:
            factor = weight
            if scale is not None:
                factor = (weight.float() * scale.float()[:, None, None, None]).to(weight.dtype)
            launches.input_gradient(geometry, gradient, kept, y, factor, dx)
        if needs[1] or needs[3]:
            raw = launches.weight_gradient(geometry, gradient, kept, y, x)
            if needs[3]:
                dscale = (raw * weight.float()).sum((1, 2, 3))
            if scale is not None:
                raw = raw * scale.float()[:, None, None, None]
            if needs[1]:
                dweight = raw.to(gradient.dtype)
        if needs[2]:
            dbias = launches.bias_gradient(geometry, gradient, kept, y, size[1], size[2])
    return dx, dweight, dbias, dscale


def empty_gradients(
    geometry: ConvGeometry,
    gradient: Tensor,
    size: Sequence[int],
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Allocate what conv_gradients returns; an operator must return a tensor for each."""
    g = geometry
    dx = gradient.new_empty(0)
    dweight = gradient.new_empty(0)
    if needs[0]:
        dx = new_image(gradient, (size[0], g.channels, size[1], size[2]))
    if needs[1]:
        dweight = new_image(gradient, (g.filters, g.channels // g.groups, *g.kernel))
    dbias = gradient.new_empty(g.filters if needs[2] else 0, dtype=torch.float32)
    dscale = gradient.new_empty(g.filters if needs[3] else 0, dtype=torch.float32)
    return dx, dweight, dbias, dscale


def conv_op(
    name: str,
    geometry: ConvGeometry,
    launches: ConvLaunches,
) -> Callable[..., Tensor]:
    """Register a region with PyTorch; the function that is returned runs it.

    The operators `name` and `name_backward` are opaque to torch.compile, which sees their shapes
    only. A region may be registered again under the same name: the last one counts.
    """
    refuse_geometry(geometry)

    @torch.library.custom_op(name, mutates_args=())
    def forward(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scale: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        refuse_inputs(geometry, x, weight, bias, scale)
        y, kept = conv_outputs(geometry, x)
        if y.numel() > 0:
            with torch.cuda.device_of(x):
                launches.forward(geometry, x, weight, bias, scale, y, kept)
        return y, kept

    @forward.register_fake
    def _(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scale: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        refuse_inputs(geometry, x, weight, bias, scale)
        return conv_outputs(geometry, x)

    @torch.library.custom_op(f"{name}_backward", mutates_args=())
    def backward(
        gradient: Tensor,
        kept: Tensor,
        y: Tensor | None,
        x: Tensor | None,
        weight: Tensor | None,
        scale: Tensor | None,
        size: Sequence[int],
        needs: Sequence[bool],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return conv_gradients(geometry, launches, gradient, kept, y, x, weight, scale, size, needs)

    @backward.register_fake
    def _(
        gradient: Tensor,
        kept: Tensor,
        y: Tensor | None,
        x: Tensor | None,
        weight: Tensor | None,
        scale: Tensor | None,
        size: Sequence[int],
        needs: Sequence[bool],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return empty_gradients(geometry, gradient, size, needs)

    def keep(ctx, inputs, output) -> None:
        x, weight, bias, scale = inputs
        y, kept = output
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(kept)
        needs_x, needs_weight, _, needs_scale = ctx.needs_input_grad[:4]
        ctx.size = (x.shape[0], x.shape[2], x.shape[3])
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.save_for_backward(
            kept,
            y if keeps_output(geometry) else None,
            x if needs_weight or needs_scale else None,
            weight if needs_x or needs_scale else None,
            scale,
        )

    def differentiate(ctx, gradient: Tensor | None, _kept: None) -> tuple[Tensor | None, ...]:
        needs = list(ctx.needs_input_grad[:4])
        if gradient is None or not any(needs):
            return None, None, None, None
        kept, y, x, weight, scale = ctx.saved_tensors
        found = backward(gradient, kept, y, x, weight, scale, ctx.size, needs)
        dx, dweight, dbias, dscale = (d if n else None for d, n in zip(found, needs, strict=True))
        if dbias is not None:
            dbias = dbias.to(ctx.bias_dtype)
        if dscale is not None:
            dscale = dscale.to(scale.dtype)
        return dx, dweight, dbias, dscale

    def refuse_second(ctx, *gradients: Tensor | None) -> None:
        raise RuntimeError(f"{name}: the gradient of a gradient is not computed by fused kernels")

    forward.register_autograd(differentiate, setup_context=keep)
    backward.register_autograd(refuse_second)

    def run(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, weight = x.to(dtype), weight.to(dtype)
        y, _ = forward(x, weight, bias, scale)
        return y

    return run
