"""Data sets that are downloaded or generated when their folder is missing."""

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from flowers.data.sources.flower_photos import download_flower_photos
from flowers.data.sources.synthetic import generate_flowers

# Matched by the exact name of the folder, so that a mistyped path to the user's own photos is an
# error and not a download.
SOURCES: dict[str, Callable[[Path], None]] = {
    "flower_photos": download_flower_photos,
    "synthetic_flowers": generate_flowers,
}


def ensure_root(root: str | Path) -> Path:
    """Return the folder; if missing and named as a known data set, download or generate it.

    Several processes may call at once: one makes the folder, the others wait for it.

    Args:
        root: Folder ``root/<class>/<image>``; ``.../flower_photos`` is downloaded and
            ``.../synthetic_flowers`` generated.

    Raises:
        FileNotFoundError: The folder is missing and has no known name; the message lists remedies.
        ConnectionError: The download failed; the message lists remedies.
    """
    path = Path(root).expanduser()
    if path.is_dir():
        return path
    if path.name not in SOURCES:
        raise FileNotFoundError(
            f"`root` {root}: expected a folder with one folder of images per class, got no "
            "folder. What can be done:\n"
            "  - give the path of your own folder root/<class>/<image>, or\n"
            "    root/{train,val,test}/<class>/<image>;\n"
            "  - `root` data/flower_photos downloads 3,670 photos of five kinds of flowers;\n"
            "  - `root` data/synthetic_flowers generates a small data set, without a network."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            SOURCES[path.name](path)
    return path
