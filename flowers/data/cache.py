"""The cache on disk."""

import errno
import hashlib
import json
import os
import platform
import shutil
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from itertools import repeat
from pathlib import Path
from typing import TypeVar

from filelock import BaseFileLock, FileLock, Timeout
from tqdm import tqdm

from flowers.runtime import num_allowed_cores

S = TypeVar("S")
T = TypeVar("T")

# Shorter waits for another process are not worth a line.
QUIET_SECONDS = 2.0
_CHECKSUMS = "checksums.json"
# Each block has a checksum of its own, so that all cores share the reading of one large file.
_BLOCK = 2**24


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
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"`cache_dir` {cache_dir}: {error}; give another folder") from error
        with held(FileLock(cache_dir / f"{key}.lock")):
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
        # Other errors, as too many open files, say nothing about the entry.
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO):
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


def held(lock: BaseFileLock) -> AbstractContextManager[object]:
    """Acquire a lock for a ``with`` block; print a line if it takes long."""
    try:
        return lock.acquire(timeout=QUIET_SECONDS)
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
