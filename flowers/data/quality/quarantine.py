"""Quarantine lists: CSV files with the images to leave out."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flowers.names import csv_cell, csv_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from flowers.data.image_folder import FolderIndex
    from flowers.data.quality.image_info import FolderInfo


class QuarantineRow(NamedTuple):
    """A file to leave out: path relative to the root, checksum (empty: any content), reason."""

    path: str
    sha256: str
    reason: str


def quarantine_text(rows: Sequence[QuarantineRow]) -> str:
    """Return a quarantine list as CSV, with a header."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(QuarantineRow._fields)
    writer.writerows(map(csv_cell, row) for row in rows)
    return text.getvalue()


def quarantined_images(
    index: FolderIndex, info: FolderInfo, *, quarantine: str | None
) -> tuple[NDArray[np.int64], list[str]]:
    """Return the indices of the images in quarantine, and the listed paths that match no image.

    Args:
        index: The folder.
        info: Image info; a file that was repaired since has another checksum and is used again.
        quarantine: The list: CSV with at least the columns ``path`` and ``sha256``.

    Raises:
        OSError: The list cannot be read.
        ValueError: The file is not a quarantine list.
    """
    if quarantine is None:
        return np.empty(0, dtype=np.int64), []
    try:  # utf-8-sig: what spreadsheets write begins with a mark
        text = Path(quarantine).read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise type(error)(f"`quarantine` {quarantine}: {error.strerror}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = reader.fieldnames or ()
    # A manifest, which has a split too, would leave out everything.
    if not {"path", "sha256"} <= set(columns) or "split" in columns:
        raise ValueError(
            f"`quarantine` {quarantine}: expected a CSV file with the columns path and sha256, as "
            f"python -m flowers audit writes it, got {', '.join(columns) or 'an empty file'}"
        )
    position = {path: number for number, path in enumerate(index.paths)}
    quarantined: set[int] = set()
    unknown = []
    for line in reader:
        number = position.get(csv_name(line["path"] or ""))
        if number is not None and line["sha256"] in ("", None, info.sha256[number]):
            quarantined.add(number)
        else:
            unknown.append(line["path"] or "a line without a path")
    return np.array(sorted(quarantined), dtype=np.int64), unknown
