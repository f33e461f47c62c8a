from __future__ import annotations

import pytest
import torch
from torch import nn

from flowers.models import ImageClassifier, Standardize, flower_cnn
from flowers.models.layers import MirrorConv2d


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize(
    ("num_classes", "depth", "stem_stride"), [(2, 0, 4), (5, 1, 2), (102, 2, 4)]
)
def test_images_of_any_size_become_logits(norm, num_classes, depth, stem_stride):
    net = flower_cnn(
        num_classes, widths=(8, 24), depth=depth, stem_stride=stem_stride, norm=norm
    ).eval()
    for size in (32, 45):
        assert net(torch.rand(2, 3, size, size)).shape == (2, num_classes)


def test_backbone_and_head_hold_all_parameters_once():
    net = flower_cnn(5)
    parts = [*net.backbone.parameters(), *net.head.parameters()]
    assert {id(p) for p in parts} == {id(p) for p in net.parameters()}
    assert len(parts) == len(list(net.parameters()))


def test_the_options_shape_the_network():
    net = flower_cnn(5, widths=(8, 16, 24), depth=2, dropout=0.3, norm="group")
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [0.3]
    assert sum(isinstance(m, nn.MaxPool2d) for m in net.modules()) == 3
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert net.backbone(torch.rand(1, 3, 64, 64)).shape == (1, 24, 2, 2)


def test_the_normalisation_travels_in_the_state_dict():
    net = ImageClassifier(
        Standardize((0.1, 0.2, 0.3), (0.5, 0.5, 0.5)), nn.Identity(), nn.Identity()
    )
    restored = ImageClassifier(Standardize(), nn.Identity(), nn.Identity())
    restored.load_state_dict(net.state_dict())
    image = torch.tensor([0.6, 0.7, 0.8]).view(1, 3, 1, 1)
    assert torch.allclose(restored(image), torch.ones(1, 3, 1, 1))


def test_mirroring_the_image_mirrors_the_features_and_swaps_their_halves():
    net = flower_cnn(5, widths=(8, 12), depth=1, stem_stride=2)
    convolutions = [module for module in net.modules() if isinstance(module, MirrorConv2d)]
    assert len(convolutions) == 7
    features = torch.rand(2, 3, 16, 16)
    mirrored = features.flip(3)
    for convolution in convolutions[:4]:
        features = convolution(features)
        mirrored = convolution(mirrored)
        assert features.shape == mirrored.shape
        swapped = mirrored.roll(features.shape[1] // 2, dims=1)
        assert torch.allclose(features, swapped.flip(3), atol=1e-6)


def test_a_mirror_convolution_learns_half_as_many_weights():
    convolution = MirrorConv2d(8, 12, 3, padding=1)
    assert convolution.weight.shape == (6, 8, 3, 3)
    assert convolution.bias.shape == (6,)
    convolution(torch.rand(1, 8, 5, 5)).sum().backward()
    assert convolution.weight.grad.abs().min() > 0
