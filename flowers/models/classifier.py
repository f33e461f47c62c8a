"""The one shape of every network of the project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

    from flowers.models.layers import Standardize


class ImageClassifier(nn.Module):
    """A network that maps images in [0, 1] to logits.

    The normalisation is part of the network, so a checkpoint cannot be served with another one than
    it was trained with.

    Args:
        standardize: Subtracts the mean and divides by the standard deviation of each channel.
        backbone: Maps standardized images ``(B, 3, S, S)`` to features.
        head: Maps the features to logits ``(B, K)``.
    """

    def __init__(self, standardize: Standardize, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.standardize = standardize
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(B, K)`` of float images ``(B, 3, S, S)`` in [0, 1]."""
        logits: Tensor = self.head(self.backbone(self.standardize(images)))
        return logits
