"""From a file to bytes: what a person sees is what a network gets, and no program is started."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from flowers import FlowerPredictor
from flowers.data import load_image, load_thumbnail, read_image_info
from flowers.decoding import IMAGE_FORMATS, allow_megapixels, decode_image, to_srgb

FORMATS = sorted({name for names in IMAGE_FORMATS.values() for name in names})
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def encoded(image: Image.Image, **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, **{"format": "PNG", **options})
    file.seek(0)
    return file


def decoded(file, *, image_size: int = 32, resize: str = "stretch") -> np.ndarray:
    """Decode to integers, which can be subtracted."""
    options = {"image_size": image_size, "resize": resize, "interpolation": "bicubic"}
    return decode_image(file, **options).astype(int)


def colour(file: io.BytesIO) -> list[int]:
    """Decode, and return the colour of the middle."""
    return decoded(file, image_size=8)[4, 4].tolist()


def flower(size: tuple[int, int] = (32, 32), *, seed: int = 0) -> Image.Image:
    """Return a smooth image of colours that are neither dark nor saturated."""
    colours = np.random.default_rng(seed).integers(70, 220, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BILINEAR)


# Files


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (8, 8), (1, 300)])
@pytest.mark.parametrize("resize", ["stretch", "crop"])
def test_the_result_is_a_square_of_bytes(size, resize):
    file = encoded(Image.new("RGB", size, "red"))
    image = decode_image(file, image_size=16, resize=resize, interpolation="bilinear")
    assert image.shape == (16, 16, 3)
    assert image.dtype == np.uint8
    assert image[8, 8].tolist() == [255, 0, 0]


def test_stretch_keeps_the_borders_and_crop_cuts_them():
    image = Image.new("RGB", (40, 20), "white")
    image.paste("black", (0, 0, 8, 20))
    assert decoded(encoded(image), image_size=20)[10, 1].tolist() == [0, 0, 0]
    assert (decoded(encoded(image), image_size=20, resize="crop") == 255).all()


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_of_photos_is_read(kind):
    red, green, blue = colour(encoded(Image.new("RGB", (30, 30), (200, 40, 60)), format=kind))
    assert abs(red - 200) + abs(green - 40) + abs(blue - 60) < 12


def other_formats(folder: Path) -> dict[str, Path]:
    """Write a file named as a photo in each format that Pillow writes and that is no photo's."""
    Image.init()
    files = {}
    for kind in sorted({*Image.SAVE} - {*FORMATS, "IM"}):  # IM is deprecated
        for mode in ("RGB", "L", "P", "1"):
            file = io.BytesIO()
            try:
                Image.new("L", (32, 32), 99).convert(mode).save(file, kind)
            except (OSError, ValueError, KeyError):
                continue
            files[kind] = folder / f"{kind}-photo.jpg"
            files[kind].write_bytes(file.getvalue())
            break
    return files


def test_other_formats_are_refused_wherever_a_file_is_opened(trained_run, tmp_path, monkeypatch):
    files = other_formats(tmp_path)
    assert {"EPS", "PDF", "ICO", "TGA", "PCX", "SGI", "DDS", "ICNS", "XBM", "MSP"} <= set(files)
    started = []
    monkeypatch.setattr(subprocess.Popen, "__init__", lambda *args, **kwargs: started.append(args))
    monkeypatch.setattr(os, "posix_spawn", lambda *args: started.append(args))
    expected = "expected one of JPEG, PNG, .*, got another format"
    predictor = FlowerPredictor(trained_run, device="cpu")
    for file in files.values():
        for open_file in (decoded, predictor, lambda file: load_thumbnail(file, longest=32)):
            with pytest.raises(OSError, match=expected):
                open_file(file)
        with pytest.raises(OSError, match=expected):
            load_image(io.BytesIO(file.read_bytes()), image_size=32, resize="stretch")
    names = [file.name for file in files.values()]
    errors = read_image_info(tmp_path, names, cache_dir=tmp_path / "cache").errors
    assert sorted(errors) == [*range(len(files))]
    assert all("expected one of JPEG, PNG" in error for error in errors.values())
    assert started == []


def test_an_image_in_memory_may_be_of_any_format(tmp_path):
    for kind in ("TGA", "PCX", "SGI", "DDS"):
        with Image.open(encoded(Image.new("RGB", (8, 8), (200, 40, 60)), format=kind)) as image:
            assert colour(image) == [200, 40, 60]


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1"])
def test_an_error_about_a_heic_file_says_how_to_convert_it(brand, tmp_path):
    content = b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + bytes(64)
    (tmp_path / "photo.jpg").write_bytes(content)
    for file in (tmp_path / "photo.jpg", str(tmp_path / "photo.jpg"), io.BytesIO(content)):
        with pytest.raises(OSError, match=r"expected one of JPEG, .*, got HEIC: .* pillow-heif"):
            decoded(file)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_file_is_an_error(kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = encoded(noise, format=kind).getvalue()
    with pytest.raises(OSError, match=r".+"):
        decoded(io.BytesIO(content[: len(content) // 2]))


def test_an_image_without_a_known_range_and_a_file_that_is_no_image_are_errors():
    for mode in ("F", "I"):
        with pytest.raises(OSError, match=rf"got mode {mode} \(32 bits or signed\)"):
            decoded(encoded(Image.new(mode, (8, 8)), format="TIFF"))
    for content in (b"a text", b""):
        with pytest.raises(OSError, match="got another format, a broken file"):
            decoded(io.BytesIO(content))


def test_what_is_unusual_about_a_file_that_cannot_be_decoded_is_named():
    jpeg = bytearray(encoded(flower(), format="JPEG").getvalue())
    jpeg[jpeg.index(b"\xff\xc0") + 4] = 12  # bits
    with pytest.raises(OSError, match=r"or pixels of 12 bits"):
        decoded(io.BytesIO(jpeg))
    tiff = bytearray(encoded(flower(), format="TIFF", compression="tiff_lzw").getvalue())
    tiff[100:200] = bytes(100)
    with pytest.raises(OSError, match="a broken image, or an unknown compression"):
        decoded(io.BytesIO(tiff))


def test_errors_of_decoders_become_one_type_except_too_little_memory(monkeypatch):
    file = encoded(Image.new("RGB", (8, 8)))
    for raised, expected in ((RuntimeError, OSError), (MemoryError, MemoryError)):

        def broken(image, raised=raised):
            raise raised("required argument is not an integer")

        monkeypatch.setattr(Image.Image, "load", broken)
        with pytest.raises(expected, match="required argument") as caught:
            decoded(file)
        assert type(caught.value) is expected


def test_an_image_of_too_many_pixels_is_refused_undecoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(OSError, match="exceeds limit"):
        decoded(encoded(Image.new("RGB", (30, 30))))


def png(size: tuple[int, int], depth: int, colour_type: int, content: bytes) -> io.BytesIO:
    """Return a PNG file, see https://www.w3.org/TR/png-3/#11IHDR."""
    header = struct.pack(">IIBBBBB", *size, depth, colour_type, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n"
    chunks = {b"IHDR": header, b"PLTE": bytes(3), b"IDAT": zlib.compress(content), b"IEND": b""}
    for name, data in chunks.items():
        if name != b"PLTE" or colour_type == 3:
            crc32 = zlib.crc32(name + data)
            file += struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc32)
    return io.BytesIO(file)


GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("colour_type", [GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA])
def test_an_image_that_would_take_much_memory_is_refused_undecoded(depth, colour_type):
    if colour_type == PALETTE:
        depth = 8
    file = png((13_000, 13_000), depth, colour_type, bytes(1000))
    with pytest.raises(OSError, match=r"13000 x 13000 pixels .* bytes: .*`max_megapixels` \d+"):
        decoded(file)


@pytest.mark.parametrize("mode", ["P", "L", "I;16", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_the_limit_that_an_error_names_allows_the_image(mode, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700_000)
    side = 1170
    image = Image.new(mode, (side, side))
    file = encoded(image, format="PNG" if mode in ("P", "I;16") else "TIFF")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(OSError, match="`max_megapixels`") as caught:
            decoded(file)
        limit = int(re.search(r"`max_megapixels` (\d+) allows", str(caught.value))[1])
        allow_megapixels(limit)
        assert decoded(file).shape == (32, 32, 3)


def test_a_jpeg_counts_as_it_is_decoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    file = encoded(Image.new("CMYK", (160, 120)), format="JPEG")
    assert decoded(file, image_size=8).shape == (8, 8, 3)
    with pytest.raises(OSError, match="`max_megapixels`"):
        decoded(file, image_size=80)


def test_a_progressive_jpeg_counts_with_all_its_coefficients(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    whole = Image.new("RGB", (200, 100))
    options = {"format": "JPEG", "progressive": True}
    assert decoded(encoded(whole, subsampling="4:2:0", **options), image_size=8).shape == (8, 8, 3)
    with pytest.raises(OSError, match="`max_megapixels`"):
        decoded(encoded(whole, subsampling="4:4:4", **options), image_size=8)


def test_a_jpeg_without_end_marker_counts_with_the_copy_that_is_checked(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    content = encoded(Image.new("RGB", (160, 120)), format="JPEG").getvalue()
    assert decoded(io.BytesIO(content), image_size=80).shape == (80, 80, 3)
    with pytest.raises(OSError, match=r"160 x 120 pixels .* take 16\d,\d{3} bytes"):
        decoded(io.BytesIO(content[:-2]), image_size=80)
    allow_megapixels(1)
    assert decoded(io.BytesIO(content[:-2]), image_size=80).shape == (80, 80, 3)


def test_a_tiff_counts_with_the_largest_part_that_is_decoded_at_once(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    image = Image.new("RGB", (100, 100))
    options = {"format": "TIFF", "compression": "tiff_lzw"}
    assert decoded(encoded(image, format="TIFF")).shape == (32, 32, 3)
    assert decoded(encoded(image, tiffinfo={278: 10}, **options)).shape == (32, 32, 3)
    with pytest.raises(OSError, match=r"take 72,\d{3} bytes"):
        decoded(encoded(image, **options))


def test_an_image_that_is_turned_upright_counts_twice(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    exif = Image.Exif()
    exif[0x0112] = 1
    assert decoded(encoded(Image.new("RGB", (100, 100)), exif=exif)).shape == (32, 32, 3)
    exif[0x0112] = 6
    with pytest.raises(OSError, match="take 82,500 bytes"):
        decoded(encoded(Image.new("RGB", (100, 100)), exif=exif))


@pytest.mark.parametrize("kind", ["P2", "P3", "P5", "P6"])
def test_a_large_ppm_that_would_take_minutes_is_refused(kind):
    maximum = 255 if kind in ("P2", "P3") else 4095
    file = io.BytesIO(f"{kind} 2000 1100 {maximum}\n".encode())
    with pytest.raises(OSError, match=r"a PPM file as text or of other than 8 bits.*PNG"):
        decoded(file)
    assert decoded(encoded(Image.new("RGB", (2000, 1100)), format="PPM")).shape == (32, 32, 3)


def test_a_large_bmp_with_run_length_encoding_is_refused():
    palette = bytes(4 * 256)
    offset = 14 + 40 + len(palette)
    header = struct.pack("<2sI4xI", b"BM", offset + 2, offset)
    header += struct.pack("<IiiHHIIiiII", 40, 5000, 4000, 1, 8, 1, 2, 0, 0, 256, 0)
    with pytest.raises(OSError, match=r"a BMP file with run-length encoding.*5000 x 4000"):
        decoded(io.BytesIO(header + palette + b"\x00\x01"))


def test_the_limit_of_megapixels_can_be_changed(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # to restore it
    file = encoded(Image.new("RGB", (1100, 950)))
    allow_megapixels(1)
    with pytest.raises(OSError, match=r"1045000 pixels.* `max_megapixels` allows larger photos"):
        decoded(file)
    allow_megapixels(None)
    with pytest.raises(OSError, match="`max_megapixels`"):
        decoded(file)
    allow_megapixels(3)
    assert decoded(file).shape == (32, 32, 3)
    with pytest.raises(ValueError, match="`max_megapixels`: expected at least 1, got 0"):
        allow_megapixels(0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_image_is_converted_as_its_parts(mode, orientation):
    side = 1500  # more pixels than are converted at once
    if mode.startswith("I"):
        image = Image.fromarray(np.arange(side**2, dtype=np.uint16).reshape(side, side))
        image = image.convert(mode)
    else:
        image = flower((side, side)).convert(mode)
    if mode in ("P", "RGB"):
        image.info["transparency"] = 3 if mode == "P" else (99, 99, 99)
    part = image.crop((0, 1200, 300, 1500))
    for other in (image, part):
        other.getexif()[0x0112] = orientation
    box = (0, 1200, 300, 1500) if orientation == 1 else (0, 0, 300, 300)
    assert to_srgb(image).crop(box) == to_srgb(part)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("image_size", [16, 200])
def test_a_jpeg_without_its_end_marker_is_decoded(options, mode, image_size, tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (157, 203, 3), dtype=np.uint8)
    image = Image.fromarray(noise).convert(mode)
    content = encoded(image, format="JPEG", **options).getvalue()
    whole = decoded(io.BytesIO(content), image_size=image_size)
    file = tmp_path / "photo.jpg"
    file.write_bytes(content[:-2])
    for source in (io.BytesIO(content[:-2]), io.BytesIO(content[:-1]), file):
        assert np.array_equal(decoded(source, image_size=image_size), whole)
    for lost in (80, 200, len(content) // 2):
        with pytest.raises(OSError, match=r"truncated|broken data stream"):
            decoded(io.BytesIO(content[:-lost]), image_size=image_size)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"tEXt"])
@pytest.mark.parametrize("after_pixels", [False, True])
def test_a_png_with_a_long_text_is_decoded(kind, after_pixels):
    text = 2**21 * b"x"
    values = {b"zTXt": b"\0\0" + zlib.compress(text), b"tEXt": b"\0" + text}
    values[b"iTXt"] = b"\0\1\0\0\0" + zlib.compress(text)
    chunks = PngImagePlugin.PngInfo()
    chunks.add(kind, b"prompt" + values[kind], after_idat=after_pixels)
    file = encoded(flower(), pnginfo=chunks)
    assert np.array_equal(decoded(file), decoded(encoded(flower())))


def test_a_large_jpeg_decoded_small_looks_as_when_decoded_whole():
    ramp = np.linspace(0, 255, 800, dtype=np.uint8)
    whole = Image.fromarray(np.stack([np.tile(ramp, (600, 1))] * 3, axis=2))
    small = decoded(encoded(whole, format="JPEG", quality=95))
    assert np.abs(small - np.asarray(whole.resize((32, 32), Image.Resampling.BICUBIC))).max() <= 3


# Pixels


@pytest.mark.parametrize("orientation", range(10))
def test_the_exif_orientation_is_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(flower((24, 12)), exif=exif)
    with Image.open(file) as image:
        upright = ImageOps.exif_transpose(image)
    assert np.array_equal(decoded(file), decoded(upright))


@pytest.mark.parametrize("field_type", range(1, 14))
def test_a_photo_with_an_exif_tag_of_another_type_is_decoded(field_type):
    orientation = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    odd_tag = struct.pack("<HHII", 0x8000, field_type, 1, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + orientation + odd_tag + bytes(4)
    odd = decoded(encoded(flower((24, 12)), format="JPEG", exif=exif))
    plain = Image.Exif()
    plain[0x0112] = 6
    assert np.array_equal(odd, decoded(encoded(flower((24, 12)), format="JPEG", exif=plain)))


@pytest.mark.parametrize("field_type", range(1, 14))
def test_a_tiff_with_an_xmp_tag_of_another_type_is_turned_upright(field_type):
    content = encoded(flower((24, 12)), format="TIFF").getvalue()
    start = struct.unpack("<I", content[4:8])[0]
    number = struct.unpack("<H", content[start : start + 2])[0]
    tags = [content[start + 2 + 12 * i : start + 14 + 12 * i] for i in range(number)]
    tags.append(struct.pack("<HHIHH", 274, 3, 1, 6, 0))
    tags.append(struct.pack("<HHII", 700, field_type, 1, 0))
    tags.sort(key=lambda tag: struct.unpack("<H", tag[:2])[0])
    directory = struct.pack("<H", len(tags)) + b"".join(tags) + bytes(4)
    odd = content[:4] + struct.pack("<I", len(content)) + content[8:] + directory
    upright = flower((24, 12)).transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(decoded(io.BytesIO(odd)), decoded(upright))


def test_a_photo_with_damaged_exif_data_is_decoded():
    for exif in (b"Exif\0\0junk", b"Exif\0\0II*\0\xff\xff\xff\xff", b"x"):
        odd = decoded(encoded(flower((24, 12)), format="PNG", exif=exif))
        assert np.array_equal(odd, decoded(encoded(flower((24, 12)), format="PNG")))


def test_every_mode_is_converted_to_the_visible_colour():
    grey16 = Image.fromarray(np.full((8, 8), 128 * 257, dtype=np.uint16))
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    palette = Image.new("RGB", (8, 8), (10, 200, 30)).quantize(4)
    assert colour(encoded(grey16)) == [128, 128, 128]
    assert colour(encoded(clear)) == [255, 255, 255]
    assert colour(encoded(Image.new("LA", (8, 8), (0, 0)))) == [255, 255, 255]
    assert colour(encoded(palette)) == [10, 200, 30]
    assert colour(encoded(palette, transparency=0)) == [255, 255, 255]
    assert colour(encoded(Image.new("L", (8, 8), 77))) == [77, 77, 77]
    assert colour(encoded(Image.new("1", (8, 8), 1))) == [255, 255, 255]
    inks = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert colour(encoded(inks, format="TIFF")) == [255, 0, 0]
    red, green, blue = colour(encoded(inks, format="JPEG"))
    assert red > 230
    assert max(green, blue) < 30


def white_is_zero(file: io.BytesIO) -> io.BytesIO:
    """Return a TIFF file with its PhotometricInterpretation changed from black is zero."""
    tag = struct.pack("<HHI", 262, 3, 1)
    content = file.getvalue()
    assert content.count(tag + b"\1\0") == 1
    return io.BytesIO(content.replace(tag + b"\1\0", tag + b"\0\0"))


@pytest.mark.parametrize("bits", [8, 9, 10, 11, 12, 16])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_grey_image_looks_the_same_at_every_depth(bits, compression):
    image = flower().convert("L")
    expected = decoded(encoded(image))
    largest = 2**bits - 1
    values = (np.asarray(image) / 255 * largest).round().astype(np.uint16)
    deep = Image.fromarray(values)
    assert np.abs(decoded(encoded(deep)) - expected).max() <= 1
    options = {"format": "TIFF", "compression": compression}
    assert np.abs(decoded(encoded(deep, **options)) - expected).max() <= 1
    inverted = encoded(Image.fromarray(largest - values), **options)
    assert np.abs(decoded(white_is_zero(inverted)) - expected).max() <= 1


def test_a_tiff_of_planes_that_pillow_would_misread_is_refused():
    image = flower().convert("L")
    planes = {"format": "TIFF", "tiffinfo": {284: 2}}
    assert np.array_equal(decoded(encoded(image, **planes)), decoded(encoded(image)))
    deep = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    for file in (encoded(deep, **planes), white_is_zero(encoded(image, **planes))):
        with pytest.raises(OSError, match="a TIFF file of separate planes with other than 8 bits"):
            decoded(file)


@pytest.mark.parametrize("transparent", [False, True])
def test_nothing_is_shown_around_a_gif_frame_smaller_than_the_image(transparent):
    options = {"transparency": 0} if transparent else {}
    content = bytearray(
        encoded(Image.new("RGB", (16, 16), "red").quantize(4), **options, format="GIF").getvalue()
    )
    content[6:10] = struct.pack("<HH", 32, 32)
    image = decoded(io.BytesIO(content))
    assert image[2, 2].tolist() == [255, 255, 255] if transparent else [255, 0, 0]
    assert (image[20:] == 255).all()
    assert (image[:, 20:] == 255).all()


@pytest.mark.parametrize("colour_type", [RGB, GREY_ALPHA, RGB_ALPHA])
def test_deep_colours_of_which_pillow_would_read_only_4_bits_are_refused(colour_type):
    num_channels = {RGB: 3, GREY_ALPHA: 2, RGB_ALPHA: 4}[colour_type]
    for largest in (4095, 65535):
        values = np.full((8, 8, num_channels), largest, dtype=">u2")
        if colour_type != RGB:
            values[..., -1] = 65535  # opaque
        rows = b"".join(b"\0" + row.tobytes() for row in values)
        file = png((8, 8), 16, colour_type, rows)
        if largest == 65535:
            assert colour(file) == [255, 255, 255]
        else:
            with pytest.raises(OSError, match="16-bit colours: expected 16 bits in use, got 12"):
                decoded(file)


def test_an_image_in_memory_is_not_changed():
    for mode in ("RGB", "RGBA", "L", "P"):
        image = flower().convert(mode)
        before = image.copy()
        decoded(image)
        assert image == before


# Colours

# Red, green and blue of colour spaces as XYZ, adapted to the white D50, one a row.
PRIMARIES = {
    "AdobeRGB": "0.60974 0.31111 0.01947, 0.20528 0.62567 0.06087, 0.14919 0.06322 0.74457",
    "Display P3": "0.51512 0.24120 -0.00105, 0.29198 0.69225 0.04189, 0.15710 0.06657 0.78407",
    "ProPhoto": "0.79767 0.28804 0, 0.13519 0.71188 0, 0.03134 0.00009 0.82491",
    "Rec.2020": "0.67348 0.27904 -0.00193, 0.16566 0.67535 0.02998, 0.12505 0.04561 0.79686",
    "linear": "0.43607 0.22249 0.01392, 0.38515 0.71687 0.09708, 0.14307 0.06061 0.71410",
}
GAMMAS = {"AdobeRGB": 2.2, "Display P3": 2.2, "ProPhoto": 1.8, "Rec.2020": 2.4, "linear": 1.0}
D50 = (0.9642, 1.0, 0.8249)


def profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Return an ICC profile (https://www.color.org/specification/ICC.1-2022-05.pdf, 7.2)."""
    table, data = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        padded = value + bytes(-len(value) % 4)
        table += struct.pack(">4sII", name, start + len(data), len(value))
        data += padded
    size = start + len(data)
    version = 0x02100000
    header = struct.pack(">I4xI4s4s4s12x4s28x", size, version, kind, space, connection, b"acsp")
    return (header + xyz(D50)[8:]).ljust(128, b"\0") + table + data


def xyz(values) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * value) for value in values))


def curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * gamma))


def primaries(space: str) -> np.ndarray:
    return np.array([row.split() for row in PRIMARIES[space].split(",")], dtype=float)


def rgb_profile(space: str) -> bytes:
    tags = {b"wtpt": xyz(D50)}
    for name, primary in zip("rgb", primaries(space), strict=True):
        tags[f"{name}XYZ".encode()] = xyz(primary)
        tags[f"{name}TRC".encode()] = curve(GAMMAS[space])
    return profile(b"mntr", b"RGB ", b"XYZ ", tags)


def grey_profile(gamma: float) -> bytes:
    return profile(b"mntr", b"GRAY", b"XYZ ", {b"wtpt": xyz(D50), b"kTRC": curve(gamma)})


def cmyk_profile() -> bytes:
    """Return the profile of a printer whose cyan ink is red, black is black, others are clear."""
    ramp = bytes(range(256))
    white, red, black = bytes([255, 128, 128]), bytes([136, 208, 195]), bytes([0, 128, 128])  # Lab
    without_cyan, with_cyan = 4 * (white + black), 4 * (red + black)
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + 4 * ramp
    table += without_cyan + with_cyan + 3 * ramp
    return profile(b"prtr", b"CMYK", b"Lab ", {b"wtpt": xyz(D50), b"A2B0": table})


def linear_light(values: np.ndarray) -> np.ndarray:
    """Return the light of sRGB's values in [0, 1]."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def in_space(image: Image.Image, space: str) -> Image.Image:
    """Return an sRGB image as numbers of another colour space."""
    to_space = primaries("linear") @ np.linalg.inv(primaries(space))
    light = (linear_light(np.asarray(image) / 255) @ to_space).clip(0, 1)
    return Image.fromarray((255 * light ** (1 / GAMMAS[space])).round().astype(np.uint8))


def with_gamma(image: Image.Image, gamma: float, **options) -> io.BytesIO:
    """Encode a PNG file with the chunk gAMA."""
    chunks = PngImagePlugin.PngInfo()
    chunks.add(b"gAMA", struct.pack(">I", round(100_000 * gamma)))
    return encoded(image, pnginfo=chunks, **options)


LOSSLESS = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}
LOSSY = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}


@pytest.mark.parametrize("space", PRIMARIES)
@pytest.mark.parametrize("kind", [*LOSSLESS, *LOSSY])
def test_a_picture_looks_the_same_in_every_colour_space(space, kind):
    options = {"format": kind, **(LOSSLESS | LOSSY)[kind]}
    image = in_space(flower(), space)
    expected = decoded(encoded(flower(), **options))
    without_profile = decoded(encoded(image, **options))
    with_profile = decoded(encoded(image, icc_profile=rgb_profile(space), **options))
    assert np.abs(expected - without_profile).mean() > 3
    assert np.abs(expected - with_profile).mean() < (1.5 if kind in LOSSLESS else 3)


@pytest.mark.parametrize("alpha", [0, 100, 255])
def test_transparent_pixels_are_blended_with_white_after_their_conversion(alpha):
    image = flower()
    expected = image.copy()
    expected.putalpha(alpha)
    converted = in_space(image, "ProPhoto")
    converted.putalpha(alpha)
    file = encoded(converted, icc_profile=rgb_profile("ProPhoto"))
    assert np.abs(decoded(expected) - decoded(file)).mean() < 1.5


def grey(value: int, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.full((8, 8), 257 * value, dtype=np.uint16))
    return Image.new("L", (8, 8), value).convert(mode)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_greys_are_converted_by_a_profile_of_grey_and_by_one_of_colours(mode):
    # 55 of 255 of the light is 128 in sRGB.
    for icc_profile in (grey_profile(1.0), rgb_profile("linear")):
        assert np.abs(decoded(encoded(grey(55, mode), icc_profile=icc_profile)) - 128).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_dark_greys_of_16_bits_keep_their_levels(kind):
    expected = np.arange(256).reshape(16, 16)
    light = (65535 * linear_light(expected / 255)).round().astype(np.uint16)
    file = encoded(Image.fromarray(light), format=kind, icc_profile=grey_profile(1.0))
    assert np.abs(decoded(file, image_size=16) - expected[..., None]).max() <= 3
    plain = Image.fromarray(np.arange(2**16, dtype=np.uint16).reshape(256, 256))
    levels = decoded(encoded(plain, format=kind), image_size=256)
    assert np.array_equal(levels[..., 1].flatten(), np.arange(2**16) // 257)


def test_a_palette_is_converted():
    image = in_space(flower(), "ProPhoto").quantize(256)
    icc_profile = rgb_profile("ProPhoto")
    expected = decoded(encoded(image.convert("RGB"), icc_profile=icc_profile))
    assert np.array_equal(decoded(encoded(image, icc_profile=icc_profile)), expected)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted_by_its_profile(kind):
    cyan, black, others = (255, 0, 0, 0), (0, 0, 0, 255), (0, 255, 255, 0)
    for ink, expected in ((cyan, [255, 0, 0]), (black, [0, 0, 0]), (others, [255, 255, 255])):
        file = encoded(Image.new("CMYK", (8, 8), ink), format=kind, icc_profile=cmyk_profile())
        assert np.abs(np.subtract(colour(file), expected)).max() <= 20


BROKEN = {
    "text": b"no profile",
    "half": rgb_profile("ProPhoto")[:200],
    "header": rgb_profile("ProPhoto")[:128],
    "zeros": bytes(500),
    "of greys": grey_profile(1.0),
    "of inks": cmyk_profile(),
}


@pytest.mark.parametrize("icc_profile", [SRGB, *BROKEN.values()], ids=["sRGB", *BROKEN])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_a_profile_of_srgb_or_none_that_can_be_applied_changes_no_byte(icc_profile, kind):
    plain = decoded(encoded(flower(), format=kind))
    assert np.array_equal(plain, decoded(encoded(flower(), format=kind, icc_profile=icc_profile)))


def test_cmyk_with_an_rgb_profile_is_converted_without_it():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert colour(encoded(image, format="TIFF", icc_profile=rgb_profile("ProPhoto"))) == [255, 0, 0]


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "I;16"])
def test_the_gamma_of_a_png_is_applied(mode):
    # 56 of 255 of the light is 128 on a screen of gamma 2.2.
    assert np.abs(decoded(with_gamma(grey(56, mode), 1.0)) - 128).max() <= 1


def test_a_gamma_near_that_of_srgb_or_beside_a_profile_changes_no_byte():
    plain = decoded(encoded(flower()))
    for gamma in (0.45455, 0.45, 0.46):
        assert np.array_equal(plain, decoded(with_gamma(flower(), gamma)))
    assert np.array_equal(plain, decoded(with_gamma(flower(), 1.0, icc_profile=SRGB)))
    content = with_gamma(flower(), 1.0).getvalue()
    chunk = struct.pack(">I5sI", 1, b"sRGB\0", zlib.crc32(b"sRGB\0"))
    place = content.index(b"gAMA") - 4
    assert np.array_equal(plain, decoded(io.BytesIO(content[:place] + chunk + content[place:])))


def test_an_image_in_memory_is_converted_as_its_file():
    file = encoded(in_space(flower(), "AdobeRGB"), icc_profile=rgb_profile("AdobeRGB"))
    with Image.open(file) as image:
        assert np.array_equal(decoded(image), decoded(file))
        assert np.array_equal(decoded(image.convert("RGB")), decoded(file))


def test_threads_share_conversions():
    files = [
        encoded(in_space(flower((200, 200), seed=seed), space), icc_profile=rgb_profile(space))
        for seed, space in enumerate(PRIMARIES)
    ]
    contents = [file.getvalue() for file in files]
    one_after_another = [decoded(io.BytesIO(content)).tobytes() for content in contents]
    with ThreadPoolExecutor(8) as pool:
        together = pool.map(lambda content: decoded(io.BytesIO(content)).tobytes(), 20 * contents)
        assert [*together] == 20 * one_after_another
