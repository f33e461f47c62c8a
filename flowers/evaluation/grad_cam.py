"""Where a network looks: Grad-CAM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor, nn


def grad_cam(net: nn.Module, part: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Return how much each place of an image speaks for a class, after https://arxiv.org/abs/1610.02391.

    Args:
        net: Maps images ``(B, 3, S, S)`` to logits ``(B, K)``; it is left as it was.
        part: The part of it to look in: the last module inside, in the order of computation, that
            gives a map ``(B, C, h, w)`` of more than one place.
        images: Floats ``(B, 3, S, S)``.
        classes: The class that each image is asked for ``(B,)``.

    Returns:
        Heat in [0, 1] ``(B, S, S)``; all 0 where nothing speaks for the class.

    Raises:
        ValueError: What the part computes last of places is no such map, as in a network of
            attention.
    """
    maps: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:  # noqa: ANN401
        if (
            isinstance(output, torch.Tensor)
            and output.ndim >= 3
            and output[0].numel() > output.shape[1]
        ):
            maps.append(output)

    training = net.training
    handles = [module.register_forward_hook(keep) for module in part.modules()]
    try:
        # Lightning evaluates in inference mode, from which no gradient can be taken.
        with torch.inference_mode(False), torch.enable_grad():
            logits = net.eval()(images.clone().requires_grad_())
            features = maps[-1] if maps else logits
            if features.ndim != 4:
                raise ValueError(
                    f"Grad-CAM needs a feature map (B, C, h, w), the last here is {tuple(features.shape)}"
                )
            score = logits.gather(1, classes.clone()[:, None]).sum()
            [gradients] = torch.autograd.grad(score, features)
    finally:
        for handle in handles:
            handle.remove()
        net.train(training)
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    heat = (weights * features).sum(dim=1, keepdim=True).relu().detach()
    heat = functional.interpolate(heat, images.shape[-2:], mode="bilinear", align_corners=False)[
        :, 0
    ]
    return heat / heat.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
