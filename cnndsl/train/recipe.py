"""How a network is trained: the settings, the optimizer, the learning rate of every step.

Knows no data, no files and no terminal. Everything here is a pure function of the settings, so a
resumed run needs no memory of a schedule.
"""

import math
from typing import Any, Literal, Protocol, cast

import torch

from cnndsl.record import Record
from cnndsl.train.errors import UsageError

DType = Literal["fp32", "bf16"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}

# In a tenth of all steps, and at most this many, the learning rate rises to its peak; afterwards
# it falls to zero along half a cosine. Without the rise, AdamW's first steps are too large for deep
# networks.
_RISE = 500


class Recipe(Record):
    """The settings of a training run; each has the name of its flag.

    `lr` is the peak of the learning rate, `decay` AdamW's weight decay (of weights, not of biases
    and norms). `device` is `auto`, or what `torch.device` takes. With `bf16`, weights stay float32
    and layers compute in bfloat16 (autocast).
    """

    epochs: int = 12
    batch: int = 64
    lr: float = 0.003
    decay: float = 0.01
    seed: int = 0
    device: str = "auto"
    dtype: DType = "fp32"

    def check(self) -> None:
        """Raise `UsageError` for a setting with which no training could start."""
        for name in ("epochs", "batch"):
            value = cast("int", getattr(self, name))
            if value < 1:
                raise UsageError(f"{name} is {value}; it must be at least 1", f"--{name} 1")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UsageError(f"the learning rate is {self.lr}; it must be above zero", "--lr 0.003")
        if not (math.isfinite(self.decay) and self.decay >= 0):
            raise UsageError(f"the weight decay is {self.decay}; it must not be negative")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"the seed is {self.seed}; it must be from 0 up to 2³² − 1")
        if self.dtype not in DTYPES:
            raise UsageError(f"no dtype is called {self.dtype}", f"one of: {', '.join(DTYPES)}")


def choose_device(name: str) -> torch.device:
    """The device of that name, tried out; `auto` is the GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"the device `{name}` cannot be used: {reason}", "--device cpu, or --device auto"
        ) from error
    return device


class Optimizer(Protocol):
    """What the loop needs of an optimizer."""

    param_groups: list[dict[str, Any]]
    state: Any

    def zero_grad(self) -> None:
        """Forget the gradients."""
        ...

    def step(self) -> object:
        """Change the parameters along their gradients."""
        ...


def make_optimizer(model: torch.nn.Module, recipe: Recipe) -> Optimizer:
    """AdamW over the parameters that learn; only weights (two dims and more) decay."""
    learned = [p for p in model.parameters() if p.requires_grad]
    if not learned:
        raise UsageError("the network has nothing to learn: no layer of it has parameters")
    weights = [p for p in learned if p.ndim >= 2]
    others = [p for p in learned if p.ndim < 2]
    groups = [
        {"params": weights, "weight_decay": recipe.decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=recipe.lr)


def rate_at(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate of step `step` (from 0) of `steps`."""
    rising = max(1, min(_RISE, round(0.1 * steps)))
    if step < rising:
        return recipe.lr * (step + 1) / rising
    done = (step - rising) / max(1, steps - rising)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * done))
