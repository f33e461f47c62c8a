"""The project's own convolutional network."""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowers.models.classifier import ImageClassifier, Standardize

Norm = Literal["batch", "group", "none"]


def flower_cnn(
    num_classes: int,
    *,
    widths: tuple[int, ...] = (48, 96, 192),
    depth: int = 1,
    stem_stride: int = 4,
    dropout: float = 0.2,
    norm: Norm = "batch",
) -> ImageClassifier:
    """Return a CNN: stem, stages of convolutions and max-pooling, average pooling, dense layer.

    The stem splits the image into patches (https://arxiv.org/abs/2201.03545). Stages at full
    resolution would take most of the time on a CPU and improve the accuracy little.

    Args:
        num_classes: Number of logits.
        widths: Channels of each stage; each stage halves the resolution.
        depth: Residual blocks per stage.
        stem_stride: Side of the patches of the stem, in pixels.
        dropout: Probability that a feature is dropped before the dense layer.
        norm: Normalisation of the feature maps.
    """
    bias = norm == "none"  # normalisation layers have a bias of their own
    layers = [
        MirrorConv2d(3, widths[0], stem_stride, stride=stem_stride, bias=bias),
        _norm(norm, widths[0]),
        nn.ReLU(inplace=True),
    ]
    for in_width, width in zip([widths[0], *widths], widths, strict=False):
        # Pooling comes first: norm and ReLU then process a quarter of the pixels. The order of
        # max-pooling and ReLU does not change the result.
        stage = nn.Sequential(
            MirrorConv2d(in_width, width, 3, padding=1, bias=bias),
            nn.MaxPool2d(2),
            _norm(norm, width),
            nn.ReLU(inplace=True),
            *[ResidualBlock(width, norm=norm) for _ in range(depth)],
        )
        layers.append(stage)
    head = nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(widths[-1], num_classes),
    )
    return ImageClassifier(Standardize(), nn.Sequential(*layers), head)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (https://arxiv.org/abs/1512.03385).

    Args:
        width: Number of input channels and of output channels.
        norm: Normalisation after each convolution.
    """

    def __init__(self, width: int, *, norm: Norm) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            MirrorConv2d(width, width, 3, padding=1, bias=norm == "none"),
            _norm(norm, width),
            nn.ReLU(inplace=True),
            MirrorConv2d(width, width, 3, padding=1, bias=norm == "none"),
            _norm(norm, width),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape ``(B, width, H, W)``."""
        return functional.relu(features + self.residual(features), inplace=True)


class MirrorConv2d(nn.Conv2d):
    """Convolution in which the second half of the filters mirrors the first half.

    The mirror image of a flower has the same class, so the network needs only half of the weights
    (https://arxiv.org/abs/1602.07576).

    Args:
        in_width: Number of input channels: 3 (RGB), or the ``out_width`` of a ``MirrorConv2d``.
        out_width: Number of output channels, even.
        kernel_size: Height and width of the filters.
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

    def forward(self, images: Tensor) -> Tensor:
        """Return features ``(B, out_width, H, W)`` of an input ``(B, in_width, H, W)``."""
        mirrored = self.weight.flip(3)
        if self.in_channels != 3:  # channels c and c + in_channels // 2 mirror each other
            mirrored = mirrored.roll(self.in_channels // 2, dims=1)
        weight = torch.cat([self.weight, mirrored])
        bias = None if self.bias is None else self.bias.repeat(2)
        return functional.conv2d(images, weight, bias, self.stride, self.padding)


def _norm(norm: Norm, width: int) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(width)
    if norm == "group":
        # Group norm computes statistics per image, so it suits tiny batches
        # (https://arxiv.org/abs/1803.08494).
        return nn.GroupNorm(num_groups=math.gcd(32, width), num_channels=width)
    return nn.Identity()
