"""One step of learning: gradients of a batch, and what the optimizer makes of them.

Holds all that changes with a step (weights, moments, schedule, scale, averages) and gives it as a
checkpoint's values. Knows no epochs, no files and no terminal.
"""

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cnndsl.record import Record
from cnndsl.runtime.graph import Captured, CaptureError
from cnndsl.train import optimize
from cnndsl.train.augment import Augment
from cnndsl.train.ending import summed_loss, taken_for
from cnndsl.train.examples import IGNORED, Batch
from cnndsl.train.network import Logits, naming_one_image
from cnndsl.train.ranks import ALONE, Ranks, naming_the_lost
from cnndsl.train.recipe import DTYPES, Recipe

# Below this, a scale of the loss does no more than none would: the gradients themselves are wrong.
_LEAST_SCALE = 2.0**-10


class Sums(Record):
    """Over the images of a step: the loss, how many were recognised, how many there were."""

    loss: float
    right: float
    seen: float


class NotFiniteError(Exception):
    """A step whose numbers are nan or infinite; it has changed nothing."""


class Learner:
    """A network that learns, in as many steps as its schedule has."""

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        steps: int,
        device: torch.device,
        ranks: Ranks = ALONE,
        leaves_out: bool = False,
    ) -> None:
        """`leaves_out`: there are parameters on which the logits do not depend."""
        self.model = model
        self.device = device
        self._recipe = recipe
        self._ranks = ranks
        self._dtype = DTYPES[recipe.dtype]
        self._network = _divided(model, device, ranks, leaves_out)
        self._augment = Augment(recipe.flip, recipe.crop)
        self._optimizer = optimize.make_optimizer(model, recipe)
        is_graphed = device.type == "cuda" and ranks.world == 1 and recipe.may_be_graphed
        self._captured = Captured(self._capturable, model, tuple) if is_graphed else None
        self._schedule = optimize.make_schedule(self._optimizer, recipe, steps)
        self._scaler = torch.amp.GradScaler(device.type, enabled=recipe.dtype == "fp16")
        self._average = (
            AveragedModel(
                model, multi_avg_fn=cast("Any", get_ema_multi_avg_fn(recipe.ema)), use_buffers=True
            )
            if recipe.ema
            else None
        )

    @property
    def judged(self) -> nn.Module:
        """The network that is tested and used: the average, where one is kept."""
        return self._average.module if self._average is not None else self.model

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return optimize.rate_of(self._optimizer)

    def gradients(self, batch: Batch, seed: int) -> Sums:
        """Compute the gradients of the mean loss over a batch, of which this process has a part."""
        self._optimizer.zero_grad()
        images = batch.images.to(self.device)
        images = self._augment(images, seed, batch.first, batch.whole)
        labels = batch.labels.to(self.device)
        seen = float((labels != IGNORED).sum())
        if self._captured is not None:
            try:
                loss, right = self._captured(images, labels)
                return Sums(float(loss), float(right), seen)
            except CaptureError as error:
                warnings.warn(f"{error}\nThe training goes on without graphs.", stacklevel=2)
                self._captured = None
                self._optimizer.zero_grad()
        # DDP takes the mean over the processes; the loss is one over the images of all.
        share = self._ranks.world / batch.whole
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        right = torch.zeros((), dtype=torch.int64, device=self.device)
        pieces = min(self._recipe.accumulate, len(labels))
        cut = zip(images.tensor_split(pieces), labels.tensor_split(pieces), strict=True)
        for number, (x, y) in enumerate(cut, 1):
            with self._apart(number < pieces), naming_the_lost(), naming_one_image():
                total, found = self._backward(x, y, share)
            loss += total
            right += found
        return Sums(float(loss), float(right), seen)

    def _backward(self, x: Tensor, y: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Add the gradients of the summed loss, times `share`; gives it, and how many are right."""
        with torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32):
            logits = cast("Tensor", self._network(x)).float()
        total = summed_loss(logits, y, self._recipe.smoothing)
        torch.autograd.backward(self._scaler.scale(total * share))
        return total.detach(), (taken_for(logits) == y).sum()

    def _capturable(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """The same for a whole batch in one piece, as a CUDA graph can do it again."""
        self._optimizer.zero_grad()
        return self._backward(x, y, 1 / len(y))

    def update(self) -> None:
        """Change the weights along the gradients; `NotFiniteError` where these are no numbers."""
        self._scaler.unscale_(self._optimizer)
        named = {n: p.grad for n, p in self.model.named_parameters() if p.grad is not None}
        norm = optimize.norm_of(list(named.values()))
        is_finite = bool(torch.isfinite(norm))
        if not is_finite and not self._may_scale_down():
            bad = [n for n, g in named.items() if not torch.isfinite(g).all()]
            raise NotFiniteError(
                f"the gradient of `{bad[-1]}` holds nan or infinity" if bad else ""
            )
        if self._recipe.clip:
            learned = [p for p in self.model.parameters() if p.grad is not None]
            torch.nn.utils.clip_grads_with_norm_(learned, self._recipe.clip, norm)
        self._scaler.step(self._optimizer)  # passes over gradients that overflowed
        self._scaler.update()
        if not is_finite:
            return
        self._schedule.step()
        if self._average is not None:
            self._average.update_parameters(self.model)

    def _may_scale_down(self) -> bool:
        return self._scaler.is_enabled() and self._scaler.get_scale() >= _LEAST_SCALE

    @contextmanager
    def _apart(self, is_apart: bool) -> Generator[None]:
        """Keep gradients of all but the last piece from being sent to the other processes."""
        if not isinstance(self._network, DistributedDataParallel):
            yield
        elif is_apart:
            with self._network.no_sync():
                yield
        else:
            with warnings.catch_warnings():
                # For one channel, strides can be told in two ways, and the CPU tells the other.
                warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
                yield

    # ── state ────────────────────────────────────────────────────────────────────────────────────

    def weights(self) -> dict[str, Tensor]:
        """The network that is used, by names of its own."""
        return cast("dict[str, Tensor]", self.judged.state_dict())

    def learning(self) -> dict[str, Tensor]:
        """The network that learns, where it is another one than the network that is used."""
        if self._average is None:
            return {}
        return cast("dict[str, Tensor]", self.model.state_dict())

    def moments(self) -> dict[str, Tensor]:
        """The optimizer's tensors, by parameter."""
        return optimize.tensors_of(self._optimizer, self.model)

    def settings(self) -> dict[str, Any]:
        """All else that changes with a step, as values that JSON takes."""
        return {
            "groups": optimize.groups_of(self._optimizer),
            "schedule": self._schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
            "averaged": int(self._average.n_averaged) if self._average is not None else 0,
        }

    def put_back(
        self,
        weights: dict[str, Tensor],
        learning: dict[str, Tensor],
        moments: dict[str, Tensor],
        settings: dict[str, Any],
    ) -> None:
        """Bring everything to where it was; `RuntimeError` for another network's weights."""
        self.judged.load_state_dict(weights)
        if self._average is not None:
            self.model.load_state_dict(learning)
            self._average.n_averaged.fill_(settings["averaged"])
        optimize.put_back(self._optimizer, self.model, moments, settings["groups"])
        self._schedule.load_state_dict(settings["schedule"])
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(settings["scaler"])


def _divided(model: nn.Module, device: torch.device, ranks: Ranks, leaves_out: bool) -> nn.Module:
    """The network as a step calls it; with others, its gradients become their mean."""
    network = Logits(model)
    if ranks.world == 1:
        return network
    with naming_the_lost():
        return DistributedDataParallel(
            network,
            device_ids=[device] if device.type == "cuda" else None,
            find_unused_parameters=leaves_out,
        )
