"""Every image decoded once, into one memory-mapped array of bytes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from flowers.data.transforms import Resize, load_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

# Raise it when the decoding changes: what was cached before is then decoded anew.
_FORMAT = 1


@dataclass(frozen=True)
class DecodedImages:
    """What one pass over all files found out.

    Args:
        images: Bytes ``(N, S, S, 3)``, memory-mapped; None where only the facts were asked for.
        sha256: Checksum of each of the N files; empty for one that could not be read at all.
        errors: Why an image could not be decoded, by its index; its pixels are black.
        fingerprint: Names the files, their sizes and times, and the way they were decoded.
    """

    images: NDArray[np.uint8] | None
    sha256: tuple[str, ...]
    errors: dict[int, str]
    fingerprint: str


class _Facts(NamedTuple):
    sha256: str
    error: str | None
    image: Tensor | None


def default_cache_dir() -> Path:
    """Return the folder for decoded images: ``flowers`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flowers"


def decode_all(
    root: Path,
    paths: Sequence[str],
    *,
    image_size: int,
    resize: Resize,
    cache_dir: Path,
    keep_pixels: bool = True,
) -> DecodedImages:
    """Decode all images, or open what an earlier call with the same files and settings left in the cache.

    Several processes may call at once: one decodes, the others wait for it. A build that was cut off leaves nothing
    that could be taken for a whole one.

    Args:
        root: Folder the paths are relative to.
        paths: Paths of the N images.
        image_size: Side S, in pixels.
        resize: How an image becomes a square.
        cache_dir: Folder of the cache.
        keep_pixels: Whether the pixels are kept, or only checksums and errors.

    Raises:
        OSError: The disk cannot hold the decoded images.
    """
    fingerprint = _fingerprint(root, paths, f"{_FORMAT} {image_size} {resize} {keep_pixels}")
    entry = cache_dir / fingerprint
    if not _is_whole(entry):
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(cache_dir / f"{fingerprint}.lock"):
            if not _is_whole(entry):
                partial = cache_dir / f"{fingerprint}.partial"
                for stale in (partial, entry):
                    shutil.rmtree(stale, ignore_errors=True)
                partial.mkdir()
                _build(partial, root, paths, image_size=image_size, resize=resize, keep_pixels=keep_pixels)
                partial.replace(entry)
    facts = json.loads((entry / "facts.json").read_text(encoding="utf-8"))
    images = np.load(entry / "images.npy", mmap_mode="r") if keep_pixels else None
    errors = {int(index): error for index, error in facts["errors"].items()}
    return DecodedImages(images, tuple(facts["sha256"]), errors, fingerprint)


def _fingerprint(root: Path, paths: Sequence[str], settings: str) -> str:
    digest = hashlib.sha256(f"{settings}\n{root.resolve()}\n".encode(errors="surrogateescape"))
    for path in paths:
        try:
            stat = (root / path).stat()
            facts = f"{path}\n{stat.st_size} {stat.st_mtime_ns}\n"
        except OSError:
            facts = f"{path}\nunreadable\n"
        digest.update(facts.encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def _is_whole(entry: Path) -> bool:
    """Return whether a cache entry can be used; not if a file could not be read, which may have been for once only."""
    file = entry / "facts.json"
    return file.exists() and "" not in json.loads(file.read_text(encoding="utf-8"))["sha256"]


def _build(
    folder: Path, root: Path, paths: Sequence[str], *, image_size: int, resize: Resize, keep_pixels: bool
) -> None:
    images = _allocate(folder / "images.npy", (len(paths), image_size, image_size, 3)) if keep_pixels else None

    def read(index: int) -> _Facts:
        facts = _read(root / paths[index], image_size=image_size, resize=resize)
        if images is not None and facts.image is not None:
            images[index] = facts.image.permute(1, 2, 0).numpy()
        return facts._replace(image=None)

    # Threads do: Pillow gives up the interpreter's lock while it decodes and resizes.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None) as pool:
        bar = tqdm(
            pool.map(read, range(len(paths))), total=len(paths), desc="Decoding images", unit="image", disable=None
        )
        facts = list(bar)
    if images is not None:
        images.flush()
    errors = {index: fact.error for index, fact in enumerate(facts) if fact.error is not None}
    text = json.dumps({"sha256": [fact.sha256 for fact in facts], "errors": errors})
    (folder / "facts.json").write_text(text, encoding="utf-8")


def _allocate(file: Path, shape: tuple[int, ...]) -> np.memmap[tuple[int, ...], np.dtype[np.uint8]]:
    """Create the array with all its disk space: a map of a sparse file would die on a full disk (SIGBUS)."""
    needed, free = int(np.prod(shape)), shutil.disk_usage(file.parent).free
    if needed > free:
        raise OSError(
            f"--data.cache_dir {file.parent.parent}: the decoded images take {needed / 2**20:,.0f} MiB, the disk has "
            f"{free / 2**20:,.0f} MiB free. Make room, give a folder on another disk, lower --data.image_size, or "
            f"decode while training with --data.cache false."
        )
    images = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    return images


def _read(file: Path, *, image_size: int, resize: Resize) -> _Facts:
    try:
        if file.exists() and not file.is_file():
            raise OSError("expected a file, got a folder, a pipe or a device")
        content = file.read_bytes()
    except OSError as error:
        return _Facts("", str(error), None)
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        return _Facts(sha256, None, load_image(io.BytesIO(content), image_size=image_size, resize=resize))
    except OSError as error:
        # Pillow names the buffer ("cannot identify image file <_io.BytesIO object at 0x...>"); the path says more.
        return _Facts(sha256, str(error).split(" <_io")[0], None)
