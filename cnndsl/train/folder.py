"""Images from files: one, or a folder that has a folder for each class. Knows no networks.

animals/cat/1.png        or, with a division into training and test images,
animals/dog/7.jpg        animals/train/cat/1.png, animals/test/cat/2.png
"""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from cnndsl.record import Record
from cnndsl.train.errors import TrainError

_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_WORDS = {"L": "grey", "RGB": "RGB", "RGBA": "RGBA"}
_TEST_FOLDERS = ("test", "val")


class Folder(Record):
    """What was found: images and labels; a separate test part if the folder has one."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor] | None
    classes: tuple[str, ...]


Size = tuple[int, int] | None  # height and width that images get; None: they keep theirs


def read(
    path: Path, channels: int | None, known: tuple[str, ...] = (), size: Size = None
) -> Folder:
    """All images below a folder, values 0 … 1; grey for one channel, RGB for three (or None).

    `known` are the classes of a network that was trained before, in its order.
    """
    test = next((path / n for n in _TEST_FOLDERS if (path / n).is_dir()), None)
    if (path / "train").is_dir() and test is not None:
        classes = _classes(path / "train", known)
        _classes(test, classes)
        return Folder(
            _read_part(path / "train", classes, channels, size),
            _read_part(test, classes, channels, size),
            classes,
        )
    classes = _classes(path, known)
    return Folder(_read_part(path, classes, channels, size), None, classes)


def read_image(
    path: Path, channels: int, size: tuple[int | None, int | None]
) -> tuple[Tensor, tuple[str, ...]]:
    """One image as (C, H, W), values 0 … 1, brought to the form the network takes.

    Also says what had to be done to it; nothing for an image that fits already.
    """
    image = _open(path)
    done: list[str] = []
    mode = _mode(channels)
    if image.mode != mode:
        done.append(f"made {_WORDS[mode]}")
        image = image.convert(mode)
    height, width = size
    wanted = (width or image.width, height or image.height)
    if image.size != wanted:
        done.append(f"resized from {image.height}x{image.width} to {wanted[1]}x{wanted[0]}")
        image = image.resize(wanted, Image.Resampling.BILINEAR)
    return _tensor(image), tuple(done)


def _classes(path: Path, known: tuple[str, ...]) -> tuple[str, ...]:
    """The classes that have a folder; if some are `known`, those, and there may be no other."""
    names = sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    strangers = [name for name in names if known and name not in known]
    if strangers:
        raise TrainError(
            f"`{path / strangers[0]}` is none of the classes that are trained",
            f"these are: {', '.join(known)}",
        )
    if len(names) < (1 if known else 2):
        found = f"only `{names[0]}`" if names else "none"
        raise TrainError(
            f"`{path}` needs a folder for each class, at least two; it has {found}",
            "for example: animals/cat/1.png, animals/dog/1.png",
        )
    return known or tuple(names)


def _read_part(
    path: Path, classes: tuple[str, ...], channels: int | None, size: Size
) -> tuple[Tensor, Tensor]:
    images: list[Tensor] = []
    labels: list[int] = []
    first: Path | None = None
    mode = _mode(channels or 3)
    for label, name in enumerate(classes):
        folder = path / name
        files = sorted(folder.rglob("*")) if folder.is_dir() else []
        for file in files:
            if file.suffix.lower() not in _ENDINGS or not file.is_file():
                continue
            picture = _open(file).convert(mode)
            if size is not None and (picture.height, picture.width) != size:
                picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            image = _tensor(picture)
            if first is not None and image.shape != images[0].shape:
                raise TrainError(
                    f"the images differ in size: {file} has {_size(image)}, "
                    f"{first} has {_size(images[0])}",
                    "`--resize` brings all images to the size of the network's `input`",
                )
            first = first or file
            images.append(image)
            labels.append(label)
    if not images:
        raise TrainError(
            f"no images were found below `{path}`", f"known endings: {', '.join(sorted(_ENDINGS))}"
        )
    return torch.stack(images), torch.tensor(labels)


def _mode(channels: int) -> str:
    if channels not in _MODES:
        raise TrainError(
            f"the network takes {channels} channels, but image files have 1, 3 or 4",
            "end `input` in `x 1` (grey) or `x 3` (RGB), or give tensors from Python",
        )
    return _MODES[channels]


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError as error:
        raise TrainError(f"there is no image `{path}`", "check the path") from error
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise TrainError(f"`{path}` cannot be read as an image: {error}", "remove it") from error


def _tensor(image: Image.Image) -> Tensor:
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, -1).permute(2, 0, 1).contiguous() / 255


def _size(image: Tensor) -> str:
    return f"{image.shape[1]}x{image.shape[2]}"
