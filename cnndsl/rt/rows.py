"""How images lie in memory outside of the network.

Within a network channels lie innermost. Images that are given by rows, as PyTorch lays them unless
it is asked otherwise, come back by rows: `.view` works on them as on those of a network that is
written by hand. What torch.fx traces with, which is no tensor, passes as it is. Knows no
kernels.
"""

import torch
from torch import Tensor, nn

from .dispatch import is_watched
from .module import is_unaltered, runs_kernels


def are_by_rows(x: Tensor) -> bool:
    """Say whether what a network gives for x is to lie by rows.

    Images of one channel are contiguous in both layouts: their strides say which is meant.
    """
    if torch.compiler.is_compiling():
        return not torch.compiler.is_exporting()
    if not isinstance(x, Tensor) or not x.is_contiguous():
        return False
    return x.dim() != 4 or x.stride(1) != 1


def are_seen_by_rows(x: Tensor, block: nn.Module) -> bool:
    """Say whether what a block gives for x is to lie by rows.

    Its neighbours give it channels innermost, and want them so; others give it rows. Hooks may look
    at what it gives.
    """
    if torch.compiler.is_compiling() or not isinstance(x, Tensor):
        return False
    if block._forward_hooks or nn.modules.module._has_any_global_hook():
        return True
    if is_watched(x):
        return False  # vmap cannot say how x lies; PyTorch's operators keep rows
    return x.is_contiguous() and not x.is_contiguous(memory_format=torch.channels_last)


def laid_for(x: Tensor, layer: nn.Module, kind: type[nn.Module]) -> Tensor:
    """Give an image to a layer that has no kernel: by rows, unless the layer is as compiled."""
    if torch.compiler.is_compiling() or not isinstance(x, Tensor):
        return x
    return x if is_unaltered(layer, kind) else x.contiguous()


def with_gradient_by_rows(x: Tensor) -> Tensor:
    """Give x, the gradient of which lies by rows if x does."""
    if is_watched(x) or not isinstance(x, Tensor):
        return x
    if x.requires_grad and torch.is_grad_enabled() and x.is_contiguous():
        x = x.view_as(x)
        x.register_hook(Tensor.contiguous)
    return x


def for_blocks(x: Tensor) -> Tensor:
    """Put channels innermost before the first block, so that it hands them on so."""
    if is_watched(x) or not isinstance(x, Tensor):
        return x
    is_fast = runs_kernels(x) or (x.device.type == "cpu" and x.dtype == torch.float32)
    return x.contiguous(memory_format=torch.channels_last) if is_fast else x
