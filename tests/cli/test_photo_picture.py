from __future__ import annotations

import io

from PIL import Image

from flowers.cli.photo_picture import photo_picture


def test_a_thumbnail_has_its_photographer_and_a_link_to_the_file(tmp_path):
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (600, 300), "red").save(tmp_path / "cat" / "a.png")
    credit = "cat/a.png CC-BY by Anna - https://example.org/a"
    (tmp_path / "LICENSE.txt").write_text(f"{credit}\n")
    picture = photo_picture(tmp_path, "cat/a.png")
    assert Image.open(io.BytesIO(picture.jpeg)).size == (240, 120)
    assert (picture.caption, picture.credit) == ("cat/a.png", "Anna")
    assert picture.link == (tmp_path / "cat" / "a.png").as_uri()


def test_of_a_missing_or_broken_photo_there_is_only_the_path(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    for path in ("broken.jpg", "missing.jpg"):
        picture = photo_picture(tmp_path, path)
        assert (picture.jpeg, picture.caption, picture.link) == (b"", path, "")
