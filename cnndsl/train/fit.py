"""Bringing images to what a network's `input` takes, where that was asked for: size and colours.

Knows tensors only; images in files are resized as they are read, by `folder`.
"""

import torch
from torch import Tensor
from torch.nn import functional

from cnndsl.record import Record
from cnndsl.train.errors import UsageError

Shape = tuple[int | None, int | None, int | None]  # channels, height, width; None: any

ANY: Shape = (None, None, None)

# How much of red, green and blue the eye sees as brightness: ITU-R BT.601, as pillow has it.
_BRIGHTNESS = (0.299, 0.587, 0.114)

_AT_ONCE = 4096  # images that are resized together, so that what lies between stays small


class Fit(Record):
    """What may be done to images: give them another size, other colours."""

    resize: bool = False
    recolor: bool = False

    def size(self, wanted: Shape) -> tuple[int, int] | None:
        """The height and width that images are to get; None where they keep theirs."""
        if not self.resize:
            return None
        height, width = wanted[1:]
        if height is None or width is None:
            raise UsageError(
                "`--resize` brings images to the size of the network's `input`, but that is free",
                "give the size a value, for example `--set H=32 --set W=32`",
            )
        return height, width

    def __call__(self, images: Tensor, wanted: Shape) -> Tensor:
        """The images (N, C, H, W), values 0 … 1, as far as is asked for; the same if they fit."""
        channels = wanted[0]
        if self.recolor and channels is not None and channels != images.shape[1]:
            images = _recolored(images, channels)
        size = self.size(wanted)
        if size is not None and images.shape[2:] != size:
            pieces = images.tensor_split(-(-len(images) // _AT_ONCE) or 1)
            images = torch.cat([_resized(piece, size) for piece in pieces])
        return images


def _recolored(images: Tensor, channels: int) -> Tensor:
    match images.shape[1], channels:
        case 1, 3:
            return images.expand(-1, 3, -1, -1).contiguous()
        case 3, 1:
            shares = torch.tensor(_BRIGHTNESS, device=images.device).view(1, 3, 1, 1)
            return (images * shares).sum(1, keepdim=True)
        case given, _:
            raise UsageError(
                f"`--recolor` makes grey images RGB and RGB ones grey; the images have {given} "
                f"channels, and the network takes {channels}",
                "let the network's `input` end in `x 1` or `x 3`",
            )


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, over all pixels that fall into one when images become smaller, as pillow does."""
    return functional.interpolate(images, size, mode="bilinear", antialias=True)
