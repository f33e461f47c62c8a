from __future__ import annotations

import pytest
import torch

from flowers.data import BatchAugmentation
from flowers.data.augment import uniform_draws

STILL = BatchAugmentation(
    min_scale=1,
    max_aspect=1,
    rotation=0,
    hflip_prob=0,
    brightness=0,
    contrast=0,
    saturation=0,
    cutmix_prob=0,
)


@pytest.fixture
def images():
    return torch.randint(0, 256, (6, 3, 24, 24), dtype=torch.uint8)


def augment(augmentation, images, *, indices=None, size=24, seed=0, epoch=0):
    indices = torch.arange(len(images)) if indices is None else indices
    return augmentation(images, indices=indices, size=size, seed=seed, epoch=epoch)


def test_draws_are_uniform_and_independent():
    draws = uniform_draws(torch.arange(20_000), seed=3, epoch=5, num=4)
    assert draws.min() >= 0
    assert draws.max() < 1
    for column in draws.T:
        counts = torch.histc(column, bins=10, min=0, max=1)
        assert (counts - 2000).abs().max() < 200  # five standard deviations
    correlation = torch.corrcoef(
        torch.cat([draws.T, uniform_draws(torch.arange(20_000), seed=3, epoch=6, num=4).T])
    )
    assert (correlation - torch.eye(8)).abs().max() < 0.04


def test_the_draws_of_an_image_depend_only_on_seed_epoch_and_index(images):
    augmentation = BatchAugmentation()
    indices = torch.tensor([5, 0, 9, 2, 7, 3])
    together = augment(augmentation, images, indices=indices)
    alone = torch.cat(
        [augment(augmentation, images[i : i + 1], indices=indices[i : i + 1]) for i in range(6)]
    )
    assert torch.allclose(together, alone, atol=1e-6)
    for other in ({"seed": 1}, {"epoch": 1}, {"indices": indices + 10}):
        assert not torch.allclose(
            augment(augmentation, images, **({"indices": indices} | other)), together, atol=0.05
        )


def test_every_image_has_other_draws(images):
    same = images[:1].expand(6, -1, -1, -1)
    out = augment(BatchAugmentation(), same)
    distances = torch.cdist(out.flatten(1), out.flatten(1)) + torch.eye(6)
    assert distances.min() > 0.5


def test_without_augmentation_images_are_unchanged(images):
    assert torch.allclose(augment(STILL, images), images / 255, atol=1e-5)


def test_without_a_smaller_scale_nothing_is_cropped(images):
    whole = BatchAugmentation(**{**STILL.__dict__, "max_aspect": 4 / 3})
    assert torch.allclose(augment(whole, images), images / 255, atol=1e-5)


@pytest.mark.parametrize("min_scale", [0.9, 0.6, 0.3])
@pytest.mark.parametrize("max_aspect", [1, 4 / 3, 3])
def test_a_crop_has_at_least_the_smallest_area_and_at_most_the_largest_ratio(min_scale, max_aspect):
    size = 64
    ramp = (4 * torch.arange(size)).expand(size, size)
    coordinates = torch.stack([ramp, ramp.T, ramp]).to(torch.uint8).expand(300, -1, -1, -1)
    options = {"min_scale": min_scale, "max_aspect": max_aspect}
    crops = augment(BatchAugmentation(**{**STILL.__dict__, **options}), coordinates, size=size)
    sides = (crops.amax(dim=(2, 3)) - crops.amin(dim=(2, 3)))[:, :2] * 255 / (4 * (size - 1))
    area = sides.prod(dim=1)
    assert min_scale - 0.02 < area.min() < min_scale + 0.1
    assert 0.9 < area.max() < 1.01
    ratio = sides.amax(dim=1) / sides.amin(dim=1)
    assert ratio.max() < max_aspect + 0.05


def test_flips_mirror_the_image(images):
    flip = BatchAugmentation(**{**STILL.__dict__, "hflip_prob": 1.0})
    assert torch.allclose(augment(flip, images), images.flip(3) / 255, atol=1e-4)


def test_the_colour_jitter_equals_torchvisions(images):
    from torchvision.transforms.v2 import functional

    factor = 1.2  # the largest factor for a strength of 0.2
    for name in ("brightness", "contrast", "saturation"):
        jitter = BatchAugmentation(**{**STILL.__dict__, name: 0.2})
        draws = torch.full((6, 3), 0.5)
        draws[:, ["brightness", "contrast", "saturation"].index(name)] = 1.0
        expected = getattr(functional, f"adjust_{name}")(images / 255, factor)
        assert torch.allclose(jitter.jitter(images / 255, draws), expected, atol=2e-3), name


def test_crops_show_a_part_and_keep_the_range(images):
    crop = BatchAugmentation(**{**STILL.__dict__, "min_scale": 0.2, "rotation": 30})
    out = augment(crop, images, size=16)
    assert out.shape == (6, 3, 16, 16)
    assert out.min() >= 0
    assert out.max() <= 1


def test_erasing_makes_a_rectangle_of_some_images_grey():
    white = torch.full((200, 3, 20, 20), 255, dtype=torch.uint8)
    out = augment(BatchAugmentation(**{**STILL.__dict__, "erase_prob": 0.5}), white, size=20)
    share = (out == 0.5).float().mean(dim=(1, 2, 3))
    assert 70 < (share > 0).sum() < 130
    assert share.max() <= 0.32  # a quarter, and a pixel at each border


def test_no_two_parts_of_the_augmentation_share_a_draw(monkeypatch):
    parts = {}
    for name in ("affine", "jitter", "erase"):
        part = getattr(BatchAugmentation, name)

        def noted(self, *args, part=part, name=name):
            parts[name] = args[-1]
            return part(self, *args)

        monkeypatch.setattr(BatchAugmentation, name, noted)
    augment(BatchAugmentation(erase_prob=0.5), torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
    draws = torch.cat(list(parts.values()), dim=1)
    assert len(parts) == 3
    assert torch.equal(draws.unique(dim=1).sort().values, draws.sort().values)


@pytest.mark.parametrize("option", ["cutmix_prob", "mixup_prob"])
def test_mixed_targets_sum_to_one_and_follow_the_seed(option, images):
    mixing = BatchAugmentation(**{**STILL.__dict__, option: 1.0})
    labels, floats = torch.tensor([0, 1, 2, 3, 4, 0]), images / 255
    state = torch.get_rng_state()
    mixed, targets = mixing.mix(floats, labels, num_classes=5, seed=0, step=7)
    assert torch.equal(torch.get_rng_state(), state)
    assert targets.shape == (6, 5)
    assert torch.allclose(targets.sum(1), torch.ones(6))
    assert not torch.equal(mixed, floats)
    again, _ = mixing.mix(floats, labels, num_classes=5, seed=0, step=7)
    other, _ = mixing.mix(floats, labels, num_classes=5, seed=0, step=8)
    assert torch.equal(mixed, again)
    assert not torch.equal(mixed, other)


def test_the_fraction_of_mixed_batches_is_the_given_probability(images):
    mixing = BatchAugmentation(**{**STILL.__dict__, "cutmix_prob": 0.3, "mixup_prob": 0.2})
    labels = torch.arange(6) % 5
    soft = sum(
        mixing.mix(images[:, :, :2, :2] / 255, labels, num_classes=5, seed=0, step=step)[1].ndim
        == 2
        for step in range(400)
    )
    assert 160 < soft < 240


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("min_scale", 0),
        ("max_aspect", 0.5),
        ("rotation", 181),
        ("cutmix_prob", 1.5),
        ("brightness", -1),
    ],
)
def test_an_option_out_of_range_is_named(option, value):
    with pytest.raises(ValueError, match=rf"`augment\.{option}`: expected"):
        BatchAugmentation(**{option: value})


@pytest.mark.parametrize("size", [6, 12, 24])
def test_a_small_crop_of_a_fine_pattern_does_not_alias(size):
    checkerboard = (torch.arange(24)[:, None] + torch.arange(24)) % 2 * 255
    images = checkerboard.to(torch.uint8).expand(2, 3, 24, 24)
    out = augment(STILL, images, size=size)
    if size < 24:
        assert torch.allclose(out, torch.full_like(out, 0.5), atol=0.01)
    else:
        assert torch.allclose(out, images / 255, atol=1e-4)
