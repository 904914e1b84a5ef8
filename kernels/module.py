"""What a module needs around its kernels: where they run, and batchnorm in inference."""

import torch
import triton
from torch import Tensor, nn

# Triton decides this for each kernel when it is defined.
INTERPRETED = triton.knobs.runtime.interpret
GPU_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# Triton's interpreter gets bfloat16 wrong.
INTERPRETED_TYPES = (torch.float32, torch.float16, torch.float64)


def runs_kernels(x: Tensor) -> bool:
    """Say whether kernels compute with x: on a GPU, or in Triton's interpreter."""
    # meta: tensors that are shapes alone, for tools that look at what a GPU would do.
    if x.is_cuda or x.is_meta:
        return x.dtype in GPU_TYPES
    if not INTERPRETED:
        return False
    return x.dtype in INTERPRETED_TYPES and not torch.is_autocast_enabled("cpu")


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


def has_own_statistics(norm: nn.Module) -> bool:
    """Say whether batchnorm asks nobody else: SyncBatchNorm asks other processes."""
    return isinstance(norm, nn.BatchNorm2d)


def takes_batch(norm: nn.BatchNorm2d) -> bool:
    """Say whether mean and variance are those of the batch, as in training."""
    return norm.training or norm.running_mean is None
