"""Manifests: CSV files with the split of every image."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flowers.names import csv_cell, csv_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

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
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(ManifestRow._fields)
    writer.writerows(map(csv_cell, row) for row in rows)
    return text.getvalue()


def read_manifest(file: str | Path) -> list[ManifestRow]:
    """Read a manifest.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is no manifest.
    """
    file = Path(file)
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as opened:
        header, *lines = [*csv.reader(opened)] or [[]]
    num_columns = len(ManifestRow._fields)
    rows = [ManifestRow(*map(csv_name, line)) for line in lines if len(line) == num_columns]
    if header != list(ManifestRow._fields) or len(rows) < len(lines) or not rows:
        raise ValueError(
            f"`manifest` {file}: expected the columns {', '.join(ManifestRow._fields)}, got "
            f"{', '.join(header)}. Give the manifest.csv of a run folder."
        )
    counts = Counter(row.path for row in rows)
    repeated = [path for path in counts if counts[path] > 1]
    if repeated:
        raise ValueError(
            f"`manifest` {file}: {len(repeated)} paths stand in it twice: {', '.join(repeated[:6])}"
        )
    expected = (*SPLITS, SKIPPED, QUARANTINED)
    unknown = sorted({row.split for row in rows}.difference(expected))
    if unknown:
        raise ValueError(
            f"`manifest` {file}: expected a split of {', '.join(expected)}, got "
            f"{', '.join(unknown)}"
        )
    return rows


def split_of_manifest(
    rows: Sequence[ManifestRow], *, files: Mapping[str, tuple[str, str]]
) -> dict[str, str]:
    """Return the split of each file of a manifest by its path, without those left out.

    Args:
        rows: The manifest.
        files: Class name and checksum of each file, by its path.

    Raises:
        ValueError: A file is missing, has another content or another label than in the manifest.
    """
    used = [row for row in rows if row.split in SPLITS]
    changed = [row.path for row in used if files.get(row.path) != (row.label, row.sha256)]
    if changed:
        listing = ", ".join(changed[:5])
        if len(changed) > 5:
            listing += " ..."
        raise ValueError(
            f"`manifest`: {len(changed)} of its {len(used)} images are missing under `root` or "
            f"differ in content or label: {listing}. Give the folder that the manifest was written "
            "for, or leave `manifest` out for a new split."
        )
    return {row.path: row.split for row in used}


def fingerprints(rows: Sequence[ManifestRow]) -> dict[str, str]:
    """Return a checksum of the images and labels, and one of their splits too, without paths."""
    return {
        "data_fingerprint": _digest(f"{row.label} {row.sha256}" for row in rows),
        "split_fingerprint": _digest(f"{row.label} {row.sha256} {row.split}" for row in rows),
    }


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest()


def content_numbers(rows: Iterable[ManifestRow]) -> NDArray[np.int64]:
    """Return a number ``(N,)`` for the content of each image: the first 60 bits of its checksum."""
    return np.array([int(row.sha256[:15], 16) for row in rows], dtype=np.int64)


def compare_fingerprints(mine: Mapping[str, str], stored: Mapping[str, str]) -> str:
    """Return a warning if the images are not those of a checkpoint; otherwise nothing.

    Args:
        mine: Fingerprints of the data at hand.
        stored: Fingerprints in the checkpoint.

    Raises:
        ValueError: The same images are split in another way, so training images would be evaluated.
    """
    if mine["data_fingerprint"] != stored["data_fingerprint"]:
        return "holds other images than those that the checkpoint's run had"
    if mine["split_fingerprint"] != stored["split_fingerprint"]:
        raise ValueError(
            "--data: the images are those the checkpoint was trained on, but they are split in "
            "another way, so images it was trained on would be evaluated. Expected its split: "
            "leave out all options of the split (folds, group_by, duplicates, contradictions, "
            "quarantine too), or give the manifest.csv of its run folder with `manifest` (and "
            "`duplicates` ignore, if it has duplicates in two splits)."
        )
    return ""
