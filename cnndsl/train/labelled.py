"""What may be given as images and as labels; all else is a `TrainError` that says what to do.

Images are tensors or numpy arrays of floats, scaled as the caller likes, or of bytes 0 … 255.
Labels are whole numbers from 0 up.
"""

import operator
from typing import SupportsIndex, cast

import numpy as np
import torch
from torch import Tensor

from cnndsl.train.errors import TrainError

_DIMS = {
    3: "give three dims: (channels, height, width)",
    4: "give four dims: (images, channels, height, width)",
}


def as_images(given: object, dims: int, what: str = "the images") -> Tensor:
    """Images as a tensor: (N, C, H, W) for 4 dims, one image (C, H, W) for 3."""
    if isinstance(given, np.ndarray):
        given = _from_numpy(cast("np.ndarray[tuple[int, ...], np.dtype[np.generic]]", given), what)
    if not isinstance(given, Tensor):
        raise TrainError(
            f"{what} are {_a(given)}",
            "give tensors, for example with torchvision's `transforms.ToTensor()`",
        )
    if given.ndim != dims:
        raise TrainError(f"{what} are a tensor of shape {tuple(given.shape)}", _DIMS[dims])
    if not given.numel():
        raise TrainError(
            f"{what} are empty, of shape {tuple(given.shape)}", "give at least one image"
        )
    if given.dtype == torch.bool:
        return given.float()
    if given.dtype == torch.uint8:
        return given
    if not given.is_floating_point():
        raise TrainError(
            f"{what} are {given.dtype}",
            "give bytes, 0 to 255 (`torch.uint8`), or floats, scaled as you like",
        )
    if not torch.isfinite(given).all():
        raise TrainError(f"{what} already hold nan or infinity", "look at how they were computed")
    return given


def as_labels(given: object, count: int, what: str = "the labels") -> Tensor:
    """Labels as a tensor (N,) of int64, one for each of `count` images."""
    if isinstance(given, list | tuple | np.ndarray):
        try:
            given = torch.as_tensor(given)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TrainError(
                f"{what} cannot become a tensor: {error}", "give one whole number for each image"
            ) from error
    if not isinstance(given, Tensor):
        raise TrainError(f"{what} are {_a(given)}", "give a tensor of one whole number an image")
    if given.shape != (count,):
        helps = "give one whole number, its class, for each image"
        if given.ndim == 2 and len(given) == count:
            helps = f"make them one number each: `labels.{_flatter(given)}`"
        raise TrainError(
            f"there are {count:,} images, but {what} have the shape {tuple(given.shape)}", helps
        )
    if given.is_floating_point() or given.is_complex():
        raise TrainError(f"{what} are {given.dtype}", "make them whole: `labels.long()`")
    labels = given.long()
    if bool((labels < 0).any()):
        raise TrainError(
            f"{what} hold {int(labels.min())}; classes are numbers from 0 up",
            "number the classes from 0, and leave out images that have none",
        )
    return labels


def as_label(given: object, what: str) -> int:
    """One label."""
    try:
        label = operator.index(cast("SupportsIndex", given))  # takes tensors and arrays of one int
    except TypeError as error:
        raise TrainError(
            f"the label of {what} is {_a(given)}", "give its class, a whole number from 0 up"
        ) from error
    if label < 0:
        raise TrainError(f"the label of {what} is {label}", "number the classes from 0 up")
    return label


def refuse_strangers(labels: Tensor, classes: int) -> None:
    """Raise `TrainError` for a label that the network has no class for."""
    highest = int(labels.max())
    if highest >= classes:
        raise TrainError(
            f"an image has the label {highest}, but the network tells {classes} classes apart, "
            f"numbers 0 to {classes - 1}",
            f"let its last layer be `fc {highest + 1}`, or number the classes from 0",
        )


def _flatter(labels: Tensor) -> str:
    return "squeeze(1)" if labels.shape[1] == 1 else "argmax(1)"


def _from_numpy(given: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]", what: str) -> Tensor:
    try:
        return torch.as_tensor(given)
    except (TypeError, ValueError) as error:
        raise TrainError(f"{what} are a numpy array of {given.dtype}", "give floats") from error


def _a(value: object) -> str:
    return f"of the type {type(value).__name__}"
