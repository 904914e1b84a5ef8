"""The training loop: steps, epochs, checkpoints, and how to go on from one.

The same seed gives the same bits on the CPU, also across an interruption: an epoch's order and
random numbers follow from the seed and the epoch, and a checkpoint holds all else. Knows nothing
of `.cnn` files, folders of images or terminals.
"""

import math
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cnndsl.record import Record
from cnndsl.train import chance
from cnndsl.train.checkpoint import Checkpoint, load, save
from cnndsl.train.data import Data
from cnndsl.train.errors import TrainError, UsageError
from cnndsl.train.evaluate import evaluate
from cnndsl.train.examples import Batch, TensorExamples
from cnndsl.train.interrupt import Interrupts
from cnndsl.train.network import check_fit, first_not_finite, logits_of
from cnndsl.train.progress import Quiet, Reporter
from cnndsl.train.recipe import DTYPES, Recipe, choose_device, make_optimizer, rate_at
from cnndsl.train.run import Origin, Run, create, open_run, refuse_existing

# While an epoch runs, a checkpoint is saved when a second has passed since the last one and
# saving has taken no more than a twentieth of the time.
SAVE_EVERY = 1.0
_SAVING_SHARE = 20

_NOT_FINITE_FIXES = (
    "lower the learning rate: a third of `--lr` is a good next try",
    "look at the images and labels: values far from 0, or labels that are wrong, do this too",
)


class Outcome(Record):
    """What came of it: each epoch's metrics, and the signal that ended it early, if one did."""

    metrics: tuple[dict[str, Any], ...]
    interrupted: int | None = None


def train(
    model: nn.Module,
    data: Data,
    *,
    out: Path | None = None,
    recipe: Recipe | None = None,
    origin: Origin | None = None,
    reporter: Reporter | None = None,
    save_every: float = SAVE_EVERY,
) -> Outcome:
    """Train a network that maps images to classes; `out` names the run folder to make.

    Seed before you make the model (`seed_all`), so that its first weights are the same each time.
    """
    used = recipe or Recipe()
    used.check()
    _refuse_many_processes()
    if out is not None:
        refuse_existing(out)
    session = _Session(model, data, used, reporter or Quiet())
    if out is None:
        return session.run(save_every)
    folder = create(out, session.config(origin), origin, session.checkpoint())
    return _run_in(folder, session, save_every)


def resume(
    path: Path,
    model: nn.Module,
    data: Data,
    *,
    reporter: Reporter | None = None,
    save_every: float = SAVE_EVERY,
) -> Outcome:
    """Go on with a run where its newest valid checkpoint stands."""
    _refuse_many_processes()
    folder = open_run(path)
    shown = reporter or Quiet()
    kept = cast("dict[str, Any]", folder.config["data"])
    if kept["fingerprint"] != data.fingerprint:
        raise TrainError(
            f"the images are not those that `{path}` was trained on",
            "give the same data, or train anew into another folder: `--out`",
        )
    if folder.config["versions"] != versions():
        shown.note("note: other versions than before: the last bits of the result may differ")
    torch.set_num_threads(int(folder.config["threads"]))
    session = _Session(model, data, Recipe(**folder.config["recipe"]), shown)
    return _run_in(folder, session, save_every)


def versions() -> dict[str, str]:
    """What else than the settings decides the last bits of a result."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def _run_in(folder: Run, session: "_Session", save_every: float) -> Outcome:
    folder.lock()
    try:
        session.take_up(folder)
        return session.run(save_every)
    except OSError as error:
        raise TrainError(
            f"`{folder.path}` cannot be written: {error.strerror or error}",
            "its last checkpoint is whole: make room, then go on with "
            f"`cnndsl train --resume {folder.path}`",
        ) from error
    finally:
        folder.unlock()


class _Session:
    """A model under training, and how far it has come."""

    def __init__(self, model: nn.Module, data: Data, recipe: Recipe, reporter: Reporter) -> None:
        self.model = model
        self.recipe = recipe
        self.reporter = reporter
        self.folder: Run | None = None
        self.classes = check_fit(model, data.train, data.classes)
        if data.test is not None:
            check_fit(model, data.test, data.classes)
        self.device = choose_device(recipe.device)
        self.dtype = DTYPES[recipe.dtype]
        self.data = _on_device(data, self.device)
        model.to(self.device)
        self.optimizer = make_optimizer(model, recipe)
        self.steps = data.train.steps(recipe.batch)
        self.metrics: list[dict[str, Any]] = []
        # How far: finished epochs, steps in this one, and what they have come to.
        self.epoch = 0
        self.position = 0
        self.lr = 0.0
        self.loss = 0.0
        self.right = 0
        self.seen = 0
        self._random: dict[str, Any] | None = None
        self._save_every = SAVE_EVERY
        self._saved_at = (time.monotonic(), 0.0)  # when, and how long it took

    # ── going through the data ───────────────────────────────────────────────────────────────────

    def run(self, save_every: float) -> Outcome:
        """Train until the last epoch, or until a signal."""
        self._save_every = save_every
        with Interrupts() as interrupts:
            self.reporter.begin(self.recipe.epochs)
            try:
                while self.epoch < self.recipe.epochs and interrupts.caught is None:
                    self._run_epoch(interrupts)
            finally:
                self.reporter.end()
        return Outcome(tuple(self.metrics), interrupts.caught)

    def _run_epoch(self, interrupts: Interrupts) -> None:
        began, seen_before = time.monotonic(), self.seen
        self.model.train()
        for images, labels in self._batches():
            self._step(images.to(self.device), labels.to(self.device))
            self.reporter.step(self.epoch, self.position, self.steps)
            if interrupts.caught is not None:
                self._save()
                return
            self._save_if_due()
        seconds = time.monotonic() - began
        self._finish_epoch((self.seen - seen_before) / max(seconds, 1e-9))

    def _batches(self) -> Iterator[Batch]:
        seed = chance.epoch_seed(self.recipe.seed, self.epoch)
        chance.seed_all(seed)
        batches = self.data.train.batches(self.recipe.batch, seed, self.position)
        if self._random is not None:
            chance.restore(self._random)
            self._random = None
        return batches

    def _step(self, images: Tensor, labels: Tensor) -> None:
        self.lr = rate_at(self.recipe, self.step, self.recipe.epochs * self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits = logits_of(self.model, images).float()
        loss = functional.cross_entropy(logits, labels)
        value = loss.item()
        if not math.isfinite(value):
            where = first_not_finite(self.model, images)
            raise self._not_finite(f"the loss became {value}", where)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        gradients = {n: p.grad for n, p in self.model.named_parameters() if p.grad is not None}
        if not torch.isfinite(torch.nn.utils.get_total_norm(list(gradients.values()))):
            bad = [n for n, g in gradients.items() if not torch.isfinite(g).all()]
            where = f"the gradient of `{bad[-1]}` holds nan or infinity" if bad else None
            raise self._not_finite("the gradients became too large for a number", where)
        self.optimizer.step()
        self.position += 1
        self.loss += value * len(labels)
        self.right += int((logits.argmax(1) == labels).sum())
        self.seen += len(labels)

    def _finish_epoch(self, images_per_second: float) -> None:
        test = None
        if self.data.test is not None:
            test = evaluate(self.model, self.data.test, device=self.device, dtype=self.dtype)
        metrics = {
            "epoch": self.epoch + 1,
            "step": self.step,
            "loss": self.loss / self.seen,
            "train_accuracy": self.right / self.seen,
            "test_loss": test.loss if test else None,
            "test_accuracy": test.accuracy if test else None,
            "test_right": test.right if test else None,
            "test_count": test.count if test else None,
            "lr": self.lr,
            "images_per_second": images_per_second,
        }
        if self.folder is not None:
            self.folder.add_metrics(metrics)
        self.metrics.append(metrics)
        self.reporter.epoch(metrics)
        self.epoch += 1
        self.position, self.loss, self.right, self.seen = 0, 0.0, 0, 0
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

    def _save_if_due(self) -> None:
        last, cost = self._saved_at
        if time.monotonic() - last >= max(self._save_every, _SAVING_SHARE * cost):
            self._save()

    def _save(self) -> None:
        if self.folder is None:
            return
        began = time.monotonic()
        save(self.folder.path, self.checkpoint())
        now = time.monotonic()
        self._saved_at = (now, now - began if self._save_every else 0.0)

    def checkpoint(self) -> Checkpoint:
        """All that the rest of the training depends on."""
        model = cast("dict[str, Tensor]", self.model.state_dict())
        for name, tensor in model.items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise self._not_finite(f"`{name}` became nan or infinite", None)
        moments = {
            f"{name}.{key}": value
            for name, parameter in self.model.named_parameters()
            for key, value in self.optimizer.state[parameter].items()
        }
        state = {
            "epoch": self.epoch,
            "position": self.position,
            "loss": self.loss,
            "right": self.right,
            "seen": self.seen,
            "lr": self.lr,
            "random": chance.state(),
            "versions": versions(),
        }
        return Checkpoint(self.step, model, moments, state)

    def take_up(self, folder: Run) -> None:
        """Go on from the newest valid checkpoint of a run."""
        found = load(folder.path)
        for text in found.skipped:
            self.reporter.note(f"warning: passed over {text}")
        kept = found.checkpoint
        try:
            self.model.load_state_dict(kept.model)
        except RuntimeError as error:
            raise TrainError(
                f"the weights in `{folder.path}` are those of another network",
                "give the network that was trained, or train anew: `--out`",
            ) from error
        self._load_moments(kept.optimizer)
        state = kept.state
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
        self.lr, self.loss = float(state["lr"]), float(state["loss"])
        self.right, self.seen = int(state["right"]), int(state["seen"])
        self._random = state["random"] if self.position else None
        folder.rewind(self.epoch)
        self.metrics = folder.metrics
        self.folder = folder

    def _load_moments(self, moments: dict[str, Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            for key in ("step", "exp_avg", "exp_avg_sq"):
                value = moments.get(f"{name}.{key}")
                if value is not None:
                    # AdamW counts its steps on the CPU.
                    device = "cpu" if key == "step" else parameter.device
                    self.optimizer.state[parameter][key] = value.to(device)

    def config(self, origin: Origin | None) -> dict[str, Any]:
        """What `config.json` says of this run."""
        scale = self.data.scale
        return {
            "version": 1,
            "recipe": dict(zip(self.recipe.__fields__, self.recipe.values(), strict=True)),
            "data": {
                "name": self.data.name,
                "shape": list(self.data.train.shape),
                "classes": list(self.data.classes),
                "mean": list(scale.mean) if scale else None,
                "deviation": list(scale.deviation) if scale else None,
                "fingerprint": self.data.fingerprint,
            },
            "set": list(origin.settings) if origin else [],
            "threads": torch.get_num_threads(),
            "versions": versions(),
        }


def _on_device(data: Data, device: torch.device) -> Data:
    """Sets in memory go to the device once, not batch by batch."""
    if not isinstance(data.train, TensorExamples):
        return data
    test = data.test.to(device) if isinstance(data.test, TensorExamples) else data.test
    return data.replace(train=data.train.to(device), test=test)


def _refuse_many_processes() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "training in several processes is not supported yet",
            "start it without torchrun, or with `--nproc-per-node 1`",
        )
