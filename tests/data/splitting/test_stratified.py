from __future__ import annotations

import numpy as np
import pytest

from flowers.data.splitting.manifest import SPLITS
from flowers.data.splitting.stratified import assign_groups, fold_targets, split_targets

NAMES = ("a", "b", "c")


def split(labels, groups, *, seed=0, val=0.1, test=0.1, names=NAMES):
    labels = np.asarray(labels)
    targets = split_targets(np.bincount(labels, minlength=len(names)), (test, val))
    numbers = assign_groups(labels, groups, targets=targets, seed=f"{seed}", class_names=names)
    splits = np.array(["test", "val", "train"])[numbers]
    return {name: np.flatnonzero(splits == name) for name in SPLITS}


def fold_numbers(labels, groups, *, folds, seed=0):
    targets = fold_targets(np.bincount(labels, minlength=len(NAMES)), folds)
    return assign_groups(labels, groups, targets=targets, seed=f"{seed}", class_names=NAMES)


def example():
    labels = np.repeat([0, 1, 2], [200, 100, 37])
    return labels, [f"sha{i}" for i in range(len(labels))]


def test_a_split_is_disjoint_covering_and_stratified():
    labels, groups = example()
    indices = split(labels, groups)
    assert sorted(np.concatenate([indices[name] for name in SPLITS])) == list(range(len(labels)))
    assert np.bincount(labels[indices["test"]]).tolist() == [20, 10, 4]
    assert np.bincount(labels[indices["val"]]).tolist() == [20, 10, 4]


def test_a_split_depends_on_contents_and_seed_not_on_the_order_of_the_files():
    labels, groups = example()
    order = np.random.default_rng(0).permutation(len(labels))
    straight = split(labels, groups)
    shuffled = split(labels[order], [groups[i] for i in order])
    for name in SPLITS:
        assert {groups[i] for i in straight[name]} == {groups[order[i]] for i in shuffled[name]}
    other = split(labels, groups, seed=1)
    assert set(other["test"]) != set(straight["test"])


def test_groups_may_be_file_names_that_are_not_utf8():
    labels, groups = example()
    assert split(labels, [f"{group} \udcff.jpg" for group in groups])["test"].size == 34


def test_identical_files_are_in_one_split_even_with_conflicting_labels():
    labels, groups = example()
    groups = [
        f"sha{i // 2}" for i in range(len(groups))
    ]  # all files are twice there; one pair spans two classes
    indices = split(labels, groups)
    sides = [{groups[i] for i in indices[name]} for name in SPLITS]
    assert sum(map(len, sides)) == len(set.union(*sides))


def test_a_new_file_moves_few_others():
    labels, groups = example()
    before, after = split(labels, groups), split([*labels, 0], [*groups, "new"])
    moved = set(before["test"]) ^ set(after["test"])
    assert len(moved) <= 3


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_images_of_a_class_are_an_error_that_names_it(count):
    labels = [0] * 10 + [1] * 10 + [2] * count
    with pytest.raises(ValueError, match=rf"class 'c' has {count} images"):
        split(labels, [f"{i}" for i in range(len(labels))])


def test_a_class_without_an_image_to_split_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="class 'a' has 0 images to split, in 0 groups"):
        split(np.empty(0, dtype=np.int64), [])


def test_three_identical_files_count_as_one_image():
    labels = [0] * 10 + [1] * 10 + [2] * 3
    with pytest.raises(ValueError, match="class 'c' has 3 images to split, in 1 groups"):
        split(labels, [f"{i}" for i in range(20)] + ["same"] * 3)


def test_three_images_of_a_class_are_enough():
    labels = [0] * 10 + [1] * 10 + [2] * 3
    indices = split(labels, [f"{i}" for i in range(23)])
    assert all(2 in np.asarray(labels)[indices[name]] for name in SPLITS)


def test_a_large_group_may_fill_an_empty_split_without_emptying_another():
    labels = np.repeat([0, 1, 2], 160)
    groups = [
        f"{i // 20}" for i in range(480)
    ]  # eight groups of twenty in each class; a tenth would be sixteen
    indices = split(labels, groups)
    assert [np.bincount(labels[indices[name]]).tolist() for name in ("test", "val")] == [
        [20] * 3
    ] * 2


@pytest.mark.parametrize("seed", range(8))
def test_a_group_larger_than_a_split_is_trained_on_and_the_others_are_split(seed):
    labels = np.repeat([0, 1, 2], [100, 100, 20])
    groups = [f"{number}" for number in range(220)]
    groups[:40] = ["large"] * 40
    groups[100:145] = ["b"] * 45
    groups[145:190] = ["c"] * 45
    indices = split(labels, groups, seed=seed)
    counts = [
        np.bincount(labels[indices[name]], minlength=3).tolist()
        for name in ("test", "val", "train")
    ]
    assert counts == [[10, 5, 2], [10, 5, 2], [80, 90, 16]]


@pytest.mark.parametrize("seed", range(8))
def test_a_group_larger_than_a_fold_has_a_fold_of_its_own(seed):
    labels = np.repeat([0, 1, 2], [100, 50, 20])
    groups = [f"{number}" for number in range(170)]
    groups[:40] = ["large"] * 40
    number = fold_numbers(labels, groups, folds=5, seed=seed)
    assert sorted(np.bincount(number[labels == 0]).tolist()) == [15, 15, 15, 15, 40]
    assert np.bincount(number[labels == 1]).tolist() == [10] * 5


def test_few_unequal_groups_are_split_where_they_can_be():
    rng = np.random.default_rng(0)
    for seed in range(100):
        owners = np.repeat(np.arange(12), rng.multinomial(48, rng.dirichlet(np.ones(12))) + 1)
        indices = split([0] * 60, [*map(str, owners)], seed=seed, names=("a",))
        assert all(len(indices[name]) for name in SPLITS)
        assert len(indices["train"]) >= 30 or np.bincount(owners).max() > 30


def test_a_group_of_several_classes_is_in_one_split_and_the_classes_stay_stratified():
    rng = np.random.default_rng(0)
    labels, owners = rng.integers(0, 3, 900), (900 * rng.random(900) ** 3).astype(int) // 5
    indices = split(labels, [f"{owner}" for owner in owners])
    sides = [set(owners[indices[name]]) for name in SPLITS]
    assert sum(map(len, sides)) == len(set.union(*sides))
    for name in ("test", "val"):
        share = np.bincount(labels[indices[name]]) / np.bincount(labels)
        assert ((share >= 0.08) & (share <= 0.13)).all()


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
def test_folds_are_even_in_every_class_and_keep_groups_together(folds):
    labels = np.repeat([0, 1, 2], [200, 100, 37])
    groups = [f"{i // 2}" for i in range(len(labels))]
    number = fold_numbers(labels, groups, folds=folds)
    for label in range(3):
        counts = np.bincount(number[labels == label], minlength=folds)
        assert counts.max() - counts.min() <= 4
    assert all(len({*number[np.array(groups) == group]}) == 1 for group in set(groups))
    assert not np.array_equal(number, fold_numbers(labels, groups, folds=folds, seed=1))


def test_folds_of_single_images_differ_by_one_at_most_and_a_new_image_moves_few():
    labels, groups = example()
    number = fold_numbers(labels, groups, folds=5)
    for label in range(3):
        counts = np.bincount(number[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    more = fold_numbers(np.append(labels, 0), [*groups, "new"], folds=5)
    assert (more[:-1] != number).sum() <= 5


def test_more_folds_than_images_of_a_class_are_refused():
    with pytest.raises(ValueError, match=r"class 'c' has 4 images to split, in 4 groups.*5 splits"):
        fold_numbers(np.repeat([0, 1, 2], [9, 9, 4]), [*"abcdefghijklmnopqrstuv"], folds=5)


def test_without_a_test_fraction_there_is_no_test_split():
    assert len(split([0, 1, 2] * 10, [f"{i}" for i in range(30)], test=0)["test"]) == 0
