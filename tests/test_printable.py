"""Names of files as text for a terminal."""

from __future__ import annotations

from flowers.printable import printable


def test_control_characters_are_printed_as_escapes():
    assert printable("a\x1b[31m\nb\udcff\u202ec") == r"a\x1b[31m\nb\udcff\u202ec"
    for name in ("Gänseblümchen 雏菊.jpg", "9.41.00\u202fAM.png", "a\u3000b.jpg"):
        assert printable(name) == name
