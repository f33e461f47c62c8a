"""Image folders: their classes and images, paths given by the user, and photo credits."""

import glob
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowers.decoding import IMAGE_EXTENSIONS
from flowers.printable import printable

# Names, in lower case, that operating systems, network drives, archives and runs of this package
# put among photos. Like hidden names, they are skipped without being reported as ignored.
SYSTEM_NAMES = {"#recycle", "$recycle.bin", "@eadir", "@recycle", "__macosx", "desktop.ini"}
SYSTEM_NAMES |= {"lightning_logs", "lost+found", "system volume information", "thumbs.db"}
# Names, in lower case, of the folders of a data set that is already split.
SPLIT_FOLDERS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLIT_FOLDERS |= {"val": "val", "valid": "val", "validation": "val"}
_OTHER_EXTENSION = f"name does not end in {', '.join(IMAGE_EXTENSIONS)}"
# Extensions of files that describe a data set, or that the predict command writes.
_TEXT_EXTENSIONS = (".csv", ".html", ".json", ".md", ".pdf", ".txt")
_MAX_LISTED = 8
# The two forms of a line of flower_photos' LICENSE.txt.
_CREDITS = (
    re.compile(r"(?P<path>\S+/\S+) CC-BY by (?P<photographer>.*) - (?P<url>https?://\S+)"),
    re.compile(r"(?P<path>\S+/\S+) CC-BY (?P<url>https?://\S+) - by (?P<photographer>.*)"),
)


class IgnoredFile(NamedTuple):
    """A file that is not used as an image.

    Args:
        path: Its path relative to the folder.
        reason: Why it is ignored.
    """

    path: str
    reason: str


@dataclass
class FolderContents:
    """The contents of a folder, as paths relative to it with forward slashes.

    Args:
        folders: All subfolders.
        images: All files with the extension of an image.
        ignored: All other files, links that are not followed, and folders that cannot be read.
    """

    folders: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    ignored: list[IgnoredFile] = field(default_factory=list)


@dataclass(frozen=True)
class FolderIndex:
    """The images of a folder ``root/<class>/<image>`` or ``root/<split>/<class>/<image>``.

    Args:
        root: The folder.
        class_names: Sorted names of the K classes.
        paths: N paths relative to the root, with forward slashes, sorted by class and path.
        labels: Integers ``(N,)`` that index the class names.
        given_splits: Split ``(N,)`` of each image of a folder that is already split; else None.
        ignored: Files that are not used as images.
    """

    root: Path
    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    given_splits: NDArray[np.object_] | None = None
    ignored: tuple[IgnoredFile, ...] = ()

    def untrained_classes(self, split: NDArray[np.object_] | None = None) -> list[str]:
        """Return the classes without a training image.

        Args:
            split: Split ``(N,)`` of each image; by default ``given_splits``. If that is None, too,
                all images are training images.
        """
        if split is None:
            split = self.given_splits
        labels = self.labels if split is None else self.labels[split == "train"]
        return list(map(str, np.delete(self.class_names, labels)))


def similar_names(class_names: Iterable[str]) -> list[str]:
    """Return each group of names that differ only in case, spaces, hyphens or underscores."""
    names = defaultdict(list)
    for name in class_names:
        names[re.sub(r"[\s_-]", "", name.casefold())].append(name)
    return [", ".join(map(repr, similar)) for similar in names.values() if len(similar) > 1]


class Credit(NamedTuple):
    """The author of a photo.

    Args:
        photographer: Name of the photographer.
        url: Page on which the photo was published.
    """

    photographer: str
    url: str


def index_folder(root: str | Path, *, tolerant: bool = False) -> FolderIndex:
    """Index a folder with the classes and images of torchvision's ``ImageFolder``.

    Unlike ``ImageFolder``, it also reads a root that is already split. A root counts as split if
    each of its folders that has images is named like a split (see ``SPLIT_FOLDERS``) and contains
    class folders, and one of them is the training split. Class names that differ only in Unicode
    normalization are one class.

    Args:
        root: A folder with one folder per class, or per split with one folder per class.
        tolerant: Whether to accept classes without images and folders that cannot be read.

    Raises:
        ValueError: There are fewer than two classes, a class without an image to train on, or a
            name that cannot be printed; or it is unclear which folders are classes or splits.
        OSError: A folder cannot be read.
    """
    base = Path(root)
    contents = walk_folder(base, tolerant=tolerant)
    splits = _split_folders(root, contents)
    depth = 2 if splits else 1
    class_of = {}
    for folder in contents.folders:
        parts = folder.split("/")
        if len(parts) == depth and (not splits or parts[0] in splits):
            class_of[folder] = unicodedata.normalize("NFC", parts[-1])
    class_names = sorted(set(class_of.values()))
    _check_class_names(root, class_names, split_folders=sorted(splits))
    images = []
    ignored = []
    for path in contents.images:
        if "/" in path:
            images.append((class_names.index(class_of[_parent(path, depth)]), path))
        else:
            ignored.append(IgnoredFile(path, "an image outside the class folders"))
    for file in contents.ignored:
        # Other files outside the class folders, such as a licence, are not reported.
        if _parent(file.path, depth) in class_of or file.reason != _OTHER_EXTENSION:
            ignored.append(file)
    images.sort()
    given_splits = None
    if splits:
        given_splits = np.array([splits[_parent(path, 1)] for _, path in images], dtype=object)
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
        place = " of the training split" if splits else ""
        raise ValueError(
            f"`root` {root}: no image in the class folder {', '.join(empty)}{place}. Expected "
            f"files that end in {', '.join(IMAGE_EXTENSIONS)}: add some, or remove the folder. "
            f"{summarize_ignored(index.ignored)}".rstrip()
        )
    return index


def _parent(path: str, depth: int) -> str:
    """Return the first ``depth`` parts of a path."""
    return "/".join(path.split("/")[:depth])


def _split_folders(root: str | Path, contents: FolderContents) -> dict[str, str]:
    """Return the split of each split folder in a root; empty if its folders are classes.

    Raises:
        ValueError: It is unclear whether the folders are splits or classes.
    """
    names = [name for name in contents.folders if name.lower() in SPLIT_FOLDERS]
    named = {name: SPLIT_FOLDERS[name.lower()] for name in names}
    # Folders of the root: direct have images directly inside, nested have images in subfolders.
    direct = {_parent(path, 1) for path in contents.images if path.count("/") == 1}
    nested = {_parent(path, 1) for path in contents.images if path.count("/") > 1}
    splits = {name: split for name, split in named.items() if name in direct | nested}
    others = sorted((direct | nested) - splits.keys())
    has_train = "train" in splits.values()
    if others and set(splits.values()) == {"train"} and direct & splits.keys():
        has_train = False  # beside class folders, a folder "train" with images inside is a class
    if not splits or (others and not has_train):
        return {}
    if others:
        problem = (
            f"there are also images in {', '.join(others)}: expected only splits or only classes. "
            "Move these images out of the folder, or rename classes that are named as splits."
        )
    elif not has_train:
        problem = "no train folder has images. Add one, or rename classes that are named as splits."
    elif direct:
        problem = (
            f"there are images without a class folder in {', '.join(sorted(direct))}. Move them "
            "into class folders, or out of the folder (python -m flowers predict classifies "
            "images without a label)."
        )
    else:  # all split folders, also those without images, so that their ignored files are reported
        return named
    raise ValueError(
        f"`root` {root}: {', '.join(splits)} are named as splits (root/<split>/<class>/<image>), "
        f"but {problem}"
    )


def _check_class_names(
    root: str | Path, class_names: Sequence[str], *, split_folders: Sequence[str]
) -> None:
    for name in class_names:
        if not name.isprintable():
            raise ValueError(f"`root` {root}: class {name!r}: expected a name of printable UTF-8")
    if len(class_names) < 2:
        layout = "/".join(["root", *split_folders[:1], "<class>/<image>"])
        raise ValueError(
            f"`root` {root}: expected at least two class folders ({layout}), got "
            f"{class_names or 'none'}. Give the folder that contains the class folders."
        )


def walk_folder(root: Path, *, tolerant: bool = False) -> FolderContents:
    """List a folder with all its subfolders.

    Hidden names (``.git``, ``._x.jpg`` of macOS) and ``SYSTEM_NAMES`` are skipped. A link to a
    folder is not followed if its target is in the root, or contains the root or the link.

    Args:
        root: The folder.
        tolerant: Whether subfolders that cannot be read are listed as ignored, not an error.

    Raises:
        OSError: A folder cannot be read.
    """
    contents = FolderContents()
    real_root = root.resolve()
    # Folders to list, each with the real paths of its parents: a link to these would be a cycle.
    stack: list[tuple[str, frozenset[Path]]] = [("", frozenset())]
    while stack:
        folder, parents = stack.pop()
        try:
            entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        except OSError as error:
            if not (tolerant and folder):
                raise
            contents.ignored.append(IgnoredFile(folder, str(error)))
            continue
        parents |= {(root / folder).resolve()}
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in SYSTEM_NAMES:
                continue
            path = f"{folder}/{entry.name}".removeprefix("/")
            if not _succeeds(entry.is_dir):
                _add_file(contents, path, entry)
            elif entry.is_symlink() and _leads_back(entry, root=real_root, parents=parents):
                reason = "a link that leads back into the folder: not followed"
                contents.ignored.append(IgnoredFile(path, reason))
            else:
                contents.folders.append(path)
                stack.append((path, parents))
    return contents


def _add_file(contents: FolderContents, path: str, entry: os.DirEntry[str]) -> None:
    is_file = _succeeds(entry.is_file)
    is_dead_link = entry.is_symlink() and not is_file
    reason = "a pipe or a device"
    if is_file:
        reason = _OTHER_EXTENSION
    elif is_dead_link:
        reason = "a broken link"
    # A broken link with an image extension is listed as an image, so it is reported as unreadable.
    if entry.name.lower().endswith(IMAGE_EXTENSIONS) and (is_file or is_dead_link):
        contents.images.append(path)
    else:
        contents.ignored.append(IgnoredFile(path, reason))


def _succeeds(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except OSError:  # a link to itself
        return False


def _leads_back(link: os.DirEntry[str], *, root: Path, parents: frozenset[Path]) -> bool:
    target = Path(link.path).resolve()
    return target in parents or target.is_relative_to(root) or root.is_relative_to(target)


def reasons_to_ignore(files: Iterable[IgnoredFile]) -> str:
    """Return each reason with its files; those without an image extension are only counted."""
    extensions: Counter[str] = Counter()
    paths: dict[str, list[str]] = defaultdict(list)
    for file in sorted(files):
        if file.reason == _OTHER_EXTENSION:
            extensions[Path(file.path).suffix or "none"] += 1
        else:
            paths[file.reason].append(file.path)
    reasons = []
    if extensions:
        counts = [f"{extension} {count:,}" for extension, count in extensions.most_common()]
        reasons.append(f"{_OTHER_EXTENSION} ({shortened(counts)})")
    reasons += [f"{reason} ({shortened(paths[reason])})" for reason in sorted(paths)]
    text = "; ".join(reasons)
    if {".heic", ".heif"} & set(map(str.lower, extensions)):
        text += ". Convert .heic and .heif to JPEG, for instance with the package pillow-heif"
    return text


def shortened(items: Sequence[str]) -> str:
    """Return the first eight items and the number of the others, as text."""
    text = printable(", ".join(items[:_MAX_LISTED]))
    if len(items) > _MAX_LISTED:
        text += f" and {len(items) - _MAX_LISTED:,} more"
    return text


def summarize_ignored(files: Sequence[IgnoredFile]) -> str:
    """Return one line with the number of ignored files and the reasons; empty if there are none."""
    if not files:
        return ""
    subject = "1 file is" if len(files) == 1 else f"{len(files):,} files are"
    return f"{subject} ignored: {reasons_to_ignore(files)}"


def find_images(words: Sequence[str], *, option: str) -> tuple[list[str], list[IgnoredFile]]:
    """Return the image files that paths and patterns name, in the order of ``words``.

    Args:
        words: Files, folders (with all subfolders) and patterns such as ``*.jpg``; the files of a
            folder or a pattern are sorted.
        option: Name of the option that ``words`` come from, for error messages.

    Returns:
        The image files, and the ignored files in the given folders, except documents such as .txt
        and .csv that are directly in a given folder.

    Raises:
        FileNotFoundError: There is only one word, and it names no existing file or folder.
        OSError: A folder cannot be read.
        ValueError: There is no image.
    """
    files: list[str] = []
    ignored: list[IgnoredFile] = []
    for word in words:
        path = Path(word).expanduser()
        if not word or (path.exists() and not path.is_dir() and not path.is_file()):
            raise ValueError(f"{option} {word!r}: expected a file, a folder or a pattern")
        if path.is_dir():
            contents = walk_folder(path)
            if not contents.images:
                raise ValueError(
                    f"{option} {word}: expected images ({', '.join(IMAGE_EXTENSIONS)}), got none. "
                    f"{summarize_ignored(contents.ignored)}".rstrip()
                )
            files += map(str, sorted(map(path.joinpath, contents.images)))
            ignored += [file for file in contents.ignored if not _is_top_text(file)]
        elif not path.exists() and glob.has_magic(word):
            matches = glob.glob(str(path), recursive=True)  # noqa: PTH207 (absolute patterns)
            matches = sorted(filter(os.path.isfile, matches))
            if not matches:
                raise ValueError(f"{option} {word}: expected a pattern of images, got no match")
            files += matches
        elif path.exists() or len(words) > 1:
            files.append(str(path))  # predict gives a missing file a row with an error
        else:
            raise FileNotFoundError(
                f"{option} {word}: expected a file, a folder or a pattern, got a name that does "
                "not exist"
            )
    return files, ignored


def _is_top_text(file: IgnoredFile) -> bool:
    has_text = file.path.lower().endswith(_TEXT_EXTENSIONS) and file.reason == _OTHER_EXTENSION
    return has_text and "/" not in file.path


def read_credits(root: Path) -> dict[str, Credit]:
    """Map each path in flower_photos' ``LICENSE.txt`` to its credit; empty without this file."""
    file = root / "LICENSE.txt"
    if not file.is_file():
        return {}
    credits = {}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        for form in _CREDITS:
            if match := form.fullmatch(" ".join(line.split())):
                credits[match["path"]] = Credit(match["photographer"], match["url"])
    return credits
