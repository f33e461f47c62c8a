from __future__ import annotations

import shutil
import unicodedata

import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from flowers.data import index_folder
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
    assert "beside the class folders" in reasons["lost.png"]
    assert ".jpg" in reasons["cat/notes.txt"]


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
        (["train/cat/a.jpg", "train/dog/a.jpg", "roses/b.jpg"], "images in roses beside them"),
        (["train/cat/a.jpg", "train/dog/a.jpg", "more/emu/b.jpg"], "images in more beside them"),
        (["train/a.jpg", "test/b.jpg", "roses/b.jpg"], "images in roses beside them"),
        (
            ["val/cat/a.jpg", "val/dog/a.jpg", "test/cat/b.jpg"],
            "there is no train folder with images",
        ),
        (
            ["train/cat/a.jpg", "test/cat/b.jpg"],
            r"at least two class folders \(root/test/<class>/<image>\)",
        ),
    ],
)
def test_what_may_be_classes_or_splits_is_refused(tmp_path, images, message):
    for image in images:
        (tmp_path / "root" / image).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / image).touch()
    for tolerant in (False, True):
        with pytest.raises(ValueError, match=rf"`root` .*{message}"):
            index_folder(tmp_path / "root", tolerant=tolerant)
