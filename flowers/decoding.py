"""Decode image files to RGB bytes, for training, evaluation, prediction and exported models.

This module needs only NumPy and Pillow and nothing of the package, so it can be copied beside an
exported model.
"""

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError
from PIL import TiffImagePlugin as Tiff
from PIL.JpegImagePlugin import JpegImageFile

Conversion = Callable[[Image.Image], Image.Image]

Resize = Literal["stretch", "crop"]
Interpolation = Literal["bilinear", "bicubic"]
ImageSource = str | Path | IO[bytes] | Image.Image

# File extensions, and Pillow's names of the formats that a file with the extension may have. Only
# the decoders of these formats are used: Pillow's EPS decoder, for example, runs Ghostscript on the
# file. MPO is a JPEG file of a camera that adds a preview.
IMAGE_FORMATS: dict[str, tuple[str, ...]] = {}
IMAGE_FORMATS |= dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), ("JPEG", "MPO"))
IMAGE_FORMATS |= {".png": ("PNG",), ".webp": ("WEBP",), ".avif": ("AVIF",), ".gif": ("GIF",)}
IMAGE_FORMATS |= {".bmp": ("BMP",), ".ppm": ("PPM",), ".pgm": ("PPM",)}
IMAGE_FORMATS |= {".tif": ("TIFF",), ".tiff": ("TIFF",)}
IMAGE_EXTENSIONS = tuple(IMAGE_FORMATS)
# The first format of each extension; Pillow's JPEG decoder also opens MPO.
_DECODERS = tuple(dict.fromkeys(formats[0] for formats in IMAGE_FORMATS.values()))
# The transpose that turns an image upright, for each EXIF orientation. ImageOps.exif_transpose is
# not used: it also rewrites the EXIF data, which fails for tags of unexpected types, and copies
# images that are already upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Bytes 4 to 12 of the photos that phones store as HEIC.
_HEIC = (b"ftypheic", b"ftypheix", b"ftypheim", b"ftyphevc", b"ftypmif1", b"ftypmsf1")
# Bytes per pixel of a decoded image in Pillow for each mode (4 for other modes), and, as measured,
# of the decoder of each format while it decodes.
_PIXEL_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}
_DECODER_BYTES = {"WEBP": 12, "AVIF": 8}
# Largest number of pixels for Pillow's decoders that are written in Python, so that decoding takes
# at most 4 s: PPM files as text or of other than 8 bits, and BMP files with run-length encoding.
_SLOW_DECODERS = {"ppm": 2**21, "ppm_plain": 2**21, "bmp_rle": 2**24}
_JPEG_END = b"\xff\xd9"
# Bytes that decode to pixels: first without a marker before them, then after each restart marker.
_JPEG_PADDING = b"\xff".join(bytes([first, *range(127, 255)]) for first in (127, *range(208, 216)))
_GREYS = Image.frombytes("L", (256, 1), bytes(range(256)))
# By default Pillow refuses PNG files with a compressed text chunk over 1 MiB. This raises the limit
# of one chunk to Pillow's limit for the sum of all, 64 MiB.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY


def decode_image(
    file: ImageSource, *, image_size: int, resize: Resize, interpolation: Interpolation
) -> NDArray[np.uint8]:
    """Decode an image file and resize it to a square.

    Args:
        file: A path, an open binary file, or an image (which is not modified).
        image_size: Side S of the result, in pixels.
        resize: ``stretch`` scales both sides to S; ``crop`` scales the short side to S and cuts out
            the centre.
        interpolation: Resampling filter, antialiased when downscaling.

    Returns:
        Bytes ``(S, S, 3)``, sRGB.

    Raises:
        OSError: The file is of no format in ``IMAGE_FORMATS``, is truncated or broken, has
            pixels of an unknown range, or exceeds the limit of ``allow_megapixels``.
    """
    with open_image(file) as image:
        # Decode large JPEGs at 1/2, 1/4 or 1/8 of their size, at least at twice the result's size.
        if not isinstance(file, Image.Image):
            image.draft(None, (2 * image_size, 2 * image_size))
        method = Image.Resampling[interpolation.upper()]
        # Convert to sRGB first, so that files in all colour spaces are resized in sRGB. Resizing
        # first would leave fewer pixels to convert, but change some values by 30 of 255.
        rgb = to_srgb(image)
        size = (image_size, image_size)
        square = ImageOps.fit(rgb, size, method) if resize == "crop" else rgb.resize(size, method)
        return np.array(square)


def allow_megapixels(megapixels: int | None) -> None:
    """Replace Pillow's limit of 179 megapixels per image in this process; None keeps the limit.

    Decoding an image may take 3 bytes for each pixel of the limit, by default 0.5 GiB. This counts
    a JPEG file at the reduced scale at which it is decoded, and the coefficients of a progressive
    JPEG file at full scale.
    """
    if megapixels is not None and megapixels < 1:
        raise ValueError(f"`max_megapixels`: expected at least 1, got {megapixels}")
    if megapixels is not None:
        Image.MAX_IMAGE_PIXELS = megapixels * 500_000  # Pillow raises an error above twice this


@contextmanager
def open_image(file: ImageSource) -> Iterator[Image.Image]:
    """Open an image file, whose format is recognised by its content, not by its extension.

    Args:
        file: A path, an open binary file, or an image (of any format, which is yielded itself).

    Raises:
        OSError: The file is of no format in ``IMAGE_FORMATS``, or turns out to be broken while the
            image is open.
    """
    try:
        with nullcontext(file) if isinstance(file, Image.Image) else _open(file) as image:
            yield image
    except (OSError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise OSError(f"{error} `max_megapixels` allows larger photos.") from error
    except Exception as error:  # Pillow raises exceptions of any type for broken files
        raise OSError(f"broken image: {error}") from error


def _open(file: str | Path | IO[bytes]) -> Image.Image:
    try:
        image = Image.open(file, formats=_DECODERS)
        if not isinstance(image.info.get("xmp", b""), bytes | str):
            del image.info["xmp"]  # a number would make Image.getexif raise an error
        return image
    except UnidentifiedImageError as error:
        expected = f"expected one of {', '.join(_DECODERS)}"
        kind = "another format, a broken file, or pixels of 12 bits or floats"
        with Path(file).open("rb") if isinstance(file, str | Path) else nullcontext(file) as opened:
            opened.seek(0)
            if opened.read(12)[4:] in _HEIC:
                kind = "HEIC: convert it to JPEG, for instance with the package pillow-heif"
        raise OSError(f"{expected}, got {kind}") from error


def to_srgb(image: Image.Image) -> Image.Image:
    """Return an image as a person sees it: upright, transparency over white, in 8-bit sRGB.

    Colours are converted by the embedded ICC profile, or by the gamma of a PNG file (gAMA), whose
    primaries (cHRM) are ignored.

    Args:
        image: An image, which is not modified; it is returned itself if it needs no conversion.

    Raises:
        OSError: The pixels have an unknown range, or take too much memory or time.
    """
    _check_pixels(image)
    _check_memory(image, other_bytes=_decoder_bytes(image))
    tiles = getattr(image, "tile", [])[:1]
    is_deep = image.mode in ("RGB", "RGBA") and ";16" in str(tiles)
    _load(image)
    convert = _conversion(image)
    if image.mode.startswith("I"):
        convert = _conversion_of_16_bits(image, convert)
    elif is_deep and 0 < np.array(image.getextrema())[:3].max() < 16:
        # Pillow keeps the upper 8 of 16 bits: values below 16 mean that at most 12 are in use.
        raise OSError("16-bit colours: expected 16 bits in use, got 12 or less; convert to 8 bits")
    elif image.has_transparency_data:
        convert = partial(_over_white, convert=convert)
    if (transpose := _UPRIGHT.get(exif_orientation(image))) is not None:
        _check_memory(image, other_bytes=_num_bytes(image))
        image = image.transpose(transpose)
    if image.mode == "RGB" and convert is _assume_srgb:
        return image
    rgb = Image.new("RGB", image.size)
    for top, strip in _strips(image):
        rgb.paste(convert(strip), (0, top))
    if image.format == "GIF" and tiles and image.tell() == 0:
        # Outside the first frame, viewers show a transparent area, but Pillow paints a colour.
        frame = rgb.crop(tiles[0].extents)
        rgb.paste("white", (0, 0, *image.size))
        rgb.paste(frame, tiles[0].extents[:2])
    return rgb


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield the first row and the image of each strip; strips take less memory to convert."""
    rows = max(1, 2**20 // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _decoder(image: Image.Image) -> str:
    """Return Pillow's name of an image's decoder; empty if the image is already decoded."""
    return "".join(tile[0] for tile in getattr(image, "tile", [])[:1])


def _check_pixels(image: Image.Image) -> None:
    """Refuse pixels that Pillow misreads, or takes more than a few seconds to read."""
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise OSError(f"expected 8 or 16 bits, unsigned; got mode {image.mode} (32 bits or signed)")
    max_pixels = _SLOW_DECODERS.get(_decoder(image), math.inf)
    if image.width * image.height > max_pixels:
        raise OSError(
            "a PPM file as text or of other than 8 bits, or a BMP file with run-length encoding: "
            f"expected at most {max_pixels:,} pixels, got {image.width} x {image.height}; convert "
            "it to PNG"
        )
    tags = getattr(image, "tag_v2", {})
    if _decoder(image) == "raw" and tags.get(Tiff.PLANAR_CONFIGURATION) == 2:
        # Whatever the tags, Pillow reads planes of more than 1 bit as 8-bit values, and takes white
        # for the largest value.
        bits = set(tags.get(Tiff.BITSPERSAMPLE, (1,)))
        if bits not in ({1}, {8}) or tags.get(Tiff.PHOTOMETRIC_INTERPRETATION) == 0:
            raise OSError(
                "a TIFF file of separate planes with other than 8 bits, or with white as 0: "
                "convert it to PNG"
            )


def _num_bytes(image: Image.Image) -> int:
    return image.width * image.height * _PIXEL_BYTES.get(image.mode, 4)


def _scale(image: Image.Image) -> int:
    """Return the factor by which a JPEG image is reduced in decoding; 1 for other formats."""
    config: tuple[int, ...] = getattr(image, "decoderconfig", ())
    return config[0] if isinstance(image, JpegImageFile) and config else 1


def _decoder_bytes(image: Image.Image) -> int:
    """Return the memory that a file's decoder takes in addition to the image, in bytes."""
    num_pixels = image.width * image.height
    if isinstance(image, JpegImageFile) and _decoder(image) and "progressive" in image.info:
        # All coefficients at full scale, two bytes each, even if the image is decoded at 1/8.
        areas = [across * down for _, across, down, _ in image.layer]
        return int(2 * num_pixels * _scale(image) ** 2 * sum(areas) / max(*areas, 1))
    if _decoder(image) == "libtiff":  # holds a tile or a strip in memory, and maps the file
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits = tags.get(Tiff.BITSPERSAMPLE, (1,))
        rows = tags.get(Tiff.TILELENGTH, min(image.height, tags.get(Tiff.ROWSPERSTRIP, 2**32)))
        pixel_bits = bits[0] if tags.get(Tiff.PLANAR_CONFIGURATION) == 2 else sum(bits)
        file_bytes = sum(tags.get(Tiff.STRIPBYTECOUNTS, tags.get(Tiff.TILEBYTECOUNTS, (0,))))
        tile_bytes = tags.get(Tiff.TILEWIDTH, image.width) * rows * pixel_bits // 8
        return int(file_bytes + tile_bytes)
    return num_pixels * _DECODER_BYTES.get(image.format or "", 0)


def _check_memory(image: Image.Image, *, other_bytes: int) -> None:
    """Check the memory that an image will take, see ``allow_megapixels``."""
    num_bytes = _num_bytes(image) + other_bytes
    if image.mode != "RGB" or "icc_profile" in image.info:
        num_bytes += 4 * image.width * image.height  # for the converted image
    num_bytes += num_bytes // 32  # for buffers
    if Image.MAX_IMAGE_PIXELS and num_bytes > 6 * Image.MAX_IMAGE_PIXELS:
        scale = _scale(image)
        raise OSError(
            f"{scale * image.width} x {scale * image.height} pixels (mode {image.mode}) take "
            f"{num_bytes:,} bytes: expected at most {6 * Image.MAX_IMAGE_PIXELS:,}. "
            f"`max_megapixels` {-(-num_bytes // 3_000_000)} allows it."
        )


def _load(image: Image.Image) -> None:
    """Decode an image; accept a JPEG file without its end marker if no pixels are missing."""
    try:
        image.load()
    except OSError as error:
        if str(error).startswith("decoder error"):  # libtiff gives no reason
            raise OSError("a broken image, or an unknown compression") from error
        if not isinstance(image, JpegImageFile) or not image.fp or "truncated" not in str(error):
            raise
        file = image.fp
        # Decoding again takes three copies of the file, and the image in full size.
        other_bytes = 3 * file.seek(0, io.SEEK_END) + _num_bytes(image) * _scale(image) ** 2
        _check_memory(image, other_bytes=other_bytes + _decoder_bytes(image))
        file.seek(0)
        content = file.read().removesuffix(b"\xff")
        decoded_hashes = set()
        # If pixels are missing, the padding changes the decoded image.
        for padding in (b"", _JPEG_PADDING):
            with Image.open(io.BytesIO(content + padding + _JPEG_END), formats=_DECODERS) as whole:
                whole.load()
                hashes = [hash(strip.tobytes()) for _, strip in _strips(whole)]
                decoded_hashes.add(tuple(hashes))
        if len(decoded_hashes) > 1:
            raise
        image.fp = io.BytesIO(content + _JPEG_END)
        image.load()
        image.fp = file


def _over_white(image: Image.Image, convert: Conversion) -> Image.Image:
    image = image.convert("RGBA")
    colours = convert(image)
    colours.putalpha(image.getchannel("A"))
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours).convert("RGB")


def bits_in_use(image: Image.Image) -> int:
    """Return the bits in use in a 16-bit grey image: 8 to 12 if these hold all values, else 16.

    Images of mode I, such as PPM files, have 16: Pillow scales their values.
    """
    bits = int(np.asarray(image).max()).bit_length()
    return 16 if bits > 12 or image.mode == "I" else max(bits, 8)


def _conversion_of_16_bits(image: Image.Image, convert: Conversion) -> Conversion:
    """Return a function from 16-bit grey to RGB; ``image.convert("RGB")`` clips values above 255.

    The function interpolates ``convert`` between the 256 grey levels of 8 bits, which alone are too
    few for dark areas if an ICC profile is linear.
    """
    greys = np.asarray(convert(_GREYS))[0]
    levels = np.arange(2**16) * 255 / (2 ** bits_in_use(image) - 1)
    if getattr(image, "tag_v2", {262: 1}).get(262, 0) == 0:  # a TIFF file in which white is zero
        levels = 255 - levels
    channels = [np.interp(levels, np.arange(256), channel) for channel in greys.T]
    table = np.stack(channels, axis=-1).astype(np.uint8)
    return lambda image: Image.fromarray(table[np.asarray(image).clip(0, 2**16 - 1)])


def exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image; 1 (upright) if it has none or damaged EXIF data."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except MemoryError:
        raise
    except Exception:  # any error of damaged EXIF data; the pixels are intact
        return 1
    return orientation if isinstance(orientation, int) else 1


def _conversion(image: Image.Image) -> Conversion:
    """Return the function that converts an image's 8-bit pixels to sRGB."""
    profile = image.info.get("icc_profile")
    gamma = image.info.get("gamma")
    if profile:
        mode = "L" if Image.getmodebase(image.mode) == "L" else "RGB"
        if image.mode == "CMYK":
            mode = "CMYK"
        return _profile_conversion(profile, mode)
    # Like libpng (PNG_GAMMA_THRESHOLD), ignore a gamma that differs from 1 / 2.2 by at most 5 %.
    if gamma and "srgb" not in image.info and abs(2.2 * gamma - 1) > 0.05:
        curve = [round(255 * (value / 255) ** (1 / (2.2 * gamma))) for value in range(256)]
        return lambda image: image.convert("RGB").point(3 * curve)
    return _assume_srgb


def _assume_srgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")


# Cached: a folder of photos has few profiles, and parsing a profile takes longer than applying it.
@lru_cache(maxsize=64)
def _profile_conversion(profile: bytes, mode: str) -> Conversion:
    """Return the function that converts images with an ICC profile to sRGB.

    A profile that is broken, or that is for another colour space than the images, is ignored.

    Args:
        profile: Bytes of the profile.
        mode: Mode of the images: ``L``, ``RGB`` or ``CMYK``.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if mode == "L" and source.profile.xcolor_space.strip() == "RGB":
            mode = "RGB"
        # Threads share the transform; Little CMS allows this only without its one-pixel cache.
        flags = ImageCms.Flags.NOCACHE | ImageCms.Flags.BLACKPOINTCOMPENSATION
        if mode == "L":  # Little CMS's optimization changes dark greys of a linear profile by 10
            flags |= ImageCms.Flags.NOOPTIMIZE
        srgb = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, srgb, mode, "RGB", flags=flags)
    except (OSError, ImageCms.PyCMSError):
        return _assume_srgb
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    colours = np.stack(np.meshgrid(*[levels] * len(mode)), axis=-1)
    probe = Image.frombytes(mode, (1, colours.size // len(mode)), colours.tobytes())
    change = np.asarray(transform.apply(probe)).astype(int) - np.asarray(probe.convert("RGB"))
    # A profile that changes no colour by more than 2 of 255 is sRGB. In flower_photos, 42 of the 66
    # profiles change no colour by more than 1, and each other profile changes one by at least 9.
    if np.abs(change).max() <= 2:
        return _assume_srgb
    if mode == "L":
        table = [*transform.apply(_GREYS).getchannel("G").tobytes()]
        return lambda image: image.convert("L").point(table).convert("RGB")
    return lambda image: transform.apply(image.convert(mode))
