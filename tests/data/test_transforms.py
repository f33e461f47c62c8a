from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from flowers.data import load_image, to_float


def encoded(image: Image.Image, **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, **{"format": "PNG", **options})
    file.seek(0)
    return file


def colour(file: io.BytesIO) -> list[int]:
    """Decode, and return the colour of the middle."""
    return load_image(file, image_size=8, resize="stretch")[:, 4, 4].tolist()


def halves(width: int, height: int) -> Image.Image:
    """Return an image with a red left and a blue right half."""
    image = Image.new("RGB", (width, height), "blue")
    image.paste("red", (0, 0, width // 2, height))
    return image


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (8, 8), (1, 300)])
@pytest.mark.parametrize("resize", ["stretch", "crop"])
def test_the_result_is_a_square_of_bytes(size, resize):
    image = load_image(encoded(Image.new("RGB", size, "red")), image_size=16, resize=resize)
    assert image.shape == (3, 16, 16)
    assert image.dtype == torch.uint8
    assert image[:, 8, 8].tolist() == [255, 0, 0]


def test_stretch_keeps_the_borders_and_crop_cuts_them():
    image = Image.new("RGB", (40, 20), "white")
    image.paste("black", (0, 0, 8, 20))
    stretched = load_image(encoded(image), image_size=20, resize="stretch")
    cropped = load_image(encoded(image), image_size=20, resize="crop")
    assert stretched[:, 10, 1].tolist() == [0, 0, 0]
    assert (cropped == 255).all()


def test_the_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    image = load_image(
        encoded(halves(64, 32), format="JPEG", exif=exif, quality=95), image_size=16, resize="stretch"
    ).long()
    assert image[0, 2, 8] > image[2, 2, 8] + 150
    assert image[2, 13, 8] > image[0, 13, 8] + 150


def test_every_kind_of_pixel_becomes_the_colour_a_person_sees():
    grey16 = Image.fromarray(np.full((8, 8), 128 * 257, dtype=np.uint16))
    half_clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    palette = Image.new("RGB", (8, 8), (10, 200, 30)).quantize(4)
    assert colour(encoded(grey16)) == [128, 128, 128]
    assert colour(encoded(half_clear)) == [255, 255, 255]
    assert colour(encoded(Image.new("LA", (8, 8), (0, 0)))) == [255, 255, 255]
    assert colour(encoded(palette)) == [10, 200, 30]
    assert colour(encoded(Image.new("L", (8, 8), 77))) == [77, 77, 77]
    assert colour(encoded(Image.new("1", (8, 8), 1))) == [255, 255, 255]
    assert colour(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), format="TIFF")) == [255, 0, 0]
    red, green, blue = colour(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), format="JPEG"))
    assert red > 230
    assert max(green, blue) < 30


@pytest.mark.parametrize("kind", ["WEBP", "BMP", "TIFF", "PNG", "JPEG"])
def test_the_formats_people_have_are_read(kind):
    red, green, blue = colour(encoded(Image.new("RGB", (30, 30), (200, 40, 60)), format=kind))
    assert abs(red - 200) + abs(green - 40) + abs(blue - 60) < 12


def test_a_large_jpeg_decoded_small_looks_as_when_decoded_whole():
    ramp = np.linspace(0, 255, 800, dtype=np.uint8)
    whole = Image.fromarray(np.stack([np.tile(ramp, (600, 1))] * 3, axis=2))
    small = load_image(encoded(whole, format="JPEG", quality=95), image_size=32, resize="stretch")
    reference = torch.from_numpy(np.array(whole.resize((32, 32), Image.Resampling.BICUBIC))).permute(2, 0, 1)
    assert (small.int() - reference.int()).abs().max() <= 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_file_is_an_error(kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = encoded(noise, format=kind).getvalue()
    with pytest.raises(OSError, match=r".+"):
        load_image(io.BytesIO(content[: len(content) // 2]), image_size=16, resize="stretch")


def test_what_has_no_colour_range_or_is_no_image_is_an_error():
    for mode in ("F", "I"):
        with pytest.raises(OSError, match=rf"32-bit pixels \(mode {mode}\)"):
            load_image(encoded(Image.new(mode, (8, 8)), format="TIFF"), image_size=8, resize="stretch")
    with pytest.raises(OSError, match="cannot identify"):
        load_image(io.BytesIO(b"a text"), image_size=8, resize="stretch")


def test_whatever_a_decoder_raises_becomes_one_kind_of_error(monkeypatch):
    def broken(image):
        raise RuntimeError("required argument is not an integer")

    monkeypatch.setattr(ImageOps, "exif_transpose", broken)
    with pytest.raises(OSError, match="broken image: required argument"):
        load_image(encoded(Image.new("RGB", (8, 8))), image_size=8, resize="stretch")


def test_an_image_of_too_many_pixels_is_refused_undecoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(OSError, match="exceeds limit"):
        load_image(encoded(Image.new("RGB", (30, 30))), image_size=8, resize="stretch")


def test_floats_are_exact_fractions_of_255():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(to_float(images).flatten(), torch.arange(256) / 255)
