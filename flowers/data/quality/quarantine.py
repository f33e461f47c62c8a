"""The list of files that a person, or the audit, wants left out."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


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
    writer.writerows(rows)
    return text.getvalue()


def in_quarantine(
    file: str | Path, *, paths: Sequence[str], sha256: Sequence[str]
) -> tuple[NDArray[np.int64], list[str]]:
    """Return the indices of the images on a list, and the paths that match no image.

    Args:
        file: The list: CSV with at least the columns ``path`` and ``sha256``.
        paths: Paths of the N images.
        sha256: Their checksums; a file that was mended since has another one and is free again.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is no such list.
    """
    try:  # utf-8-sig: what spreadsheets write begins with a mark
        text = Path(file).read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise type(error)(f"`quarantine` {file}: {error.strerror}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns, lines = reader.fieldnames or (), [*reader]
    if (
        not {"path", "sha256"} <= set(columns) or "split" in columns
    ):  # a manifest would leave out everything
        raise ValueError(
            f"`quarantine` {file}: expected a CSV file with the columns path and sha256, as python "
            f"-m flowers audit writes it, got {', '.join(columns) or 'an empty file'}"
        )
    position = {path: index for index, path in enumerate(paths)}
    named: set[int] = set()
    others: list[str] = []
    for line in lines:
        index = position.get(line["path"])
        if index is not None and line["sha256"] in ("", None, sha256[index]):
            named.add(index)
        else:
            others.append(line["path"] or "a line without a path")
    return np.array(sorted(named), dtype=np.int64), others
