"""The thumbnail of a photo on a page."""

from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from flowers.data import load_thumbnail, read_credits
from flowers.evaluation import Picture, jpeg_bytes

_credits = lru_cache(maxsize=1)(read_credits)


def photo_picture(root: Path, path: str) -> Picture:
    """Return a thumbnail with its path, its photographer, and a link to the file.

    If the file is missing or cannot be decoded, thumbnail and link are empty.

    Args:
        root: Folder of the photos.
        path: Path of the photo, relative to the root.
    """
    jpeg = b""
    link = ""
    with suppress(OSError):
        jpeg = jpeg_bytes(load_thumbnail(root / path, longest=240))
        link = (root / path).absolute().as_uri()
    credit = _credits(root).get(path)
    photographer = credit.photographer if credit else ""
    return Picture(jpeg, path, photographer, link=link)
