"""The index of an image folder: which files there are and what their labels are."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class FolderIndex:
    """The images of a folder ``root/<class>/<image>``, sorted by class and path.

    Args:
        root: The folder.
        class_names: Sorted names of the K classes.
        paths: N paths relative to the root, with forward slashes.
        labels: Integers ``(N,)`` that index the class names.
    """

    root: Path
    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int64]


def index_folder(root: str | Path) -> FolderIndex:
    """Index a folder with torchvision's ``ImageFolder``, hardened against what real folders hold.

    Hidden files and folders (``.git``, macOS' ``._x.jpg``) are no images and no classes. A link is followed only where
    it leads out of the root, so none loops. Two spellings of one class name in Unicode (NFC and NFD) are one class.

    Args:
        root: A folder with one folder per class.

    Raises:
        ValueError: There are fewer than two classes, one without an image, or one whose name cannot be printed.
    """
    folder = _HardenedImageFolder(root)
    base = Path(folder.root)
    paths = tuple(Path(path).relative_to(base).as_posix() for path, _ in folder.samples)
    order = sorted(range(len(paths)), key=lambda i: (folder.targets[i], paths[i]))
    labels = np.array([folder.targets[i] for i in order], dtype=np.int64)
    return FolderIndex(base, tuple(folder.classes), tuple(paths[i] for i in order), labels)


def stray_files(index: FolderIndex) -> list[tuple[str, str]]:
    """Return the files of a folder that no image is taken from, with the reason; hidden ones are left alone.

    Args:
        index: The folder's index. Of what lies beside the class folders only images are strays.
    """
    root, known, strays = index.root, set(index.paths), []
    inside_links = {path[: at.start()] for path in known for at in re.finditer("/", path)}
    unreadable: list[OSError] = []
    for folder, subfolders, files in os.walk(root, onerror=unreadable.append):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        where = Path(folder).relative_to(root)
        links = [name for name in subfolders if (Path(folder) / name).is_symlink()]
        for name in sorted(files) + links:
            path = (where / name).as_posix()
            if name.startswith(".") or path in known or path in inside_links:
                continue
            is_image = name.lower().endswith(IMG_EXTENSIONS)
            if name in links:
                strays.append((path, "a link that leads back into the folder, or to nothing: not followed"))
            elif "/" in path:
                strays.append((path, f"a name that ends in {', '.join(IMG_EXTENSIONS)} was expected"))
            elif is_image:
                strays.append((path, "an image beside the class folders"))
    return strays + [(Path(error.filename).relative_to(root).as_posix(), str(error)) for error in unreadable]


class _HardenedImageFolder(ImageFolder):  # type: ignore[misc]
    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        folders = [entry.name for entry in _subfolders(Path(directory), root=Path(directory))]
        names = sorted({unicodedata.normalize("NFC", folder) for folder in folders})
        for name in names:
            if not name.isprintable():
                raise ValueError(f"--data.root {directory}: class folder {name!r}: expected a name of printable UTF-8")
        if len(names) < 2:
            raise ValueError(
                f"--data.root {directory}: expected at least two class folders (root/<class>/<image>), got "
                f"{names or 'none'}. Give the folder that holds the class folders."
            )
        return names, {folder: names.index(unicodedata.normalize("NFC", folder)) for folder in folders}

    @staticmethod
    def make_dataset(directory: str | Path, class_to_idx: dict[str, int], **_: Any) -> list[tuple[str, int]]:  # noqa: ANN401
        root = Path(directory)
        samples = [
            (str(file), label) for folder, label in class_to_idx.items() for file in _image_files(root / folder, root)
        ]
        filled = {label for _, label in samples}
        empty = sorted(folder for folder, label in class_to_idx.items() if label not in filled)
        if empty:
            raise ValueError(
                f"--data.root {directory}: no image in the class folder {', '.join(empty)}. Expected files that end in "
                f"{', '.join(IMG_EXTENSIONS)}: add some, or take the folder away."
            )
        return samples


def _image_files(folder: Path, root: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    for entry in _visible(folder):
        if entry.name.lower().endswith(IMG_EXTENSIONS) and not _is_dir(entry):
            yield Path(entry.path)
    for subfolder in _subfolders(folder, root=root, above=above):
        yield from _image_files(subfolder, root, above | {folder.resolve()})


def _subfolders(folder: Path, *, root: Path, above: frozenset[Path] = frozenset()) -> list[Path]:
    inside = root.resolve()
    found = []
    for entry in filter(_is_dir, _visible(folder)):
        target = Path(entry.path).resolve()
        leads_back = inside.is_relative_to(target) or target.is_relative_to(inside)
        if target not in above | {folder.resolve()} and not (entry.is_symlink() and leads_back):
            found.append(Path(entry.path))
    return found


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    return sorted((e for e in os.scandir(folder) if not e.name.startswith(".")), key=lambda entry: entry.name)


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
