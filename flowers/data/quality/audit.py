"""What is wrong with a folder of images before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flowers.data.image_folder import FolderIndex, index_folder
from flowers.data.quality.duplicates import DuplicateRule, duplicate_pairs
from flowers.data.quality.image_info import FolderFacts, ImageFacts, read_facts
from flowers.data.quality.quarantine import QuarantineRow
from flowers.data.splitting.manifest import SPLITS
from flowers.decoding import IMAGE_FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Below this, the smallest class has a quarter of what the largest has: accuracy says little about
# it any more.
_IMBALANCE = 4


class Kind(NamedTuple):
    """A kind of finding.

    Args:
        title: Its title.
        meaning: What it means, and how this project treats it.
    """

    title: str
    meaning: str


KINDS = {
    "unreadable": Kind(
        "Files that cannot be decoded",
        "Training stops, unless --data.on_bad_image skip or a quarantine list leaves them out.",
    ),
    "empty": Kind(
        "Class folders without an image", "Training stops: add images, or remove the folders."
    ),
    "contradiction": Kind(
        "Conflicting labels",
        "Duplicates with different labels: at least one label is incorrect, or the image shows "
        "both classes. They are only trained on, unless --data.contradictions is given.",
    ),
    "leak": Kind(
        "Duplicates in two splits",
        "Only one of the images is used: that of the test split, or else of the validation split.",
    ),
    "identical": Kind(
        "Identical files",
        "They have twice the weight in training. They always stay in one split.",
    ),
    "similar": Kind(
        "Near duplicates",
        "Images that are resized, recompressed, recoloured, mirrored, turned or slightly cropped, "
        "or taken a moment later. They stay in one split, unless --data.duplicates exact.",
    ),
    "tiny": Kind("Tiny images", "They show too little to learn from, or to evaluate."),
    "ignored": Kind(
        "Ignored files",
        "They are in class folders, but are not used as images. Convert .heic and .heif to JPEG, "
        "for instance with the package pillow-heif.",
    ),
    "format": Kind(
        "Files with the wrong extension",
        "They are decoded by their content; other programs may fail.",
    ),
    "mode": Kind(
        "Unusual pixels",
        "All are converted to 8-bit RGB: transparency is blended with white, 16 bits are scaled to "
        "8, CMYK is converted by its colour profile if it has one.",
    ),
    "rotated": Kind(
        "Images with an EXIF orientation",
        "They are decoded upright; programs that ignore EXIF show them rotated.",
    ),
    "animated": Kind("Files with several images", "The first image is used."),
    "imbalance": Kind(
        "Unequal classes",
        "The accuracy says little about small classes. See --data.sampler balanced and "
        "--model.class_weights balanced.",
    ),
}


class Finding(NamedTuple):
    """A finding.

    Args:
        kind: A key of ``KINDS``.
        paths: Its files, relative to the root; two of them are a pair.
        detail: Description.
        similarity: Similarity of a pair, 1 for identical files.
    """

    kind: str
    paths: tuple[str, ...]
    detail: str
    similarity: float | None = None


@dataclass(frozen=True)
class Audit:
    """What was found in a folder.

    Args:
        root: The folder.
        class_counts: Number of images of each class.
        labels: Class name of each image, by its path.
        findings: In the order of ``KINDS``.
        quarantine: Images better left out: undecodable, contradicting, and copies of others.
    """

    root: Path
    class_counts: dict[str, int]
    labels: dict[str, str]
    findings: list[Finding]
    quarantine: list[QuarantineRow]


def audit_folder(
    root: str | Path, *, cache_dir: Path, duplicates: DuplicateRule = "near", min_side: int = 32
) -> Audit:
    """Look at every file of a folder.

    Args:
        root: A folder ``root/<class>/<image>`` or ``root/{train,val,test}/<class>/<image>``.
        cache_dir: Folder of the cache.
        duplicates: What counts as the same picture.
        min_side: An image with a shorter side is tiny, in pixels.

    Raises:
        ValueError: The folder has no two classes of images, or it cannot be told which folders are
            classes.
        OSError: The folder cannot be read.
    """
    index = index_folder(root, tolerant=True)
    facts = read_facts(index.root, index.paths, cache_dir=cache_dir)
    labels = {
        path: index.class_names[label]
        for path, label in zip(index.paths, index.labels, strict=True)
    }
    counts = Counter(labels.values())
    class_counts = {name: counts[name] for name in index.class_names}
    to_train_on = "" if index.given_splits is None else " in the training split"
    found = [
        *_copies(index, facts, rule=duplicates, cache_dir=cache_dir),
        *(
            finding
            for path, image in zip(index.paths, facts.images, strict=True)
            for finding in _oddities(path, image)
        ),
        *_tiny(index, facts, min_side=min_side),
        *(
            Finding("empty", (), f"{name}: no image{to_train_on}")
            for name in index.untrained_classes()
        ),
        *(Finding("ignored", (file.path,), file.reason) for file in index.ignored),
        *_imbalance(class_counts),
    ]
    order = [*KINDS]
    found.sort(key=lambda finding: order.index(finding.kind))
    sha256 = dict(zip(index.paths, facts.sha256, strict=True))
    return Audit(index.root, class_counts, labels, found, [*_quarantine(found, sha256)])


def _copies(
    index: FolderIndex, facts: FolderFacts, *, rule: DuplicateRule, cache_dir: Path
) -> Iterator[Finding]:
    pairs = duplicate_pairs(facts.sha256, facts.thumbnails, rule=rule, cache_dir=cache_dir)
    ranks = np.zeros(len(index.paths), dtype=np.int64)
    if index.given_splits is not None:
        ranks = np.array([SPLITS.index(split) for split in index.given_splits])
    by_similarity = sorted(
        zip(pairs.similarity.tolist(), pairs.indices.tolist(), strict=True), reverse=True
    )
    for value, (first, second) in by_similarity:
        identical = facts.images[first].sha256 == facts.images[second].sha256
        same_label = index.labels[first] == index.labels[second]
        kind = ("identical" if identical else "similar") if same_label else "contradiction"
        paths = (index.paths[first], index.paths[second])
        if same_label and ranks[first] != ranks[second]:
            kind = "leak"
            if ranks[first] < ranks[second]:
                paths = paths[::-1]  # the later split first: that image stays
        similarity = min(value, 1.0)  # a rounding error above
        detail = "identical files" if identical else f"similarity {similarity:.2f}"
        yield Finding(kind, paths, detail, similarity)


def _tiny(index: FolderIndex, facts: FolderFacts, *, min_side: int) -> Iterator[Finding]:
    for path, image in zip(index.paths, facts.images, strict=True):
        if image.error is None and min(image.width, image.height) < min_side:
            yield Finding("tiny", (path,), f"{image.width} x {image.height} pixels")


def _oddities(path: str, image: ImageFacts) -> Iterator[Finding]:
    if image.error is not None:
        yield Finding("unreadable", (path,), image.error)
        return
    if image.format not in IMAGE_FORMATS.get(Path(path).suffix.lower(), (image.format,)):
        yield Finding("format", (path,), f"a {image.format} file")
    if image.mode not in ("RGB", "L") and image.format != "GIF":  # a GIF always has a palette
        yield Finding("mode", (path,), f"mode {image.mode}")
    if image.orientation != 1:
        yield Finding("rotated", (path,), f"EXIF orientation {image.orientation}")
    if image.frames > 1 and image.format != "MPO":
        yield Finding("animated", (path,), f"{image.frames} images")


def _imbalance(class_counts: dict[str, int]) -> Iterator[Finding]:
    class_counts = {name: count for name, count in class_counts.items() if count}
    small, large = (pick(class_counts, key=class_counts.__getitem__) for pick in (min, max))
    if class_counts[large] >= _IMBALANCE * class_counts[small]:
        ratio = class_counts[large] / class_counts[small]
        counts = f"{large} has {class_counts[large]:,} images, {small} has {class_counts[small]:,}"
        yield Finding("imbalance", (), f"{counts}: {ratio:.1f} times as many")


def _quarantine(found: Iterable[Finding], sha256: dict[str, str]) -> Iterator[QuarantineRow]:
    """Yield each image to leave out once, with the first reason."""
    seen: set[str] = set()
    for finding in found:
        # Of duplicates the first stays; of two labels nobody knows the right one.
        paths = {
            "unreadable": finding.paths,
            "contradiction": finding.paths,
            "leak": finding.paths[1:],
            "identical": finding.paths[1:],
        }
        for path in paths.get(finding.kind, ()):
            if path not in seen:
                seen.add(path)
                other = ", ".join(name for name in finding.paths if name != path)
                yield QuarantineRow(
                    path,
                    sha256[path],
                    " ".join(filter(None, (finding.kind, finding.detail, other))),
                )
