"""How a network is trained: the settings, and which of them cannot work.

Knows no data, no files and no terminal; `optimize` and `learner` make of the settings what trains.
"""

import math
from collections.abc import Callable
from typing import Literal, cast, get_args

import torch

from cnndsl.record import Record
from cnndsl.train.errors import UsageError

DType = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
OptimizerName = Literal["adamw", "sgd"]
ScheduleName = Literal["cosine", "one-cycle", "constant"]

_MOST = 10**9  # of whole numbers: far more than any training needs
_LEAST = {
    "epochs": 1,
    "batch": 1,
    "accumulate": 1,
    "decay": 0,
    "clip": 0,
    "warmup": 0,
    "patience": 0,
    "crop": 0,
}


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# By the annotation of a setting: what it must be, in words and as a test. All names are texts.
_KINDS: dict[object, tuple[str, Callable[[object], bool]]] = {
    int: ("a whole number", _is_whole),
    int | None: ("a whole number or None", lambda value: value is None or _is_whole(value)),
    float: ("a number", lambda value: _is_whole(value) or isinstance(value, float)),
    bool: ("True or False", lambda value: isinstance(value, bool)),
    str: ("a text", lambda value: isinstance(value, str)),
}


class Recipe(Record):
    """The settings of a training run; each has the name of its flag.

    `batch` is how many images a step sees in all: `accumulate` computes it in so many parts, and
    several processes divide it among them. `lr` is the peak of the learning rate, which `schedule`
    lets fall after the first `warmup` steps (None: the schedule's own number). `decay` is the
    weight decay, of weights, not of biases and norms. `momentum` and `nesterov` are sgd's.

    With bf16 and fp16, weights stay float32 and layers compute in the shorter type (autocast); fp16
    scales the loss, so that small gradients are not lost. `smoothing` is the share of a label that
    is spread over all classes. `clip` is the largest norm that the gradients may have (0: any).
    `flip` mirrors half of the images, `crop` moves each by up to so many pixels, at random.

    `ema` is the share that the averaged weights keep in each step (0: none are kept); they are the
    ones that are tested and used. `no_graph`: on a GPU, Python launches each kernel of a step, in
    place of a CUDA graph. `patience` ends the training after so many epochs without a lower
    test loss (0: never), and lets the best epoch's network be the one that is used.
    """

    epochs: int = 12
    batch: int = 64
    optimizer: OptimizerName = "adamw"
    lr: float = 0.003
    momentum: float = 0.9
    nesterov: bool = False
    decay: float = 0.01
    schedule: ScheduleName = "cosine"
    warmup: int | None = None
    smoothing: float = 0.0
    clip: float = 0.0
    ema: float = 0.0
    patience: int = 0
    flip: bool = False
    crop: int = 0
    accumulate: int = 1
    seed: int = 0
    device: str = "auto"
    dtype: DType = "fp32"
    no_graph: bool = False

    @property
    def may_be_graphed(self) -> bool:
        """Whether a step can be a CUDA graph: parts of batches and fp16's scaling are not."""
        return not self.no_graph and self.accumulate == 1 and self.dtype != "fp16"

    def check(self) -> None:
        """Raise `UsageError` for a setting with which no training could start."""
        self._check_types()
        self._check_numbers()
        if self.nesterov and (self.optimizer != "sgd" or not self.momentum):
            raise UsageError(
                "nesterov is a kind of sgd's momentum",
                "add `--optimizer sgd`, with a `--momentum` above 0, or leave `--nesterov` out",
            )
        if self.accumulate > self.batch:
            raise UsageError(
                f"a batch of {self.batch} images cannot be computed in {self.accumulate} parts",
                f"--accumulate {self.batch}, or a larger --batch",
            )
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"the seed is {self.seed}; it must be from 0 up to 2³² − 1")
        self._check_names()

    def _check_types(self) -> None:
        for name, kind in type(self).__annotations__.items():
            value = getattr(self, name)
            words, is_right = _KINDS.get(kind, _KINDS[str])
            if not is_right(value):
                raise UsageError(
                    f"{name} is {value!r}, of the type {type(value).__name__}; it must be {words}"
                )

    def _check_numbers(self) -> None:
        for name, least in _LEAST.items():
            value = self._number(name)
            if isinstance(value, int) and value > _MOST:
                raise UsageError(f"{name} is {value}; it must be at most {_MOST}")
            if not (math.isfinite(value) and value >= least):
                bound = f"at least {least}" if least else "a number from 0 up"
                raise UsageError(f"{name} is {value}; it must be {bound}", f"--{name} {least}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UsageError(f"the learning rate is {self.lr}; it must be above zero", "--lr 0.003")
        for name in ("momentum", "smoothing", "ema"):
            if not 0 <= self._number(name) < 1:
                raise UsageError(f"{name} is {self._number(name)}; it must be from 0 up to 1")

    def _check_names(self) -> None:
        choices = {"optimizer": OptimizerName, "schedule": ScheduleName, "dtype": DType}
        for name, kind in choices.items():
            known = cast("tuple[str, ...]", get_args(kind))
            given = getattr(self, name)
            if given not in known:
                raise UsageError(f"no {name} is called {given}", f"one of: {', '.join(known)}")

    def _number(self, name: str) -> float:
        return cast("float | None", getattr(self, name)) or 0


def choose_device(name: str) -> torch.device:
    """The device of that name, tried out; `auto` is the GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        float(torch.zeros(1, device=device))  # `meta` has no values
    except Exception as error:  # each kind of device fails in its own way
        here = ", ".join(["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
        raise UsageError(
            f"the device `{name[:40]}` cannot be used: PyTorch {torch.__version__} has on this "
            f"machine {here}",
            "--device cpu, or --device auto",
        ) from error
    return device
