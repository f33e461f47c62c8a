"""CSV files: lists of images and tables of predictions."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


def csv_text(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a header and rows as CSV."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    return text.getvalue()


def read_csv(file: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header of a CSV file and its other rows, without empty ones.

    A spreadsheet program may have saved it, with a byte-order mark and other separators: the most
    frequent one of comma, semicolon and tab in the header counts.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not CSV.
    """
    with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as opened:
        delimiter = max(",;\t", key=opened.readline().count)
        opened.seek(0)
        try:
            rows = [*filter(any, csv.reader(opened, delimiter=delimiter))] or [[]]
        except csv.Error as error:
            raise ValueError(f"{file}: expected a CSV file, {error}") from error
    return rows[0], rows[1:]
