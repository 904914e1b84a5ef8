"""What a captured step has kept of its surroundings: where that differs, the graph is stale.

A CUDA graph repeats the kernels of one call with the numbers of that call. All that Python decided
on the way (a momentum, a rate, who is frozen, whether TF32 is allowed) is fixed in it. Knows
PyTorch; knows nothing of graphs.
"""

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Setting = tuple[object, ...]

_PLAIN = (int, float, bool, str, type(None), torch.dtype, torch.device)
# The learning rate of a captured step lies in a tensor that each step fills.
_FILLED = ("params", "lr", "initial_lr")
_HOOKS_OF_MODULE = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
_HOOKS_OF_PARAMETER = ("_backward_hooks", "_post_accumulate_grad_hooks")
_HOOKS_OF_OPTIMIZER = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")


def of_model(model: nn.Module) -> Setting:
    """What layers were told, where weights lie, what is frozen, and who looks on."""
    return (
        *(_of_module(module) for module in model.modules()),
        *(_of_parameter(parameter) for parameter in model.parameters()),
        *(buffer.data_ptr() for buffer in model.buffers()),
    )


def of_optimizer(optimizer: Optimizer) -> Setting:
    """All but the learning rates; which parameters are in which group, and the hooks."""
    return (
        *(
            (key, repr(value))
            for group in optimizer.param_groups
            for key, value in group.items()
            if key not in _FILLED
        ),
        *(tuple(id(p) for p in group["params"]) for group in optimizer.param_groups),
        *_hooks(optimizer, _HOOKS_OF_OPTIMIZER),
    )


def of_loss(loss: Callable[..., object]) -> Setting:
    """Those of a loss that is a module; a function of the model has the model's."""
    return of_model(loss) if isinstance(loss, nn.Module) else ()


def of_process() -> Setting:
    """PyTorch's settings by which an operator chooses how to compute."""
    cudnn, matmul = cast("Any", torch.backends.cudnn), cast("Any", torch.backends.cuda.matmul)
    modules = cast("Any", nn.modules.module)
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cuda"),
        torch.get_autocast_dtype("cuda"),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_anomaly_enabled(),
        cudnn.enabled,
        cudnn.benchmark,
        cudnn.deterministic,
        cudnn.conv.fp32_precision,
        matmul.fp32_precision,
        matmul.allow_fp16_reduced_precision_reduction,
        matmul.allow_bf16_reduced_precision_reduction,
        bool(modules._has_any_global_hook()),
    )


def _of_module(module: nn.Module) -> Setting:
    """Its own attributes that are plain values, in their order: momentum, eps, p, `training`."""
    own = vars(module)
    values = tuple(value for value in own.values() if _is_plain(value))
    # A parametrised module is of another class; one that was replaced is another object.
    return id(module), type(module), own.get("forward"), values, *_hooks(module, _HOOKS_OF_MODULE)


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(element) for element in cast("tuple[object, ...]", value))
    return isinstance(value, _PLAIN)


def _of_parameter(parameter: Tensor) -> Setting:
    place = parameter.data_ptr(), parameter.dtype, parameter.shape, parameter.stride()
    return *place, parameter.requires_grad, *_hooks(parameter, _HOOKS_OF_PARAMETER)


def _hooks(owner: object, names: tuple[str, ...]) -> Iterator[tuple[object, ...]]:
    """The hooks of each kind, by their numbers, which no other hook has again."""
    for name in names:
        yield tuple(getattr(owner, name, None) or ())
