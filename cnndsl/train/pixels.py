"""One picture from a file to a tensor, as people see it. Training and `predict` share this.

It is turned as its EXIF data say, transparent parts are laid on white, and of an animation the
first frame is taken. Knows no folders and no networks.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cnndsl.record import Record
from cnndsl.train.errors import TrainError

# What a pixel's values are: 8 bits (or fewer), 16 bits, or numbers whose range no header tells.
Depth = Literal["bytes", "words", "numbers"]

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_WORDS = {"L": "grey", "RGB": "RGB", "RGBA": "RGBA"}
_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Several frames that show one scene: a camera's JPEG with its preview.
_ONE_SCENE = {"MPO"}


class Range(Record):
    """The values that become 0 and 1 in pictures of 32-bit integers or floats."""

    low: float = 0.0
    high: float = 1.0


class Form(Record):
    """What pictures are read as: channels, height and width (None: their own), and how stored.

    `is_exact` asks for float32 values 0 … 1, which keep what 16 bits say; else for bytes.
    """

    channels: int
    size: tuple[int | None, int | None] = (None, None)
    range: Range = Range()
    is_exact: bool = False

    @property
    def mode(self) -> str:
        """Pillow's name for the channels; `TrainError` where files cannot have so many."""
        if self.channels not in _MODES:
            raise TrainError(
                f"the network takes {self.channels} channels, but image files have 1, 3 or 4",
                "end `input` in `x 1` (grey) or `x 3` (RGB), or give tensors from Python",
            )
        return _MODES[self.channels]


class Header(Record):
    """What a file says of its picture before it is decoded."""

    depth: Depth
    has_frames: bool


class PictureError(TrainError):
    """A file that cannot be read as a picture; `why` in a few words."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"`{path}` cannot be read as an image: {why}", "remove it or replace it")
        self.path = path
        self.why = why


def header(path: Path) -> Header:
    """What the file says of its picture; raises `PictureError`."""
    refuse_special(path)
    try:
        with Image.open(path) as image:
            frames = image.format not in _ONE_SCENE and getattr(image, "is_animated", False)
            return Header(_depth(image), bool(frames))
    except Exception as error:  # decoders raise anything for damaged files
        raise PictureError(path, _reason(error)) from error


def read(path: Path, form: Form) -> tuple[Tensor, tuple[str, ...]]:
    """The picture as (C, H, W), and what had to be done to bring it to the form.

    Nothing had to be done to a picture that has the channels and the size already. Raises
    `PictureError`.
    """
    image = _opened(path)
    return _tensor(image, path, form) if _depth(image) == "bytes" else _deep(image, path, form)


def values_between(path: Path) -> Range:
    """The least and the largest value in a picture of 32-bit integers or floats."""
    values = _numbers(_opened(path), path)
    return Range(float(values.min()), float(values.max()))


def refuse_special(path: Path) -> None:
    """Raise `TrainError` for what is no plain file: reading a pipe or a device may never end."""
    if not path.exists():
        raise TrainError(f"there is no image `{path}`", "check the path")
    if not path.is_file():
        what = "a folder" if path.is_dir() else "a pipe or a device"
        raise TrainError(f"`{path}` is {what}, not an image file", "give the path of a file")


def _depth(image: Image.Image) -> Depth:
    if image.mode.startswith("I;16"):
        return "words"
    # Pillow gives 16-bit files of these formats as 32-bit integers, in some versions.
    if image.mode == "I" and image.format in ("PNG", "PPM"):
        return "words"
    return "numbers" if image.mode in ("I", "F") else "bytes"


def _opened(path: Path) -> Image.Image:
    """The first frame, decoded and turned upright."""
    refuse_special(path)
    try:
        with Image.open(path) as image:
            image.load()
            form = image.format
            turned = image.transpose(turn) if (turn := _turn(image)) is not None else image
            turned.format = form  # which a copy forgets
            return turned
    except Exception as error:  # decoders raise anything for damaged files
        raise PictureError(path, _reason(error)) from error


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What turns the picture upright; None where it is, or where its EXIF data are damaged."""
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # they are only a hint, and the picture itself is whole
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "its content is no picture"
    return str(error).strip() or type(error).__name__


def _tensor(image: Image.Image, path: Path, form: Form) -> tuple[Tensor, tuple[str, ...]]:
    """A picture of 8 bits or fewer."""
    done: list[str] = []
    if image.mode != form.mode:
        done.append(f"made {_WORDS[form.mode]}")
        try:
            image = _flattened(image, form.mode)
        except ValueError as error:
            raise PictureError(path, str(error)) from error
    image, resized = _resized(image, form)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    pixels = pixels.view(image.height, image.width, -1).permute(2, 0, 1).contiguous()
    return (pixels / 255 if form.is_exact else pixels), (*done, *resized)


def _flattened(image: Image.Image, mode: str) -> Image.Image:
    """The picture in the mode; what is transparent shows white, if the mode has no alpha."""
    premultiplied = {"La": "LA", "RGBa": "RGBA"}
    if image.mode in premultiplied:
        image = image.convert(premultiplied[image.mode])
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if mode != "RGBA":
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _deep(image: Image.Image, path: Path, form: Form) -> tuple[Tensor, tuple[str, ...]]:
    """A picture of more than 8 bits, which is grey: scaled to 0 … 1."""
    used = Range(0, 65535) if _depth(image) == "words" else form.range
    # A picture of one value has no range: it becomes 0.
    width = used.high - used.low or 1.0
    values = (_numbers(image, path) - used.low) / width
    grey, done = _resized(Image.fromarray(values.astype(np.float32)), form)
    plane = torch.as_tensor(np.array(grey, dtype=np.float32))[None]
    mode = form.mode
    if form.channels > 1:
        done = (f"made {_WORDS[mode]}", *done)
        plane = torch.cat([plane.expand(3, -1, -1), torch.ones_like(plane)])[: form.channels]
    if form.is_exact:
        return plane.contiguous(), done
    return (plane * 255).round_().clamp_(0, 255).byte().contiguous(), done


def _numbers(image: Image.Image, path: Path) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    values = np.array(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise PictureError(path, "it holds nan or infinity")
    return values


def _resized(image: Image.Image, form: Form) -> tuple[Image.Image, tuple[str, ...]]:
    height, width = form.size
    wanted = (width or image.width, height or image.height)
    if image.size == wanted:
        return image, ()
    done = f"resized from {image.height}x{image.width} to {wanted[1]}x{wanted[0]}"
    return image.resize(wanted, Image.Resampling.BILINEAR), (done,)
