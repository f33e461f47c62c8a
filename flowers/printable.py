"""Names of files as text for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return a text in one line, with escape sequences in place of control characters."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
