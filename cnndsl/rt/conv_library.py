"""The products of a convolution by PyTorch's library, which is cuDNN on an NVIDIA GPU.

Where a region is bound by arithmetic, or its groups are too small for a matrix unit, the library
multiplies, and one pass of ours does all the rest.
"""

import threading
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .conv_geometry import ConvGeometry
from .module import widened_on_cpu
from .shared import channels_last, new_image

# Whether cuDNN is deterministic is one setting of the whole process.
DETERMINISTIC_LOCK = threading.Lock()


def deterministic(function: Callable[..., object], *given: object) -> object:
    """Call a function while cuDNN may choose only algorithms that give the same bits each time.

    PyTorch's operators for gradients take this from a setting of the process alone. So threads take
    turns while they launch, and each leaves the setting as it was.
    """
    with DETERMINISTIC_LOCK:
        chosen = torch._C._get_cudnn_deterministic()
        # torch.backends may forbid what is set by name.
        torch._C._set_cudnn_deterministic(True)
        try:
            return function(*given)
        finally:
            torch._C._set_cudnn_deterministic(chosen)


def conv_product(geometry: ConvGeometry, x: Tensor, weight: Tensor) -> Tensor:
    """Convolve x (N, C, H, W) with weight, and nothing else; channels innermost."""
    g = geometry
    z = F.conv2d(
        widened_on_cpu(channels_last(x)),
        widened_on_cpu(channels_last(weight)),
        None,
        g.stride,
        g.pad,
        g.dilation,
        g.groups,
    )
    return channels_last(z)


def conv_product_gradients(
    geometry: ConvGeometry,
    dz: Tensor,
    x: Tensor | None,
    weight: Tensor | None,
    size: Sequence[int],
    needs: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Give the gradients of x and weight from that of the convolution; None where not needed.

    What the other needs alone may be absent. The same bits each time: cuDNN is told so.
    """
    g = geometry
    if not any(needs):
        return None, None
    if x is None:  # its shape and layout alone are read
        x = new_image(dz, (size[0], g.channels, *size[1:]))
    if weight is None:
        weight = new_image(dz, (g.filters, g.channels // g.groups, *g.kernel))
    given = (
        widened_on_cpu(dz),
        widened_on_cpu(channels_last(x)),
        widened_on_cpu(channels_last(weight)),
        None,
        g.stride,
        g.pad,
        g.dilation,
        False,
        (0, 0),
        g.groups,
        (needs[0], needs[1], False),
    )
    gradients = torch.ops.aten.convolution_backward
    if dz.is_cuda:
        dx, dweight, _ = deterministic(gradients, *given)
    else:
        dx, dweight, _ = gradients(*given)
    if dx is not None:
        dx = channels_last(dx.to(dz.dtype))
    return dx, dweight
