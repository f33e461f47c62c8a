from __future__ import annotations

import pytest
import torch
from torch import nn

from flowers.models import AverageViews
from flowers.models.average_views import views


@pytest.mark.parametrize(("tta", "count"), [("none", 1), ("flip", 2), ("flip+crops", 10)])
def test_the_first_view_is_the_image_and_all_have_its_size(tta, count):
    images = torch.rand(2, 3, 32, 32)
    all_views = [*views(images, tta)]
    assert len(all_views) == count
    assert torch.equal(all_views[0], images)
    assert all(view.shape == images.shape for view in all_views)
    assert all(view.min() >= 0 and view.max() <= 1 for view in all_views)


def test_the_crops_are_the_corners_and_every_view_has_a_mirrored_one():
    images = torch.zeros(1, 3, 32, 32)
    images[..., :4, :4] = 1  # only the upper left corner is bright
    all_views = [*views(images, "flip+crops")]
    for view, mirrored in zip(all_views[::2], all_views[1::2], strict=True):
        assert torch.equal(view.flip(-1), mirrored)
    assert [bool(view.max() > 0.5) for view in all_views[::2]] == [True, True, False, False, False]


class Sides(nn.Module):
    """The logits of two classes are the brightness of the left and of the right half."""

    def forward(self, x):
        return torch.stack([x[..., :8].sum((1, 2, 3)), x[..., 8:].sum((1, 2, 3))], dim=1)


class Mean(nn.Module):
    """The logits do not depend on the side: mean and maximum of the brightness."""

    def forward(self, x):
        return torch.stack([x.mean((1, 2, 3)), x.amax((1, 2, 3))], dim=1)


def test_views_are_averaged_and_a_symmetric_network_is_unchanged():
    images = torch.rand(4, 3, 16, 16)
    probs = AverageViews(Sides(), "flip")(images).softmax(dim=1)
    assert torch.allclose(probs, torch.full_like(probs, 0.5), atol=1e-5)
    assert torch.allclose(
        AverageViews(Mean(), "flip")(images), Mean()(images).log_softmax(1), atol=1e-6
    )
