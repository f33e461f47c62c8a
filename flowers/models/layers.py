"""Blocks that networks are built of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Norm = Literal["batch", "group", "none"]

# Mean and standard deviation of ImageNet's training images, the convention of
# https://pytorch.org/vision/stable/models.html: any fixed numbers near the truth serve a network
# trained from scratch.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Standardize(nn.Module):
    """Subtract a mean and divide by a standard deviation, per channel; both travel in the state dict.

    Args:
        mean: Mean of each channel, in the unit of the images ([0, 1]).
        std: Standard deviation of each channel, in the same unit.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return images ``(B, C, S, S)`` with about zero mean and unit variance."""
        return (images - self.mean) / self.std


def norm_layer(norm: Norm, width: int) -> nn.Module:
    """Return the normalisation of a feature map with ``width`` channels.

    Group normalisation (https://arxiv.org/abs/1803.08494) does not depend on the batch, hence suits
    tiny batches.
    """
    if norm == "batch":
        return nn.BatchNorm2d(width)
    if norm == "group":
        return nn.GroupNorm(num_groups=math.gcd(32, width), num_channels=width)
    return nn.Identity()


class MirrorConv2d(nn.Conv2d):
    """Convolution in which the second half of the filters mirrors the first half.

    A mirrored flower is a flower of the same class, so a filter that is useful is useful mirrored:
    the network learns half as many weights for the same number of features. Mirroring the input
    mirrors the feature maps and swaps their two halves (https://arxiv.org/abs/1602.07576).

    Args:
        in_width: Channels in. They are RGB, or features of such a convolution.
        out_width: Channels out, an even number.
        kernel_size: Side of the filters.
        options: Other options of ``torch.nn.Conv2d``.
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        kernel_size: int,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(in_width, out_width // 2, kernel_size, **options)
        self.reads_colors = in_width == 3

    def forward(self, images: Tensor) -> Tensor:
        """Return features ``(B, out_width, H, W)`` of images or features ``(B, in_width, H, W)``."""
        mirrored = self.weight.flip(3)
        if not self.reads_colors:  # the mirror image of a feature is in the other half
            mirrored = mirrored.roll(self.in_channels // 2, dims=1)
        weight = torch.cat([self.weight, mirrored])
        bias = None if self.bias is None else self.bias.repeat(2)
        return functional.conv2d(images, weight, bias, self.stride, self.padding)


def conv3x3(in_width: int, out_width: int, *, norm: Norm) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size; without bias where a normalisation cancels it."""
    return MirrorConv2d(in_width, out_width, kernel_size=3, padding=1, bias=norm == "none")


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (https://arxiv.org/abs/1512.03385).

    Args:
        width: Channels in and out.
        norm: Normalisation after each convolution.
    """

    def __init__(self, width: int, *, norm: Norm) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            conv3x3(width, width, norm=norm),
            norm_layer(norm, width),
            nn.ReLU(inplace=True),
            conv3x3(width, width, norm=norm),
            norm_layer(norm, width),
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape ``(B, width, H, W)``."""
        out: Tensor = self.relu(features + self.residual(features))
        return out
