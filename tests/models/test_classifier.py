from __future__ import annotations

import torch
from torch import nn

from flowers.models import ImageClassifier, Standardize


def test_standardized_images_have_zero_mean_and_unit_variance():
    images = torch.rand(64, 3, 16, 16) * torch.tensor([0.2, 0.5, 0.8]).view(1, 3, 1, 1)
    mean = images.mean(dim=(0, 2, 3))
    std = images.std(dim=(0, 2, 3))
    standardized = Standardize(mean.tolist(), std.tolist())(images)
    assert torch.allclose(standardized.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(standardized.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-5)


def test_logits_are_the_head_of_the_backbone_of_standardized_images():
    net = ImageClassifier(Standardize(), nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    images = torch.rand(2, 3, 4, 4)
    features = net.standardize(images).flatten(1)
    assert torch.equal(net(images), net.head(features))


def test_the_state_dict_holds_mean_and_standard_deviation():
    standardize = Standardize((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    net = ImageClassifier(standardize, nn.Identity(), nn.Identity())
    restored = ImageClassifier(Standardize(), nn.Identity(), nn.Identity())
    restored.load_state_dict(net.state_dict())
    image = torch.tensor([0.6, 0.7, 0.8]).view(1, 3, 1, 1)
    assert torch.allclose(restored(image), torch.ones(1, 3, 1, 1))
