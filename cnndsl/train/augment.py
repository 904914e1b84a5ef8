"""Changing images at random before they are learned from: mirrored, moved by a few pixels.

Written for batches of tensors on any device: each image of a batch gets a draw of its own, where
torchvision's `transforms.v2` give a batch one draw for all. Those fit a `Dataset`, image by image.
"""

import torch
from torch import Tensor

from cnndsl.record import Record


class Augment(Record):
    """Mirror half of the images if `flip`, move each by up to `crop` pixels in each direction."""

    flip: bool = False
    crop: int = 0

    def __call__(self, images: Tensor, seed: int, first: int, whole: int) -> Tensor:
        """The images (N, C, H, W), changed.

        They are those from number `first` on in a batch of `whole` images: what is drawn for an
        image does not depend on how the batch is divided.
        """
        draw = torch.Generator().manual_seed(seed)
        part = slice(first, first + len(images))
        if self.flip:
            turned = (torch.rand(whole, generator=draw) < 0.5)[part].to(images.device)
            images = torch.where(turned.view(-1, 1, 1, 1), images.flip(3), images)
        if self.crop:
            moves = torch.randint(2 * self.crop + 1, (2, whole), generator=draw)
            images = _moved(images, moves[:, part].to(images.device), self.crop)
        return images


def _moved(images: Tensor, moves: Tensor, reach: int) -> Tensor:
    """Cut each image out of itself with a border of zeros `reach` wide, from (row, column) on."""
    count, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (reach, reach, reach, reach))
    rows = moves[0].view(-1, 1) + torch.arange(height, device=images.device)
    columns = moves[1].view(-1, 1) + torch.arange(width, device=images.device)
    numbers = torch.arange(count, device=images.device).view(-1, 1, 1)
    # Indices beside a slice come first in the result: (N, H, W, C).
    cut = padded[numbers, :, rows.unsqueeze(2), columns.unsqueeze(1)]
    return cut.permute(0, 3, 1, 2).contiguous()
