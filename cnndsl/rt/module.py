"""What a module needs around its kernels: where they run, and batchnorm in inference.

Kernels read a layer's weights and do what the layer did when the network was compiled. A layer that
was changed since is called instead, as PyTorch would call it. Nothing of this is remembered: a
layer may change between any two calls.
"""

from collections.abc import Sequence

import torch
import triton
from torch import Tensor, nn

from .dispatch import PLAIN_TYPES, needs_operators, tools

# Triton decides this for each kernel when it is defined.
INTERPRETED = triton.knobs.runtime.interpret
GPU_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# Triton's interpreter gets bfloat16 wrong.
INTERPRETED_TYPES = (torch.float32, torch.float16, torch.float64)
TRACED_TYPES = (
    torch._subclasses.FakeTensor,
    torch._subclasses.functional_tensor.FunctionalTensor,
)
# What calls of PyTorch's layers run when this file is loaded: a class may be patched later.
METHODS = {
    nn.BatchNorm2d: (nn.BatchNorm2d.forward, None),
    nn.Conv2d: (nn.Conv2d.forward, nn.Conv2d._conv_forward),
    nn.Linear: (nn.Linear.forward, None),
}


def runs_kernels(x: Tensor) -> bool:
    """Say whether kernels compute with x: on a GPU, or in Triton's interpreter."""
    if tools.takes is not None:
        return tools.takes(x)
    if needs_operators(x):
        return False
    if x.is_cuda:
        return x.dtype in GPU_TYPES
    if not INTERPRETED:
        return False
    return x.dtype in INTERPRETED_TYPES and not torch.is_autocast_enabled("cpu")


def is_unaltered(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Say whether a call of a layer runs the code of this class and nothing else.

    Not so with a class of its own (parametrizations give it one), a `forward` of its own, hooks, or
    where the class was patched.
    """
    if type(layer) is not kind or is_patched(kind):
        return False
    own = vars(layer)
    return not (
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
        or "forward" in own
        or "_conv_forward" in own
        or nn.modules.module._has_any_global_hook()
    )


def is_patched(kind: type[nn.Module]) -> bool:
    """Say whether one of PyTorch's classes has got another method."""
    forward, inner = METHODS.get(kind, (kind.forward, None))
    if inner is not None and kind._conv_forward is not inner:
        return True
    return kind.forward is not forward


def plain_weights(
    layer: nn.Module,
    shape: Sequence[int],
    has_bias: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Give weight and bias as the layer would read them; None for both where kernels cannot.

    They can read a weight of this shape and a bias or none, if these are plain tensors.
    """
    own = vars(layer)
    parameters = own["_parameters"]
    weight = own.get("weight", parameters.get("weight"))
    bias = own.get("bias", parameters.get("bias"))
    if not is_plain_tensor(weight, shape):
        return None, None
    if bias is None:
        return (None, None) if has_bias else (weight, None)
    is_fine = has_bias and is_plain_tensor(bias, shape[:1])
    return (weight, bias) if is_fine else (None, None)


def is_plain_tensor(tensor: Tensor | None, shape: Sequence[int]) -> bool:
    """Say whether it has this shape, and no class of its own (a DTensor, torchao's).

    The classes with which PyTorch traces do not count.
    """
    if tensor is None or tensor.shape != shape:
        return False
    return type(tensor) in PLAIN_TYPES or isinstance(tensor, TRACED_TYPES)


def full_dtype(x: Tensor) -> torch.dtype:
    """Give the type in which values like these are added: of 32 bits for 16."""
    return torch.promote_types(x.dtype, torch.float32)


def widened(x: Tensor) -> Tensor:
    """Give the values in the type in which they are added."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def widened_on_cpu(x: Tensor | None) -> Tensor | None:
    """Give 16 bits as 32 on a CPU, where PyTorch's library rounds between the terms of a sum."""
    return x if x is None or x.device.type != "cpu" else widened(x)


def scale_and_shift(norm: nn.BatchNorm2d, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Put batchnorm in inference as z · scale + shift; bias is that of the layer before."""
    scale = torch.rsqrt(widened(norm.running_var) + norm.eps)
    if norm.weight is not None:
        scale = scale * widened(norm.weight)
    mean = widened(norm.running_mean)
    if bias is not None:
        mean = mean - widened(bias)
    if norm.bias is None:
        return scale, -mean * scale
    return scale, torch.addcmul(widened(norm.bias), mean, scale, value=-1)


def takes_batch(norm: nn.BatchNorm2d) -> bool:
    """Say whether mean and variance are those of the batch, as in training."""
    return norm.training or norm.running_mean is None
