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

from flowers.decoding import IMAGE_EXTENSIONS

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


def index_folder(root: str | Path, *, tolerant: bool = False) -> FolderIndex:
    """Index a folder with torchvision's ``ImageFolder``, hardened against what real folders hold.

    Hidden files and folders (``.git``, macOS' ``._x.jpg``) are no images and no classes. A link is followed only where
    it leads out of the root, so none loops. Two spellings of one class name in Unicode (NFC and NFD) are one class.

    Args:
        root: A folder with one folder per class.
        tolerant: Whether classes without an image and folders that cannot be read are let pass, for the audit to name.

    Raises:
        ValueError: There are fewer than two classes, one without an image, or one whose name cannot be printed.
        OSError: A folder cannot be read.
    """
    folder = (_TolerantImageFolder if tolerant else _HardenedImageFolder)(root)
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
            is_image = name.lower().endswith(IMAGE_EXTENSIONS)
            if name in links:
                strays.append((path, "a link that leads back into the folder, or to nothing: not followed"))
            elif (Path(folder) / name).is_symlink() and not (Path(folder) / name).exists():
                strays.append((path, "a link to nothing"))
            elif "/" in path:
                strays.append((path, f"a name that ends in {', '.join(IMAGE_EXTENSIONS)} was expected"))
            elif is_image:
                strays.append((path, "an image beside the class folders"))
    return strays + [(Path(error.filename).relative_to(root).as_posix(), str(error)) for error in unreadable]


class _HardenedImageFolder(ImageFolder):  # type: ignore[misc]
    tolerant = False

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        root = Path(directory)
        folders = [folder.name for folder in _subfolders(root, _entries(root), inside=root.resolve())]
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

    @classmethod
    def make_dataset(cls, directory: str | Path, class_to_idx: dict[str, int], **_: Any) -> list[tuple[str, int]]:  # noqa: ANN401
        root = Path(directory)
        samples = [
            (str(file), label)
            for folder, label in class_to_idx.items()
            for file in _image_files(root / folder, root=root, tolerant=cls.tolerant)
        ]
        filled = {label for _, label in samples}
        empty = sorted(folder for folder, label in class_to_idx.items() if label not in filled)
        if not samples or (empty and not cls.tolerant):
            raise ValueError(
                f"--data.root {directory}: no image in the class folder {', '.join(empty)}. Expected files that end in "
                f"{', '.join(IMAGE_EXTENSIONS)}: add some, or take the folder away."
            )
        return samples


class _TolerantImageFolder(_HardenedImageFolder):
    tolerant = True


def _image_files(top: Path, *, root: Path, tolerant: bool) -> Iterator[Path]:
    """Yield the image files under a folder; each folder is kept with those above it, which a link must not lead to."""
    inside = root.resolve()
    waiting: list[tuple[Path, frozenset[Path]]] = [(top, frozenset())]
    while waiting:
        folder, above = waiting.pop()
        try:
            entries = _entries(folder)
        except OSError:
            if not tolerant:
                raise
            continue
        for entry in entries:
            if entry.name.lower().endswith(IMAGE_EXTENSIONS) and not _is_dir(entry):
                yield Path(entry.path)
        above |= {folder.resolve()}
        waiting += [(subfolder, above) for subfolder in _subfolders(folder, entries, inside=inside, above=above)]


def _subfolders(
    folder: Path, entries: list[os.DirEntry[str]], *, inside: Path, above: frozenset[Path] = frozenset()
) -> list[Path]:
    found = []
    for entry in filter(_is_dir, entries):
        target = Path(entry.path).resolve() if entry.is_symlink() else folder.resolve() / entry.name
        leads_back = inside.is_relative_to(target) or target.is_relative_to(inside)
        if not (entry.is_symlink() and (leads_back or target in above)):
            found.append(Path(entry.path))
    return found


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    return sorted((e for e in os.scandir(folder) if not e.name.startswith(".")), key=lambda entry: entry.name)


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
