"""A network with the weights of a run, and what is needed to use it: classes, scale, sizes."""

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from cnndsl.record import Record
from cnndsl.runtime.scaling import takes_bytes
from cnndsl.train.data import Scale, load_for_test
from cnndsl.train.errors import TrainError, UsageError
from cnndsl.train.evaluate import Scores, evaluate
from cnndsl.train.fit import Fit
from cnndsl.train.folder import read_image
from cnndsl.train.network import check_fit, input_shape, logits_of
from cnndsl.train.recipe import DTYPES, choose_device
from cnndsl.train.restore import fill
from cnndsl.train.run import Run


class Prediction(Record):
    """What a network takes an image for: classes with probabilities, the most likely first.

    `done` says what had to be done to the image before.
    """

    classes: tuple[tuple[str, float], ...]
    done: tuple[str, ...]


class Network:
    """A network with its weights, and what is needed to use it on images."""

    def __init__(
        self,
        model: nn.Module,
        names: tuple[str, ...] = (),
        scale: Scale | None = None,
        device: str = "auto",
    ) -> None:
        """Take the model, the names of its classes, and how images are scaled for it.

        Without a `scale`, images are values in 0 … 1.
        """
        self.device = choose_device(device)
        self.model = model.to(self.device).eval()
        self.shape = input_shape(model) or (None, None, None)
        self.names = names
        channels = self.channels
        scale = scale or Scale((0.0,) * channels, (1.0,) * channels)
        self.scale = scale.replace(is_inside=takes_bytes(model))
        self.data: str | None = None  # what it was trained on, where that is known
        self.seed = 0
        self.fit = Fit()
        self.dtype = torch.float32

    @property
    def channels(self) -> int:
        """How many channels the network takes."""
        return self.shape[0] or 3

    def evaluate(self, name: str | None = None) -> Scores:
        """How well it does on a data set by name or path; by default on its own test images."""
        chosen = name or self.data
        if chosen is None:
            raise UsageError(
                "which images? Those that the network was trained on are not known here",
                "say which images to take: `--data FOLDER`",
            )
        channels, height, width = self.shape
        shape = (channels or 3, height, width)
        own = self.data or ""
        test = load_for_test(chosen, own, self.names, shape, self.seed, self.scale, self.fit)
        check_fit(self.model, test, self.names)
        return evaluate(self.model, test, device=self.device, dtype=self.dtype)

    def predict(self, path: Path) -> Prediction:
        """What the image in a file is."""
        _, height, width = self.shape
        image, done = read_image(path, self.channels, (height, width))
        try:
            with torch.no_grad():
                logits = logits_of(self.model, self.scale(image)[None].to(self.device))
        except ValueError as error:  # a size that the network does not take
            raise TrainError(f"`{path}`: {error}", "bring it to a size that it takes") from error
        chances = torch.softmax(logits[0].double(), 0).cpu()
        order = torch.argsort(chances, descending=True, stable=True)
        return Prediction(tuple((self.name(int(i)), _number(chances[i])) for i in order), done)

    def name(self, index: int) -> str:
        """What the class of that number is called."""
        return self.names[index] if index < len(self.names) else str(index)


class Trained(Network):
    """The network of a run at its newest valid checkpoint; at its best where that is kept."""

    def __init__(self, run: Run, model: nn.Module, device: str = "auto") -> None:
        """Load the weights into `model`, which is the run's network, compiled anew."""
        found = fill(model, run)
        data, recipe = (cast("dict[str, Any]", run.config[key]) for key in ("data", "recipe"))
        scaled = data["mean"] is not None  # else images came from Python, and were taken as given
        scale = Scale(tuple(data["mean"]), tuple(data["deviation"])) if scaled else None
        super().__init__(model, tuple(cast("list[str]", data["classes"])), scale, device)
        self.run = run
        self.skipped = found.skipped
        self.step = found.checkpoint.step
        self.shape = input_shape(model) or tuple(cast("list[int]", data["shape"]))
        self.data = None if data["name"] == "python" else str(data["name"])
        self.seed = int(recipe["seed"])
        self.fit = Fit(bool(data["resize"]), bool(data["recolor"]))
        self.dtype = DTYPES[recipe["dtype"]]


def _number(value: Tensor) -> float:
    return float(value)
