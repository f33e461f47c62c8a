"""Quarantine lists: CSV files with the images to leave out."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowers.csv_files import csv_text, read_csv
from flowers.data.image_folder import FolderIndex
from flowers.data.quality.image_info import FolderInfo


class QuarantineRow(NamedTuple):
    """A file to leave out: path relative to the root, checksum (empty: any content), reason."""

    path: str
    sha256: str
    reason: str


def quarantine_text(rows: Sequence[QuarantineRow]) -> str:
    """Return a quarantine list as CSV, with a header."""
    return csv_text(QuarantineRow._fields, rows)


def quarantined_images(
    index: FolderIndex, info: FolderInfo, *, quarantine: str | None
) -> tuple[NDArray[np.bool_], list[str]]:
    """Return which images are in quarantine ``(N,)``, and the listed paths that match no image.

    Args:
        index: The folder.
        info: Image info; a listed file whose checksum has changed (it was repaired) is used again.
        quarantine: The list: CSV with at least the columns ``path`` and ``sha256``.

    Raises:
        OSError: The list cannot be read.
        ValueError: The file is not a quarantine list.
    """
    quarantined = np.zeros(len(index.paths), dtype=bool)
    unknown: list[str] = []
    if quarantine is None:
        return quarantined, unknown
    try:
        columns, lines = read_csv(Path(quarantine))
    except OSError as error:
        raise type(error)(f"`quarantine` {quarantine}: {error.strerror}") from error
    # A manifest has these columns and a split; as a quarantine list it would leave out all images.
    if not {"path", "sha256"} <= set(columns) or "split" in columns:
        raise ValueError(
            f"`quarantine` {quarantine}: expected a CSV file with the columns path and sha256, as "
            f"python -m flowers audit writes it, got {', '.join(columns) or 'an empty file'}"
        )
    position = {path: number for number, path in enumerate(index.paths)}
    for line in lines:
        row = dict(zip(columns, line, strict=False))
        number = position.get(row.get("path", ""))
        if number is not None and row.get("sha256", "") in ("", info.sha256[number]):
            quarantined[number] = True
        else:
            unknown.append(row.get("path") or "a line without a path")
    return quarantined, unknown
