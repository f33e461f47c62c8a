from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from PIL import Image

from flowers.data import IgnoredFile, find_images, index_folder, summarize_ignored
from flowers.data.image_folder import SYSTEM_NAMES, walk_folder
from flowers.decoding import IMAGE_EXTENSIONS


def save(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(file, "PNG")


@pytest.fixture
def messy(photos, tmp_path):
    """Return a folder of two classes with links, system folders and files of other kinds in it."""
    root = photos(cat=3, dog=3)
    save(tmp_path / "outside" / "deep" / "linked.png")
    (tmp_path / "outside" / "deep" / "circle").symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "back").symlink_to(root)
    (root / "cat" / "more").symlink_to(tmp_path / "outside")
    (root / "dog" / "loop").symlink_to("../cat")
    (root / "dog" / "self").symlink_to("self")
    (root / "dog" / "dead.jpg").symlink_to("nowhere")
    save(root / "dog" / "a-b" / "1.png")
    save(root / "dog" / "a" / "1.png")
    save(root / "dog" / "folder.jpg" / "1.png")
    for name in ("cat/1.heic", "cat/2.HEIC", "dog/3.JPG_large", "dog/noending", "dog/4.heic"):
        (root / name).touch()
    return root


def test_training_and_prediction_find_the_same_images_and_ignored_files(messy):
    files, ignored = find_images([str(messy)], option="--images")
    index = index_folder(messy)
    assert sorted(files) == sorted(str(messy / path) for path in index.paths)
    assert sorted(ignored) == sorted(index.ignored)
    assert files == [str(path) for path in sorted(map(Path, files))]
    assert "cat/more/deep/linked.png" in index.paths
    assert "dog/dead.jpg" in index.paths  # an image that cannot be read


@pytest.mark.parametrize(
    "name", [*sorted(SYSTEM_NAMES), "@eaDir", "Thumbs.db", "$RECYCLE.BIN", ".ipynb_checkpoints"]
)
def test_system_folders_and_files_are_no_images_no_classes_and_not_reported(messy, name):
    before, walked = index_folder(messy), walk_folder(messy)
    for folder in (messy, messy / "cat", messy / "dog" / "a"):
        save(folder / name / "version_0" / "figures" / "x.png")
        (folder / name / "y.txt").touch()
    (messy / "dog" / "a-b" / name).write_bytes(b"system")
    after = index_folder(messy)
    assert (after.class_names, after.paths, after.ignored) == (
        before.class_names,
        before.paths,
        before.ignored,
    )
    assert walk_folder(messy) == walked


def test_one_line_counts_ignored_files_by_ending(messy):
    line = summarize_ignored(find_images([str(messy)], option="--images")[1])
    assert line.startswith("9 files are ignored: name does not end in .jpg, ")
    counts = re.search(r"\.tiff \((.*?)\); ", line)[1].split(", ")
    assert sorted(counts) == [".HEIC 1", ".JPG_large 1", ".heic 2", "none 1"]
    assert counts[0] == ".heic 2"
    assert "not followed (cat/more/back, cat/more/deep/circle, dog/loop)" in line
    assert "a link to nothing (dog/self)" in line
    assert line.endswith(
        "Convert .heic and .heif to JPEG, for instance with the package pillow-heif"
    )
    assert "\n" not in line


def test_other_reasons_are_listed_with_the_paths():
    file = IgnoredFile("cat/x.png", "lost")
    assert summarize_ignored([file]) == "1 file is ignored: lost (cat/x.png)"
    assert summarize_ignored([]) == ""


def test_of_many_endings_the_commonest_are_listed(tmp_path):
    for number in range(60):
        (tmp_path / f"{number}.x{min(number, 40)}").touch()
    line = summarize_ignored(walk_folder(tmp_path).ignored)
    assert line.startswith("60 files are ignored: ")
    assert "(.x40 20, .x" in line
    assert line.endswith(" and 33 more)")
    assert len(line) < 300


def test_a_pipe_is_no_image(photos):
    root = photos(cat=2, dog=2)
    before = index_folder(root).paths
    os.mkfifo(root / "cat" / "pipe.jpg")
    index = index_folder(root)
    assert index.paths == before
    assert index.ignored == (IgnoredFile("cat/pipe.jpg", "a pipe or a device"),)


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    (tmp_path / "phone").mkdir()
    (tmp_path / "phone" / "x.HEIC").touch()
    with pytest.raises(
        ValueError, match=r"--images .*got none.*1 file is ignored.*\.HEIC 1.*pillow-heif"
    ):
        find_images([str(tmp_path / "phone")], option="--images")


@pytest.mark.parametrize("ending", IMAGE_EXTENSIONS)
def test_every_image_ending_is_found_in_any_case(tmp_path, ending):
    names = [f"x{ending}", f"y{ending.upper()}"]
    for name in names:
        (tmp_path / name).touch()
    assert find_images([str(tmp_path)], option="--images") == (
        [str(tmp_path / name) for name in names],
        [],
    )


def test_texts_beside_photos_are_not_reported_but_photos_of_other_formats_are(tmp_path):
    save(tmp_path / "x.png")
    for name in ("LICENSE.txt", "predictions.csv", "predictions.json", "README.md", "x.heic"):
        (tmp_path / name).touch()
    [file] = find_images([str(tmp_path)], option="--images")[1]
    assert file.path == "x.heic"
