"""Who took the photos, as the ``LICENSE.txt`` of flower_photos says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

# The two forms of flower_photos' own file; a few lines have two spaces in a row.
_LINES = (
    re.compile(r"(?P<path>\S+/\S+) CC-BY by (?P<photographer>.*) - (?P<url>https?://\S+)"),
    re.compile(r"(?P<path>\S+/\S+) CC-BY (?P<url>https?://\S+) - by (?P<photographer>.*)"),
)


class Credit(NamedTuple):
    """Whom to thank for a photo.

    Args:
        photographer: The name.
        url: Where the photo was published.
    """

    photographer: str
    url: str


def read_credits(root: Path) -> dict[str, Credit]:
    """Return the credit of each photo, by its path, as ``root/LICENSE.txt`` names them; empty without that file."""
    file = root / "LICENSE.txt"
    if not file.is_file():
        return {}
    lines = [
        " ".join(line.split())
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
    ]
    found = [match for line in lines for form in _LINES if (match := form.fullmatch(line))]
    return {match["path"]: Credit(match["photographer"], match["url"]) for match in found}
