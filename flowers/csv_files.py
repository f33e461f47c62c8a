"""CSV files: lists of images and tables of predictions."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

# Spreadsheets evaluate a cell that begins with one of these as a formula, unless it begins with an
# apostrophe. A name that begins with an apostrophe gets a second one, which csv_name removes.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


def csv_cell(name: str, *reserved: str) -> str:
    """Return the cell of a name: a reserved or formula-like name gets an apostrophe in front."""
    return f"'{name}" if name.startswith(_FORMULA) or name in reserved else name


def csv_name(cell: str, *reserved: str) -> str:
    """Return the name in a cell that ``csv_cell`` made."""
    name = cell[1:]
    return name if cell == csv_cell(name, *reserved) else cell


def csv_text(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a header and rows of names as CSV."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *(map(csv_cell, row) for row in rows)])
    return text.getvalue()


def read_csv(file: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and the other rows of a CSV file, as names; empty rows are skipped.

    The file may come from a spreadsheet program, with a byte-order mark and another delimiter. The
    delimiter is a comma if the file begins with ``path,``; otherwise the most frequent of comma,
    semicolon and tab in the first line.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is not valid CSV.
    """
    with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as opened:
        line = opened.readline()
        opened.seek(0)
        delimiter = "," if line.startswith("path,") else max(",;\t", key=line.count)
        try:
            header, *rows = [*filter(any, csv.reader(opened, delimiter=delimiter))] or [[]]
        except csv.Error as error:
            raise ValueError(f"{file}: expected a CSV file ({error})") from error
    return header, [list(map(csv_name, row)) for row in rows]
