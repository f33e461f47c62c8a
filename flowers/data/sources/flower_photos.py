"""Download of flower_photos: resumed if interrupted, verified, and extracted safely."""

import hashlib
import http.client
import shutil
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

_ATTEMPTS = 3


class Archive(NamedTuple):
    """A tar archive to download: its URL, size in bytes and SHA-256 checksum."""

    url: str
    size: int
    sha256: str


# Size and checksum are those in TensorFlow Datasets' checksum file for tf_flowers.
FLOWER_PHOTOS = Archive(
    url="https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz",
    size=228_813_984,
    sha256="4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
)


def download_flower_photos(root: Path, *, archive: Archive = FLOWER_PHOTOS) -> None:
    """Extract the archive to the folder ``root``; download it first if it is not beside ``root``.

    Args:
        root: Folder to make; it must be named like the archive's top folder.
        archive: The archive.

    Raises:
        ConnectionError: The archive cannot be downloaded; the message lists remedies.
        ValueError: The archive beside ``root`` has an unexpected checksum.
    """
    file = root.with_name(f"{root.name}.tgz")
    if not file.exists():
        _download(archive, file)
    elif _sha256(file) != archive.sha256:
        raise ValueError(
            f"{file}: expected the archive with sha256 {archive.sha256}, got {_sha256(file)}. "
            "Remove the file to download it again, or replace it with the correct archive."
        )
    print(f"Extracting {file}")
    with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as folder:
        # The filter refuses members and links that lead outside the folder, and special files.
        shutil.unpack_archive(file, folder, filter="data")
        # Only a complete extraction gets the name of the data set.
        shutil.move(Path(folder) / root.name, root)


def _download(archive: Archive, file: Path) -> None:
    partial = file.with_name(f"{file.name}.part")
    size = f"{archive.size / 2**20:.0f} MiB"
    print(f"No folder {file.with_suffix('')}: downloading {size} from {archive.url}")
    for attempt in range(_ATTEMPTS):
        try:
            _fetch(archive, partial)
            break
        except (OSError, http.client.HTTPException) as error:  # refused, interrupted, timed out
            if attempt + 1 == _ATTEMPTS:
                raise ConnectionError(
                    f"Could not download {archive.url} ({error}). What can be done:\n"
                    f"  - run the same command again: it resumes the download in {partial};\n"
                    f"  - fetch the archive on another machine and put it here: {file};\n"
                    f"  - give any folder root/<class>/<image> with `root` DIR;\n"
                    "  - `root` data/synthetic_flowers generates images without a network."
                ) from error
            time.sleep(2**attempt)
    if _sha256(partial) != archive.sha256:
        partial.unlink()
        raise ConnectionError(
            f"{archive.url}: expected the archive with sha256 {archive.sha256}, got another file, "
            f"now deleted. Run the same command again, or put the archive here: {file}"
        )
    partial.replace(file)


def _fetch(archive: Archive, partial: Path) -> None:
    size = partial.stat().st_size if partial.exists() else 0
    if size >= archive.size:
        return
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={size}-"})
    with urllib.request.urlopen(request, timeout=30) as response:
        if response.status != 206:  # the server sends the whole file instead of the range
            partial.unlink(missing_ok=True)
            size = 0
        bar = tqdm.wrapattr(
            response, "read", total=archive.size, initial=size, desc="Downloading", disable=None
        )
        with bar as content, partial.open("ab") as opened:
            while size < archive.size and (block := content.read(min(2**20, archive.size - size))):
                opened.write(block)
                size += len(block)
    if size < archive.size:
        raise ConnectionError(
            f"the connection was interrupted at {size:,} of {archive.size:,} bytes"
        )


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
