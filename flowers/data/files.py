"""Images wherever they lie: the walk through a folder, and what a person means by a path."""

from __future__ import annotations

import glob
import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flowers.decoding import IMAGE_EXTENSIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# Names, in lower case, that operating systems, network drives, archives and this package's own runs
# put among photos. Together with hidden names they are never photos, never classes, never reported.
SYSTEM_NAMES = frozenset(
    {
        "#recycle",
        "$recycle.bin",
        "@eadir",
        "@recycle",
        "__macosx",
        "desktop.ini",
        "lightning_logs",
        "lost+found",
        "system volume information",
        "thumbs.db",
    }
)
_OTHER_ENDING = f"name does not end in {', '.join(IMAGE_EXTENSIONS)}"
_HEIC_EXTENSIONS = (".heic", ".heif")
# Such files lie beside photos to explain them, or are what predict wrote there.
_TEXT_EXTENSIONS = (".csv", ".html", ".json", ".md", ".pdf", ".txt")
# Beyond, a line is longer than anybody reads.
_MAX_LISTED = 8


class IgnoredFile(NamedTuple):
    """A file that no image is taken from: its path, relative to the folder, and why."""

    path: str
    reason: str


@dataclass
class FolderContents:
    """What a folder holds. All paths are relative to it, with forward slashes.

    Args:
        folders: The folders inside, at any depth.
        images: Files with the ending of an image, at any depth.
        ignored: All other files, links that are not followed, and folders that cannot be read.
    """

    folders: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    ignored: list[IgnoredFile] = field(default_factory=list)


def walk_folder(root: Path, *, tolerant: bool = False) -> FolderContents:
    """List a folder with all folders inside.

    Hidden names (``.git``, macOS' ``._x.jpg``) and ``SYSTEM_NAMES`` are left out. A link is
    followed only where it leads out of the root and to no folder above it, so none loops.

    Args:
        root: The folder.
        tolerant: Whether folders that cannot be read are listed as ignored and do not raise.

    Raises:
        OSError: A folder cannot be read.
    """
    contents = FolderContents()
    inside = root.resolve()
    # Each folder with the real paths of those above it, which a link must not lead to.
    waiting: list[tuple[str, frozenset[Path]]] = [("", frozenset())]
    while waiting:
        folder, above = waiting.pop()
        try:
            entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        except OSError as error:
            if not (tolerant and folder):
                raise
            contents.ignored.append(IgnoredFile(folder, str(error)))
            continue
        above |= {(root / folder).resolve()}
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in SYSTEM_NAMES:
                continue
            path = f"{folder}/{entry.name}" if folder else entry.name
            if not _leads_to(entry.is_dir):
                _add_file(contents, path, entry)
            elif entry.is_symlink() and _leads_back(entry, inside=inside, above=above):
                reason = "a link that leads back into the folder: not followed"
                contents.ignored.append(IgnoredFile(path, reason))
            else:
                contents.folders.append(path)
                waiting.append((path, above))
    return contents


def _add_file(contents: FolderContents, path: str, entry: os.DirEntry[str]) -> None:
    is_image = entry.name.lower().endswith(IMAGE_EXTENSIONS)
    is_file = _leads_to(entry.is_file)
    is_dead_link = not is_file and entry.is_symlink()
    if is_image and (is_file or is_dead_link):  # a dead link is an image that cannot be read
        contents.images.append(path)
    elif is_file:
        contents.ignored.append(IgnoredFile(path, _OTHER_ENDING))
    elif is_dead_link:
        contents.ignored.append(IgnoredFile(path, "a link to nothing"))
    else:
        contents.ignored.append(IgnoredFile(path, "a pipe or a device"))


def _leads_to(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except OSError:  # a link to itself
        return False


def _leads_back(link: os.DirEntry[str], *, inside: Path, above: frozenset[Path]) -> bool:
    target = Path(link.path).resolve()
    return target in above or target.is_relative_to(inside) or inside.is_relative_to(target)


def has_other_ending(file: IgnoredFile) -> bool:
    """Return whether a file is ignored for nothing but the ending of its name."""
    return file.reason == _OTHER_ENDING


def reasons_to_ignore(files: Iterable[IgnoredFile]) -> str:
    """Return why files are ignored: how many have which ending, and the paths where it is not the ending."""
    endings: Counter[str] = Counter()
    paths: dict[str, list[str]] = defaultdict(list)
    for file in sorted(files):
        if has_other_ending(file):
            endings[Path(file.path).suffix or "none"] += 1
        else:
            paths[file.reason].append(file.path)
    reasons = []
    if endings:
        counts = [f"{ending} {count:,}" for ending, count in endings.most_common()]
        reasons.append(f"{_OTHER_ENDING} ({shortened(counts)})")
    reasons += [f"{reason} ({shortened(paths[reason])})" for reason in sorted(paths)]
    text = "; ".join(reasons)
    if any(ending.lower() in _HEIC_EXTENSIONS for ending in endings):
        text += ". Convert .heic and .heif to JPEG, for instance with the package pillow-heif"
    return text


def shortened(items: Sequence[str]) -> str:
    """Return a list as words: the first eight, and how many more there are."""
    more = len(items) - _MAX_LISTED
    return ", ".join(items[:_MAX_LISTED]) + (f" and {more:,} more" if more > 0 else "")


def summarize_ignored(files: Sequence[IgnoredFile]) -> str:
    """Return one line that counts ignored files by reason and ending; empty where there are none."""
    if not files:
        return ""
    subject = "1 file is" if len(files) == 1 else f"{len(files):,} files are"
    return f"{subject} ignored: {reasons_to_ignore(files)}"


def find_images(words: Sequence[str], *, option: str) -> tuple[list[str], list[IgnoredFile]]:
    """Return the files that some words mean, in their order, those of a folder or a pattern sorted.

    Args:
        words: Files, folders (walked with all folders inside) and patterns as ``*.jpg``.
        option: Where they come from, for errors.

    Returns:
        The files, and what is ignored in the folders, but for texts at their top.

    Raises:
        FileNotFoundError: There is no such file or folder, and only one was named.
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
                reasons = f". {summarize_ignored(contents.ignored)}" if contents.ignored else ""
                raise ValueError(
                    f"{option} {word}: expected images ({', '.join(IMAGE_EXTENSIONS)}), found none{reasons}"
                )
            files += map(str, sorted(path / image for image in contents.images))
            ignored += [file for file in contents.ignored if not _accompanies(file)]
        elif not path.exists() and glob.has_magic(word):
            matches = sorted(
                file for file in glob.glob(str(path), recursive=True) if Path(file).is_file()
            )  # noqa: PTH207
            if not matches:
                raise ValueError(
                    f"{option} {word}: expected a pattern that some images match, there are none"
                )
            files += matches
        elif (
            path.exists() or len(words) > 1
        ):  # of several, one that is missing gets its error in its row
            files.append(str(path))
        else:
            raise FileNotFoundError(
                f"{option} {word}: expected a file, a folder or a pattern, there is none"
            )
    return files, ignored


def _accompanies(file: IgnoredFile) -> bool:
    return (
        "/" not in file.path
        and file.path.lower().endswith(_TEXT_EXTENSIONS)
        and has_other_ending(file)
    )
