from __future__ import annotations

import unicodedata

import pytest
from PIL import Image

from flowers.data import index_folder
from flowers.data.folder import stray_files


def test_paths_and_labels_are_sorted_and_aligned(photos):
    index = index_folder(photos(dog=3, cat=2))
    assert index.class_names == ("cat", "dog")
    assert index.paths == ("cat/000.png", "cat/001.png", "dog/000.png", "dog/001.png", "dog/002.png")
    assert index.labels.tolist() == [0, 0, 1, 1, 1]


def test_all_image_endings_count_in_any_case(photos):
    root = photos(cat=1, dog=1)
    for name in ("a.JPG", "b.Jpeg", "c.webp", "d.BMP", "e.tiff", "f.tif"):
        (root / "cat" / name).touch()
    (root / "cat" / "notes.txt").touch()
    assert len(index_folder(root).paths) == 8


def test_hidden_files_and_folders_are_neither_images_nor_classes(photos):
    root = photos(cat=2, dog=2)
    before = index_folder(root)
    (root / ".git").mkdir()
    (root / ".git" / "x.png").touch()
    (root / "cat" / "._000.png").touch()
    (root / "cat" / ".hidden").mkdir()
    (root / "cat" / ".hidden" / "y.png").touch()
    (root / "LICENSE.txt").touch()
    after = index_folder(root)
    assert (after.class_names, after.paths) == (before.class_names, before.paths)


def test_links_do_not_loop(photos, tmp_path):
    root = photos(cat=2, dog=2)
    before = index_folder(root).paths
    (root / "cat" / "loop").symlink_to("..")
    (root / "self").symlink_to(".")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "again").symlink_to(outside)
    Image.new("RGB", (8, 8)).save(outside / "new.png")
    (outside / "up").symlink_to(tmp_path)
    first, second = tmp_path / "first", tmp_path / "second"
    for one, other in ((first, second), (second, first)):
        one.mkdir()
        (one / "other").symlink_to(other)
    (outside / "first").symlink_to(first)
    (root / "cat" / "more").symlink_to(outside)
    assert sorted(index_folder(root).paths) == sorted([*before, "cat/more/new.png"])


def test_a_link_to_itself_is_an_unreadable_image_not_a_crash(photos):
    root = photos(cat=2, dog=2)
    (root / "cat" / "x.jpg").symlink_to("x.jpg")
    assert "cat/x.jpg" in index_folder(root).paths


def test_a_class_name_that_cannot_be_printed_is_refused(photos):
    root = photos(cat=2, dog=2)
    (root / "ros\udce9s").mkdir()
    with pytest.raises(ValueError, match="expected a name of printable UTF-8"):
        index_folder(root)


def test_two_spellings_of_a_class_are_one_class(photos):
    root = photos(cat=2, dog=2)
    for form in ("NFC", "NFD"):
        folder = root / unicodedata.normalize(form, "pâquerette")
        folder.mkdir()
        Image.new("RGB", (8, 8)).save(folder / f"{form}.png")
    index = index_folder(root)
    assert index.class_names == ("cat", "dog", unicodedata.normalize("NFC", "pâquerette"))
    assert [path.rpartition("/")[2] for path, label in zip(index.paths, index.labels, strict=True) if label == 2] == [
        "NFD.png",
        "NFC.png",
    ]


def test_an_empty_class_is_named(photos):
    root = photos(cat=2, dog=2)
    (root / "emu").mkdir()
    with pytest.raises(ValueError, match=r"--data\.root .*no image in the class folder emu"):
        index_folder(root)


@pytest.mark.parametrize("classes", [{}, {"cat": 2}])
def test_fewer_than_two_classes_are_refused(photos, tmp_path, classes):
    root = photos(**classes)
    root.mkdir(exist_ok=True)
    with pytest.raises(ValueError, match="at least two class folders"):
        index_folder(root)


def test_files_that_no_image_is_taken_from_are_told_with_the_reason(photos, tmp_path):
    root = photos(cat=2, dog=2)
    (tmp_path / "outside").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "outside" / "new.png")
    (root / "cat" / "more").symlink_to(tmp_path / "outside")
    for name in ("LICENSE.txt", "lost.png", ".hidden", "cat/notes.txt", "cat/anim.gif", "cat/.DS_Store"):
        (root / name).touch()
    (root / "dog" / "old").mkdir()
    (root / "dog" / "old" / "photo.heic").touch()
    (root / "dog" / "loop").symlink_to("..")
    (root / "dog" / "dead").symlink_to("nowhere")
    strays = dict(stray_files(index_folder(root)))
    assert sorted(strays) == ["cat/anim.gif", "cat/notes.txt", "dog/dead", "dog/loop", "dog/old/photo.heic", "lost.png"]
    assert "not followed" in strays["dog/loop"]
    assert "beside the class folders" in strays["lost.png"]
    assert ".jpg" in strays["cat/anim.gif"]
