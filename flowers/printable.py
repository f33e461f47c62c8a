"""Names of files as text for a terminal."""

from unicodedata import category


def printable(text: str) -> str:
    """Return a text in one line, with escape sequences in place of control characters."""
    characters = []
    for char in text:
        if char.isprintable() or category(char) == "Zs":  # also other spaces
            characters.append(char)
        else:
            characters.append(repr(char)[1:-1])
    return "".join(characters)
