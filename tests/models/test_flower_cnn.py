from __future__ import annotations

import pytest
import torch
from torch import nn

from flowers.models import flower_cnn
from flowers.models.flower_cnn import MirrorConv2d


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize(
    ("num_classes", "depth", "stem_stride"), [(2, 0, 4), (5, 1, 2), (102, 2, 4)]
)
def test_images_of_any_size_give_logits(norm, num_classes, depth, stem_stride):
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


def test_a_mirrored_image_has_mirrored_features_in_the_other_half():
    first = MirrorConv2d(3, 8, 4, stride=4)
    second = MirrorConv2d(8, 12, 3, padding=1)
    images = torch.rand(2, 3, 32, 32)
    features = second(first(images).relu())
    mirrored = second(first(images.flip(3)).relu())
    assert features.shape == (2, 12, 8, 8)
    assert torch.allclose(mirrored.flip(3).roll(6, dims=1), features, atol=1e-6)


def test_mirrored_filters_are_learned_once():
    assert MirrorConv2d(8, 12, 3).weight.shape == (6, 8, 3, 3)
