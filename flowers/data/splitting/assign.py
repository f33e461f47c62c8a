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
    """Where the N images of a folder went.

    Args:
        split: Split ``(N,)`` of each, or why it is in none, in the words of a manifest.
        notes: What a person should know about it.
    """

    split: NDArray[np.object_]
    notes: list[str]


def assign_splits(
    index: FolderIndex, facts: FolderFacts, copies: Pairs, *, options: SplitOptions
) -> Assignment:
    """Return the split of every image.

    Copies of one picture go to one side. A picture that is there under two labels says nothing
    about which of them is
    right: unless asked otherwise it is only trained on.

    Args:
        index: The folder.
        facts: What its files are; those that cannot be decoded are skipped.
        copies: Pairs that count as the same picture.
        options: How to split.

    Raises:
        OSError: A list cannot be read.
        ValueError: A list does not fit the folder, a manifest has copies on two sides, or a class
            has too few images.
    """
    return _Assigner(index, facts, copies, options).assign()


def quarantined_images(
    index: FolderIndex, facts: FolderFacts, *, quarantine: str | None
) -> tuple[NDArray[np.int64], list[str]]:
    """Return the indices of the images in quarantine, and the listed paths that match no image.

    Raises:
        OSError: The list cannot be read.
        ValueError: It is no such list.
    """
    if quarantine is None:
        return np.empty(0, dtype=np.int64), []
    return in_quarantine(quarantine, paths=index.paths, sha256=facts.sha256)


class _Assigner:
    """An assignment in progress: the folder, the usable images, and the groups of duplicates."""

    def __init__(
        self, index: FolderIndex, facts: FolderFacts, copies: Pairs, options: SplitOptions
    ) -> None:
        self.index, self.facts, self.options = index, facts, options
        self.copies = copies.indices
        # Connected by copies that are themselves left out, too: three copies stay together without
        # the first.
        self.pictures = connected(len(index.paths), self.copies)
        self.notes: list[str] = []
        self.quarantined, others = quarantined_images(index, facts, quarantine=options.quarantine)
        self.usable = np.ones(len(index.paths), dtype=bool)
        self.usable[[*facts.errors, *self.quarantined]] = False
        if options.quarantine is not None:
            names = f": {self._named(self.quarantined)}" if len(self.quarantined) else ""
            self.notes.append(f"{len(self.quarantined)} images are in quarantine{names}")
        if others:
            self.notes.append(
                f"--data.quarantine: {len(others)} lines name a file that is gone or has another "
                f"content since, not "
                f"followed: {shortened(others)}"
            )

    def assign(self) -> Assignment:
        contradicting = self._contradicting()
        only_train = contradicting & (self.options.contradictions == "train")
        if self.options.contradictions == "leave_out":
            self.usable &= ~contradicting
        if self.options.manifest is not None:
            split = self._stated(only_train)
            self._refuse_leaks(split, self.options.manifest)
        else:
            split = self._without_leaks(self._given(), only_train)
            self._split_training(split, only_train)
            self._refuse_untrained_classes(split)
        split[self.quarantined] = QUARANTINED
        return Assignment(split, self.notes)

    def _contradicting(self) -> NDArray[np.bool_]:
        """Return ``(N,)`` whether a usable image shows a picture with more than one label."""
        pairs = np.unique(np.stack([self.pictures, self.index.labels], axis=1)[self.usable], axis=0)
        pictures, num_labels = np.unique(pairs[:, 0], return_counts=True)
        found: NDArray[np.bool_] = self.usable & np.isin(self.pictures, pictures[num_labels > 1])
        if found.any():
            what = {
                "train": "never evaluated",
                "leave_out": "left out",
                "keep": "kept as any other",
            }
            self.notes.append(
                f"{found.sum()} images are the same picture under two labels, "
                f"{what[self.options.contradictions]} "
                f"(--data.contradictions): {self._named(found)}"
            )
        sizes = np.bincount(self.pictures[self.usable])
        if (sizes > 1).any():
            self.notes.append(
                f"{sizes[sizes > 1].sum():,} images are copies of each other (--data.duplicates "
                f"{self.options.duplicates}): {(sizes > 1).sum():,} pictures, the commonest "
                f"{sizes.max():,} times"
            )
        return found

    def _groups(self) -> NDArray[np.str_]:
        """Return a key of each image; images that have to stay together have the same."""
        sha256 = np.array(self.facts.sha256)
        if self.options.duplicates == "ignore":
            return np.array(
                [f"{digest} {path}" for digest, path in zip(sha256, self.index.paths, strict=True)]
            )
        numbers = self.pictures
        if self.options.group_by is not None:
            numbers = connected(
                len(numbers), np.concatenate([self.copies, self._same_photographer()])
            )
        # The smallest checksum of a group names it, whatever the order of the files.
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
                f"'class/file.jpg CC-BY by NAME - URL', got none of a photo at hand. Write them, "
                f"or leave the option "
                f"out."
            )
        self.notes.append(
            f"{len(first):,} photographers, each on one side; {self.usable.sum() - len(named):,} "
            f"photos without a "
            f"credit, each on its own"
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

    def _without_leaks(
        self, given: NDArray[np.object_], only_train: NDArray[np.bool_]
    ) -> NDArray[np.object_]:
        """Leave out unusable images, and duplicates of validation and test images."""
        split = given.copy()
        split[~self.usable | (only_train & (split != "train"))] = SKIPPED
        ranks = np.array([(SKIPPED, "train", "val", "test").index(name) for name in split])
        highest = np.zeros(len(split), dtype=np.int64)
        np.maximum.at(highest, self.pictures, ranks)
        leaking = (ranks > 0) & (ranks < highest[self.pictures])
        if leaking.any():
            self.notes.append(
                f"{leaking.sum():,} images are copies of one that validates or tests, left out: "
                f"{self._named(leaking)}"
            )
        split[leaking] = SKIPPED
        return split

    def _split_training(self, split: NDArray[np.object_], only_train: NDArray[np.bool_]) -> None:
        """Move training images to validation and test, at random or by folds, unless given."""
        index, options = self.index, self.options
        if options.split == "tf_for_poets":
            return
        val_fraction = self._missing_fraction("val", options.val_fraction)
        test_fraction = self._missing_fraction("test", options.test_fraction)
        if not val_fraction and not test_fraction:
            return
        groups = self._groups()
        trained = np.isin(groups, groups[only_train])  # with all that has to stay with them
        if (more := ((split == "train") & trained & ~only_train).sum()) > 0:
            self.notes.append(
                f"{more:,} images belong to a group with such a picture, so they are only trained "
                f"on too"
            )
        movable = np.flatnonzero((split == "train") & ~trained)
        seed, names = f"{options.split_seed}", index.class_names
        if options.folds is not None:
            labels, keys = index.labels[movable], groups[movable].tolist()
            folds = stratified_folds(
                labels, keys, folds=options.folds, seed=seed, class_names=names
            )
            split[movable[folds == options.fold]] = "test"
            movable, test_fraction = movable[folds != options.fold], 0.0
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
            f"There is no {name} folder with images: a fraction of {fraction:g} of train is taken "
            f"instead "
            f"(--data.{name}_fraction)"
        )
        return fraction

    def _refuse_untrained_classes(self, split: NDArray[np.object_]) -> None:
        counts = np.bincount(
            self.index.labels[split == "train"], minlength=len(self.index.class_names)
        )
        untrained = [self.index.class_names[label] for label in np.flatnonzero(counts == 0)]
        if untrained:
            raise ValueError(
                f"`root` {self.index.root}: no image is left to train on of "
                f"{', '.join(untrained)}: all are in "
                f"other splits, in quarantine, or copies of images there. Add images, or take the "
                f"class away."
            )

    def _stated(self, only_train: NDArray[np.bool_]) -> NDArray[np.object_]:
        """Split as the manifest says."""
        assert self.options.manifest is not None
        index, images = self.index, self.facts.images
        split = np.full(len(images), SKIPPED, dtype=object)
        decodable = [i for i, image in enumerate(images) if image.error is None]
        names = [index.class_names[label] for label in index.labels]
        files = {index.paths[i]: (names[i], images[i].sha256) for i in decodable}
        for name, where in split_of_manifest(
            read_manifest(self.options.manifest), files=files
        ).items():
            split[np.array(decodable)[where]] = name
        split[~self.usable | (only_train & (split != "train"))] = SKIPPED
        return split

    def _refuse_leaks(self, split: NDArray[np.object_], manifest: str) -> None:
        if self.options.duplicates == "ignore":
            return
        paths, leaks = self.index.paths, []
        first: dict[int, int] = {}
        for i in np.flatnonzero(np.isin(split.astype(str), SPLITS)).tolist():
            other = first.setdefault(int(self.pictures[i]), i)
            if split[other] != split[i]:
                leaks.append(f"{paths[other]} ({split[other]}) = {paths[i]} ({split[i]})")
        if leaks:
            listing = "\n  ".join(leaks[:20])
            raise ValueError(
                f"`manifest` {manifest}: {len(leaks)} pairs of identical or nearly identical "
                f"images stand on two "
                f"sides:\n  {listing}\nPut each pair on one side, or say with `duplicates` exact, "
                f"or ignore, that "
                f"they are different pictures."
            )

    def _named(self, images: NDArray[np.int64] | NDArray[np.bool_]) -> str:
        return shortened(np.array(self.index.paths, dtype=object)[images].tolist())
