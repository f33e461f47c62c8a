"""Data sets that are downloaded or generated when their folder is missing."""

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from flowers.data.sources.flower_photos import download_flower_photos
from flowers.data.sources.synthetic import generate_flowers

# By the folder's own name, so that a mistyped path to somebody's photos can never become another
# data set.
SOURCES: dict[str, Callable[[Path], None]] = {
    "flower_photos": download_flower_photos,
    "synthetic_flowers": generate_flowers,
}


def ensure_root(root: str | Path) -> Path:
    """Return the folder; a missing one with the name of a known data set is made first.

    Several processes may call at once: one makes the folder, the others wait for it.

    Args:
        root: Folder ``root/<class>/<image>``; ``.../flower_photos`` is downloaded and
            ``.../synthetic_flowers`` generated.

    Raises:
        FileNotFoundError: The folder is missing; the message names every way out.
        ConnectionError: The download failed; likewise.
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
