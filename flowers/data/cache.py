"""The cache on disk, and the decoded images in it."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import platform
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from flowers.data.transforms import load_named
from flowers.decoding import Interpolation, Resize
from flowers.runtime import num_allowed_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from contextlib import AbstractContextManager

    from filelock import BaseFileLock
    from numpy.typing import NDArray

S = TypeVar("S")
T = TypeVar("T")

# Increase it when the decoding changes, to decode cached images again.
DECODING_FORMAT = 5
# Shorter waits for another process are not worth a line.
_QUIET_SECONDS = 2.0
_CHECKSUMS = "checksums.json"
# Each block has a checksum of its own, so that all cores share the reading of one large file.
_BLOCK = 2**24
# Errors of reading a damaged entry; others, as too many open files, say nothing about it.
_DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO}


def default_cache_dir() -> Path:
    """Return the folder of the cache: ``flowers`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flowers"


def build_once(cache_dir: Path, key: str, build: Callable[[Path], None]) -> Path:
    """Return the folder of a cache entry, built first where it is missing or damaged.

    Several processes may call at once: one builds, the others print a line and wait for it. If it
    dies, the system releases its lock and the next one builds. An interrupted build leaves nothing
    that could be taken for a whole one. Machines whose shared file system has locks for each
    machine alone build each for itself, and the first entry is used.

    Every call reads the entry's files and compares them with the checksums written beside them.
    A damaged entry is reported, removed and built again; a process that has its files mapped keeps
    them. CRC-32 as in zip archives: it detects damage, not forgery, and is the fastest of the
    standard library (0.35 s a GB on one core here, SHA-256 0.8 s with the CPU's own instructions).

    Args:
        cache_dir: Folder of the cache.
        key: Name of the entry; another content needs another key.
        build: Writes the entry's files into the folder it is given.

    Raises:
        OSError: The cache cannot be read or written.
    """
    entry = cache_dir / key
    for partial in cache_dir.glob(f"*.{platform.node()}.partial"):
        lock = cache_dir / f"{partial.name.partition('.')[0]}.lock"
        with suppress(OSError), FileLock(lock, timeout=0):  # its process was killed
            shutil.rmtree(partial)
    if _damage(entry):
        cache_dir.mkdir(parents=True, exist_ok=True)
        with _held(FileLock(cache_dir / f"{key}.lock")):
            if damage := _damage(entry):
                if os.path.lexists(entry):
                    print(f"Damaged cache entry {entry}: {damage}. It is built again.", flush=True)
                    if entry.is_dir() and not entry.is_symlink():
                        shutil.rmtree(entry)
                    else:
                        entry.unlink()
                partial = cache_dir / f"{key}.{platform.node()}.partial"
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                build(partial)
                _write_checksums(partial)
                _move(partial, entry)
    return entry


def _damage(entry: Path) -> str:
    """Return how an entry differs from what was written; empty if it does not."""
    try:
        crc32, _, text = (entry / _CHECKSUMS).read_bytes().partition(b"\n")
        if crc32 != b"%d" % zlib.crc32(text):
            return f"{_CHECKSUMS} has changed"
        for name, checksum in json.loads(text).items():
            if _checksum(entry / name) != checksum:
                return f"{name} has changed"
    except OSError as error:
        if error.errno not in _DAMAGE:
            raise OSError(f"`cache_dir` {entry.parent}: {error}") from error
        return str(error)
    return ""


def _write_checksums(folder: Path) -> None:
    """Write the checksums of a new entry, and flush it to disk before it is renamed."""
    text = json.dumps({file.name: _checksum(file) for file in folder.iterdir()}).encode()
    (folder / _CHECKSUMS).write_bytes(b"%d\n" % zlib.crc32(text) + text)
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _checksum(file: Path) -> list[int]:
    """Return the size of a file and the CRC-32 of each of its blocks."""
    size = file.stat().st_size
    with ThreadPoolExecutor(num_allowed_cores()) as pool:
        return [size, *pool.map(_crc32, repeat(file), range(0, size, _BLOCK))]


def _crc32(file: Path, start: int) -> int:
    with file.open("rb") as opened:
        opened.seek(start)
        # Read, not mapped: the pages of a map would count as memory of this process.
        return zlib.crc32(opened.read(_BLOCK))


def _move(partial: Path, entry: Path) -> None:
    try:
        partial.replace(entry)
    except OSError:
        if not entry.exists():
            raise
        shutil.rmtree(partial)  # another machine was faster


def _held(lock: BaseFileLock) -> AbstractContextManager[object]:
    """Acquire a lock for a ``with`` block; print a line if it takes long."""
    try:
        return lock.acquire(timeout=_QUIET_SECONDS)
    except Timeout:
        print(f"Waiting for another process, which holds {lock.lock_file}", flush=True)
        return lock.acquire()


def cache_key(*parts: str) -> str:
    """Return the key of an entry that depends on these texts."""
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()[:32]


def in_threads(function: Callable[[S], T], items: Sequence[S], *, description: str) -> list[T]:
    """Return the results of a function for all items, computed by a thread per core.

    Threads suffice: Pillow releases the interpreter's lock while it decodes and resizes.
    """
    with ThreadPoolExecutor(num_allowed_cores()) as pool:
        results = pool.map(function, items)
        return list(tqdm(results, total=len(items), desc=description, unit="image", disable=None))


def decode_all(
    root: Path,
    paths: Sequence[str],
    *,
    sha256: Sequence[str],
    skip: Collection[int] = (),
    image_size: int,
    resize: Resize,
    interpolation: Interpolation = "bicubic",
    cache_dir: Path,
) -> NDArray[np.uint8]:
    """Return all images decoded, ``(N, S, S, 3)``, memory-mapped from the cache.

    Args:
        root: Folder the paths are relative to.
        paths: Paths of the N images.
        sha256: Their checksums, which are a part of the cache's key.
        skip: Indices of images that cannot be decoded; they are black.
        image_size: Side S, in pixels.
        resize: How an image becomes a square.
        interpolation: Resampling filter.
        cache_dir: Folder of the cache.

    Raises:
        OSError: The disk cannot hold the decoded images, or a file became unreadable after it was
            checked.
    """
    decoding = {"image_size": image_size, "resize": resize, "interpolation": interpolation}

    def build(folder: Path) -> None:
        images = _allocate(folder / "images.npy", (len(paths), image_size, image_size, 3))

        def decode(index: int) -> None:
            if index in skip:
                return
            file = root / paths[index]
            content = file.read_bytes()
            if hashlib.sha256(content).hexdigest() != sha256[index]:
                raise OSError(f"{file}: its content changed after it was checked. Start again.")
            images[index] = load_named(file, content=content, **decoding).permute(1, 2, 0).numpy()

        in_threads(decode, range(len(paths)), description="Decoding images")
        images.flush()

    settings = f"pixels {DECODING_FORMAT} {image_size} {resize} {interpolation} {sorted(skip)}"
    entry = build_once(cache_dir, cache_key(settings, *sha256), build)
    images: NDArray[np.uint8] = np.load(entry / "images.npy", mmap_mode="r")
    return images


def _allocate(file: Path, shape: tuple[int, ...]) -> np.memmap[tuple[int, ...], np.dtype[np.uint8]]:
    """Create an array with its disk space; a sparse file would end in SIGBUS on a full disk."""
    size = math.prod(shape)
    free = shutil.disk_usage(file.parent).free
    if size > free:
        raise OSError(
            f"`cache_dir` {file.parent.parent}: the decoded images take {size / 2**20:,.0f} MiB, "
            f"the disk has {free / 2**20:,.0f} MiB free. Make room, give a folder on another disk, "
            "lower `image_size`, or decode while training with `cache` false."
        )
    images = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    return images
