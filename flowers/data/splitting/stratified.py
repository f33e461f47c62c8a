"""Stratified assignment of groups of images to splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def assign_groups(
    labels: NDArray[np.int64],
    groups: Sequence[str],
    *,
    targets: list[list[int]],
    seed: int | str,
    class_names: Sequence[str],
) -> NDArray[np.int64]:
    """Return the number of the split ``(N,)`` of each image; a group is assigned as a whole.

    Groups are assigned in the order of a hash of (seed, group) to the first split with room for
    them. Names and order of the files thus have no effect, and a new file moves few others (of
    3,308 photos, removing ten moves nine; scikit-learn's grouped folds move 1,090). Groups that are
    too large are assigned first, to the split with the most room.

    Args:
        labels: Integers ``(N,)``.
        groups: N keys; images with the same key stay together.
        targets: For each class, the number of images of each split.
        seed: Seed of the order.
        class_names: Class names for the error.

    Raises:
        ValueError: A class has too few groups.
    """
    assigner = _GroupAssigner(labels, groups, targets, seed)
    large = [group for group in assigner.members if assigner.is_large(group)]
    for group in sorted(large, key=lambda group: -len(assigner.members[group])):
        assigner.put(group, assigner.roomiest(group))
    assigner.lower_targets()
    for group in assigner.members:
        if group not in assigner.splits:
            assigner.put(group, assigner.first_with_room(group))
    for label, name in enumerate(class_names):
        for split, count in enumerate(targets[label]):
            if count and not assigner.filled[label][split] and not assigner.fill(label, split):
                num_splits = sum(map(bool, targets[label]))
                raise ValueError(
                    f"`root`: class {name!r} has {sum(assigner.filled[label])} images to split, in "
                    f"{assigner.num_groups(label)} groups (duplicates count once): too few for "
                    f"{num_splits} splits. Add images, or remove the class; `duplicates`, "
                    f"`group_by` and `quarantine` decide which images form groups or are left out."
                )
    splits = np.empty(len(labels), dtype=np.int64)
    for group, split in assigner.splits.items():
        splits[assigner.members[group]] = split
    return splits


class _GroupAssigner:
    """The splits of the groups so far, with the number of images of each class and its target."""

    def __init__(
        self,
        labels: NDArray[np.int64],
        groups: Sequence[str],
        targets: list[list[int]],
        seed: int | str,
    ) -> None:
        members: dict[str, list[int]] = defaultdict(list)
        for index, group in enumerate(groups):
            members[group].append(index)
        order = sorted(members, key=lambda group: sha256(f"{seed}:{group}".encode()).digest())
        self.members = {group: members[group] for group in order}
        self.counts: dict[str, Counter[int]] = {}
        for group, indices in self.members.items():
            self.counts[group] = Counter(labels[indices].tolist())
        self.targets = [list(row) for row in targets]
        self.filled = [[0] * len(row) for row in targets]
        self.splits: dict[str, int] = {}

    def num_groups(self, label: int) -> int:
        return sum(label in counts for counts in self.counts.values())

    def is_large(self, group: str) -> bool:
        """Return whether a group exceeds the second largest target of one of its classes."""
        for label, count in self.counts[group].items():
            if count > sorted(self.targets[label])[-2]:
                return True
        return False

    def put(self, group: str, split: int) -> None:
        if group in self.splits:
            for label, count in self.counts[group].items():
                self.filled[label][self.splits[group]] -= count
        self.splits[group] = split
        for label, count in self.counts[group].items():
            self.filled[label][split] += count

    def roomiest(self, group: str) -> int:
        """Return the split with the most room for the classes of a group."""

        def room(split: int) -> int:
            labels = self.counts[group]
            return sum(self.targets[label][split] - self.filled[label][split] for label in labels)

        return max(range(len(self.targets[0])), key=room)

    def first_with_room(self, group: str) -> int:
        for split in range(len(self.targets[0])):
            if all(
                self.filled[label][split] + count <= self.targets[label][split]
                for label, count in self.counts[group].items()
            ):
                return split
        return self.roomiest(group)

    def lower_targets(self) -> None:
        """Lower the targets of the other splits where large groups exceed that of a split."""
        for label in range(len(self.targets)):
            self._lower_targets(label)

    def _lower_targets(self, label: int) -> None:
        targets = self.targets[label]
        filled = self.filled[label]
        total = sum(targets)
        original = list(targets)
        full: set[int] = set()
        while True:
            exceeded = {split for split, count in enumerate(filled) if count > targets[split]}
            if exceeded <= full:
                return
            full |= exceeded
            rest = total - sum(filled[split] for split in full)
            others = [s for s in range(len(targets)) if s not in full and original[s]]
            scale = rest / max(1, sum(original[split] for split in others))
            bounds = np.cumsum([0, *[original[split] * scale for split in others]]).round()
            for split, target in zip(others, np.diff(bounds).astype(int).tolist(), strict=True):
                targets[split] = max(1, target)
            for split in full:
                targets[split] = filled[split]

    def fill(self, label: int, split: int) -> bool:
        """Move the smallest movable group that contains a class into an empty split.

        Returns:
            Whether a group could be moved without emptying another split.
        """
        movable = []
        for group, counts in self.counts.items():
            current = self.splits[group]
            leaves_some = all(self.filled[k][current] > count for k, count in counts.items())
            if label in counts and leaves_some:
                movable.append(group)
        if movable:
            self.put(min(movable, key=lambda group: len(self.members[group])), split)
        return bool(movable)
