"""A network with the weights of a run, and what is needed to use it: classes, scale, sizes."""

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from cnndsl.diagnostics.safe import safe_list
from cnndsl.record import Record
from cnndsl.runtime.scaling import takes_bytes
from cnndsl.train.config import range_of, scale_of
from cnndsl.train.data import Judged, Scale, Wanted, load_for_test
from cnndsl.train.ending import Kind, chances, kind_of, logits_of
from cnndsl.train.errors import TrainError, UsageError
from cnndsl.train.evaluate import Scores, evaluate
from cnndsl.train.fit import Fit, Shape
from cnndsl.train.network import check_fit, input_shape
from cnndsl.train.pixels import Form, Range, read
from cnndsl.train.recipe import DTYPES, choose_device
from cnndsl.train.restore import fill
from cnndsl.train.run import Run


class Prediction(Record):
    """What a network takes an image for: classes with probabilities, the most likely first.

    Where the network ends in a sigmoid over several numbers, each class is likely or not by itself:
    `is_independent`. `done` says what had to be done to the image before.
    """

    classes: tuple[tuple[str, float], ...]
    done: tuple[str, ...]
    is_independent: bool = False


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
        self.shape = input_shape(model) or (None, None, None)
        self.model = model.to(self.device).eval()
        self.names = names
        channels = self.channels
        scale = scale or Scale((0.0,) * channels, (1.0,) * channels)
        self.scale = scale.replace(is_inside=takes_bytes(model))
        self.data: str | None = None  # what it was trained on, where that is known
        self.seed = 0
        self.fit = Fit()
        self.range = Range()
        self.dtype = torch.float32

    @property
    def channels(self) -> int:
        """How many channels the network takes."""
        return self.shape[0] or 3

    def judged(self, name: str | None = None) -> Judged:
        """The images that it is judged by: a data set by name or path, or its own test images."""
        chosen = name or self.data
        if chosen is None:
            raise UsageError(
                "which images? Those that the network was trained on are not known here",
                "say which images to take: `--data FOLDER`",
            )
        _, height, width = self.shape
        shape = (self.channels, height, width)
        wanted = Wanted(shape, self.fit, self.scale, self.range, takes_bytes(self.model))
        found = load_for_test(chosen, self.data or "", self.names, wanted, self.seed)
        check_fit(self.model, found.examples, found.classes)
        if self.names and found.classes != self.names and len(self.names) > 1:
            raise TrainError(
                f"the network tells apart {safe_list(self.names)}; `{chosen}` has "
                f"{safe_list(found.classes)}",
                "give images of the classes that it was trained on",
            )
        return found

    def evaluate(self, name: str | None = None) -> Scores:
        """How well it does on a data set by name or path; by default on its own test images."""
        examples = self.judged(name).examples
        return evaluate(self.model, examples, device=self.device, dtype=self.dtype)

    def predict(self, path: Path) -> Prediction:
        """What the image in a file is, read as training reads it."""
        _, height, width = self.shape
        form = Form(self.channels, (height, width), self.range, not takes_bytes(self.model))
        image, done = read(path, form)
        try:
            with torch.no_grad():
                given = self.scale(image)[None].to(self.device)
                logits = logits_of(self.model, given)
        except ValueError as error:  # a size that the network does not take
            raise TrainError(f"`{path}`: {error}", "bring it to a size that it takes") from error
        kind = kind_of(self.model, logits)
        found = chances(kind, logits.double())[0].cpu()
        if not torch.isfinite(found).all():
            raise TrainError(
                f"`{path}`: the network gives nan or infinity", "look at its weights: train anew"
            )
        order = torch.argsort(found, descending=True, stable=True)
        names = self._names(len(found), kind)
        ranked = tuple((names[int(i)], _number(found[i])) for i in order)
        return Prediction(ranked, done, kind == "independent")

    def name(self, index: int) -> str:
        """What the class of that number is called."""
        return self.names[index] if index < len(self.names) else str(index)

    def _names(self, count: int, kind: Kind) -> list[str]:
        """What the classes are called; of two classes, a network's file may name the second."""
        if kind == "binary" and len(self.names) == 1:
            return [f"not {self.names[0]}", self.names[0]]
        return [self.name(i) for i in range(count)]


class Trained(Network):
    """The network of a run at its newest valid checkpoint; at its best where that is kept."""

    def __init__(self, run: Run, model: nn.Module, device: str = "auto") -> None:
        """Load the weights into `model`, which is the run's network, compiled anew."""
        found = fill(model, run)
        data, recipe = (cast("dict[str, Any]", run.config[key]) for key in ("data", "recipe"))
        # None where images came from Python, and were taken as given.
        scale = scale_of(data)
        super().__init__(model, tuple(cast("list[str]", data["classes"])), scale, device)
        self.run = run
        self.skipped = found.skipped
        self.step = found.checkpoint.step
        self.shape = input_shape(model) or cast("Shape", tuple(data["shape"]))
        self.data = None if data["name"] == "python" else str(data["name"])
        self.seed = int(recipe["seed"])
        self.fit = Fit(data["resize"], data["recolor"])
        self.range = range_of(data)
        self.dtype = DTYPES[recipe["dtype"]]


def _number(value: Tensor) -> float:
    return float(value)
