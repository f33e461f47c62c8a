"""Manifests: CSV files with the split of every image."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowers.csv_files import csv_text, read_csv
from flowers.data.image_folder import shortened

SPLITS = ("train", "val", "test")
SKIPPED = "skipped"
QUARANTINED = "quarantined"


class ManifestRow(NamedTuple):
    """An image of a manifest: path relative to the root, class name, checksum, split."""

    path: str
    label: str
    sha256: str
    split: str


def manifest_text(rows: Sequence[ManifestRow]) -> str:
    """Return a manifest as CSV, with a header."""
    return csv_text(ManifestRow._fields, rows)


def read_manifest(file: str | Path) -> list[ManifestRow]:
    """Read a manifest.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is no manifest.
    """
    header, lines = read_csv(Path(file))
    if header != list(ManifestRow._fields) or set(map(len, lines)) != {len(header)}:
        raise ValueError(
            f"`manifest` {file}: expected the columns {', '.join(ManifestRow._fields)}, got "
            f"{', '.join(header)}. Give the manifest.csv of a run folder."
        )
    paths, _, _, splits = zip(*lines, strict=True)
    if repeated := [path for path, count in Counter(paths).items() if count > 1]:
        examples = ", ".join(repeated[:6])
        raise ValueError(f"`manifest` {file}: {len(repeated)} paths are repeated: {examples}")
    expected = (*SPLITS, SKIPPED, QUARANTINED)
    if unknown := ", ".join(sorted(set(splits).difference(expected))):
        names = ", ".join(expected)
        raise ValueError(f"`manifest` {file}: expected the splits {names}, got {unknown}")
    return [ManifestRow(*line) for line in lines]


def split_of_manifest(file: str, *, files: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Map the path of each image in a manifest to its split; images in no split are left out.

    Args:
        file: The manifest.
        files: Class name and checksum of each image of the folder, by its path.

    Raises:
        OSError: The manifest cannot be read.
        ValueError: The file is not a manifest, or an image is missing, or has other content or
            another label than in the manifest.
    """
    used = [row for row in read_manifest(file) if row.split in SPLITS]
    if changed := [row.path for row in used if files.get(row.path) != (row.label, row.sha256)]:
        raise ValueError(
            f"`manifest`: {len(changed)} of its {len(used)} images are missing under `root` or "
            f"differ in content or label: {shortened(changed)}. Give the folder that the manifest "
            "was written for, or leave `manifest` out for a new split."
        )
    return {row.path: row.split for row in used}


def fingerprints(rows: Sequence[ManifestRow]) -> dict[str, str]:
    """Return a fingerprint of all contents and labels, and one that also includes the splits.

    Paths are not included.
    """
    _, labels, sha256, splits = zip(*rows, strict=True)
    return {
        "data_fingerprint": _digest(labels, sha256),
        "split_fingerprint": _digest(labels, sha256, splits),
    }


def _digest(*columns: Sequence[str]) -> str:
    lines = sorted(map(" ".join, zip(*columns, strict=True)))
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def content_numbers(sha256: Iterable[str]) -> NDArray[np.int64]:
    """Return the first 60 bits of each checksum as an integer ``(N,)``."""
    return np.array([int(checksum[:15], 16) for checksum in sha256], dtype=np.int64)
