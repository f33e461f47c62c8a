"""The project's own convolutional network."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from torch import nn

from flowers.models.classifier import ImageClassifier, Standardize
from flowers.models.mirror import HalvesSideBySide, MirrorConv2d, MirrorNorm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Norm = Literal["batch", "group", "none"]


def flower_cnn(
    num_classes: int,
    *,
    widths: Sequence[int] = (48, 96, 192),
    depth: int = 1,
    stem_stride: int = 4,
    dropout: float = 0.2,
    norm: Norm = "batch",
    mirror: bool = True,
) -> ImageClassifier:
    """Return a CNN: stem, stages of convolutions and max-pooling, mean over positions, dense layer.

    The stem splits the image into patches (https://arxiv.org/abs/2201.03545), in place of stages at
    full resolution, where a CPU spends most of its time and little is learned.

    Args:
        num_classes: Number of logits.
        widths: Channels of each stage; each stage halves the resolution.
        depth: Residual blocks per stage.
        stem_stride: Side of the patches of the stem, in pixels.
        dropout: Probability that a feature is dropped before the dense layer.
        norm: Normalisation of the feature maps.
        mirror: Whether mirrored images have the same logits.
    """
    layers = [
        _conv(3, widths[0], stem_stride, stride=stem_stride, norm=norm, mirror=mirror),
        _norm(norm, widths[0], mirror=mirror),
        nn.ReLU(inplace=True),
    ]
    in_width = widths[0]
    for width in widths:
        layers.append(_stage(in_width, width, depth=depth, norm=norm, mirror=mirror))
        in_width = width
    head = [
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(in_width // 2 if mirror else in_width, num_classes),
    ]
    if mirror:
        head.insert(0, HalvesSideBySide())
    return ImageClassifier(Standardize(), nn.Sequential(*layers), nn.Sequential(*head))


def _stage(in_width: int, out_width: int, *, depth: int, norm: Norm, mirror: bool) -> nn.Sequential:
    # Pooling comes before norm and ReLU: both then see a quarter of the pixels, and max-pooling
    # commutes with ReLU.
    return nn.Sequential(
        _conv(in_width, out_width, 3, padding=1, norm=norm, mirror=mirror),
        nn.MaxPool2d(2),
        _norm(norm, out_width, mirror=mirror),
        nn.ReLU(inplace=True),
        *[ResidualBlock(out_width, norm=norm, mirror=mirror) for _ in range(depth)],
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (https://arxiv.org/abs/1512.03385).

    Args:
        width: Channels in and out.
        norm: Normalisation after each convolution.
        mirror: Whether the second half of the features mirrors the first.
    """

    def __init__(self, width: int, *, norm: Norm, mirror: bool) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _conv(width, width, 3, padding=1, norm=norm, mirror=mirror),
            _norm(norm, width, mirror=mirror),
            nn.ReLU(inplace=True),
            _conv(width, width, 3, padding=1, norm=norm, mirror=mirror),
            _norm(norm, width, mirror=mirror),
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape ``(B, width, H, W)``."""
        out: Tensor = self.relu(features + self.residual(features))
        return out


def _conv(
    in_width: int,
    out_width: int,
    kernel_size: int,
    *,
    stride: int = 1,
    padding: int = 0,
    norm: Norm,
    mirror: bool,
) -> nn.Conv2d:
    layer = MirrorConv2d if mirror else nn.Conv2d
    has_bias = norm == "none"  # a normalisation would cancel it
    return layer(in_width, out_width, kernel_size, stride=stride, padding=padding, bias=has_bias)


def _norm(norm: Norm, width: int, *, mirror: bool) -> nn.Module:
    if norm == "none":
        return nn.Identity()
    if mirror:
        return MirrorNorm(_plain_norm(norm, width // 2))
    return _plain_norm(norm, width)


def _plain_norm(norm: Norm, width: int) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(width)
    # Does not depend on the batch, hence suits tiny batches (https://arxiv.org/abs/1803.08494).
    return nn.GroupNorm(num_groups=math.gcd(32, width), num_channels=width)
