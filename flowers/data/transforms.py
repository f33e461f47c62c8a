"""Decoding of image files to tensors, the same for training, evaluation, prediction and export."""

import io
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from flowers.decoding import ImageSource, Interpolation, Resize, decode_image, open_image, to_srgb


def load_image(
    file: ImageSource, *, image_size: int, resize: Resize, interpolation: Interpolation = "bicubic"
) -> Tensor:
    """Return ``decode_image`` of a file as a tensor.

    Args:
        file: A path, an open binary file, or an image (which is not modified).
        image_size: Side S of the result, in pixels.
        resize: As for ``decode_image``.
        interpolation: As for ``decode_image``.

    Returns:
        Bytes ``(3, S, S)``, RGB, in the memory layout ``(S, S, 3)``.

    Raises:
        OSError: As ``decode_image``.
    """
    square = decode_image(file, image_size=image_size, resize=resize, interpolation=interpolation)
    return torch.from_numpy(square).permute(2, 0, 1)


def load_named(file: Path, *, content: bytes | None = None, **decoding: Any) -> Tensor:  # noqa: ANN401
    """Return ``load_image`` of a file; errors name the file.

    Args:
        file: The file.
        content: Content of the file, if it has already been read.
        decoding: Options of ``load_image``.
    """
    try:
        source = file if content is None else io.BytesIO(content)
        return load_image(source, **decoding)
    except OSError as error:
        raise OSError(f"{file}: {error}") from error
    except MemoryError as error:
        raise OSError(f"{file}: not enough memory to decode it. Close other programs.") from error


def load_thumbnail(file: str | Path, *, longest: int) -> Image.Image:
    """Return an upright RGB thumbnail with the aspect ratio of the image.

    Args:
        file: A path.
        longest: Longest side, in pixels; smaller images keep their size.

    Raises:
        OSError: As ``decode_image``.
    """
    with open_image(file) as image:
        image.draft(None, (2 * longest, 2 * longest))
        thumbnail = to_srgb(image)
        thumbnail.thumbnail((longest, longest))
        return thumbnail


def to_float(images: Tensor) -> Tensor:
    """Return bytes ``(B, 3, S, S)`` as floats in [0, 1], the inputs of the network."""
    return images.float().div_(255)
