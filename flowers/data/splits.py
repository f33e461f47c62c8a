"""Which image trains, which validates, which tests: pure functions of labels and file contents."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Indices = dict[str, NDArray[np.int64]]

SplitRule = Literal["random", "tf_for_poets"]
SPLITS = ("train", "val", "test")


def stratified_split(
    labels: NDArray[np.int64],
    groups: Sequence[str],
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    class_names: Sequence[str],
) -> Indices:
    """Split every class by the same fractions, keeping each group on one side.

    Groups are put in the order of a hash of (seed, group), so neither the names nor the order of the files matter, and
    a new file moves few others.

    Args:
        labels: Integers ``(N,)``.
        groups: N keys; images with the same key, as the checksum of identical files, stay together.
        val_fraction: Share of each class for validation.
        test_fraction: Share of each class for the test.
        seed: Seed of the split; another thing than the seed of the training.
        class_names: Names for the error.

    Returns:
        Sorted indices of ``train``, ``val`` and ``test``: disjoint, and all N together.

    Raises:
        ValueError: The fractions leave nothing to train on, or a class has too few images.
    """
    if not (0 < val_fraction < 1 and 0 <= test_fraction < 1 and val_fraction + test_fraction < 1):
        raise ValueError(
            f"--data.val_fraction, --data.test_fraction: expected fractions that leave some images to train on, got "
            f"{val_fraction} and {test_fraction}"
        )
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    by_class: dict[int, list[str]] = defaultdict(list)
    for group in sorted(members, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest()):
        by_class[min(int(labels[index]) for index in members[group])].append(group)
    split: dict[str, list[int]] = {name: [] for name in SPLITS}
    for label, class_name in enumerate(class_names):
        sizes = {group: len(members[group]) for group in by_class[label]}
        for group, name in _deal(sizes, val=val_fraction, test=test_fraction, class_name=class_name).items():
            split[name] += members[group]
    return {name: np.array(sorted(indices), dtype=np.int64) for name, indices in split.items()}


def _deal(sizes: dict[str, int], *, val: float, test: float, class_name: str) -> dict[str, str]:
    """Deal the groups of one class: first the test's share, then validation's, the rest trains."""
    total = sum(sizes.values())
    wanted = {"test": max(1, round(total * test)) if test else 0, "val": max(1, round(total * val)), "train": 1}
    dealt: dict[str, str] = {}
    filled = dict.fromkeys(SPLITS, 0)
    for group, size in sizes.items():
        name = next((name for name in ("test", "val") if filled[name] < wanted[name]), "train")
        dealt[group] = name
        filled[name] += size
    if any(filled[name] < 1 <= wanted[name] for name in SPLITS):
        raise ValueError(
            f"--data.root: class {class_name!r} has {total} images, {len(sizes)} of them different: too few for "
            f"{', '.join(name for name in SPLITS if wanted[name])}. Add images, or take the class away."
        )
    return dealt


def tf_for_poets_split(paths: Sequence[str]) -> Indices:
    """Split as TensorFlow Hub's ``retrain.py`` did for the codelab "TensorFlow for Poets": 10 % val, 10 % test.

    The rule hashes the path the codelab gave each file. On the 3,670 photos of flower_photos it makes 2949 / 359 / 362,
    the only public test set that accuracies were reported on
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
