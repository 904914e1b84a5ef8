"""A network under training: epochs and steps, when to save, and what a checkpoint says of them.

Several processes go through it side by side: whatever one of them decides by itself (a signal came,
a second has passed) goes round with the sums of a step, so that all do the same. Knows nothing of
`.cnn` files, folders of images or terminals.
"""

import math
import platform
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from cnndsl.record import Record
from cnndsl.train import chance
from cnndsl.train.checkpoint import BEST, Checkpoint, load, load_to_use, save
from cnndsl.train.config import VERSION
from cnndsl.train.data import Data
from cnndsl.train.errors import TrainError
from cnndsl.train.evaluate import Scores, evaluate
from cnndsl.train.examples import Batch, Examples, TensorExamples
from cnndsl.train.fitness import check_all
from cnndsl.train.interrupt import Interrupts, Watch
from cnndsl.train.labelled import refuse_strangers
from cnndsl.train.learner import Learner, NotFiniteError
from cnndsl.train.network import first_not_finite, leaves_out
from cnndsl.train.progress import Reporter
from cnndsl.train.ranks import Ranks
from cnndsl.train.recipe import DTYPES, Recipe
from cnndsl.train.run import Origin, Run

# While an epoch runs, a checkpoint is saved when a second has passed since the last one and
# saving has taken no more than a twentieth of the time.
SAVE_EVERY = 1.0
_SAVING_SHARE = 20

_SPEED = "images_per_second"

_NOT_FINITE_FIXES = (
    "lower the learning rate: a third of `--lr` is a good next try",
    "look at the images and labels: values far from 0, or labels that are wrong, do this too",
)


class Outcome(Record):
    """What came of it: each epoch's metrics, and what ended it early, if anything did.

    `interrupted` is a signal; `best_is_used` says that the recipe had patience, so that the network
    to use is that of the best epoch, not of the last. `final` is what that network comes to on test
    images which no epoch was judged by; None where the data has no such part.
    """

    metrics: tuple[dict[str, Any], ...]
    interrupted: int | None = None
    best_is_used: bool = False
    final: Scores | None = None

    @property
    def best(self) -> dict[str, Any]:
        """The metrics of the epoch with the lowest test loss (training loss, without a test)."""
        return _best(self.metrics)


class Session:
    """A model under training, and how far it has come."""

    def __init__(
        self, model: nn.Module, data: Data, recipe: Recipe, reporter: Reporter, ranks: Ranks
    ) -> None:
        self.model = model
        self.recipe = recipe
        self.reporter = reporter
        self.ranks = ranks
        self.folder: Run | None = None
        self.classes = check_all(model, data, recipe, ranks)
        self.device = ranks.device(recipe.device)
        self.data = _on_device(data, self.device)
        self.steps = data.train.steps(recipe.batch)
        model.to(self.device)
        self.learner = Learner(
            model,
            recipe,
            recipe.epochs * self.steps,
            self.device,
            ranks,
            ranks.world > 1 and leaves_out(model, _first_images(data).to(self.device)),
        )
        self.metrics: list[dict[str, Any]] = []
        # How far: finished epochs, steps in this one, and what they have come to.
        self.epoch = 0
        self.position = 0
        self.lr = 0.0
        self.loss = 0.0
        self.right = 0
        self.seen = 0
        self._interrupted = False
        self._save_every = SAVE_EVERY
        self._saved_at = (time.monotonic(), 0.0)  # when, and how long it took

    # ── going through the data ───────────────────────────────────────────────────────────────────

    def run(self, save_every: float) -> Outcome:
        """Train until the last epoch, until it gets no better, or until a signal."""
        self._save_every = save_every
        with Interrupts(is_patient=self.ranks.world > 1) as interrupts:
            self.reporter.begin(self.recipe.epochs)
            try:
                while not (self._interrupted or self.is_finished):
                    self._run_epoch(interrupts)
            finally:
                self.reporter.end()
        # The signal may have come to another process.
        signal = (interrupts.caught or Interrupts.END) if self._interrupted else None
        final = None if self._interrupted else self._final()
        return Outcome(tuple(self.metrics), signal, bool(self.recipe.patience), final)

    def _final(self) -> Scores | None:
        """How the network to use does on images that no epoch was judged by."""
        if self.data.final is None:
            return None
        used = self.learner.judged
        if self.folder is not None and self.recipe.patience:
            used = deepcopy(used)
            used.load_state_dict(load_to_use(self.folder.path).checkpoint.model)
        return self._judge(used, self.data.final)

    def _judge(self, model: nn.Module, examples: Examples) -> Scores:
        self.ranks.take_over(model.buffers())
        return evaluate(
            model,
            examples,
            device=self.device,
            dtype=DTYPES[self.recipe.dtype],
            ranks=self.ranks,
        )

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.epoch >= self.recipe.epochs or is_finished(self.recipe, self.metrics)

    def _run_epoch(self, interrupts: Interrupts) -> None:
        began, seen_before = time.monotonic(), self.seen
        self.model.train()
        for batch, seed in self._batches():
            is_due = self._step(batch, seed, interrupts)
            self.reporter.step(self.epoch, self.position, self.steps)
            if self.ranks.world == 1:  # there is nobody to agree with
                self._interrupted = interrupts.caught is not None
            if self._interrupted:
                Watch.notice()
                self._save()
                return
            if is_due:
                self._save()
        seconds = time.monotonic() - began
        self._finish_epoch((self.seen - seen_before) / max(seconds, 1e-9))

    def _batches(self) -> Iterator[tuple[Batch, int]]:
        """The rest of the epoch's batches; each step begins with a seed of its own."""
        seed, rank = self.recipe.seed, self.ranks.rank
        of_epoch = chance.seed_for(seed, self.epoch)
        chance.seed_all(of_epoch)
        batches = self.data.train.batches(
            self.recipe.batch, of_epoch, self.position, self.ranks.part
        )
        while True:
            place = (self.epoch, self.position)
            # Layers draw numbers of their own in each process, such as dropout's.
            chance.seed_all(chance.seed_for(seed, *place, rank))
            batch = next(batches, None)
            if batch is None:
                return
            yield batch, chance.seed_for(seed, *place)

    def _step(self, batch: Batch, seed: int, interrupts: Interrupts) -> bool:
        """Learn from a batch; gives whether it is time to save."""
        self.lr = self.learner.rate
        if not hasattr(self.data.train, "labels"):  # else all were looked at before
            refuse_strangers(batch.labels, self.classes)
        own = self.learner.gradients(batch, seed)
        caught = float(interrupts.caught is not None)
        due = float(self.ranks.is_first and self._is_due())
        loss, right, seen, stop, due = self._sum(own.loss, own.right, own.seen, caught, due)
        if not math.isfinite(loss):
            where = first_not_finite(self.model, batch.images)
            raise self._not_finite(f"the loss became {loss}", where)
        try:
            self.learner.update()
        except NotFiniteError as error:
            what = "the gradients became too large for a number"
            raise self._not_finite(what, str(error)) from error
        self.position += 1
        self.loss += loss
        self.right += int(right)
        self.seen += int(seen)
        self._interrupted = stop > 0
        return due > 0

    def _sum(self, *values: float) -> tuple[float, ...]:
        """Each value, added up over all processes."""
        if self.ranks.world == 1:
            return values
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        return tuple(float(value) for value in self.ranks.sum(summed).cpu())

    def _finish_epoch(self, images_per_second: float) -> None:
        test = None
        if self.data.test is not None:
            test = self._judge(self.learner.judged, self.data.test)
        metrics = {
            "epoch": self.epoch + 1,
            "step": self.step,
            "loss": self.loss / self.seen,
            "train_accuracy": self.right / self.seen,
            "test_loss": test.loss if test else None,
            "test_accuracy": test.accuracy if test else None,
            "test_right": test.right if test else None,
            "test_count": test.count if test else None,
            "judged_on": self.data.judged_on if test else None,
            "lr": self.lr,
            _SPEED: images_per_second,
        }
        if self.folder is not None and self.ranks.is_first:
            self.folder.add_metrics(metrics)
        self.metrics.append(metrics)
        self.reporter.epoch(metrics)
        self.epoch += 1
        self.position, self.loss, self.right, self.seen = 0, 0.0, 0, 0
        if self.recipe.patience and _best(self.metrics) is metrics:
            self._save(BEST, 1)
        self._save()

    @property
    def step(self) -> int:
        """How many steps have been made in all."""
        return self.epoch * self.steps + self.position

    def _not_finite(self, what: str, where: str | None) -> TrainError:
        lines = [f"{what} in step {self.step + 1} (epoch {self.epoch + 1})"]
        lines += [where] if where else []
        if self.folder is not None:
            lines.append(f"the last checkpoint before it is kept in `{self.folder.path}`")
        return TrainError("; ".join(lines), *_NOT_FINITE_FIXES)

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────

    def _is_due(self) -> bool:
        last, cost = self._saved_at
        return time.monotonic() - last >= max(self._save_every, _SAVING_SHARE * cost)

    def _save(self, *place: Any) -> None:
        if self.folder is None or not self.ranks.is_first:
            return
        began = time.monotonic()
        save(self.folder.path, self.checkpoint(), *place)
        now = time.monotonic()
        self._saved_at = (now, now - began if self._save_every else 0.0)

    def checkpoint(self) -> Checkpoint:
        """All that the rest of the training depends on."""
        weights = self.learner.weights()
        for name, tensor in weights.items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise self._not_finite(f"`{name}` became nan or infinite", None)
        state = {
            "epoch": self.epoch,
            "position": self.position,
            "loss": self.loss,
            "right": self.right,
            "seen": self.seen,
            "lr": self.lr,
            "learner": self.learner.settings(),
            # But for the speed, which is no part of what the seed decides.
            "metrics": [{k: v for k, v in m.items() if k != _SPEED} for m in self.metrics],
            "versions": versions(),
        }
        return Checkpoint(
            self.step, weights, self.learner.moments(), state, self.learner.learning()
        )

    def take_up(self, folder: Run) -> None:
        """Go on from the newest valid checkpoint of a run."""
        found = load(folder.path)
        for text in found.skipped:
            self.reporter.note(f"warning: passed over {text}")
        kept = found.checkpoint
        self._agree(kept.step)
        state = kept.state
        try:
            self.learner.put_back(kept.model, kept.learning, kept.optimizer, state["learner"])
        except (RuntimeError, KeyError) as error:
            raise TrainError(
                f"the weights in `{folder.path}` are those of another network",
                "give the network that was trained, or train anew: `--out`",
            ) from error
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
        self.lr, self.loss = float(state["lr"]), float(state["loss"])
        self.right, self.seen = int(state["right"]), int(state["seen"])
        speeds = {m.get("epoch"): m.get(_SPEED) for m in folder.metrics}
        self.metrics = [{**m, _SPEED: speeds.get(m["epoch"])} for m in state["metrics"]]
        if self.ranks.is_first:
            folder.put_metrics(self.metrics)
        self.folder = folder

    def _agree(self, step: int) -> None:
        """All processes must go on from the same step."""
        if self._sum(step)[0] != step * self.ranks.world:
            raise TrainError(
                "the processes do not see the same checkpoints",
                "let the run folder lie on a disk that all of them share",
            )

    def config(self, origin: Origin | None) -> dict[str, Any]:
        """What `config.json` says of this run."""
        scale = self.data.scale
        return {
            "version": VERSION,
            "recipe": dict(zip(self.recipe.__fields__, self.recipe.values(), strict=True)),
            "data": {
                "name": self.data.name,
                "shape": list(self.data.train.shape),
                "classes": list(self.data.classes),
                "mean": list(scale.mean) if scale else None,
                "deviation": list(scale.deviation) if scale else None,
                "resize": self.data.fit.resize,
                "recolor": self.data.fit.recolor,
                "range": list(self.data.range.values()),
                "fingerprint": self.data.fingerprint,
            },
            "set": list(origin.settings) if origin else [],
            "threads": torch.get_num_threads(),
            "processes": self.ranks.world,
            "versions": versions(),
        }


def is_finished(recipe: Recipe, metrics: Sequence[dict[str, Any]]) -> bool:
    """Whether a run whose epochs came to this, by its checkpoint, has nothing left to do."""
    if len(metrics) >= recipe.epochs:
        return True
    waited = len(metrics) - int(_best(metrics)["epoch"]) if metrics else 0
    return 0 < recipe.patience <= waited


def versions() -> dict[str, str]:
    """What else than the settings decides the last bits of a result."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def _best(metrics: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return min(metrics, key=_watched)


def _watched(metrics: dict[str, Any]) -> float:
    loss = metrics["test_loss"]
    return cast("float", metrics["loss"] if loss is None else loss)


def _first_images(data: Data) -> Tensor:
    return next(iter(data.train.batches(2, None))).images


def _on_device(data: Data, device: torch.device) -> Data:
    """Sets in memory go to the device once, not batch by batch."""
    if not isinstance(data.train, TensorExamples):
        return data
    test = data.test.to(device) if isinstance(data.test, TensorExamples) else data.test
    return data.replace(train=data.train.to(device), test=test)
