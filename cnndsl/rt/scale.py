"""The layer `scale`, for which PyTorch has no module. Knows no kernels."""

import torch
from torch import Tensor, nn


class Scale(nn.Module):
    """A learned factor for each channel; x is (N, C), or (N, C, H, W) for images."""

    def __init__(self, channels: int, start: float, is_image: bool) -> None:
        super().__init__()
        self.is_image = is_image
        self.weight = nn.Parameter(torch.full((channels,), start))

    def forward(self, x: Tensor) -> Tensor:
        """Give x · weight."""
        return x * (self.weight[:, None, None] if self.is_image else self.weight)
