from __future__ import annotations

from pathlib import Path

import pytest

from flowers.data import read_credits

PHOTOS = Path(__file__).parents[2] / "data" / "flower_photos"


def test_the_credits_of_each_photo_are_read(tmp_path):
    (tmp_path / "LICENSE.txt").write_text(
        "The photographers are listed below.\n\n"
        "daisy/1_n.jpg CC-BY by A Guy - Taking Pictures - https://example.org/photos/1/\n"
        'roses/2.jpg CC-BY by Bùi "Linh" - https://example.org/photos/2/\n'
        "roses/4.jpg CC-BY https://example.org/photos/4/ -  by Sherry's  Rose Cottage\n"
        "roses/3.jpg by nobody\n",
        encoding="utf-8",
    )
    assert read_credits(tmp_path) == {
        "daisy/1_n.jpg": ("A Guy - Taking Pictures", "https://example.org/photos/1/"),
        "roses/4.jpg": ("Sherry's Rose Cottage", "https://example.org/photos/4/"),
        "roses/2.jpg": ('Bùi "Linh"', "https://example.org/photos/2/"),
    }


def test_without_the_file_there_are_none(tmp_path):
    assert read_credits(tmp_path) == {}


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs the photos in data/flower_photos")
def test_all_credits_of_flower_photos_are_read():
    assert len(read_credits(PHOTOS)) == 3670
