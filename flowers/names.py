"""Names of files and classes as text for a terminal and for a spreadsheet."""

from __future__ import annotations

# A spreadsheet takes a cell that begins with one of these for a formula; the apostrophe marks text.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


def printable(text: str) -> str:
    """Return a text in one line, with escape sequences in place of control characters."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def csv_cell(name: str, *reserved: str) -> str:
    """Return a name as a cell, after an apostrophe if it is reserved or looks like a formula."""
    return f"'{name}" if name.startswith(_FORMULA) or name in reserved else name


def csv_name(cell: str, *reserved: str) -> str:
    """Return the name in a cell that ``csv_cell`` made."""
    name = cell[1:]
    return name if cell == csv_cell(name, *reserved) else cell
