"""Text with names of files, made safe to print in a terminal."""

from unicodedata import category


def printable(text: str) -> str:
    """Return a text as one line, with control characters escaped as ``repr`` does."""
    characters = []
    for char in text:
        # isprintable is false for all spaces but U+0020, such as no-break spaces.
        if char.isprintable() or category(char) == "Zs":
            characters.append(char)
        else:
            characters.append(repr(char)[1:-1])
    return "".join(characters)
