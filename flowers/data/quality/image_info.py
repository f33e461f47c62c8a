"""Checksums, errors and thumbnails of all images, from one cached pass over a folder."""

import errno
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from flowers.data.cache import build_once, cache_key, in_threads
from flowers.data.transforms import load_image
from flowers.decoding import bits_in_use, exif_orientation, open_image

# Increase this number when the image info or the thumbnails change, to read all files again.
_FORMAT = 5
THUMBNAIL_SIZE = 48


class ImageInfo(NamedTuple):
    """Information about one file.

    Args:
        sha256: Checksum; empty for a file that could not be read at all.
        error: Why the file cannot be decoded; None if it can be decoded.
        format: Pillow's name of the file format, such as ``JPEG``; empty if unknown.
        mode: Pillow's mode, such as ``RGB``.
        width: Width of the stored image, in pixels.
        height: Height of the stored image, in pixels.
        orientation: EXIF orientation of the stored image; 1 is upright.
        animated: Whether the file has several images.
        notes: What is unusual about a file that can be decoded; empty if nothing is unusual.
    """

    sha256: str
    error: str | None
    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    animated: bool = False
    notes: str = ""


class FolderInfo(NamedTuple):
    """Information about the N files of a folder.

    Args:
        images: Information about each file.
        thumbnails: Grey bytes ``(N, 48, 48)``, independent of ``image_size``; black for files that
            cannot be decoded.
        sha256: Checksum of each file.
        errors: Error of each file that cannot be decoded, by its index.
    """

    images: tuple[ImageInfo, ...]
    thumbnails: NDArray[np.uint8]
    sha256: list[str]
    errors: dict[int, str]


def read_image_info(root: Path, paths: Sequence[str], *, cache_dir: Path) -> FolderInfo:
    """Read every file, or only the cache if no file has changed since an earlier call.

    A change is detected by size, modification time, inode number and inode change time (ctime).
    ``tar`` and ``rsync --times`` can replace a file by one of equal size and modification time, but
    no program can set the inode number or the ctime. If a file system changes either without a
    change of the file, all files are read again, which does no harm.

    A file that could not be read or decoded is read again in every call, because the failure may be
    temporary: if memory is short, Pillow reports a progressive JPEG as broken.

    Args:
        root: Folder the paths are relative to.
        paths: Paths of the N images.
        cache_dir: Folder of the cache.

    Raises:
        OSError: The cache cannot be written, memory is short, or too many files are open.
    """

    def build(folder: Path) -> None:
        info, thumbnails = zip(*in_threads(_read, files, description=description), strict=True)
        np.save(folder / "thumbnails.npy", np.stack(thumbnails))
        (folder / "info.json").write_text(json.dumps(info), encoding="utf-8")

    description = "Checking images"
    files = list(map(root.joinpath, paths))
    stamps = [_stamp(root, path) for path in paths]
    key = cache_key(f"info {_FORMAT} {Image.MAX_IMAGE_PIXELS}", str(root.resolve()), *stamps)
    entry = build_once(cache_dir, key, build)
    stored = json.loads((entry / "info.json").read_text(encoding="utf-8"))
    images = [ImageInfo(*info) for info in stored]
    # Memory-mapped, so that processes share the thumbnails: those of a million images take 2 GiB.
    thumbnails: NDArray[np.uint8] = np.load(entry / "thumbnails.npy", mmap_mode="c")
    if failed := [index for index, info in enumerate(images) if info.error is not None]:
        retried = in_threads(_read, [files[i] for i in failed], description=description)
        for index, result in zip(failed, retried, strict=True):
            images[index], thumbnails[index] = result
    sha256 = [image.sha256 for image in images]
    errors = {i: image.error for i, image in enumerate(images) if image.error is not None}
    return FolderInfo(tuple(images), thumbnails, sha256, errors)


def _stamp(root: Path, path: str) -> str:
    try:
        stat = (root / path).stat()
    except OSError:
        return f"{path}\nunreadable"
    return f"{path}\n{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


def _read(file: Path) -> tuple[ImageInfo, NDArray[np.uint8]]:
    """Return the image info and the thumbnail of a file."""
    black = np.zeros((THUMBNAIL_SIZE, THUMBNAIL_SIZE), dtype=np.uint8)
    info = ImageInfo("", None)
    try:
        if file.exists() and not file.is_file():
            raise OSError("expected a file, got a folder, a pipe or a device")
        size = file.stat().st_size / 2**30
        if size > 1:  # no photo is this large, and reading the file could take all memory
            raise OSError(f"expected a photo, got a file of {size:.1f} GiB")
        content = file.read_bytes()
        info = info._replace(sha256=hashlib.sha256(content).hexdigest())
        with open_image(io.BytesIO(content)) as image:
            info = info._replace(
                format=image.format or "", mode=image.mode, width=image.width, height=image.height
            )
            rgb = load_image(io.BytesIO(content), image_size=THUMBNAIL_SIZE, resize="stretch")
            info = info._replace(
                orientation=exif_orientation(image),
                notes=", ".join(_notes(image, content)),
                # Not n_frames: counting tens of thousands of images in a TIFF file takes minutes.
                animated=getattr(image, "is_animated", False),
            )
    except Exception as error:  # Pillow raises exceptions of any type for broken files
        _check_resources(file, error)
        # Cut off the buffer in "cannot identify image file <_io.BytesIO object at 0x...>": the
        # callers report the path.
        return info._replace(error=str(error).split(" <_io")[0] or type(error).__name__), black
    grey = np.tensordot((0.299, 0.587, 0.114), rgb.float().numpy(), axes=1)  # ITU-R BT.601
    return info, grey.round().astype(np.uint8)


def _notes(image: Image.Image, content: bytes) -> Iterator[str]:
    if image.mode.startswith("I") and (bits := bits_in_use(image)) < 16:
        yield f"{bits} of its 16 bits are in use"
    # The marker FF DA precedes the entropy-coded data, FF D9 ends the image, and the data contain
    # neither. A last FF D9 before the last FF DA belongs to an embedded preview.
    if isinstance(image, JpegImageFile) and content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):
        yield "its end marker is missing"
    if max(map(len, getattr(image, "text", {}).values()), default=0) > 2**20:
        yield "it has a text of more than 1 MiB"


def _check_resources(file: Path, error: Exception) -> None:
    """Raise an OSError if memory or file descriptors ran out, since the file may be intact."""
    cause = error.__cause__ or error
    number = errno.ENOMEM if isinstance(cause, MemoryError) else getattr(cause, "errno", None)
    if number in (errno.ENOMEM, errno.EMFILE, errno.ENFILE):
        raise OSError(
            f"{file}: cannot be read now: {os.strerror(number)}. Close other programs, raise the "
            f"limits of this process (ulimit -a), or take the file out of the folder."
        ) from error
