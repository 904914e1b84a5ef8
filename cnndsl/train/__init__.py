"""Training: data, the loop, the run folder. The first room (with `runtime`) that imports torch.

import cnndsl, cnndsl.train as training

training.seed_all(0)
model = cnndsl.compile("digits.cnn")
training.train(model, training.load("digits"), out=Path("runs/digits"))
"""

from cnndsl.train import extras  # it complains before what is missing is imported

# isort: split

from cnndsl.train.chance import seed_all
from cnndsl.train.data import Data, Scale, as_data, load
from cnndsl.train.errors import TrainError, UsageError
from cnndsl.train.evaluate import Scores, evaluate
from cnndsl.train.loop import Outcome, resume, train
from cnndsl.train.recipe import Recipe
from cnndsl.train.run import Origin, Run, open_run
from cnndsl.train.trained import Prediction, Trained

__all__ = [
    "Data",
    "Origin",
    "Outcome",
    "Prediction",
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
