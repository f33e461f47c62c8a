"""Grad-CAM: which regions of an image contribute to a class."""

import io
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor, nn
from torch.nn import functional

from flowers.evaluation.figures import jpeg_bytes
from flowers.evaluation.reports.page import Picture


def grad_cam(net: nn.Module, part: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Return heat maps of how much each region contributes to a class, ``(B, S, S)`` in [0, 1].

    Selvaraju et al. (2017), https://arxiv.org/abs/1610.02391. The map is 0 everywhere if no region
    contributes to the class.

    Args:
        net: Maps images ``(B, 3, S, S)`` to logits ``(B, K)``; it is not changed.
        part: The part of the network whose last feature map is used: the last output
            ``(B, C, h, w)`` of its modules that is larger than 1 x 1.
        images: Floats ``(B, 3, S, S)``.
        classes: The class to explain for each image ``(B,)``.

    Raises:
        ValueError: The part has no such feature map, as in a vision transformer.
    """
    maps: list[Tensor] = []

    def append_map(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ANN401
        is_tensor = isinstance(output, torch.Tensor) and output.ndim >= 3
        if is_tensor and output[0].numel() > output.shape[1]:
            maps.append(output)

    training = net.training
    handles = [module.register_forward_hook(append_map) for module in part.modules()]
    try:
        # Lightning evaluates in inference mode, which records no gradient.
        with torch.inference_mode(False), torch.enable_grad():
            logits = net.eval()(images.clone().requires_grad_())
            features = [logits, *maps][-1]
            if features.ndim != 4:
                raise ValueError(
                    f"Grad-CAM needs a feature map (B, C, h, w), the last one of this network is "
                    f"{tuple(features.shape)}"
                )
            score = logits.gather(1, classes.clone()[:, None]).sum()
            [gradients] = torch.autograd.grad(score, features)
            # Feature maps are squares, so that (B, h, w, C) can be told from (B, C, h, w). Swin
            # transformers of timm have the channels last.
            if features.shape[1] == features.shape[2] != features.shape[3]:
                features = features.movedim(3, 1)
                gradients = gradients.movedim(3, 1)
    finally:
        for handle in handles:
            handle.remove()
        net.train(training)
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    heat = (weights * features).sum(dim=1, keepdim=True).relu().detach()
    heat = functional.interpolate(heat, images.shape[-2:], mode="bilinear")[:, 0]
    return heat / heat.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)


def add_overlays(
    pictures: list[Picture],
    net: nn.Module,
    images: Tensor,
    labels: Sequence[int],
    *,
    resize: str = "stretch",
) -> tuple[list[Picture], str]:
    """Add a Grad-CAM overlay: the photo, dark except for the regions that contribute to a class.

    Args:
        pictures: Photos, of any size.
        net: The network; the feature map is that of its ``backbone``.
        images: The photos as the network sees them, floats ``(B, 3, S, S)``.
        labels: The class to explain for each photo.
        resize: How the photos were made square: ``stretch``, or ``crop`` the centre.

    Returns:
        The pictures, unchanged if the network has no feature map, and a note for the page.
    """
    classes = torch.tensor(labels, device=images.device)
    try:
        heat = grad_cam(net, net.get_submodule("backbone"), images, classes)
    except ValueError as error:
        return pictures, f"There are no overlays: {error}."
    results = []
    for picture, values in zip(pictures, (255 * heat).byte().cpu().numpy(), strict=True):
        photo = Image.open(io.BytesIO(picture.jpeg))
        mask = Image.fromarray(values)
        if resize == "crop":
            mask = ImageOps.pad(mask, photo.size)
        dark = ImageEnhance.Brightness(photo).enhance(0.2)
        overlay = Image.composite(photo, dark, mask.resize(photo.size))
        results.append(picture._replace(overlay=jpeg_bytes(overlay)))
    note = "Grad-CAM leaves the regions bright that contributed most to the predicted class."
    return results, note
