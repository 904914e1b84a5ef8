"""A network and data so small that a whole training takes a moment, with all that can go astray.

Batchnorm has buffers, dropout draws random numbers, the last batch of an epoch is smaller.
"""

from pathlib import Path

import torch
from torch import nn

import cnndsl.train as training
from cnndsl.train.checkpoint import Checkpoint, load

RECIPE = training.Recipe(epochs=6, batch=16, lr=0.01, seed=3, device="cpu")

# All that a recipe can ask for at once.
FULL = RECIPE.replace(
    optimizer="sgd",
    nesterov=True,
    lr=0.05,
    schedule="one-cycle",
    warmup=9,
    smoothing=0.1,
    clip=2.0,
    ema=0.9,
    patience=5,
    flip=True,
    crop=1,
    accumulate=3,
)


def network(classes: int = 3) -> nn.Module:
    training.seed_all(RECIPE.seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(4 * 4 * 4, classes),
    )


def images(count: int = 90, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose class is the third of the picture that is bright."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    pictures = torch.rand(count, 1, 6, 6, generator=draw)
    for picture, label in zip(pictures, labels, strict=True):
        picture[0, 2 * label : 2 * label + 2] += 0.7
    return pictures, labels


def data() -> training.Data:
    return training.as_data(images(), images(30, seed=1), ("top", "middle", "bottom"))


def start_or_go_on(path: Path, save_every: float, recipe: training.Recipe = RECIPE) -> None:
    """What somebody does whose training was killed."""
    if path.exists():
        training.resume(path, network(), data(), save_every=save_every)
    else:
        training.train(network(), data(), out=path, recipe=recipe, save_every=save_every)


def result(path: Path) -> tuple[Checkpoint, list[dict[str, object]]]:
    """Where a run stands: the checkpoint, and the metrics but for the speed."""
    metrics = training.open_run(path).metrics
    for values in metrics:
        del values["images_per_second"]
    return load(path).checkpoint, metrics


def difference(one: Path, other: Path) -> str:
    """What differs between two runs, bit for bit; empty if nothing does."""
    (here, metrics), (there, others) = result(one), result(other)
    if here.step != there.step:
        return f"steps: {here.step} and {there.step}"
    for kind in ("model", "optimizer", "learning"):
        mine, theirs = getattr(here, kind), getattr(there, kind)
        if mine.keys() != theirs.keys():
            return f"{kind}: other names"
        for name, tensor in mine.items():
            if tensor.numpy().tobytes() != theirs[name].numpy().tobytes():
                return f"{kind}: {name}"
    if here.state != there.state:
        return f"state: {[k for k in here.state if here.state[k] != there.state.get(k)]}"
    return "" if metrics == others else "metrics"
