"""The folders that the project can make by itself when they are missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flowers.data.sources.flower_photos import download_flower_photos
from flowers.data.sources.synthetic import draw_flowers

if TYPE_CHECKING:
    from collections.abc import Callable

# By the folder's own name, so that a mistyped path to somebody's photos can never become another
# data set.
_SOURCES: dict[str, Callable[[Path], None]] = {
    "flower_photos": download_flower_photos,
    "drawn_flowers": draw_flowers,
}


def ensure_root(root: str | Path) -> Path:
    """Return the folder; a missing one with the name of a known data set is made first.

    Args:
        root: Folder ``root/<class>/<image>``; ``.../flower_photos`` is downloaded and
            ``.../drawn_flowers`` drawn.

    Raises:
        FileNotFoundError: The folder is missing; the message names every way out.
        ConnectionError: The download failed; likewise.
    """
    path = Path(root).expanduser()
    if not path.is_dir():
        if path.name not in _SOURCES:
            raise FileNotFoundError(
                f"`root` {root}: expected a folder with one folder of images per class, got no "
                f"folder. "
                f"What can be done:\n"
                f"  - give the path of your own folder root/<class>/<image>, or\n"
                f"    root/{{train,val,test}}/<class>/<image>;\n"
                f"  - `root` data/flower_photos downloads 3,670 photos of five kinds of flowers;\n"
                f"  - `root` data/drawn_flowers draws a small data set, without a network."
            )
        _SOURCES[path.name](path)
    return path
