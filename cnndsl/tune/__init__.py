"""Choosing kernels by measuring them: `model = cnndsl.tune(model, images)`.

    errors       what it raises
    task         what is chosen for, and among what
    candidates   the ways of a region, and tiles near those of the rules
    chooser      first what is right, then what is fast; pure
    expected     how far a result may be from float64
    reference    what PyTorch's operators give
    built, trial, subject   a candidate as functions of tensors
    device       what is asked of a machine
    cuda         a GPU: its clock; `compilers`, `worker`: processes that compile side by side
    store        what was chosen, in the user's cache
    ranks        one process decides for all
    model, door  a model that follows

`cnndsl.tune` is this package and the function that users call, so the package can be called.
"""

import sys
from types import ModuleType

from cnndsl.tune.door import tune
from cnndsl.tune.errors import TuneError

__all__ = ["TuneError", "tune"]


class _Callable(ModuleType):
    """A package that is also a function."""

    __call__ = staticmethod(tune)


sys.modules[__name__].__class__ = _Callable
