"""A network with the weights of a run, and what is needed to use it: classes, scale, sizes."""

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from cnndsl.record import Record
from cnndsl.train import checkpoint
from cnndsl.train.data import Scale, load_for_test
from cnndsl.train.errors import TrainError, UsageError
from cnndsl.train.evaluate import Scores, evaluate
from cnndsl.train.fit import Fit
from cnndsl.train.folder import read_image
from cnndsl.train.network import check_fit, input_shape, logits_of
from cnndsl.train.recipe import DTYPES, choose_device
from cnndsl.train.run import Run


class Prediction(Record):
    """What a network takes an image for: classes with probabilities, the most likely first.

    `done` says what had to be done to the image before.
    """

    classes: tuple[tuple[str, float], ...]
    done: tuple[str, ...]


class Trained:
    """The network of a run at its newest valid checkpoint; at its best where that is kept."""

    def __init__(self, run: Run, model: nn.Module, device: str = "auto") -> None:
        """Load the weights into `model`, which is the run's network, compiled anew."""
        found = checkpoint.load_to_use(run.path)
        self.run = run
        self.skipped = found.skipped
        self.step = found.checkpoint.step
        try:
            model.load_state_dict(found.checkpoint.model)
        except RuntimeError as error:
            raise TrainError(
                f"the weights in `{run.path}` are those of another network",
                "give the network that was trained",
            ) from error
        self.device = choose_device(device)
        self.model = model.to(self.device).eval()
        data = cast("dict[str, Any]", run.config["data"])
        self.data = str(data["name"])
        self.shape = input_shape(model) or tuple(cast("list[int]", data["shape"]))
        self.fit = Fit(bool(data["resize"]), bool(data["recolor"]))
        self.names = tuple(cast("list[str]", data["classes"]))
        if data["mean"] is None:
            # Images from Python are taken as they are given.
            channels = self.channels
            self.scale = Scale((0.0,) * channels, (1.0,) * channels)
        else:
            self.scale = Scale(tuple(data["mean"]), tuple(data["deviation"]))

    @property
    def channels(self) -> int:
        """How many channels the network takes."""
        return self.shape[0] or 3

    def evaluate(self, name: str | None = None) -> Scores:
        """How well it does on a data set by name or path; by default on its own test images."""
        if name is None and self.data == "python":
            raise UsageError(
                f"`{self.run.path}` was trained on data from Python, which is not kept",
                "say which images to take: `--data FOLDER`",
            )
        seed, dtype = (self.run.config["recipe"][key] for key in ("seed", "dtype"))
        chosen = name or self.data
        channels, height, width = self.shape
        shape = (channels or 3, height, width)
        test = load_for_test(chosen, self.data, self.names, shape, seed, self.scale, self.fit)
        check_fit(self.model, test, self.names)
        return evaluate(self.model, test, device=self.device, dtype=DTYPES[dtype])

    def predict(self, path: Path) -> Prediction:
        """What the image in a file is."""
        _, height, width = self.shape
        image, done = read_image(path, self.channels, (height, width))
        with torch.no_grad():
            logits = logits_of(self.model, self.scale(image)[None].to(self.device))
        chances = torch.softmax(logits[0].double(), 0).cpu()
        order = torch.argsort(chances, descending=True, stable=True)
        return Prediction(tuple((self.name(int(i)), _number(chances[i])) for i in order), done)

    def name(self, index: int) -> str:
        """What the class of that number is called."""
        return self.names[index] if index < len(self.names) else str(index)


def _number(value: Tensor) -> float:
    return float(value)
