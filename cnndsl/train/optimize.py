"""torch's optimizers and learning rate schedules, as a recipe asks for them, and their state.

The state is kept by the names of the parameters: tensors apart from what JSON takes.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    SequentialLR,
)

from cnndsl.train.errors import UsageError
from cnndsl.train.recipe import Recipe

# In a tenth of all steps, and at most this many, the learning rate rises to its peak. Without the
# rise, AdamW's first steps are too large for deep networks.
_RISE = 500
_CYCLE_RISE = 0.3  # of a one-cycle schedule, as its author and torch have it


def make_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """An optimizer of the parameters that learn; only weights (two dims and more) decay."""
    learned = [p for p in model.parameters() if p.requires_grad]
    if not learned:
        raise UsageError("the network has nothing to learn: no layer of it has parameters")
    weights = [p for p in learned if p.ndim >= 2]
    others = [p for p in learned if p.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": recipe.decay},
        {"params": others, "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    # One pass over all weights, where PyTorch has it. Not with fp16: where the first step
    # overflows, sgd's momentum would begin with what lay in memory.
    fused = recipe.dtype != "fp16" and all(p.device.type in ("cpu", "cuda") for p in learned)
    match recipe.optimizer:
        case "adamw":
            return AdamW(groups, lr=recipe.lr, fused=fused or None)
        case "sgd":
            return SGD(
                groups,
                lr=recipe.lr,
                momentum=recipe.momentum,
                nesterov=recipe.nesterov,
                fused=fused or None,
            )


def make_schedule(optimizer: Optimizer, recipe: Recipe, steps: int) -> LRScheduler:
    """What gives each of `steps` steps its learning rate: first it rises, then it falls to zero."""
    if recipe.schedule == "one-cycle":
        rising = _CYCLE_RISE if recipe.warmup is None else min(recipe.warmup, steps - 1) / steps
        # The momentum stays what was asked for.
        return OneCycleLR(optimizer, recipe.lr, steps, pct_start=rising, cycle_momentum=False)
    usual = min(_RISE, round(0.1 * steps))
    rising = max(1, usual if recipe.warmup is None else min(recipe.warmup, steps))
    if recipe.schedule == "cosine":
        falling: LRScheduler = CosineAnnealingLR(optimizer, max(1, steps - rising))
    else:
        falling = ConstantLR(optimizer, factor=1.0)
    if rising == 1:
        return falling
    warming = LinearLR(optimizer, 1 / rising, total_iters=rising - 1)
    return SequentialLR(optimizer, [warming, falling], milestones=[rising])


def tensors_of(optimizer: Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimizer's moments: `conv1.weight.exp_avg`."""
    return {
        f"{name}.{key}": value
        for name, parameter in model.named_parameters()
        for key, value in cast("dict[str, object]", optimizer.state.get(parameter, {})).items()
        if isinstance(value, Tensor)
    }


def groups_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The settings of each group of parameters, which a schedule changes."""
    return [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]


def put_back(
    optimizer: Optimizer,
    model: nn.Module,
    tensors: dict[str, Tensor],
    groups: list[dict[str, Any]],
) -> None:
    """Bring an optimizer to the state that `tensors_of` and `groups_of` gave."""
    order = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = {id(p): number for number, p in enumerate(order)}
    names = {n: numbers[id(p)] for n, p in model.named_parameters() if id(p) in numbers}
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, kind = key.rpartition(".")
        state.setdefault(names[name], {})[kind] = tensor
    plain = optimizer.state_dict()["param_groups"]
    kept = [{**mine, **_tuples(theirs)} for mine, theirs in zip(plain, groups, strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": kept})


def _tuples(group: dict[str, Any]) -> dict[str, Any]:
    """JSON makes lists of tuples; `betas` is one."""
    return {
        key: tuple(cast("list[float]", value)) if isinstance(value, list) else value
        for key, value in group.items()
    }


def rate_of(optimizer: Optimizer) -> float:
    """The learning rate of the next step."""
    return float(optimizer.param_groups[0]["lr"])


def norm_of(gradients: list[Tensor]) -> Tensor:
    """The norm of all gradients together."""
    return torch.nn.utils.get_total_norm(gradients)
