from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from flowers.data import load_image, load_named, load_thumbnail, to_float
from flowers.decoding import decode_image


@pytest.fixture
def photo(tmp_path):
    """A file whose profile exchanges red and blue."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exchanged = srgb.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "photo.png"
    Image.new("RGB", (60, 40), "red").save(file, icc_profile=exchanged, exif=exif)
    return file


@pytest.mark.parametrize("resize", ["stretch", "crop"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_tensor_has_the_bytes_of_the_decoded_file(synthetic, resize, interpolation):
    file = sorted((synthetic / "roses").iterdir())[0]
    decoding = {"image_size": 20, "resize": resize, "interpolation": interpolation}
    image = load_image(file, **decoding)
    assert image.shape == (3, 20, 20)
    assert image.permute(1, 2, 0).is_contiguous()
    assert np.array_equal(image.permute(1, 2, 0).numpy(), decode_image(file, **decoding))


def test_a_thumbnail_is_upright_and_has_the_colours_and_proportions_of_the_photo(photo):
    assert load_thumbnail(photo, longest=100).size == (40, 60)
    thumbnail = load_thumbnail(photo, longest=30)
    assert thumbnail.size == (20, 30)
    assert thumbnail.getpixel((10, 10)) == (0, 0, 255)
    assert load_image(photo, image_size=8, resize="stretch")[:, 4, 4].tolist() == [0, 0, 255]


def test_floats_are_exact_fractions_of_255():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(to_float(images).flatten(), torch.arange(256) / 255)


def test_too_little_memory_names_the_file_and_does_not_make_it_unreadable(tmp_path, monkeypatch):
    file = tmp_path / "photo.png"
    Image.new("RGB", (8, 8)).save(file)

    def exhausted(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "resize", exhausted)
    with pytest.raises(MemoryError):
        load_image(file, image_size=4, resize="stretch")
    with pytest.raises(OSError, match=r"photo\.png: not enough memory"):
        load_named(file, image_size=4, resize="stretch")
