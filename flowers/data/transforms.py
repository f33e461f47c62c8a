"""From a file to the bytes a network is evaluated on: one path, for training, evaluation, prediction and export."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps

if TYPE_CHECKING:
    from pathlib import Path
    from typing import IO

    from torch import Tensor

Resize = Literal["stretch", "crop"]
Interpolation = Literal["bilinear", "bicubic"]


def load_image(
    file: str | Path | IO[bytes] | Image.Image,
    *,
    image_size: int,
    resize: Resize,
    interpolation: Interpolation = "bicubic",
) -> Tensor:
    """Decode an image file and bring it to a square.

    Args:
        file: A path, an open binary file, or an image, which is left as it is.
        image_size: Side S of the result, in pixels.
        resize: ``stretch`` scales both sides to S; ``crop`` scales the short side and cuts out the centre.
        interpolation: How pixels between pixels are found; where an image shrinks all of them count.

    Returns:
        Bytes ``(3, S, S)``, RGB, laid out in memory as ``(S, S, 3)``.

    Raises:
        OSError: The file is no image, is truncated or broken, has pixels of 32 bits, whose range nobody knows, or more
            pixels than Pillow's limit for hostile images.
    """
    try:
        with nullcontext(file) if isinstance(file, Image.Image) else Image.open(file) as image:
            if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
                raise OSError(f"32-bit pixels (mode {image.mode}) have no known range: expected 8 or 16 bits")
            # Large JPEGs are decoded at a half, a quarter or an eighth, but never below twice the wanted size.
            if not isinstance(file, Image.Image):
                image.draft(None, (2 * image_size, 2 * image_size))
            method = Image.Resampling[interpolation.upper()]
            square = _to_square(_to_rgb(ImageOps.exif_transpose(image)), image_size, resize=resize, method=method)
    except OSError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever broken bytes lead them to
        raise OSError(f"broken image: {error}") from error
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)


def load_named(file: Path, **decoding: Any) -> Tensor:  # noqa: ANN401
    """Return ``load_image`` of a file, which an error names."""
    try:
        return load_image(file, **decoding)
    except OSError as error:
        raise OSError(f"{file}: {error}") from error


def load_thumbnail(file: str | Path, *, longest: int) -> Image.Image:
    """Return an image upright, in RGB, in its own proportions, small enough to show.

    Args:
        file: A path.
        longest: Longest side, in pixels; smaller images keep their size.

    Raises:
        OSError: As ``load_image``.
    """
    try:
        with Image.open(file) as image:
            image.draft(None, (2 * longest, 2 * longest))
            shown = _to_rgb(ImageOps.exif_transpose(image))
            shown.thumbnail((longest, longest))
            return shown
    except OSError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever broken bytes lead them to
        raise OSError(f"broken image: {error}") from error


def to_float(images: Tensor) -> Tensor:
    """Return bytes ``(B, 3, S, S)`` as floats in [0, 1]: all there is between a decoded image and the network."""
    return images.float().div_(255)


def _to_square(image: Image.Image, size: int, *, resize: Resize, method: Image.Resampling) -> Image.Image:
    if resize == "crop":
        return ImageOps.fit(image, (size, size), method=method)
    return image.resize((size, size), method)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey; plain convert("RGB") would clip it to white
        grey = np.asarray(image).astype(np.int64) // 257
        image = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
