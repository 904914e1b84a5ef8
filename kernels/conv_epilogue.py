"""What happens to a sum of the convolution before it is written: bias and activation."""

import triton
import triton.language as tl

# ── holes: the emitter puts the region's own functions here ─────────────────────────────────────


@triton.jit
def conv_activation(z):
    """Apply ReLU; NaN passes."""
    return tl.where(z <= 0, 0.0, z)


# ── kernels ─────────────────────────────────────────────────────────────────────────────────────


@triton.jit
def conv_biased(z, bias_ptr, filter, filter_mask):
    """Add the bias to a tile of filters by pixels."""
    bias = tl.load(bias_ptr + filter, mask=filter_mask, other=0.0)
    return z + bias.to(tl.float32)[:, None]
