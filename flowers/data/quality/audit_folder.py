"""The audit of a folder: broken files, duplicates, conflicting labels and other findings."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from flowers.data.image_folder import FolderIndex, index_folder, similar_names
from flowers.data.quality.duplicates import DuplicateRule, Pairs, duplicate_pairs
from flowers.data.quality.image_info import FolderInfo, ImageInfo, read_image_info
from flowers.data.quality.quarantine import QuarantineRow
from flowers.data.splitting.manifest import SPLITS
from flowers.decoding import IMAGE_FORMATS

# Title of each kind of finding, and an explanation that includes how this project treats it.
KINDS = {
    "unreadable": (
        "Files that cannot be decoded",
        "Training stops, unless `on_bad_image` skip or a quarantine list leaves them out.",
    ),
    "empty": (
        "Class folders without an image",
        "Training stops: add images, or remove the folders.",
    ),
    "classes": (
        "Class names that differ only in spelling",
        "Their names differ only in case, spaces, hyphens or underscores: merge the folders.",
    ),
    "contradiction": (
        "Conflicting labels",
        "Duplicates with different labels: at least one label is incorrect, or the image shows "
        "both classes. By default they are trained on, but not evaluated (`contradictions`).",
    ),
    "leak": (
        "Duplicates in two splits",
        "Only one of the images is used: that of the test split, or else of the validation split.",
    ),
    "identical": (
        "Identical files",
        "They weigh twice in training, and stay in one split unless `duplicates` is ignore.",
    ),
    "similar": (
        "Near duplicates",
        "One image resized, recompressed, recoloured, mirrored, turned or slightly cropped, or one "
        "scene a moment later. They stay in one split, unless `duplicates` is exact or ignore.",
    ),
    "tiny": ("Tiny images", "They show too little to learn from, or to evaluate."),
    "ignored": (
        "Ignored files",
        "They are in class folders, but are not used as images. Convert .heic and .heif to JPEG, "
        "for instance with the package pillow-heif.",
    ),
    "format": (
        "Files with an incorrect extension",
        "They are decoded by their content; other programs may fail.",
    ),
    "mode": (
        "Unusual pixels",
        "All are converted to 8-bit RGB: transparency is blended with white, 16 bits (or the bits "
        "in use, if these are 12 or less) are scaled to 8, CMYK is converted by its colour profile "
        "if it has one.",
    ),
    "odd": ("Unusual files", "They are decoded; other programs may misread or reject them."),
    "rotated": (
        "Images with an EXIF orientation",
        "They are decoded upright; programs that ignore EXIF show them rotated.",
    ),
    "animated": ("Files with several images", "The first image is used."),
    "imbalance": (
        "Unequal classes",
        "The accuracy says little about small classes. See `sampler` balanced and "
        "`class_weights` balanced.",
    ),
    "label": (
        "Label issues",
        "Networks that were not trained on these images predict another class for them. Their "
        "number is an estimate (confident learning), and networks make mistakes: look at an image "
        "before you change its label. None of them is on the quarantine list. The most probable "
        "label errors come first.",
    ),
}


class Finding(NamedTuple):
    """A fault of one file, of a pair of files, or of the folder.

    Args:
        kind: A key of ``KINDS``.
        paths: Paths of the files relative to the root: one, two for a pair, none for the folder.
        detail: Description.
        similarity: Similarity of a pair, 1 for identical files.
    """

    kind: str
    paths: tuple[str, ...]
    detail: str
    similarity: float | None = None


@dataclass(frozen=True)
class Audit:
    """The findings in a folder.

    Args:
        root: The folder.
        class_counts: Number of images of each class.
        labels: Class name of each image, by its path.
        findings: In the order of ``KINDS``.
        quarantine: Images to leave out: undecodable or with conflicting labels; of identical files,
            and of duplicates in two splits, all but one.
    """

    root: Path
    class_counts: dict[str, int]
    labels: dict[str, str]
    findings: list[Finding]
    quarantine: list[QuarantineRow]


def audit_folder(
    root: str | Path, *, cache_dir: Path, duplicates: DuplicateRule = "near", min_side: int = 32
) -> Audit:
    """Check every file of a folder.

    Args:
        root: A folder ``root/<class>/<image>`` or ``root/{train,val,test}/<class>/<image>``.
        cache_dir: Folder of the cache.
        duplicates: Images that count as duplicates.
        min_side: Images with a side shorter than this many pixels count as tiny.

    Raises:
        ValueError: The folder has fewer than two classes or no image, or it is unclear which
            folders are classes.
        OSError: The folder cannot be read.
    """
    index = index_folder(root, tolerant=True)
    info = read_image_info(index.root, index.paths, cache_dir=cache_dir)
    names = [index.class_names[label] for label in index.labels]
    counts = Counter(names)
    class_counts = {name: counts[name] for name in index.class_names}
    pairs = duplicate_pairs(info, rule=duplicates, cache_dir=cache_dir)
    findings = list(_duplicates(index, info, pairs))
    for path, image in zip(index.paths, info.images, strict=True):
        findings += _image_findings(path, image, min_side=min_side)
    to_train_on = "" if index.given_splits is None else " in the training split"
    for name in index.untrained_classes():
        findings.append(Finding("empty", (), f"{name}: no image{to_train_on}"))
    for names_of_one_class in similar_names(index.class_names):
        findings.append(Finding("classes", (), names_of_one_class))
    for file in index.ignored:
        findings.append(Finding("ignored", (file.path,), file.reason))
    findings += _imbalance(counts)
    order = list(KINDS)
    findings.sort(key=lambda finding: order.index(finding.kind))
    labels = dict(zip(index.paths, names, strict=True))
    sha256 = dict(zip(index.paths, info.sha256, strict=True))
    return Audit(index.root, class_counts, labels, findings, _quarantine(findings, sha256))


def _duplicates(index: FolderIndex, info: FolderInfo, pairs: Pairs) -> Iterator[Finding]:
    values = zip(pairs.similarity.tolist(), pairs.indices.tolist(), strict=True)
    for value, (first, second) in sorted(values, reverse=True):
        similarity = min(value, 1.0)  # values exceed 1 by rounding errors
        paths = (index.paths[first], index.paths[second])
        kind = "similar"
        detail = f"similarity {similarity:.2f}"
        if info.sha256[first] == info.sha256[second]:
            kind = "identical"
            detail = "identical files"
        if index.labels[first] != index.labels[second]:
            kind = "contradiction"
        elif index.given_splits is not None:
            ranks = [SPLITS.index(index.given_splits[image]) for image in (first, second)]
            if ranks[0] != ranks[1]:
                kind = "leak"
            if ranks[0] < ranks[1]:
                paths = paths[::-1]  # _quarantine keeps the first image, of the later split
        yield Finding(kind, paths, detail, similarity)


def _image_findings(path: str, image: ImageInfo, *, min_side: int) -> Iterator[Finding]:
    if image.error is not None:
        yield Finding("unreadable", (path,), image.error)
        return
    if min(image.width, image.height) < min_side:
        yield Finding("tiny", (path,), f"{image.width} x {image.height} pixels")
    if image.format not in IMAGE_FORMATS.get(Path(path).suffix.lower(), (image.format,)):
        yield Finding("format", (path,), f"a {image.format} file")
    if image.mode not in ("RGB", "L") and image.format != "GIF":  # a GIF always has a palette
        yield Finding("mode", (path,), f"mode {image.mode}")
    if image.orientation != 1:
        yield Finding("rotated", (path,), f"EXIF orientation {image.orientation}")
    if image.notes:
        yield Finding("odd", (path,), image.notes)
    if image.animated and image.format != "MPO":
        yield Finding("animated", (path,), "several images")


def _imbalance(counts: Counter[str]) -> Iterator[Finding]:
    small = min(counts, key=counts.__getitem__)
    large = max(counts, key=counts.__getitem__)
    ratio = counts[large] / counts[small]
    if ratio >= 4:  # the accuracy says little about the smaller class
        images = f"{large} has {counts[large]:,} images, {small} has {counts[small]:,}"
        yield Finding("imbalance", (), f"{images}: {ratio:.1f} times as many")


def _quarantine(findings: list[Finding], sha256: dict[str, str]) -> list[QuarantineRow]:
    """Return one row for each image to leave out, with the reason of its first finding."""
    rows: dict[str, QuarantineRow] = {}
    for finding in findings:
        paths: tuple[str, ...] = ()
        if finding.kind in ("unreadable", "contradiction"):
            paths = finding.paths  # it is unknown which of two labels is correct
        elif finding.kind in ("leak", "identical"):
            paths = finding.paths[1:]  # the first image is not left out
        for path in paths:
            others = [other for other in finding.paths if other != path]
            reason = " ".join((finding.kind, finding.detail, *others))
            rows.setdefault(path, QuarantineRow(path, sha256[path], reason))
    return list(rows.values())
