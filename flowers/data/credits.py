"""Who took the photos, as the ``LICENSE.txt`` of flower_photos says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

# daisy/7568630428_8cf0fc16ff_n.jpg CC-BY by A Guy Taking Pictures - https://www.flickr.com/photos/.../7568630428/
_LINE = re.compile(r"(?P<path>\S+/\S+) CC-BY by (?P<photographer>.*) - (?P<url>https?://\S+)")


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
    lines = map(_LINE.fullmatch, file.read_text(encoding="utf-8", errors="replace").splitlines())
    return {line["path"]: Credit(line["photographer"].strip(), line["url"]) for line in lines if line}
