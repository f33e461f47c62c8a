"""Images wherever they lie: what a person means by a path."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING

from flowers.decoding import IMAGE_EXTENSIONS

if TYPE_CHECKING:
    from collections.abc import Sequence


def find_images(wanted: Sequence[str], *, option: str) -> list[str]:
    """Return the files that some words mean, in their order, those of a folder or a pattern sorted.

    Args:
        wanted: Files, folders (searched with all folders inside, hidden ones left out) and patterns as ``*.jpg``.
        option: Where they come from, for errors.

    Raises:
        FileNotFoundError: There is no such file or folder, and only one was named.
        ValueError: There is no image.
    """
    found: list[str] = []
    for word in wanted:
        path = Path(word).expanduser()
        if not word or (path.exists() and not path.is_dir() and not path.is_file()):
            raise ValueError(f"{option} {word!r}: expected a file, a folder or a pattern")
        if path.is_dir():
            inside = [str(file) for file in sorted(path.rglob("*")) if _is_image(file.relative_to(path), file)]
            if not inside:
                raise ValueError(f"{option} {word}: expected images ({', '.join(IMAGE_EXTENSIONS)}), found none")
            found += inside
        elif not path.exists() and glob.has_magic(word):
            matches = sorted(file for file in glob.glob(str(path), recursive=True) if Path(file).is_file())  # noqa: PTH207
            if not matches:
                raise ValueError(f"{option} {word}: expected a pattern that some images match, there are none")
            found += matches
        elif path.exists() or len(wanted) > 1:  # of several, one that is missing gets its error in its row
            found.append(str(path))
        else:
            raise FileNotFoundError(f"{option} {word}: expected a file, a folder or a pattern, there is none")
    return found


def _is_image(inside: Path, file: Path) -> bool:
    visible = not any(part.startswith(".") for part in inside.parts)
    return visible and file.suffix.lower() in IMAGE_EXTENSIONS and file.is_file()
