"""The project's own convolutional network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from flowers.models.classifier import ImageClassifier
from flowers.models.layers import (
    MirrorConv2d,
    Norm,
    ResidualBlock,
    Standardize,
    conv3x3,
    norm_layer,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def _stage(in_width: int, out_width: int, *, depth: int, norm: Norm) -> nn.Sequential:
    # Pooling comes before norm and ReLU: both then see a quarter of the pixels, and since
    # max-pooling commutes with ReLU little is lost.
    return nn.Sequential(
        conv3x3(in_width, out_width, norm=norm),
        nn.MaxPool2d(2),
        norm_layer(norm, out_width),
        nn.ReLU(inplace=True),
        *(ResidualBlock(out_width, norm=norm) for _ in range(depth)),
    )


def flower_cnn(
    num_classes: int,
    *,
    widths: Sequence[int] = (48, 96, 192),
    depth: int = 1,
    stem_stride: int = 4,
    dropout: float = 0.2,
    norm: Norm = "batch",
) -> ImageClassifier:
    """Return a CNN: a patch stem, stages of conv 3x3, max-pool, norm, ReLU and residual blocks, pooling, dense head.

    The stem (as in https://arxiv.org/abs/2201.03545) takes the place of the stages at full
    resolution, where a CPU spends most of its time and little is learnt.

    Args:
        num_classes: Number of logits.
        widths: Channels of each stage; each stage halves the resolution.
        depth: Residual blocks per stage.
        stem_stride: Side of the patches of the stem, in pixels.
        dropout: Probability that a feature is dropped before the dense layer.
        norm: Normalisation of the feature maps.
    """
    stem = (
        MirrorConv2d(3, widths[0], stem_stride, stride=stem_stride, bias=norm == "none"),
        norm_layer(norm, widths[0]),
    )
    ins = (widths[0], *widths)
    stages = (_stage(a, b, depth=depth, norm=norm) for a, b in zip(ins, widths, strict=False))
    head = nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(widths[-1], num_classes),
    )
    return ImageClassifier(
        Standardize(), nn.Sequential(*stem, nn.ReLU(inplace=True), *stages), head
    )
