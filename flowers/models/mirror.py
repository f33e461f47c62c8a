"""Layers for which a mirrored image is the same image.

A mirrored flower is a flower of the same class. These layers learn half of the features and compute
the other half as their mirror images, so that mirroring the input mirrors the feature maps and
swaps their two halves, and the logits stay the same (https://arxiv.org/abs/1602.07576).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor


class MirrorConv2d(nn.Conv2d):
    """Convolution in which the second half of the filters mirrors the first half.

    Args:
        in_width: Channels in: 3 colors, or the features of such a convolution.
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
        """Return features ``(B, out_width, H, W)`` of an input ``(B, in_width, H, W)``."""
        mirrored = self.weight.flip(3)
        if not self.reads_colors:  # the mirror image of a feature is in the other half
            mirrored = mirrored.roll(self.in_channels // 2, dims=1)
        weight = torch.cat([self.weight, mirrored])
        bias = None if self.bias is None else self.bias.repeat(2)
        return functional.conv2d(images, weight, bias, self.stride, self.padding)


class HalvesSideBySide(nn.Module):
    """Put the two halves of the features side by side: ``(B, 2C, H, W)`` to ``(B, C, H, 2W)``.

    A mean over positions is then a mean over the halves too. In channels_last it is a view.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Return features ``(B, C, H, 2W)``."""
        batch, width, height, length = features.shape
        halves = features.reshape(batch, 2, width // 2, height, length)
        return halves.permute(0, 2, 3, 4, 1).flatten(3)


class MirrorNorm(nn.Module):
    """Normalise the two halves of the features together.

    Args:
        norm: Normalises features ``(B, C, H, 2W)``.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.side_by_side = HalvesSideBySide()
        self.norm = norm

    def forward(self, features: Tensor) -> Tensor:
        """Return normalised features of the same shape ``(B, 2C, H, W)``."""
        out: Tensor = self.norm(self.side_by_side(features))
        halves = out.reshape(*out.shape[:3], features.shape[3], 2)
        return halves.permute(0, 4, 1, 2, 3).flatten(1, 2)
