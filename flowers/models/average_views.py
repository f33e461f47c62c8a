"""Test-time augmentation."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.functional import five_crop

Views = Literal["none", "flip", "flip+crops"]


def views(images: Tensor, tta: Views) -> Iterator[Tensor]:
    """Yield views ``(B, 3, S, S)`` of images, first the images themselves.

    Args:
        images: Floats ``(B, 3, S, S)``.
        tta: ``flip`` adds the mirror image. ``flip+crops`` also adds the four corner crops and
            their mirror images. Crops are resized to S, the only size that some networks accept.
    """
    crops = [images]
    if tta == "flip+crops":
        size = images.shape[-1]
        # The ratio of AlexNet: crops of 224 from 256 pixels
        # (https://papers.nips.cc/paper/4824, section 4.1).
        side = round(size * 7 / 8)
        for crop in five_crop(images, [side, side])[:4]:  # without the centre crop
            crops.append(functional.interpolate(crop, size=(size, size), mode="bilinear"))
    for crop in crops:
        yield crop
        if tta != "none":
            yield crop.flip(-1)


class AverageViews(nn.Module):
    """Wrapper that averages the log-probabilities of a network over several views of an image.

    Args:
        net: Maps images ``(B, 3, S, S)`` to logits ``(B, K)``.
        tta: The views to average; see ``views``.
    """

    def __init__(self, net: nn.Module, tta: Views) -> None:
        super().__init__()
        self.net = net
        self.tta: Views = tta

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean log-probabilities ``(B, K)`` of float images ``(B, 3, S, S)``."""
        logits = torch.stack([self.net(view) for view in views(images, self.tta)])
        return logits.float().log_softmax(dim=2).mean(dim=0)
