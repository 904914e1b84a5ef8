"""Training: data, the loop, the run folder. The first room (with `runtime`) that imports torch.

cnndsl.train("digits.cnn", "digits", out="runs/digits", epochs=5)

seed_all(0)
model = cnndsl.compile("digits.cnn")
cnndsl.train(model, (images, labels), lr=0.01)

`cnndsl.train` is this package and the function that users call, so the package can be called.
"""

import sys
from types import ModuleType

from cnndsl.train import extras  # it complains before what is missing is imported

# isort: split

from cnndsl.train.chance import seed_all
from cnndsl.train.data import Data, Scale, as_data, load
from cnndsl.train.errors import TrainError, UsageError
from cnndsl.train.evaluate import Scores, evaluate
from cnndsl.train.fit import Fit
from cnndsl.train.loop import resume, train
from cnndsl.train.ranks import RankError
from cnndsl.train.recipe import Recipe
from cnndsl.train.run import Origin, Run, open_run
from cnndsl.train.session import Outcome
from cnndsl.train.trained import Prediction, Trained

__all__ = [
    "Data",
    "Fit",
    "Origin",
    "Outcome",
    "Prediction",
    "RankError",
    "Recipe",
    "Run",
    "Scale",
    "Scores",
    "TrainError",
    "Trained",
    "UsageError",
    "as_data",
    "evaluate",
    "extras",
    "load",
    "open_run",
    "resume",
    "seed_all",
    "train",
]


class _Callable(ModuleType):
    """A package that is also a function."""

    __call__ = staticmethod(train)


sys.modules[__name__].__class__ = _Callable
