"""PyTorch's operators on a CPU: how a region runs faster through them than layer by layer.

Channels lie innermost: pools of PyTorch are up to ten times faster so. Where nothing looks on
between two layers, they share memory; in inference batchnorm goes into the weights. Those are
folded anew in each call: whoever changes weights need tell nobody. Values are the layers' own, but
for the rounding of folded weights. Knows no kernels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dispatch import PLAIN_TYPES, is_special, is_watched
from .module import is_unaltered, scale_and_shift, takes_batch

# For fewer values, looking at the layers takes longer than what it saves.
LEAST_TO_LOOK_FOR = 2**15
# Folding is a pass over the weights and a few small operators; it saves a pass over the images.
LEAST_TO_FOLD_FOR_A_WEIGHT = 4
# With more weights than so many times the values of the images, laying them anew takes longer than
# what it saves. A gradient of theirs is laid anew as well.
MOST_WEIGHTS = 32
MOST_WEIGHTS_WITH_GRADIENT = 8


def in_layout_for(x: Tensor, *layers: nn.Module) -> Tensor:
    """Put channels innermost in memory, where a CPU computes in float32.

    A convolution then lays its weights so, too. Where they outweigh the images, these follow them.
    A layer that was altered gets its images as in a network written by hand: it may need them so.
    """
    if not torch.compiler.is_compiling() and is_special(x):
        return x
    if any(is_altered(layer) for layer in layers):
        return x.contiguous()
    if is_watched(x) or x.device.type != "cpu" or x.dtype != torch.float32:
        return x
    weight = layers[0].weight
    share = MOST_WEIGHTS_WITH_GRADIENT if torch.is_grad_enabled() else MOST_WEIGHTS
    if weight.numel() > share * x.numel() and not has_channels_innermost(weight):
        return x.contiguous()
    count, channels, height, width = x.shape
    if channels == 1:  # it is so already; but PyTorch takes it for the other layout
        return x.reshape(count, height, width, 1).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


def has_channels_innermost(tensor: Tensor) -> bool:
    """Say whether an image or a weight lies so in memory."""
    return tensor.is_contiguous(memory_format=torch.channels_last)


def is_altered(layer: nn.Module) -> bool:
    """Say whether a layer is not PyTorch's own, or computes or is watched in a way of its own."""
    kind = type(layer)
    if kind not in (nn.Conv2d, nn.BatchNorm2d) or not is_unaltered(layer, kind):
        return True
    return layer.weight is not None and type(layer.weight) not in PLAIN_TYPES


def is_unseen(x: Tensor, *layers: nn.Module) -> bool:
    """Say whether a CPU computes many float32, and nothing looks on between these layers."""
    return (
        not is_watched(x)  # a compiler would take the comparison below for a bound
        and x.numel() >= LEAST_TO_LOOK_FOR
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not any(is_altered(layer) for layer in layers)
        and not any(is_watched(layer.weight) for layer in layers)
    )


def conv_norm(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Give norm(conv(x)), where `is_unseen`; in inference in one pass, if that is worth folding."""
    least = LEAST_TO_FOLD_FOR_A_WEIGHT * conv.weight.numel()
    if torch.is_grad_enabled() or takes_batch(norm) or x.numel() < least:
        return norm(conv(x))
    scale, shift = scale_and_shift(norm, conv.bias)
    return conv._conv_forward(x, conv.weight * scale.view(-1, 1, 1, 1), shift)


def max_pool2(x: Tensor) -> Tensor:
    """Give F.max_pool2d(x, 2); in inference on a CPU faster, by comparing slices."""
    if torch.is_grad_enabled() or is_watched(x) or x.device.type != "cpu":
        return F.max_pool2d(x, 2)
    height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    x = torch.maximum(x[:, :, 0:height:2], x[:, :, 1:height:2])
    return torch.maximum(x[:, :, :, 0:width:2], x[:, :, :, 1:width:2])
