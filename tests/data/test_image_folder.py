from __future__ import annotations

import os
import re
import shutil
import unicodedata
from pathlib import Path

import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from flowers.data import IgnoredFile, find_images, index_folder, read_credits, summarize_ignored
from flowers.data.image_folder import SYSTEM_NAMES, walk_folder
from flowers.decoding import IMAGE_EXTENSIONS


def divide(root, *folders):
    """Copy the class folders of ``photos`` into each of these folders; return the root."""
    classes = [folder for folder in root.iterdir() if folder.is_dir()]
    for folder in folders:
        for name in classes:
            shutil.copytree(name, root / folder / name.name)
    for name in classes:
        shutil.rmtree(name)
    return root


def test_paths_and_labels_are_sorted_and_aligned(photos):
    index = index_folder(photos(dog=3, cat=2))
    assert index.class_names == ("cat", "dog")
    assert index.paths == (
        "cat/000.png",
        "cat/001.png",
        "dog/000.png",
        "dog/001.png",
        "dog/002.png",
    )
    assert index.labels.tolist() == [0, 0, 1, 1, 1]


def test_a_plain_folder_is_indexed_as_by_torchvision(photos):
    root = photos(dog=3, cat=2, ant=1)
    (root / "dog" / "puppies").mkdir()
    shutil.copy(root / "dog" / "000.png", root / "dog" / "puppies")
    reference = ImageFolder(root)
    index = index_folder(root)
    assert list(index.class_names) == reference.classes
    samples = [
        (str(root / path), label)
        for path, label in zip(index.paths, index.labels.tolist(), strict=True)
    ]
    assert samples == sorted(reference.samples, key=lambda sample: (sample[1], sample[0]))


@pytest.mark.parametrize("ending", IMAGE_EXTENSIONS)
def test_all_image_endings_count_in_any_case(photos, ending):
    root = photos(cat=1, dog=1)
    for name in (f"a{ending}", f"b{ending.upper()}", f"c{ending.title()}"):
        (root / "cat" / name).touch()
    index = index_folder(root)
    assert len(index.paths) == 5
    assert not index.ignored


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
    assert [
        path.rpartition("/")[2]
        for path, label in zip(index.paths, index.labels, strict=True)
        if label == 2
    ] == [
        "NFD.png",
        "NFC.png",
    ]


def test_an_empty_class_is_named(photos):
    root = photos(cat=2, dog=2)
    (root / "emu").mkdir()
    with pytest.raises(ValueError, match=r"`root` .*no image in the class folder emu"):
        index_folder(root)


@pytest.mark.parametrize("classes", [{}, {"cat": 2}])
def test_fewer_than_two_classes_are_refused(photos, tmp_path, classes):
    root = photos(**classes)
    root.mkdir(exist_ok=True)
    with pytest.raises(ValueError, match="at least two class folders"):
        index_folder(root)


def test_ignored_files_are_listed_with_the_reason(photos, tmp_path):
    root = photos(cat=2, dog=2)
    (tmp_path / "outside").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "outside" / "new.png")
    (root / "cat" / "more").symlink_to(tmp_path / "outside")
    for name in ("LICENSE.txt", "lost.png", ".hidden", "cat/notes.txt", "cat/.DS_Store"):
        (root / name).touch()
    (root / "dog" / "old").mkdir()
    (root / "dog" / "old" / "photo.heic").touch()
    (root / "dog" / "loop").symlink_to("..")
    (root / "dog" / "dead").symlink_to("nowhere")
    reasons = dict(index_folder(root).ignored)
    assert sorted(reasons) == [
        "cat/notes.txt",
        "dog/dead",
        "dog/loop",
        "dog/old/photo.heic",
        "lost.png",
    ]
    assert "not followed" in reasons["dog/loop"]
    assert "outside the class folders" in reasons["lost.png"]
    assert ".jpg" in reasons["cat/notes.txt"]


def test_names_of_ignored_files_are_printed_without_control_characters():
    reason = "a pipe or a device"
    files = [IgnoredFile("a\x1b[31m\nb", reason)]
    assert summarize_ignored(files) == rf"1 file is ignored: {reason} (a\x1b[31m\nb)"


def test_an_error_about_an_empty_class_says_what_is_ignored_in_it(photos):
    root = photos(cat=2, dog=2)
    (root / "emu").mkdir()
    (root / "emu" / "photo.heic").touch()
    with pytest.raises(
        ValueError, match=r"no image in the class folder emu.*\.heic 1.*pillow-heif"
    ):
        index_folder(root)


@pytest.mark.parametrize(
    "folders",
    [
        {"train": "train", "val": "val", "test": "test"},
        {"Training": "train", "VALIDATION": "val", "Testing": "test"},
        {"TRAIN": "train", "valid": "val"},
        {"train": "train", "test": "test"},
        {"training": "train"},
        {"train": "train", "training": "train", "val": "val", "valid": "val"},
    ],
    ids=" ".join,
)
def test_a_divided_folder_keeps_its_splits(photos, folders):
    root = divide(photos(cat=3, dog=2), *folders)
    (root / "README.md").touch()
    (root / "train.csv").touch()
    (root / "annotations").mkdir()
    (root / "annotations" / "boxes.xml").touch()
    deeper = root / next(iter(folders)) / "cat" / "deeper"
    deeper.mkdir()
    Image.new("RGB", (8, 8)).save(deeper / "x.png")
    index = index_folder(root)
    assert index.class_names == ("cat", "dog")
    assert len(index.paths) == 5 * len(folders) + 1
    assert [
        (index.class_names[label], path)
        for label, path in zip(index.labels, index.paths, strict=True)
    ] == sorted((path.split("/")[1], path) for path in index.paths)
    assert index.given_splits.tolist() == [folders[path.split("/")[0]] for path in index.paths]
    assert not index.ignored


def test_the_classes_of_a_divided_folder_are_those_of_all_splits(photos):
    root = divide(photos(cat=3, dog=2), "train", "val", "test")
    shutil.rmtree(root / "val" / "dog")
    assert index_folder(root).class_names == ("cat", "dog")
    shutil.copytree(root / "test" / "dog", root / "test" / "emu")
    with pytest.raises(ValueError, match="no image in the class folder emu of the training split"):
        index_folder(root)
    assert index_folder(root, tolerant=True).untrained_classes() == ["emu"]


def test_photos_that_cannot_be_read_leave_a_divided_folder_divided_and_are_listed(photos):
    root = divide(photos(cat=3, dog=2), "train", "test")
    for file in (root / "test").rglob("*.png"):
        file.rename(file.with_suffix(".heic"))
    index = index_folder(root)
    assert set(index.given_splits) == {"train"}
    assert len(index.ignored) == 5


@pytest.mark.parametrize(
    "names",
    [("roses", "test"), ("car", "train"), ("car", "testing", "val"), ("train", "plane", "trains")],
)
def test_a_class_may_be_named_as_a_split(photos, names):
    index = index_folder(photos(**dict.fromkeys(names, 2)))
    assert index.class_names == tuple(sorted(names))
    assert index.given_splits is None


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (["train/a.jpg", "test/b.jpg"], "images without a class folder in test, train"),
        (
            ["train/cat/a.jpg", "train/dog/a.jpg", "test/b.jpg"],
            "images without a class folder in test",
        ),
        (
            ["train/cat/a.jpg", "train/dog/a.jpg", "train/b.jpg"],
            "images without a class folder in train",
        ),
        (["train/cat/a.jpg", "train/dog/a.jpg", "roses/b.jpg"], "also images in roses"),
        (["train/cat/a.jpg", "train/dog/a.jpg", "more/emu/b.jpg"], "also images in more"),
        (["train/a.jpg", "test/b.jpg", "roses/b.jpg"], "also images in roses"),
        (
            ["val/cat/a.jpg", "val/dog/a.jpg", "test/cat/b.jpg"],
            "no train folder has images",
        ),
        (
            ["train/cat/a.jpg", "test/cat/b.jpg"],
            r"at least two class folders \(root/test/<class>/<image>\)",
        ),
    ],
)
def test_folders_that_may_be_classes_or_splits_are_refused(tmp_path, images, message):
    for image in images:
        (tmp_path / "root" / image).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / image).touch()
    for tolerant in (False, True):
        with pytest.raises(ValueError, match=rf"`root` .*{message}"):
            index_folder(tmp_path / "root", tolerant=tolerant)


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
    assert "a broken link (dog/self)" in line
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


def test_without_a_license_file_there_are_no_credits(tmp_path):
    assert read_credits(tmp_path) == {}


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs the photos in data/flower_photos")
def test_all_credits_of_flower_photos_are_read():
    assert len(read_credits(PHOTOS)) == 3670


def test_a_run_folder_beside_the_class_folders_is_no_class(fit_small, photos, monkeypatch):
    root = photos(cat=12, dog=12)
    monkeypatch.chdir(root)
    manifests = []
    for number in range(2):
        fit_small(root, Path(), "--trainer.max_epochs=1")
        run = root / "lightning_logs" / f"version_{number}"
        manifests.append((run / "manifest.csv").read_text())
    assert manifests[0] == manifests[1]
