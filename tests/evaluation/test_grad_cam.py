from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.ops import Permute

from flowers.evaluation import Picture, add_overlays, grad_cam, jpeg_bytes
from flowers.models import flower_cnn, pretrained


class RedOrBlue(nn.Module):
    """A network whose logits are the amount of blue (class 0) and of red (class 1)."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AvgPool2d(4)

    def forward(self, images):
        features = self.pool(images)
        return torch.stack([features[:, 2].mean((1, 2)), features[:, 0].mean((1, 2))], dim=1)


def test_the_heat_is_where_the_class_is():
    images = torch.zeros(2, 3, 32, 32)
    images[:, 0, 4:12, 20:28] = 1  # red, top right
    images[:, 2, 20:28, 4:12] = 1  # blue, bottom left
    net = RedOrBlue()
    heat = grad_cam(net, net.pool, images, torch.tensor([1, 0]))
    assert heat.shape == (2, 32, 32)
    assert heat.max() == 1
    assert divmod(int(heat[0].argmax()), 32) == pytest.approx((8, 24), abs=4)
    assert divmod(int(heat[1].argmax()), 32) == pytest.approx((24, 8), abs=4)
    assert heat[0, 20:28, 4:12].max() == 0


@pytest.mark.parametrize("resize", ["stretch", "crop"])
def test_an_overlay_is_the_photo_where_the_class_is_and_dark_elsewhere(resize):
    images = torch.zeros(1, 3, 32, 32)
    images[:, 0, :, :16] = 1  # red, left
    net = RedOrBlue()
    net.backbone = net.pool
    photo = Picture(jpeg_bytes(Image.new("RGB", (96, 32), "white")))
    [picture], _ = add_overlays([photo], net, images, [1], resize=resize)
    pixels = np.asarray(Image.open(io.BytesIO(picture.overlay)).convert("L"))
    assert pixels.shape == (32, 96)
    bright = {"stretch": slice(0, 36), "crop": slice(36, 44)}[resize]
    dark = {"stretch": [slice(60, 96)], "crop": [slice(0, 28), slice(56, 96)]}[resize]
    assert (pixels[:, bright] > 220).all()
    for columns in dark:
        assert (pixels[:, columns] < 80).all()


def test_a_network_without_feature_maps_has_a_note_instead_of_overlays():
    net = RedOrBlue()
    net.backbone = nn.Flatten()
    photo = Picture(jpeg_bytes(Image.new("RGB", (8, 8))))
    pictures, note = add_overlays([photo, photo], net, torch.zeros(2, 3, 32, 32), [0, 1])
    assert pictures == [photo, photo]
    assert note.startswith("There are no overlays: Grad-CAM needs a feature map")


@pytest.mark.parametrize("frozen", [False, True])
def test_it_works_in_inference_mode_and_changes_nothing_in_the_network(frozen):
    net = flower_cnn(3, widths=(8, 16)).train().requires_grad_(not frozen)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.inference_mode():
        heat = grad_cam(net, net.backbone, torch.rand(2, 3, 32, 32), torch.tensor([0, 2]))
    assert 0 <= heat.min() <= heat.max() <= 1
    assert net.training
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not net.backbone._forward_hooks
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_layer_without_a_feature_map_is_refused():
    net = flower_cnn(3, widths=(8, 16))
    with pytest.raises(ValueError, match=r"needs a feature map .* network is \(2, 3\)"):
        grad_cam(net, net.head, torch.rand(2, 3, 32, 32), torch.tensor([0, 2]))
    assert not net.head._forward_hooks


def test_a_feature_map_may_have_its_channels_last():
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 8, 3, padding=1)
    head = nn.Linear(8, 3)
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    first = nn.Sequential(convolution, pool)
    last = nn.Sequential(convolution, Permute([0, 2, 3, 1]), Permute([0, 3, 1, 2]), pool)
    images = torch.rand(2, 3, 16, 16)
    heat = [grad_cam(net, net[:-1][:2], images, torch.tensor([0, 2])) for net in (first, last)]
    assert torch.allclose(*heat)


def test_every_network_has_a_feature_map_except_transformers_and_mixers(family):
    arch, size = family
    net = pretrained(arch, 3, weights="none").eval()
    images = torch.rand(1, 3, max(size, 96), max(size, 96)).repeat(3, 1, 1, 1)
    with torch.inference_mode():
        if arch in ("vit_b_16", "timm/vit_tiny_patch16_224", "timm/mixer_s32_224"):
            with pytest.raises(ValueError, match=r"the last one .* is \(3, \d+, \d+\)"):
                grad_cam(net, net.backbone, images, torch.arange(3))
        else:
            heat = grad_cam(net, net.backbone, images, torch.arange(3))
            assert heat.shape == (3, *images.shape[2:])
            assert heat.min() >= 0
            assert 0 < heat.max() <= 1  # something contributes to one of the classes
    assert not any(module._forward_hooks for module in net.modules())
