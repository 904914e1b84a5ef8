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
from torch.autograd.function import FunctionCtx

from .shared import cast_as_wished, refuse_tensors


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


def conv_kept_dtype(geometry: ConvGeometry, dtype: torch.dtype) -> torch.dtype | None:
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


def conv_keeps_output(geometry: ConvGeometry) -> bool:
    """Tell whether backward reads y: the slope follows from it, and no byte says it."""
    unpooled_relu = geometry.activation == "relu" and geometry.pool == "none"
    return geometry.activation == "output" or unpooled_relu


def conv_outputs(geometry: ConvGeometry, x: Tensor) -> tuple[Tensor, Tensor]:
    """Allocate y and what is kept for backward, shaped as y (no elements if nothing is)."""
    sizes = conv_sizes(geometry, x.shape[2], x.shape[3])
    shape = (x.shape[0], geometry.filters, sizes.out_height, sizes.out_width)
    y = new_image(x, shape)
    kept = conv_kept_dtype(geometry, x.dtype)
    if kept is None:
        return y, x.new_empty(0, dtype=torch.uint8)
    return y, torch.empty_like(y, dtype=kept)


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
    if geometry.pool != "none" and geometry.activation == "input":
        raise ValueError("an activation whose slope needs its input cannot be followed by a pool")


def refuse_conv(
    geometry: ConvGeometry,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
) -> None:
    """Raise for tensors that do not fit together or do not fit the region."""
    shape = (geometry.filters, geometry.channels // geometry.groups, *geometry.kernel)
    vectors = [("bias", bias, geometry.bias), ("scale", scale, geometry.scale)]
    refuse_tensors(x, weight, shape, vectors)
    if x.dim() != 4 or x.shape[1] != geometry.channels:
        raise ValueError(f"x has shape {tuple(x.shape)}, not (N, {geometry.channels}, H, W)")
    sizes = conv_sizes(geometry, x.shape[2], x.shape[3])
    if min(sizes) < 1:
        raise ValueError(f"an input of {sizes.height} x {sizes.width} is too small for this region")


def conv_precision(x: Tensor) -> str:
    """Multiply float32 as PyTorch's own convolutions may: in TF32, unless that is forbidden."""
    wished = torch.backends.cudnn.conv.fp32_precision
    return "tf32" if wished == "tf32" and not triton.knobs.runtime.interpret else "ieee"


def conv_empty_gradients(
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
    dx, dweight, dbias, dscale = conv_empty_gradients(geometry, gradient, size, needs)
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


def conv_keep(
    geometry: ConvGeometry,
    ctx: FunctionCtx,
    inputs: tuple[Tensor | None, ...],
    output: tuple[Tensor, Tensor],
) -> None:
    """Save for backward what the needed gradients read, and no more."""
    x, weight, bias, scale = inputs
    y, kept = output
    needs_x, needs_weight, _, needs_scale = ctx.needs_input_grad[:4]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(kept)
    ctx.size = (x.shape[0], x.shape[2], x.shape[3])
    ctx.dtypes = (x.dtype, weight.dtype, *(None if v is None else v.dtype for v in (bias, scale)))
    ctx.save_for_backward(
        kept,
        y if conv_keeps_output(geometry) else None,
        x if needs_weight or needs_scale else None,
        weight if needs_x or needs_scale else None,
        scale,
    )


def conv_op(name: str, geometry: ConvGeometry, launches: ConvLaunches) -> Callable[..., Tensor]:
    """Register a region with PyTorch; the function that is returned runs it.

    The operators `name` and `name_backward` are opaque to torch.compile, which sees their shapes
    only. A region may be registered again under the same name: the last one counts.
    """
    refuse_geometry(geometry)

    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        refuse_conv(geometry, x, weight, bias, scale)
        y, kept = conv_outputs(geometry, x)
        if y.numel() > 0:
            with torch.cuda.device_of(x):
                launches.forward(geometry, x, weight, bias, scale, y, kept)
        return y, kept

    def fake_forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        refuse_conv(geometry, x, weight, bias, scale)
        return conv_outputs(geometry, x)

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

    def fake_backward(
        gradient: Tensor,
        kept: Tensor,
        y: Tensor | None,
        x: Tensor | None,
        weight: Tensor | None,
        scale: Tensor | None,
        size: Sequence[int],
        needs: Sequence[bool],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return conv_empty_gradients(geometry, gradient, size, needs)

    forward_op = torch.library.custom_op(name, forward, mutates_args=())
    backward_op = torch.library.custom_op(f"{name}_backward", backward, mutates_args=())

    def keep(
        ctx: FunctionCtx,
        inputs: tuple[Tensor | None, ...],
        output: tuple[Tensor, Tensor],
    ) -> None:
        conv_keep(geometry, ctx, inputs, output)

    def differentiate(
        ctx: FunctionCtx, gradient: Tensor | None, _kept: None
    ) -> tuple[Tensor | None, ...]:
        needs = list(ctx.needs_input_grad[:4])
        if gradient is None or not any(needs):
            return None, None, None, None
        found = backward_op(gradient, *ctx.saved_tensors, ctx.size, needs)
        dtypes = zip(found, needs, ctx.dtypes, strict=True)
        return tuple(d.to(dtype) if need else None for d, need, dtype in dtypes)

    def refuse_second(ctx: FunctionCtx, *gradients: Tensor | None) -> None:
        raise RuntimeError(f"{name}: the gradient of a gradient is not computed by fused kernels")

    forward_op.register_fake(fake_forward)
    forward_op.register_autograd(differentiate, setup_context=keep)
    backward_op.register_fake(fake_backward)
    backward_op.register_autograd(refuse_second)

    def run(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> Tensor:
        y, _ = forward_op(*cast_as_wished(x, weight), bias, scale)
        return y

    # For tools that look at the launches, on tensors that have shapes but no memory.
    run.operators = {name: forward, f"{name}_backward": backward}
    return run
