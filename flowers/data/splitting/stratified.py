"""Deals groups of images to the sides of a split, each class in the shares that are wanted."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def deal(
    labels: NDArray[np.int64],
    groups: Sequence[str],
    *,
    wanted: list[list[int]],
    seed: int | str,
    class_names: Sequence[str],
) -> NDArray[np.int64]:
    """Return the side ``(N,)`` of each image; every group goes to one side as a whole.

    Groups come in the order of a hash of (seed, group) and go to the first side with room, so
    neither the names nor the order of the files matter, and a new file moves few others. Groups too
    large for that come before, to the side with the most room, and the others share what is left.

    Args:
        labels: Integers ``(N,)``.
        groups: N keys; images with the same key stay together.
        wanted: For each class, the number of images of each side.
        seed: Seed of the order.
        class_names: Names for the error.

    Raises:
        ValueError: A class has too few groups.
    """
    dealer = _Dealer(labels, groups, wanted, seed)
    large = [group for group in dealer.members if dealer.is_large(group)]
    for group in sorted(large, key=lambda group: -len(dealer.members[group])):
        dealer.put(group, dealer.roomiest(group))
    dealer.share_the_rest()
    for group in dealer.members:
        if group not in dealer.sides:
            dealer.put(group, dealer.first_with_room(group))
    for label, name in enumerate(class_names):
        for side, count in enumerate(wanted[label]):
            if count and not dealer.filled[label][side] and not dealer.fill(label, side):
                raise ValueError(
                    f"`root`: class {name!r} has {sum(dealer.filled[label])} images to split, "
                    f"{dealer.num_groups(label)} of them different (copies, near duplicates and "
                    f"groups count once): "
                    f"too few for {sum(map(bool, wanted[label]))} sides. Add images, or take the "
                    f"class away; where "
                    f"different images count as the same, or are left out, see `duplicates`, "
                    f"`group_by` and "
                    f"`quarantine`."
                )
    sides = np.empty(len(labels), dtype=np.int64)
    for group, side in dealer.sides.items():
        sides[dealer.members[group]] = side
    return sides


class _Dealer:
    """Where the groups are so far, and how many images of each class each side has and wants."""

    def __init__(
        self,
        labels: NDArray[np.int64],
        groups: Sequence[str],
        wanted: list[list[int]],
        seed: int | str,
    ) -> None:
        members: dict[str, list[int]] = defaultdict(list)
        for index, group in enumerate(groups):
            members[group].append(index)
        order = sorted(
            members, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest()
        )
        self.members = {group: members[group] for group in order}
        self.counts = {
            group: Counter(labels[indices].tolist()) for group, indices in self.members.items()
        }
        self.wanted = [list(row) for row in wanted]
        self.filled = [[0] * len(row) for row in wanted]
        self.sides: dict[str, int] = {}

    def num_groups(self, label: int) -> int:
        return sum(label in counts for counts in self.counts.values())

    def is_large(self, group: str) -> bool:
        """Return whether a group is more than any side but the largest wants."""
        return any(
            count > sorted(self.wanted[label])[-2] for label, count in self.counts[group].items()
        )

    def put(self, group: str, side: int) -> None:
        if group in self.sides:
            for label, count in self.counts[group].items():
                self.filled[label][self.sides[group]] -= count
        self.sides[group] = side
        for label, count in self.counts[group].items():
            self.filled[label][side] += count

    def roomiest(self, group: str) -> int:
        def room(side: int) -> int:
            return sum(
                self.wanted[label][side] - self.filled[label][side] for label in self.counts[group]
            )

        return max(range(len(self.wanted[0])), key=room)

    def first_with_room(self, group: str) -> int:
        for side in range(len(self.wanted[0])):
            counts = self.counts[group].items()
            if all(
                self.filled[label][side] + count <= self.wanted[label][side]
                for label, count in counts
            ):
                return side
        return self.roomiest(group)

    def share_the_rest(self) -> None:
        """Reduce the targets of the other splits if large groups exceeded that of a split."""
        for label, wanted in enumerate(self.wanted):
            total, original = sum(wanted), list(wanted)
            over: set[int] = set()
            while (
                more := {
                    side for side, have in enumerate(self.filled[label]) if have > wanted[side]
                }
                - over
            ):
                over |= more
                rest = total - sum(self.filled[label][side] for side in over)
                others = [
                    side for side in range(len(wanted)) if side not in over and original[side]
                ]
                share = rest / max(1, sum(original[side] for side in others))
                bounds = (
                    np.cumsum([0, *(original[side] * share for side in others)]).round().astype(int)
                )
                for side, want in zip(others, np.diff(bounds).tolist(), strict=True):
                    wanted[side] = max(1, want)
                for side in over:
                    wanted[side] = self.filled[label][side]

    def fill(self, label: int, side: int) -> bool:
        """Move the smallest movable group with a class into a split without it; return success."""

        def leaves_some(group: str) -> bool:
            come_from = self.sides[group]
            return all(self.filled[k][come_from] > count for k, count in self.counts[group].items())

        movable = [
            group for group, counts in self.counts.items() if label in counts and leaves_some(group)
        ]
        if movable:
            self.put(min(movable, key=lambda group: len(self.members[group])), side)
        return bool(movable)
