"""Assignment of images to splits, with duplicates, groups, folds, manifest and quarantine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flowers.data.image_folder import read_credits, shortened
from flowers.data.quality.duplicates import connected
from flowers.data.quality.quarantine import in_quarantine
from flowers.data.splitting.manifest import QUARANTINED, SKIPPED, read_manifest, split_of_manifest
from flowers.data.splitting.splits import (
    SPLITS,
    SplitOptions,
    stratified_folds,
    stratified_split,
    tf_for_poets_split,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowers.data.image_folder import FolderIndex
    from flowers.data.quality.duplicates import Pairs
    from flowers.data.quality.image_info import FolderFacts


@dataclass(frozen=True)
class Assignment:
    """The splits of the N images of a folder.

    Args:
        split: Split ``(N,)`` of each image, or the reason why it has none, as in a manifest.
        notes: Notes for the user.
    """

    split: NDArray[np.object_]
    notes: list[str]


def assign_splits(
    index: FolderIndex, facts: FolderFacts, copies: Pairs, *, options: SplitOptions
) -> Assignment:
    """Return the split of every image.

    Duplicates stay in one split. Images with conflicting labels are by default only trained on,
    because their correct label is unknown.

    Args:
        index: The folder.
        facts: Image info; files that cannot be decoded are skipped.
        copies: Pairs of duplicates.
        options: Options of the split.

    Raises:
        OSError: The manifest or the quarantine list cannot be read.
        ValueError: A list does not match the folder, a manifest has duplicates in two splits, or a
            class has too few images.
    """
    return _Assigner(index, facts, copies, options).assign()


def quarantined_images(
    index: FolderIndex, facts: FolderFacts, *, quarantine: str | None
) -> tuple[NDArray[np.int64], list[str]]:
    """Return the indices of the images in quarantine, and the listed paths that match no image.

    Raises:
        OSError: The list cannot be read.
        ValueError: The file is not a quarantine list.
    """
    if quarantine is None:
        return np.empty(0, dtype=np.int64), []
    return in_quarantine(quarantine, paths=index.paths, sha256=facts.sha256)


class _Assigner:
    """An assignment in progress: the folder, the usable images, and the groups of duplicates."""

    def __init__(
        self, index: FolderIndex, facts: FolderFacts, copies: Pairs, options: SplitOptions
    ) -> None:
        self.index = index
        self.facts = facts
        self.options = options
        self.copies = copies.indices
        # Number of the group of duplicates of each image. Images that are left out connect others,
        # too: of three duplicates the other two stay together without the first.
        self.groups_of_duplicates = connected(len(index.paths), self.copies)
        self.notes: list[str] = []
        self.quarantined, others = quarantined_images(index, facts, quarantine=options.quarantine)
        self.usable = np.ones(len(index.paths), dtype=bool)
        self.usable[[*facts.errors, *self.quarantined]] = False
        if options.quarantine is not None:
            names = f": {self._named(self.quarantined)}" if len(self.quarantined) else ""
            self.notes.append(f"{len(self.quarantined)} images are in quarantine{names}")
        if others:
            self.notes.append(
                f"--data.quarantine: {len(others)} lines name a file that is missing or has "
                f"changed, ignored: {shortened(others)}"
            )

    def assign(self) -> Assignment:
        conflicting = self._conflicting()
        only_train = conflicting & (self.options.contradictions == "train")
        if self.options.contradictions == "leave_out":
            self.usable &= ~conflicting
        if self.options.manifest is not None:
            split = self._by_manifest(only_train)
            self._check_leaks(split, self.options.manifest)
        else:
            split = self._leave_out_leaks(self._given(), only_train)
            self._split_training(split, only_train)
            self._check_classes(split)
        split[self.quarantined] = QUARANTINED
        return Assignment(split, self.notes)

    def _conflicting(self) -> NDArray[np.bool_]:
        """Return ``(N,)`` whether an image is usable and has duplicates with another label."""
        pairs = np.unique(
            np.stack([self.groups_of_duplicates, self.index.labels], axis=1)[self.usable], axis=0
        )
        pictures, num_labels = np.unique(pairs[:, 0], return_counts=True)
        conflicting: NDArray[np.bool_] = self.usable & np.isin(
            self.groups_of_duplicates, pictures[num_labels > 1]
        )
        if conflicting.any():
            use = {
                "train": "only trained on",
                "leave_out": "left out",
                "keep": "used like others",
            }[self.options.contradictions]
            self.notes.append(
                f"{conflicting.sum()} images have conflicting labels, {use} "
                f"(--data.contradictions): {self._named(conflicting)}"
            )
        sizes = np.bincount(self.groups_of_duplicates[self.usable])
        if (sizes > 1).any():
            self.notes.append(
                f"{sizes[sizes > 1].sum():,} images are duplicates (--data.duplicates "
                f"{self.options.duplicates}) in {(sizes > 1).sum():,} groups, the largest of "
                f"{sizes.max():,}"
            )
        return conflicting

    def _groups(self) -> NDArray[np.str_]:
        """Return a key of each image; images that must stay in one split have the same key."""
        sha256 = np.array(self.facts.sha256)
        if self.options.duplicates == "ignore":
            return np.array(
                [f"{digest} {path}" for digest, path in zip(sha256, self.index.paths, strict=True)]
            )
        numbers = self.groups_of_duplicates
        if self.options.group_by is not None:
            numbers = connected(
                len(numbers), np.concatenate([self.copies, self._same_photographer()])
            )
        # The smallest checksum of a group is its key, independent of the order of the files.
        order = np.lexsort((sha256, ~self.usable))
        _, first = np.unique(numbers[order], return_index=True)
        keys: NDArray[np.str_] = sha256[order[first]][numbers]
        return keys

    def _same_photographer(self) -> NDArray[np.int64]:
        """Return each photo with the first of the same photographer, as pairs."""
        credit = read_credits(self.index.root)
        first: dict[str, int] = {}
        paths = self.index.paths
        named = [
            (i, credit[paths[i]].photographer)
            for i in np.flatnonzero(self.usable)
            if paths[i] in credit
        ]
        pairs = [(first.setdefault(photographer, int(i)), int(i)) for i, photographer in named]
        if not pairs:
            raise ValueError(
                f"`group_by` photographer: expected {self.index.root / 'LICENSE.txt'} with lines "
                "'class/file.jpg CC-BY by NAME - URL', got none of a photo in the folder. Add "
                "them, or leave the option out."
            )
        self.notes.append(
            f"{len(first):,} photographers, each in one split; "
            f"{self.usable.sum() - len(named):,} photos without a credit, split one by one"
        )
        return np.array(pairs, dtype=np.int64)

    def _given(self) -> NDArray[np.object_]:
        """Return the split ``(N,)`` by the folder or a published rule, or ``train``."""
        if self.index.given_splits is not None:
            return self.index.given_splits
        split = np.full(len(self.usable), "train", dtype=object)
        if self.options.split == "tf_for_poets":
            for name, where in tf_for_poets_split([*self.index.paths]).items():
                split[where] = name
        return split

    def _leave_out_leaks(
        self, given: NDArray[np.object_], only_train: NDArray[np.bool_]
    ) -> NDArray[np.object_]:
        """Leave out unusable images, and duplicates of validation and test images."""
        split = given.copy()
        split[~self.usable | (only_train & (split != "train"))] = SKIPPED
        ranks = np.array([(SKIPPED, "train", "val", "test").index(name) for name in split])
        highest = np.zeros(len(split), dtype=np.int64)
        np.maximum.at(highest, self.groups_of_duplicates, ranks)
        leaking = (ranks > 0) & (ranks < highest[self.groups_of_duplicates])
        if leaking.any():
            self.notes.append(
                f"{leaking.sum():,} images are duplicates of a validation or test image, left out: "
                f"{self._named(leaking)}"
            )
        split[leaking] = SKIPPED
        return split

    def _split_training(self, split: NDArray[np.object_], only_train: NDArray[np.bool_]) -> None:
        """Move training images to validation and test, at random or by folds, unless given."""
        index = self.index
        options = self.options
        if options.split == "tf_for_poets":
            return
        val_fraction = self._missing_fraction("val", options.val_fraction)
        test_fraction = self._missing_fraction("test", options.test_fraction)
        if not val_fraction and not test_fraction:
            return
        groups = self._groups()
        trained = np.isin(groups, groups[only_train])  # with the images of the same groups
        num_others = ((split == "train") & trained & ~only_train).sum()
        if num_others > 0:
            self.notes.append(f"{num_others:,} images of the same groups are only trained on, too")
        movable = np.flatnonzero((split == "train") & ~trained)
        seed = f"{options.split_seed}"
        names = index.class_names
        if options.folds is not None:
            labels = index.labels[movable]
            keys = groups[movable].tolist()
            folds = stratified_folds(
                labels, keys, folds=options.folds, seed=seed, class_names=names
            )
            split[movable[folds == options.fold]] = "test"
            movable = movable[folds != options.fold]
            test_fraction = 0.0
            # Otherwise all folds would select their checkpoints on the same images.
            seed = f"{seed} {options.fold}"
        positions = stratified_split(
            index.labels[movable],
            groups[movable].tolist(),
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            seed=seed,
            class_names=names,
        )
        for name, where in positions.items():
            split[movable[where]] = name

    def _missing_fraction(self, name: str, fraction: float) -> float:
        """Return the fraction of the training images for a split; 0 if the folder has it."""
        given = self.index.given_splits
        if given is None:
            return fraction
        if name in given:
            return 0.0
        if fraction == 0:
            return 0.0
        self.notes.append(
            f"There is no {name} folder with images: a fraction of {fraction:g} of train is used "
            f"(--data.{name}_fraction)"
        )
        return fraction

    def _check_classes(self, split: NDArray[np.object_]) -> None:
        counts = np.bincount(
            self.index.labels[split == "train"], minlength=len(self.index.class_names)
        )
        untrained = [self.index.class_names[label] for label in np.flatnonzero(counts == 0)]
        if untrained:
            raise ValueError(
                f"`root` {self.index.root}: no image is left to train on of "
                f"{', '.join(untrained)}: all are in other splits, in quarantine, or duplicates "
                "of images in other splits. Add images, or remove the class."
            )

    def _by_manifest(self, only_train: NDArray[np.bool_]) -> NDArray[np.object_]:
        """Return the split ``(N,)`` of the manifest."""
        assert self.options.manifest is not None
        index = self.index
        split = np.full(len(index.paths), SKIPPED, dtype=object)
        numbers = []
        files = {}
        for number, image in enumerate(self.facts.images):
            if image.error is None:
                numbers.append(number)
                class_name = index.class_names[index.labels[number]]
                files[index.paths[number]] = (class_name, image.sha256)
        rows = read_manifest(self.options.manifest)
        for name, where in split_of_manifest(rows, files=files).items():
            split[np.array(numbers)[where]] = name
        split[~self.usable | (only_train & (split != "train"))] = SKIPPED
        return split

    def _check_leaks(self, split: NDArray[np.object_], manifest: str) -> None:
        if self.options.duplicates == "ignore":
            return
        paths = self.index.paths
        leaks = []
        first: dict[int, int] = {}
        for i in np.flatnonzero(np.isin(split.astype(str), SPLITS)).tolist():
            other = first.setdefault(int(self.groups_of_duplicates[i]), i)
            if split[other] != split[i]:
                leaks.append(f"{paths[other]} ({split[other]}) = {paths[i]} ({split[i]})")
        if leaks:
            listing = "\n  ".join(leaks[:20])
            raise ValueError(
                f"`manifest` {manifest}: {len(leaks)} pairs of duplicates are in two splits:\n  "
                f"{listing}\nPut each pair into one split, or give `duplicates` exact or ignore "
                "if the images are different."
            )

    def _named(self, images: NDArray[np.int64] | NDArray[np.bool_]) -> str:
        return shortened(np.array(self.index.paths, dtype=object)[images].tolist())
