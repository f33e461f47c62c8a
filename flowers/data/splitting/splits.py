"""Which image trains, which validates, which tests: pure functions of labels and file contents."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from flowers.data.quality.duplicates import DuplicateRule
from flowers.data.splitting.stratified import assign_groups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from flowers.data.image_folder import FolderIndex

    Indices = dict[str, NDArray[np.int64]]

SplitRule = Literal["random", "tf_for_poets"]
ContradictionRule = Literal["train", "leave_out", "keep"]
GroupRule = Literal["photographer"]
SPLITS = ("train", "val", "test")
# Beyond, a table of all classes would be longer than anybody reads.
_MAX_LISTED_CLASSES = 200


@dataclass(frozen=True)
class SplitOptions:
    """How a folder is split: the options of ``FlowersDataModule`` of these names.

    Raises:
        ValueError: The options contradict each other, or one is out of its range.
    """

    split: SplitRule = "random"
    split_seed: int = 0
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    folds: int | None = None
    fold: int = 0
    group_by: GroupRule | None = None
    duplicates: DuplicateRule = "near"
    contradictions: ContradictionRule = "train"
    manifest: str | None = None
    quarantine: str | None = None

    def __post_init__(self) -> None:
        if self.folds is None and self.fold != 0:
            raise ValueError(f"`fold` {self.fold}: expected `folds` with it, as `folds` 5")
        if self.folds is not None and not (self.folds >= 2 and 0 <= self.fold < self.folds):
            raise ValueError(
                f"`folds` {self.folds}, `fold` {self.fold}: expected at least 2 folds, and one of "
                "them, counted from 0 to folds - 1"
            )
        if not (0 < self.val_fraction < 1 and 0 <= self.test_fraction < 1):
            raise ValueError(
                f"`val_fraction`, `test_fraction`: expected fractions of the images, below 1, got "
                f"{self.val_fraction} and {self.test_fraction} (only test_fraction may be 0)"
            )
        if self.manifest is not None or self.split != "random":
            fixed = "`manifest`" if self.manifest is not None else f"`split` {self.split}"
            for name in ("folds", "group_by"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"`{name}`: expected nothing beside {fixed}, which fixes the split"
                    )

    def check_folder(self, index: FolderIndex) -> None:
        """Check the options for a folder that is already split; a manifest overrides both.

        Args:
            index: The folder.

        Raises:
            ValueError: An option would split the folder in another way.
        """
        if index.given_splits is None or self.manifest is not None:
            return
        contradicting = {"folds": self.folds, "group_by": self.group_by, "split": self.split}
        for name, value in contradicting.items():
            if value not in (None, "random"):
                raise ValueError(
                    f"`{name}` {value}: expected nothing beside the split folders in `root` "
                    f"{index.root}, which fix the split. To pool the splits, put all images under "
                    "root/<class>."
                )


def stratified_split(
    labels: NDArray[np.int64],
    groups: Sequence[str],
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int | str,
    class_names: Sequence[str],
) -> Indices:
    """Split every class by the same fractions, keeping each group in one split.

    Args:
        labels: Integers ``(N,)``.
        groups: N keys; images with the same key, such as duplicates, stay together.
        val_fraction: Fraction of each class for validation.
        test_fraction: Fraction of each class for the test.
        seed: Seed of the split, independent of the seed of the training.
        class_names: Names for the error.

    Returns:
        Sorted indices of ``train``, ``val`` and ``test``: disjoint, and all N together.

    Raises:
        ValueError: The fractions leave nothing to train on, or a class has too few images.
    """
    if val_fraction + test_fraction >= 1:
        raise ValueError(
            "`val_fraction`, `test_fraction`: expected fractions that leave some images to train "
            f"on, got {val_fraction} and {test_fraction}"
        )
    targets = []
    for total in np.bincount(labels, minlength=len(class_names)).tolist():
        test = max(1, round(total * test_fraction)) if test_fraction else 0
        val = max(1, round(total * val_fraction)) if val_fraction else 0
        targets.append([test, val, max(1, total - test - val)])
    numbers = assign_groups(labels, groups, targets=targets, seed=seed, class_names=class_names)
    return {
        name: np.flatnonzero(numbers == number)
        for name, number in {"train": 2, "val": 1, "test": 0}.items()
    }


def stratified_folds(
    labels: NDArray[np.int64],
    groups: Sequence[str],
    *,
    folds: int,
    seed: int | str,
    class_names: Sequence[str],
) -> NDArray[np.int64]:
    """Return the fold ``(N,)`` of each image, stratified, with each group in one fold.

    Args:
        labels: Integers ``(N,)``.
        groups: N keys; images with the same key stay together.
        folds: Number of folds.
        seed: Seed of the split.
        class_names: Names for the error.

    Raises:
        ValueError: A class has too few images.
    """
    targets = []
    for total in np.bincount(labels, minlength=len(class_names)).tolist():
        bounds = [round(total * fold / folds) for fold in range(folds + 1)]
        targets.append([max(1, after - before) for before, after in pairwise(bounds)])
    return assign_groups(labels, groups, targets=targets, seed=seed, class_names=class_names)


def tf_for_poets_split(paths: Sequence[str]) -> Indices:
    """Split as ``retrain.py`` of the codelab "TensorFlow for Poets": 10 % val, 10 % test.

    The rule hashes the path the codelab gave each file. On the 3,670 photos of flower_photos it
    makes 2949 / 359 / 362, the only public test set that accuracies were reported on
    (https://github.com/tensorflow/hub/blob/master/examples/image_retraining/retrain.py).

    Args:
        paths: Paths ``<class>/<file>``.

    Returns:
        Sorted indices of ``train``, ``val`` and ``test``.
    """
    largest = 2**27 - 1
    split: dict[str, list[int]] = {name: [] for name in SPLITS}
    for index, path in enumerate(paths):
        digest = hashlib.sha1(
            f"tf_files/flower_photos/{path}".encode(errors="surrogateescape"), usedforsecurity=False
        ).hexdigest()
        percent = (int(digest, 16) % (largest + 1)) * (100.0 / largest)
        split["val" if percent < 10 else "test" if percent < 20 else "train"].append(index)
    return {name: np.array(indices, dtype=np.int64) for name, indices in split.items()}


def split_table(index: FolderIndex, split: NDArray[np.object_]) -> list[str]:
    """Return a table of the images of each class and split; of many classes only the sums."""
    counts = {
        name: np.bincount(index.labels[split == name], minlength=len(index.class_names))
        for name in SPLITS
    }
    rows = [
        (name, [counts[side][label] for side in SPLITS])
        for label, name in enumerate(index.class_names)
    ]
    rows = [
        *(rows if len(rows) <= _MAX_LISTED_CLASSES else []),
        ("all", [counts[side].sum() for side in SPLITS]),
    ]
    width = max(len(name) for name, _ in rows)
    left_out = len(split) - sum(rows[-1][1])
    return [
        f"{len(split):,} images of {len(index.class_names)} classes in {index.root}"
        + (f", {left_out:,} of them in no split" if left_out else ""),
        *(
            f"  {name:<{width}}"
            + "".join(f"  {side} {count:>6,}" for side, count in zip(SPLITS, row, strict=True))
            for name, row in rows
        ),
    ]
