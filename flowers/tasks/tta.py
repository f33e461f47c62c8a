"""Test-time augmentation: asking the network about several views of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

TestTimeAugmentation = Literal["none", "flip", "flip+crops"]

# Side of a corner crop, as a share of the image's: 224 of 256 pixels (https://papers.nips.cc/paper/4824, section 4.1).
_CROP = 7 / 8


def views(images: Tensor, tta: TestTimeAugmentation) -> Iterator[Tensor]:
    """Yield views ``(B, 3, S, S)`` of images: themselves, and what the option adds.

    Args:
        images: Floats ``(B, 3, S, S)``.
        tta: ``flip`` adds the mirror image; ``flip+crops`` the four corner crops too, resized to S since some networks
            take no other size, and their mirror images.
    """
    crops = [images]
    if tta == "flip+crops":
        size = images.shape[-1]
        side = round(size * _CROP)
        corners = [(top, left) for top in (0, size - side) for left in (0, size - side)]
        for top, left in corners:
            crop = images[..., top : top + side, left : left + side]
            crops.append(functional.interpolate(crop, size=(size, size), mode="bilinear", align_corners=False))
    for crop in crops:
        yield crop
        if tta != "none":
            yield crop.flip(-1)


def mean_log_probs(
    net: Callable[[Tensor], Tensor], images: Tensor, tta: TestTimeAugmentation, *, temperature: float = 1.0
) -> Tensor:
    """Return the logarithm ``(B, K)`` of the probabilities' mean over the views.

    Args:
        net: Maps images to logits.
        images: Floats ``(B, 3, S, S)``.
        tta: The views.
        temperature: What the logits of each view are divided by.
    """
    log_probs = torch.stack([(net(view).float() / temperature).log_softmax(dim=1) for view in views(images, tta)])
    return log_probs.logsumexp(dim=0) - torch.tensor(float(len(log_probs))).log()
