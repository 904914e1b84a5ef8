"""The gradient before the pool and the activation, rebuilt wherever it is read.

Of a window's gradient, the pixel that won gets all, or each pixel of an average its share, and a
pixel that the activation blocks gets none.
"""

import triton
import triton.language as tl

from cnndsl.rt.shared import full

# ── holes: the emitter puts the region's own functions here ─────────────────────────────────────


@triton.jit
def conv_activation_gradient(saved, gradient):
    """Take a gradient back through ReLU, of which the output was saved; NaN is alive."""
    return tl.where(saved <= 0, 0.0, gradient)


# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


@triton.jit
def conv_unpooled(
    gradient_ptr,
    saved_ptr,
    offset,
    mask,
    C: tl.constexpr,
):
    """Read a tile of the gradient and take it back through the activation.

    Where there is a residual, of which this is the gradient too, that has been done before.
    """
    gradient = tl.load(gradient_ptr + offset, mask=mask, other=0.0)
    if C.activation != "none" and not C.residual:
        saved = full(tl.load(saved_ptr + offset, mask=mask, other=0.0))
        gradient = conv_activation_gradient(saved, full(gradient))
    return gradient.to(gradient_ptr.dtype.element_ty)


@triton.jit
def conv_rebuilt(
    gradient_ptr,
    winner_ptr,
    alive_ptr,
    saved_ptr,
    offset,
    mask,
    position,
    C: tl.constexpr,
):
    """Rebuild a tile of the gradient before the pool: what windows give to one position in each.

    An average gives a share of it: that division is left to the caller.
    """
    gradient = tl.load(gradient_ptr + offset, mask=mask, other=0.0)
    if C.activation == "output" or C.activation == "input":
        saved = full(tl.load(saved_ptr + offset, mask=mask, other=0.0))
        gradient = conv_activation_gradient(saved, full(gradient))
    # Only now: the slope is that of the pixel that won. Where it is NaN, the others still get 0.
    if C.pool == "max":
        winner = tl.load(winner_ptr + offset, mask=mask, other=0).to(tl.int32)
        gradient = tl.where(winner == position + 1, gradient, 0.0)
    elif C.activation == "relu":
        alive = tl.load(alive_ptr + offset, mask=mask, other=0).to(tl.int32)
        gradient = tl.where(((alive >> position) & 1) == 1, gradient, 0.0)
    return gradient.to(gradient_ptr.dtype.element_ty)
