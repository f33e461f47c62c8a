from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from flowers.data import index_folder, manifest_text
from flowers.data.image_folder import FolderIndex
from flowers.data.quality.duplicates import Pairs
from flowers.data.quality.image_info import ImageInfo
from flowers.data.quality.quarantine import QuarantineRow, quarantine_text
from flowers.data.splitting.assign import (
    SplitOptions,
    assign_splits,
    split_table,
    tf_for_poets_split,
)
from flowers.data.splitting.manifest import ManifestRow

PHOTOS = Path(__file__).parents[3] / "data" / "flower_photos"
PATHS = [f"{name}/{number:02d}.jpg" for name in ("cat", "dog") for number in range(40)]


@pytest.fixture
def index(tmp_path):
    labels = np.repeat([0, 1], 40).astype(np.int64)
    return FolderIndex(tmp_path, ("cat", "dog"), tuple(PATHS), labels)


def info(bad=()):
    images = [ImageInfo(f"sha{i:03d}", "broken" if i in bad else None) for i in range(80)]
    errors = dict.fromkeys(bad, "broken")
    return SimpleNamespace(images=images, errors=errors, sha256=[image.sha256 for image in images])


def assign(index, *pairs, bad=(), **options):
    duplicates = Pairs(
        np.array(pairs, dtype=np.int64).reshape(-1, 2), np.ones(len(pairs), dtype=np.float32)
    )
    return assign_splits(index, info(bad), duplicates, options=SplitOptions(**options))


def chain(*numbers):
    return [*pairwise(numbers)]


def test_duplicates_are_in_one_split_for_any_seed(index):
    pairs = [*chain(0, 5, 9), *chain(41, 60), *chain(3, 30), *chain(50, 51)]
    for seed in range(20):
        split = assign(index, *pairs, split_seed=seed).split
        assert all(split[a] == split[b] for a, b in pairs)
        assert np.isin(split.astype(str), ["train", "val", "test"]).all()


def test_conflicting_labels_are_only_trained_on_with_all_their_duplicates(index):
    pairs = [*chain(0, 7), (7, 45)]
    for seed in range(20):
        assignment = assign(index, *pairs, split_seed=seed)
        assert set(assignment.split[[0, 7, 45]]) == {"train"}
    assert assignment.notes == [
        "3 images have conflicting labels, only trained on (`contradictions`): "
        "cat/00.jpg, cat/07.jpg, dog/05.jpg",
        "3 images have duplicates (`duplicates` near); groups: 1, images in the largest: 3",
    ]


@pytest.mark.parametrize(
    "options", [{}, {"group_by": "photographer"}, {"folds": 4}, {"split": "tf_for_poets"}]
)
def test_duplicates_stay_together_when_the_one_that_connects_them_is_left_out(
    index, tmp_path, options, monkeypatch
):
    credit(index, dict.fromkeys(PATHS[70:72], "Anna"))
    published_split = np.array(["train", "val", "test", "train"] * 20, dtype=object)
    monkeypatch.setattr(
        "flowers.data.splitting.assign.tf_for_poets_split", lambda paths: published_split.copy()
    )
    file = tmp_path / "quarantine.csv"
    file.write_text(quarantine_text([QuarantineRow("cat/00.jpg", "sha000", "blurred")]))
    for seed in range(20):
        split = assign(
            index, (0, 9), (0, 6), quarantine=str(file), split_seed=seed, **options
        ).split
        assert split[0] == "quarantined"
        assert len({split[9], split[6]} - {"skipped"}) == 1
        contradicting = assign(
            index, (0, 9), (0, 46), quarantine=str(file), split_seed=seed, **options
        ).split
        assert not {"val", "test"} & {contradicting[9], contradicting[46]}


def test_images_grouped_with_a_conflicting_label_are_only_trained_on(index):
    credit(index, dict.fromkeys(PATHS[:10], "Anna"))
    assignment = assign(index, (0, 45), group_by="photographer")
    assert set(assignment.split[:10]) == {"train"}
    assert "9 more images, of the same groups, are only trained on" in assignment.notes


def test_duplicates_that_are_ignored_are_split_as_single_images(index):
    sha = info()
    sha.images = [image._replace(sha256="same") for image in sha.images]
    sha.sha256 = ["same"] * 80
    none = Pairs(np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.float32))
    assignment = assign_splits(index, sha, none, options=SplitOptions(duplicates="ignore"))
    assert [(assignment.split == name).sum() for name in ("train", "val", "test")] == [64, 8, 8]


def test_the_photos_of_a_photographer_are_in_one_split_also_without_duplicates(index):
    credit(index, dict.fromkeys(PATHS[:30], "Anna"))
    for seed in range(10):
        split = assign(index, duplicates="ignore", group_by="photographer", split_seed=seed).split
        assert len(set(split[:30])) == 1
        assert len(set(split[30:40])) > 1


def test_every_fold_is_validated_on_other_images(index):
    test_sets = [
        set(np.flatnonzero(assign(index, folds=4, fold=fold).split == "val")) for fold in range(4)
    ]
    assert len(set.union(*test_sets)) > 12  # of 4 times 6


def test_conflicting_labels_can_be_left_out_or_kept(index):
    split = assign(index, (0, 45), contradictions="leave_out").split
    assert split[[0, 45]].tolist() == ["skipped"] * 2
    splits = [
        assign(index, (0, 45), contradictions="keep", split_seed=seed).split[[0, 45]]
        for seed in range(40)
    ]
    assert all(first == second for first, second in splits)
    assert {first for first, _ in splits} == {"train", "val", "test"}


def test_folds_test_every_image_once_except_conflicting_labels(index):
    pairs = [(0, 45), (1, 2)]
    splits = [assign(index, *pairs, folds=4, fold=fold).split for fold in range(4)]
    tested = sum((split == "test").astype(int) for split in splits)
    assert tested[[0, 45]].tolist() == [0, 0]
    assert (np.delete(tested, [0, 45]) == 1).all()
    for split in splits:
        assert (split == "val").sum() == 6  # a tenth of the other three folds' 30 of each class
        assert split[1] == split[2]


def test_unreadable_images_are_in_no_split(index):
    assignment = assign(index, (3, 4), bad=(3,))
    assert np.flatnonzero(assignment.split == "skipped").tolist() == [3]


def test_quarantined_images_are_in_no_split_and_named(index, tmp_path):
    rows = [
        QuarantineRow("cat/03.jpg", "sha003", "blurred"),
        QuarantineRow("dog/01.jpg", "", "a wolf"),
        QuarantineRow("dog/02.jpg", "sha of before it was mended", "broken"),
        QuarantineRow("dog/gone.jpg", "sha", "broken"),
    ]
    file = tmp_path / "quarantine.csv"
    file.write_text(quarantine_text(rows))
    assignment = assign(index, quarantine=str(file))
    assert np.flatnonzero(assignment.split == "quarantined").tolist() == [3, 41]
    assert assignment.notes[0] == "2 images are in quarantine: cat/03.jpg, dog/01.jpg"
    assert "2 lines name a file that is missing or has changed" in assignment.notes[1]
    assert "dog/02.jpg, dog/gone.jpg" in assignment.notes[1]


def test_the_quarantine_takes_precedence_over_a_manifest(index, tmp_path):
    manifest = write_manifest(index, tmp_path, dict.fromkeys(PATHS, "train"))
    file = tmp_path / "quarantine.csv"
    file.write_text(quarantine_text([QuarantineRow("cat/03.jpg", "sha003", "blurred")]))
    assert assign(index, quarantine=str(file), manifest=manifest).split[3] == "quarantined"


def write_manifest(index, folder, splits_by_path):
    names = [index.class_names[label] for label in index.labels]
    rows = [
        ManifestRow(path, names[i], f"sha{i:03d}", splits_by_path[path])
        for i, path in enumerate(PATHS)
    ]
    (folder / "manifest.csv").write_text(manifest_text(rows))
    return str(folder / "manifest.csv")


def test_a_manifest_with_duplicates_in_two_splits_is_refused_with_the_pairs(index, tmp_path):
    manifest = write_manifest(
        index, tmp_path, {path: ("train", "val", "test")[i % 3] for i, path in enumerate(PATHS)}
    )
    assert assign(index, (0, 3), (1, 4), manifest=manifest).split[:3].tolist() == [
        "train",
        "val",
        "test",
    ]
    with pytest.raises(
        ValueError, match=r"(?s)3 pairs.*cat/00\.jpg \(train\) = cat/01\.jpg \(val\).*`duplicates`"
    ):
        assign(index, (0, 1), (2, 3), (1, 4), manifest=manifest)


def test_conflicting_labels_in_a_manifest_are_only_trained_on(index, tmp_path):
    manifest = write_manifest(
        index, tmp_path, {path: ("train", "test")[i % 2] for i, path in enumerate(PATHS)}
    )
    splits = {
        rule: assign(index, (1, 45), (2, 46), manifest=manifest, contradictions=rule)
        .split[[1, 45, 2, 46]]
        .tolist()
        for rule in ("train", "leave_out", "keep")
    }
    assert splits == {
        "train": ["skipped", "skipped", "train", "train"],
        "leave_out": ["skipped"] * 4,
        "keep": ["test", "test", "train", "train"],
    }


def test_a_leak_through_a_skipped_duplicate_is_found(index, tmp_path):
    splits_by_path = dict.fromkeys(PATHS, "train") | {PATHS[0]: "skipped", PATHS[6]: "test"}
    with pytest.raises(
        ValueError, match=r"1 pairs.*\n.*cat/03\.jpg \(train\) = cat/06\.jpg \(test\)"
    ):
        assign(index, (0, 3), (0, 6), manifest=write_manifest(index, tmp_path, splits_by_path))


def test_the_published_split_keeps_its_test_images_and_leaves_out_their_duplicates(
    index, monkeypatch
):
    published_split = np.array(["train"] * 60 + ["val"] * 10 + ["test"] * 10, dtype=object)
    monkeypatch.setattr(
        "flowers.data.splitting.assign.tf_for_poets_split", lambda paths: published_split
    )
    assignment = assign(
        index, (50, 75), (65, 75), (51, 66), (52, 53), (0, 67), split="tf_for_poets"
    )
    assert assignment.split[[75, 66, 52, 53]].tolist() == ["test", "val", "train", "train"]
    assert assignment.split[[50, 65, 51]].tolist() == ["skipped"] * 3
    assert assignment.split[[0, 67]].tolist() == [
        "train",
        "skipped",
    ]  # conflicting labels
    assert (assignment.split == "test").sum() == 10


def divide(index, counts):
    """Return the index with splits: so many images of each class, in their order, in each."""
    splits = [name for name, count in counts.items() for _ in range(count)]
    return replace(index, given_splits=np.array(splits * 2, dtype=object))


def test_given_splits_are_kept(index):
    index = divide(index, {"train": 20, "val": 12, "test": 8})
    for seed in range(3):
        result = assign(index, split_seed=seed)
        assert result.split.tolist() == index.given_splits.tolist()
        assert result.notes == []


def test_of_duplicates_in_given_splits_those_in_the_latest_split_stay(index):
    index = divide(index, {"train": 20, "val": 10, "test": 10})
    pairs = [(0, 25), (1, 35), (26, 36), (2, 3), (27, 28), (4, 29), (29, 37), (5, 70)]
    result = assign(index, *pairs)
    leaks = [0, 1, 26, 4, 29]
    assert (result.split[leaks] == "skipped").all()
    assert result.split[70] == "skipped"  # conflicting labels
    rest = np.delete(np.arange(80), [*leaks, 70])
    assert (result.split[rest] == index.given_splits[rest]).all()
    [note] = [note for note in result.notes if "validation or test image" in note]
    assert note.startswith(
        "5 images are duplicates of a validation or test image, left out: cat/00.jpg, "
    )
    assert (assign(index, duplicates="ignore").split == index.given_splits).all()


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"train": 40}, {"train": 24, "val": 8, "test": 8}),
        ({"train": 30, "val": 10}, {"train": 24, "val": 10, "test": 6}),
        ({"train": 30, "test": 10}, {"train": 24, "val": 6, "test": 10}),
    ],
)
def test_splits_that_are_missing_are_taken_from_the_training_images(index, counts, expected):
    index = divide(index, counts)
    pairs = [*chain(0, 5, 9), (41, 50), (3, 48)]
    for seed in range(10):
        result = assign(index, *pairs, val_fraction=0.2, test_fraction=0.2, split_seed=seed)
        sizes = {name: (result.split[:40] == name).sum() for name in expected}
        assert all(abs(sizes[name] - size) <= 2 for name, size in expected.items())
        assert all(result.split[first] == result.split[second] for first, second in pairs)
        assert result.split[3] == "train"  # conflicting labels
        for name in counts.keys() - {"train"}:
            assert (result.split[index.given_splits == name] == name).all()
        missing = expected.keys() - counts.keys()
        assert sum("folder with images" in note for note in result.notes) == len(missing)
        assert all(any(f"no {name} folder" in note for note in result.notes) for name in missing)
    seeds = [assign(index, split_seed=seed).split for seed in range(2)]
    assert not np.array_equal(*seeds)


def test_no_test_images_are_taken_if_there_is_no_test_folder_and_its_fraction_is_0(index):
    index = divide(index, {"train": 30, "val": 10})
    result = assign(index, test_fraction=0)
    assert result.split.tolist() == index.given_splits.tolist()
    assert not result.notes


def test_a_class_whose_training_images_all_leak_is_refused(index):
    index = divide(index, {"train": 1, "val": 20, "test": 19})
    with pytest.raises(
        ValueError, match=r"expected training images of every class, got none of cat: "
    ):
        assign(index, (0, 39))


def test_a_manifest_takes_precedence_over_given_splits(index, tmp_path):
    index = divide(index, {"train": 20, "val": 10, "test": 10})
    splits_by_path = {path: ("test", "train", "val")[i % 3] for i, path in enumerate(PATHS)}
    manifest = write_manifest(index, tmp_path, splits_by_path)
    assert assign(index, manifest=manifest).split.tolist() == [*splits_by_path.values()]


@pytest.mark.parametrize(
    "options",
    [{"folds": 3}, {"group_by": "photographer"}, {"split": "tf_for_poets"}],
    ids=lambda options: next(iter(options)),
)
def test_options_that_split_a_divided_folder_otherwise_are_refused(index, options):
    SplitOptions(**options).check_folder(index)
    index = divide(index, {"train": 20, "val": 10, "test": 10})
    [name] = options
    with pytest.raises(
        ValueError, match=rf"`{name}` .*split folders.*put all images under root/<class>"
    ):
        SplitOptions(**options).check_folder(index)
    SplitOptions().check_folder(index)
    SplitOptions(manifest="x.csv", split=options.get("split", "random")).check_folder(index)


def test_of_many_leaks_only_some_are_listed(index):
    index = divide(index, {"train": 35, "val": 5})
    paths = []
    for i, label in enumerate(index.labels):
        paths.append(f"{'train' if i % 40 < 35 else 'val'}/{label}/{i}.jpg")
    index = replace(index, paths=tuple(paths))
    result = assign(
        index, *((i, 35 + i % 5) for i in range(30)), *((40 + i, 75 + i % 5) for i in range(30))
    )
    [note] = [note for note in result.notes if "left out" in note]
    assert note.startswith("60 images are duplicates")
    assert note.endswith("and 52 more")


def credit(index, owners):
    lines = [
        f"{path} CC-BY by {owner} - https://example.org/{i}/"
        for i, (path, owner) in enumerate(owners.items())
    ]
    (index.root / "LICENSE.txt").write_text("All images are CC-BY.\n\n" + "\n".join(lines))


@pytest.mark.parametrize("folds", [None, 4])
def test_the_photos_of_a_photographer_are_in_one_split(index, folds):
    owners = {path: f"Anna - {i // 3}, née Bö" for i, path in enumerate(PATHS[:-4])}
    owners[PATHS[0]] = owners[PATHS[70]]  # photos of both classes
    credit(index, owners)
    for seed in range(10):
        assignment = assign(index, (5, 6), group_by="photographer", folds=folds, split_seed=seed)
        splits_by_owner = {}
        for path, split in zip(PATHS, assignment.split, strict=True):
            splits_by_owner.setdefault(owners.get(path, path), set()).add(split)
        assert all(len(splits) == 1 for splits in splits_by_owner.values())
        assert assignment.split[5] == assignment.split[6]
    assert (
        "26 photographers, each in one split; 4 photos without a credit, split one by one"
        in assignment.notes
    )


def test_grouping_needs_credits(index):
    with pytest.raises(ValueError, match=r"`group_by` photographer: expected .*LICENSE\.txt"):
        assign(index, group_by="photographer")
    credit(index, {"emu/01.jpg": "Bo"})
    with pytest.raises(ValueError, match="got no line for a photo in this folder"):
        assign(index, group_by="photographer")


def test_the_table_counts_every_class_of_a_few_and_the_sum_of_many(index):
    split = np.array((["train"] * 30 + ["val"] * 5 + ["test"] * 4 + ["skipped"]) * 2, dtype=object)
    assert [line.split() for line in split_table(index, split)[1:]] == [
        ["cat", "train", "30", "val", "5", "test", "4"],
        ["dog", "train", "30", "val", "5", "test", "4"],
        ["all", "train", "60", "val", "10", "test", "8"],
    ]
    assert (
        split_table(index, split)[0]
        == f"80 images of 2 classes in {index.root}, 2 of them in no split"
    )
    for num_classes, lines in ((102, 104), (300, 2)):
        names = [*map(str, range(num_classes))]
        assert (
            len(
                split_table(
                    SimpleNamespace(root="", class_names=names, labels=np.arange(80)), split
                )
            )
            == lines
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fraction": 0}, r"`val_fraction`.*got 0 and 0\.1"),
        ({"val_fraction": -0.1}, r"`val_fraction`"),
        ({"test_fraction": 1}, r"`test_fraction`.*below 1"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, r"`val_fraction`.*together below 1"),
        ({"val_fraction": 0.1, "test_fraction": 0.9}, r"`val_fraction`.*together below 1"),
        ({"fold": 1}, r"`fold` 1: expected at least 2 folds"),
        ({"folds": 1}, "at least 2 folds"),
        ({"folds": 5, "fold": 5}, "from 0 to folds - 1"),
        (
            {"folds": 5, "manifest": "m.csv"},
            r"`folds` 5: expected no value together with `manifest`",
        ),
        (
            {"group_by": "photographer", "split": "tf_for_poets"},
            r"`group_by` photographer: .* `split` tf_for_poets",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SplitOptions(**options)


def test_tf_for_poets_is_the_published_rule():
    # sha1("tf_files/flower_photos/<path>") mod 2**27 as a percentage of 2**27 - 1 is 64.70, 5.88
    # and 17.49.
    paths = [
        "daisy/100080576_f52e8ee070_n.jpg",
        "daisy/1031799732_e7f4008c03.jpg",
        "dandelion/10043234166_e6dd915111_n.jpg",
    ]
    assert tf_for_poets_split(paths).tolist() == ["train", "val", "test"]


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs the photos in data/flower_photos")
def test_tf_for_poets_counts_on_the_real_photos():
    counts = Counter(tf_for_poets_split(index_folder(PHOTOS).paths))
    assert (counts["train"], counts["val"]) == (2949, 359)
    assert counts["test"] in (362, 0)  # 0 where the photos of the test are held back
