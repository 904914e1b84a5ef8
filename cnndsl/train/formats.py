"""The binary formats of two well-known kinds of data sets: MNIST's idx files, CIFAR's records.

Values come as they are stored, bytes 0 … 255. Nothing here can run code: lengths are checked, and
no more is read than a file of its kind has.
"""

import gzip
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor

from cnndsl.train.errors import TrainError

Pair = tuple[Tensor, Tensor]

IDX_FILES = (
    ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)
CIFAR_FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")

_BYTES = 8  # idx's number for its type of bytes
_MOST = 1 << 30  # an idx file that claims more than a gigabyte is none of these
_CIFAR_RECORD = 1 + 3 * 32 * 32  # its class, then a plane each of red, green and blue
_CIFAR_IMAGES = 10_000  # in a file


def idx_files(folder: Path) -> bool:
    """Whether a folder holds the four files of a set like MNIST, compressed or not."""
    return all(_idx_path(folder, name) is not None for pair in IDX_FILES for name in pair)


def read_idx_set(folder: Path) -> tuple[Pair, Pair]:
    """The training and the test part of a set like MNIST: (N, 1, H, W), (N,)."""
    parts: list[Pair] = []
    for images_name, labels_name in IDX_FILES:
        images, labels = _read_idx(folder, images_name, 3), _read_idx(folder, labels_name, 1)
        if len(images) != len(labels):
            raise TrainError(
                f"`{folder}` has {len(images):,} images in {images_name}, but {len(labels):,} "
                f"labels in {labels_name}",
                "take all four files from one source",
            )
        parts.append((images.unsqueeze(1), labels.long()))
    return parts[0], parts[1]


def read_cifar(folder: Path) -> tuple[Pair, Pair]:
    """The training and the test part of CIFAR-10's binary version: (N, 3, 32, 32), (N,)."""
    *training, test = (_read_cifar_file(folder / name) for name in CIFAR_FILES)
    images = torch.cat([images for images, _ in training])
    labels = torch.cat([labels for _, labels in training])
    return (images, labels), test


def _idx_path(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / f"{name}.gz", folder / name) if p.is_file()), None)


def _read_idx(folder: Path, name: str, dims: int) -> Tensor:
    path = _idx_path(folder, name) or folder / name
    start = 4 + 4 * dims
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(start)
            sizes = [int.from_bytes(head[i : i + 4], "big") for i in range(4, start, 4)]
            count = math.prod(sizes)
            if head[:4] != bytes((0, 0, _BYTES, dims)) or count > _MOST:
                raise _damaged(path, "it is no idx file of bytes")
            content = file.read(count + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise _damaged(path, str(error)) from error
    if len(content) != count:
        raise _damaged(path, f"it should hold {count:,} values")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(sizes)


def _read_cifar_file(path: Path) -> Pair:
    size = _CIFAR_IMAGES * _CIFAR_RECORD
    try:
        with path.open("rb") as file:
            content = file.read(size + 1)
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error
    if len(content) != size:
        raise _damaged(path, f"it should hold {size:,} bytes")
    records = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, _CIFAR_RECORD)
    labels = records[:, 0].long()
    if int(labels.max()) > 9:
        raise _damaged(path, f"there is no class {int(labels.max())} in CIFAR-10")
    return records[:, 1:].reshape(-1, 3, 32, 32), labels


def _damaged(path: Path, what: str) -> TrainError:
    return TrainError(f"`{path}` cannot be read: {what}", "get it anew")
