"""The index of an image folder: which files there are and what their labels are."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flowers.data.files import (
    FolderContents,
    IgnoredFile,
    has_other_ending,
    summarize_ignored,
    walk_folder,
)
from flowers.decoding import IMAGE_EXTENSIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

# The usual names, in lower case, of the folders of a data set that is already divided.
SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class FolderIndex:
    """The images of a folder, sorted by class and path.

    The folder is ``root/<class>/<image>``, or, already divided,
    ``root/{train,val,test}/<class>/<image>``.

    Args:
        root: The folder.
        class_names: Sorted names of the K classes.
        paths: N paths relative to the root, with forward slashes.
        labels: Integers ``(N,)`` that index the class names.
        given_splits: Split ``(N,)`` of each image of a folder that is already divided; else None.
        ignored: Files that lie where images are expected and are none.
    """

    root: Path
    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    given_splits: NDArray[np.object_] | None = None
    ignored: tuple[IgnoredFile, ...] = ()

    def untrained_classes(self) -> list[str]:
        """Return the classes without an image that could be trained on."""
        labels = self.labels
        if self.given_splits is not None:
            labels = labels[self.given_splits == "train"]
        counts = np.bincount(labels, minlength=len(self.class_names))
        return [self.class_names[label] for label in np.flatnonzero(counts == 0)]


def index_folder(root: str | Path, *, tolerant: bool = False) -> FolderIndex:
    """Index a folder laid out as for torchvision's ``ImageFolder``, with the same classes and images.

    Other than ``ImageFolder`` it also reads folders that are already divided, and withstands what
    real folders hold. The root is already divided if one of its folders is named as the training
    split and all that hold images are named as splits, as in ``SPLIT_FOLDERS``, and hold class
    folders. Two spellings of one class name in Unicode (NFC and NFD) are one class.

    Args:
        root: A folder with one folder per class, or per split with one folder per class.
        tolerant: Whether classes without an image and folders that cannot be read are let pass, for
            the audit to name.

    Raises:
        ValueError: There are fewer than two classes, one without an image to train on, or one whose
            name cannot be printed; or it cannot be told which folders are classes and which are
            splits.
        OSError: A folder cannot be read.
    """
    base = Path(root)
    contents = walk_folder(base, tolerant=tolerant)
    splits = _split_folders(root, contents)
    depth = 2 if splits else 1

    def class_folder(path: str) -> str:
        return "/".join(path.split("/")[:depth])

    class_of = {}
    for folder in contents.folders:
        parts = folder.split("/")
        if len(parts) == depth and (not splits or parts[0] in splits):
            class_of[folder] = unicodedata.normalize("NFC", parts[-1])
    class_names = _class_names(root, class_of.values(), split_folders=sorted(splits))
    label_of = {folder: class_names.index(name) for folder, name in class_of.items()}
    images = [(label_of[class_folder(path)], path) for path in contents.images if "/" in path]
    images.sort()
    given_splits = None
    if splits:
        given_splits = np.array([splits[path.split("/")[0]] for _, path in images], dtype=object)
    beside = [path for path in contents.images if "/" not in path]
    ignored = [IgnoredFile(path, "an image beside the class folders") for path in beside]
    for file in contents.ignored:
        # Beside the class folders, other files accompany a data set, as a licence does.
        if class_folder(file.path) in class_of or not has_other_ending(file):
            ignored.append(file)
    index = FolderIndex(
        base,
        tuple(class_names),
        tuple(path for _, path in images),
        np.array([label for label, _ in images], dtype=np.int64),
        given_splits,
        tuple(sorted(ignored)),
    )
    empty = index.untrained_classes()
    if not images or (empty and not tolerant):
        where = " of the training split" if splits else ""
        message = (
            f"`root` {root}: no image in the class folder {', '.join(empty)}{where}. Expected files that end in "
            f"{', '.join(IMAGE_EXTENSIONS)}: add some, or take the class away. {summarize_ignored(index.ignored)}"
        )
        raise ValueError(message.rstrip())
    return index


def _split_folders(root: str | Path, contents: FolderContents) -> dict[str, str]:
    """Return the split of each folder of a root that is already divided; none where the folders are classes.

    Raises:
        ValueError: It cannot be told which they are.
    """
    direct: set[str] = set()
    nested: set[str] = set()
    for path in contents.images:
        folder, *rest = path.split("/")
        if len(rest) == 1:
            direct.add(folder)
        elif rest:
            nested.add(folder)
    filled = sorted(direct | nested)
    splits = {
        folder: SPLIT_FOLDERS[folder.lower()]
        for folder in filled
        if folder.lower() in SPLIT_FOLDERS
    }
    others = [folder for folder in filled if folder not in splits]
    is_divided = "train" in splits.values()
    if others and set(splits.values()) == {"train"} and direct & splits.keys():
        is_divided = (
            False  # beside other classes, images directly in train are a class of that name
        )
    if not splits or (others and not is_divided):
        return {}
    named = f"`root` {root}: {', '.join(splits)} are named as splits (root/<split>/<class>/<image>)"
    if others:
        raise ValueError(
            f"{named}, but there are images in {', '.join(others)} beside them. Expected only splits or only classes: "
            f"move the others out of the folder, or rename what is a class."
        )
    if not is_divided:
        raise ValueError(
            f"{named}, but there is no train folder with images. Add it, or rename what is a class."
        )
    if direct:
        raise ValueError(
            f"{named}, but there are images in no class folder in {', '.join(sorted(direct))}. Move them into class "
            f"folders, or out of the folder (python -m flowers predict classifies images without a label)."
        )
    # Those without an image too: what is ignored in them is to be named.
    return {
        folder: SPLIT_FOLDERS[folder.lower()]
        for folder in contents.folders
        if folder.lower() in SPLIT_FOLDERS
    }


def _class_names(
    root: str | Path, names: Iterable[str], *, split_folders: Sequence[str]
) -> list[str]:
    class_names = sorted(set(names))
    for name in class_names:
        if not name.isprintable():
            raise ValueError(
                f"`root` {root}: class folder {name!r}: expected a name of printable UTF-8"
            )
    if len(class_names) < 2:
        layout = (
            f"root/{split_folders[0]}/<class>/<image>" if split_folders else "root/<class>/<image>"
        )
        raise ValueError(
            f"`root` {root}: expected at least two class folders ({layout}), got {class_names or 'none'}. Give "
            f"the folder that holds the class folders."
        )
    return class_names
