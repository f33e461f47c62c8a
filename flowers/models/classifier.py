"""The structure of every network of the project: normalisation, backbone and head."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Mean and standard deviation of ImageNet's training images, as in
# https://pytorch.org/vision/stable/models.html. For a network trained from scratch, roughly correct
# numbers suffice.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Standardize(nn.Module):
    """Subtract the mean and divide by the standard deviation of each channel; both are buffers.

    Args:
        mean: Mean of each channel, for pixel values in [0, 1].
        std: Standard deviation of each channel, for pixel values in [0, 1].
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


class ImageClassifier(nn.Module):
    """A network that maps images in [0, 1] to logits.

    The normalisation is part of the network, so it is the same in training and inference.

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
        return self.head(self.backbone(self.standardize(images)))
