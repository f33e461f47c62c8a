"""Assignment of images to splits, with duplicates, groups, folds, manifest and quarantine."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowers.data.image_folder import FolderIndex, read_credits, shortened
from flowers.data.quality.duplicates import DuplicateRule, Pairs, connected
from flowers.data.quality.image_info import FolderInfo
from flowers.data.quality.quarantine import quarantined_images
from flowers.data.splitting.manifest import QUARANTINED, SKIPPED, SPLITS, split_of_manifest
from flowers.data.splitting.stratified import assign_groups, fold_targets, split_targets


@dataclass(frozen=True)
class SplitOptions:
    """Options of the split; ``FlowersDataModule`` describes its parameters of the same names.

    Raises:
        ValueError: The options contradict each other, or one is out of its range.
    """

    split: Literal["random", "tf_for_poets"] = "random"
    split_seed: int = 0
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    folds: int | None = None
    fold: int = 0
    group_by: Literal["photographer"] | None = None
    duplicates: DuplicateRule = "near"
    contradictions: Literal["train", "leave_out", "keep"] = "train"
    manifest: str | None = None
    quarantine: str | None = None

    def __post_init__(self) -> None:
        if self.folds in (0, 1) or self.fold not in range(self.folds or 1):
            raise ValueError(
                f"`folds` {self.folds}, `fold` {self.fold}: expected at least 2 folds, and the "
                "index of one of them, from 0 to folds - 1, such as `folds` 5 `fold` 0"
            )
        is_valid = self.val_fraction > 0 and self.test_fraction >= 0  # both are false for NaN
        if not (is_valid and self.val_fraction + self.test_fraction < 1):
            raise ValueError(
                f"`val_fraction`, `test_fraction`: expected fractions, together below 1, got "
                f"{self.val_fraction} and {self.test_fraction} (only test_fraction may be 0)"
            )
        if self.manifest is not None:
            self._expect_unset("folds", "group_by", given="`manifest`, which defines the split")
        elif self.split != "random":
            given = f"`split` {self.split}, which defines the split"
            self._expect_unset("folds", "group_by", given=given)

    def check_folder(self, index: FolderIndex) -> None:
        """Check that no option contradicts split folders; a manifest replaces the split folders.

        Raises:
            ValueError: An option contradicts the folder's split folders.
        """
        if index.given_splits is not None and self.manifest is None:
            given = (
                f"the split folders in `root` {index.root}, which define the split. To pool the "
                "splits, put all images under root/<class>."
            )
            self._expect_unset("folds", "group_by", "split", given=given)

    def _expect_unset(self, *names: str, given: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value not in (None, "random"):
                raise ValueError(f"`{name}` {value}: expected no value together with {given}")


class Assignment(NamedTuple):
    """The splits of the N images of a folder.

    Args:
        split: Split ``(N,)`` of each image, or the reason why it has none, as in a manifest.
        notes: Notes for the user.
    """

    split: NDArray[np.object_]
    notes: list[str]


def assign_splits(
    index: FolderIndex, info: FolderInfo, pairs: Pairs, *, options: SplitOptions
) -> Assignment:
    """Return the split of every image.

    Duplicates stay in one split. Images with conflicting labels are by default only trained on,
    because their correct label is unknown.

    Args:
        index: The folder.
        info: Image info; files that cannot be decoded are skipped.
        pairs: Pairs of duplicates.
        options: Options of the split.

    Raises:
        OSError: The manifest or the quarantine list cannot be read.
        ValueError: A list does not match the folder, a manifest has duplicates in two splits, or a
            class has too few images.
    """
    return _Assigner(index, info, pairs, options).assign()


class _Assigner:
    """An assignment in progress: the folder, the usable images, and the groups of duplicates."""

    def __init__(
        self, index: FolderIndex, info: FolderInfo, pairs: Pairs, options: SplitOptions
    ) -> None:
        self.index = index
        self.info = info
        self.options = options
        self.pairs = pairs.indices
        # Number of the group of duplicates of each image. An image that is left out still connects
        # its duplicates, so that they stay in one split.
        self.groups_of_duplicates = connected(len(index.paths), self.pairs)
        self.notes: list[str] = []
        self.quarantined, unknown = quarantined_images(index, info, quarantine=options.quarantine)
        self.usable = ~self.quarantined
        self.usable[list(info.errors)] = False
        if options.quarantine is not None:
            self._note(self.quarantined, "are in quarantine")
        if unknown:
            self.notes.append(
                f"`quarantine`: {len(unknown)} lines name a file that is missing or has "
                f"changed, ignored: {shortened(unknown)}"
            )

    def assign(self) -> Assignment:
        conflicting = self._conflicting()
        self._note_duplicates()
        if self.options.contradictions == "leave_out":
            self.usable &= ~conflicting
        only_train = conflicting & (self.options.contradictions == "train")
        split = self._given()
        split[~self.usable | (only_train & (split != "train"))] = SKIPPED
        if self.options.manifest is not None:
            self._check_leaks(split)
        else:
            self._leave_out_leaks(split)
            if self.options.split == "random":
                self._split_training(split, only_train)
            self._check_classes(split)
        split[self.quarantined] = QUARANTINED
        return Assignment(split, self.notes)

    def _conflicting(self) -> NDArray[np.bool_]:
        """Return ``(N,)`` whether an image is usable and has duplicates with another label."""
        groups = self.groups_of_duplicates
        group_labels = np.stack([groups, self.index.labels], axis=1)[self.usable]
        num_labels = np.bincount(np.unique(group_labels, axis=0)[:, 0], minlength=len(groups))
        conflicting: NDArray[np.bool_] = self.usable & (num_labels[groups] > 1)
        if conflicting.any():
            uses = {"train": "only trained on", "leave_out": "left out", "keep": "used like others"}
            use = uses[self.options.contradictions]
            self._note(conflicting, f"have conflicting labels, {use} (`contradictions`)")
        return conflicting

    def _note_duplicates(self) -> None:
        sizes = np.bincount(self.groups_of_duplicates[self.usable])
        sizes = sizes[sizes > 1]
        if len(sizes) > 0:
            self.notes.append(
                f"{sizes.sum():,} images have duplicates (`duplicates` {self.options.duplicates}); "
                f"groups: {len(sizes):,}, images in the largest: {sizes.max():,}"
            )

    def _given(self) -> NDArray[np.object_]:
        """Return the split ``(N,)`` by the manifest, the folder or a rule, or ``train``."""
        index = self.index
        if self.options.manifest is not None:
            files = {}
            for path, label, image in zip(index.paths, index.labels, self.info.images, strict=True):
                if image.error is None:
                    files[path] = (index.class_names[label], image.sha256)
            splits = split_of_manifest(self.options.manifest, files=files)
            return np.array([splits.get(path, SKIPPED) for path in index.paths], dtype=object)
        if index.given_splits is not None:
            return index.given_splits.copy()
        if self.options.split == "tf_for_poets":
            return tf_for_poets_split(index.paths)
        return np.full(len(index.paths), "train", dtype=object)

    def _leave_out_leaks(self, split: NDArray[np.object_]) -> None:
        """Leave out duplicates of validation and test images."""
        ranks = np.array([(SKIPPED, *SPLITS).index(name) for name in split])
        highest = np.zeros(len(split), dtype=np.int64)
        np.maximum.at(highest, self.groups_of_duplicates, ranks)
        leaking = (ranks > 0) & (ranks < highest[self.groups_of_duplicates])
        if leaking.any():
            self._note(leaking, "are duplicates of a validation or test image, left out")
        split[leaking] = SKIPPED

    def _split_training(self, split: NDArray[np.object_], only_train: NDArray[np.bool_]) -> None:
        """Move training images to the splits that the folder lacks, at random or by folds."""
        options = self.options
        labels = self.index.labels
        names = self.index.class_names
        val_fraction = self._missing_fraction("val", options.val_fraction)
        test_fraction = self._missing_fraction("test", options.test_fraction)
        if not val_fraction and not test_fraction:
            return
        groups = self._groups()
        must_train = np.isin(groups, groups[only_train])  # whole groups
        num_others = ((split == "train") & must_train & ~only_train).sum()
        if num_others > 0:
            self.notes.append(
                f"{num_others:,} more images, of the same groups, are only trained on"
            )
        movable = np.flatnonzero((split == "train") & ~must_train)
        seed = f"{options.split_seed}"
        if options.folds is not None:
            totals = np.bincount(labels[movable], minlength=len(names))
            targets = fold_targets(totals, options.folds)
            folds = assign_groups(
                labels[movable], groups[movable], targets=targets, seed=seed, class_names=names
            )
            split[movable[folds == options.fold]] = "test"
            movable = movable[folds != options.fold]
            test_fraction = 0.0
            # Otherwise all folds would select their checkpoints on the same images.
            seed = f"{seed} {options.fold}"
        totals = np.bincount(labels[movable], minlength=len(names))
        targets = split_targets(totals, (test_fraction, val_fraction))
        numbers = assign_groups(
            labels[movable], groups[movable], targets=targets, seed=seed, class_names=names
        )
        split[movable] = np.array(["test", "val", "train"], dtype=object)[numbers]

    def _missing_fraction(self, name: str, fraction: float) -> float:
        """Return the fraction of the training images for a split; 0 if the folder has it."""
        given_splits = self.index.given_splits
        if given_splits is not None and name in given_splits:
            return 0.0
        if given_splits is not None and fraction > 0:
            self.notes.append(
                f"There is no {name} folder with images: a fraction of {fraction:g} of train is "
                f"used (`{name}_fraction`)"
            )
        return fraction

    def _groups(self) -> NDArray[np.str_]:
        """Return a key of each image; images that must stay in one split have the same key."""
        names = np.array(self.info.sha256)
        if self.options.duplicates == "ignore":  # identical files have different keys
            names = np.strings.add(np.strings.add(names, " "), np.array(self.index.paths))
        numbers = self.groups_of_duplicates
        if self.options.group_by is not None:
            pairs = np.concatenate([self.pairs, self._same_photographer()])
            numbers = connected(len(numbers), pairs)
        # The smallest name of a group is its key, independent of the order of the files.
        order = np.lexsort((names, ~self.usable))
        _, first = np.unique(numbers[order], return_index=True)
        return names[order[first]][numbers]

    def _same_photographer(self) -> NDArray[np.int64]:
        """Return each photo with the first of the same photographer, as pairs."""
        credits = read_credits(self.index.root)
        first: dict[str, int] = {}
        pairs = []
        for image in np.flatnonzero(self.usable).tolist():
            if credit := credits.get(self.index.paths[image]):
                pairs.append((first.setdefault(credit.photographer, image), image))
        if not pairs:
            raise ValueError(
                f"`group_by` photographer: expected {self.index.root / 'LICENSE.txt'} with lines "
                "'class/file.jpg CC-BY by NAME - URL', got no line for a photo in this folder. "
                "Add them, or leave the option out."
            )
        self.notes.append(
            f"{len(first):,} photographers, each in one split; "
            f"{self.usable.sum() - len(pairs):,} photos without a credit, split one by one"
        )
        return np.array(pairs, dtype=np.int64)

    def _check_classes(self, split: NDArray[np.object_]) -> None:
        if untrained := self.index.untrained_classes(split):
            raise ValueError(
                f"`root` {self.index.root}: expected training images of every class, got none of "
                f"{', '.join(untrained)}: all are in other splits, in quarantine, or duplicates "
                "of images in other splits. Add images, or remove the class."
            )

    def _check_leaks(self, split: NDArray[np.object_]) -> None:
        paths = self.index.paths
        leaks = []
        first: dict[int, int] = {}
        for i in np.flatnonzero(split != SKIPPED).tolist():
            other = first.setdefault(int(self.groups_of_duplicates[i]), i)
            if split[other] != split[i]:
                leaks.append(f"{paths[other]} ({split[other]}) = {paths[i]} ({split[i]})")
        if leaks:
            listing = "\n  ".join(leaks[:20])
            raise ValueError(
                f"`manifest` {self.options.manifest}: {len(leaks)} pairs of duplicates are in two "
                f"splits:\n  {listing}\nPut each pair into one split, or give `duplicates` exact "
                "or ignore if the images are different."
            )

    def _note(self, images: NDArray[np.bool_], text: str) -> None:
        """Add a note about images with their number and paths."""
        paths = np.array(self.index.paths, dtype=object)[images].tolist()
        names = f": {shortened(paths)}" if paths else ""
        self.notes.append(f"{len(paths):,} images {text}{names}")


def tf_for_poets_split(paths: Sequence[str]) -> NDArray[np.object_]:
    """Split as ``retrain.py`` of the codelab "TensorFlow for Poets": 10 % val, 10 % test.

    The rule hashes the path the codelab gave each file. On the 3,670 photos of flower_photos it
    makes 2949 / 359 / 362, the only public test set that accuracies were reported on
    (https://github.com/tensorflow/hub/blob/master/examples/image_retraining/retrain.py).

    Args:
        paths: Paths ``<class>/<file>``.
    """
    largest = 2**27 - 1
    split = np.full(len(paths), "train", dtype=object)
    for index, path in enumerate(paths):
        file = f"tf_files/flower_photos/{path}".encode(errors="surrogateescape")
        digest = hashlib.sha1(file, usedforsecurity=False).hexdigest()
        percent = (int(digest, 16) % (largest + 1)) * (100.0 / largest)
        if percent < 10:
            split[index] = "val"
        elif percent < 20:
            split[index] = "test"
    return split


def split_table(index: FolderIndex, split: NDArray[np.object_]) -> list[str]:
    """Return a table of the images of each class and split; totals only for over 200 classes."""
    num_classes = len(index.class_names)
    columns = [np.bincount(index.labels[split == name], minlength=num_classes) for name in SPLITS]
    counts = np.stack(columns, axis=1)
    rows = [("all", counts.sum(axis=0))]
    if num_classes <= 200:
        rows = [*zip(index.class_names, counts, strict=True), *rows]
    title = f"{len(split):,} images of {num_classes} classes in {index.root}"
    num_left_out = len(split) - counts.sum()
    if num_left_out > 0:
        title += f", {num_left_out:,} of them in no split"
    width = max(len(name) for name, _ in rows)
    lines = [title]
    for name, row in rows:
        cells = [f"  {SPLITS[k]} {count:>6,}" for k, count in enumerate(row)]
        lines.append(f"  {name:<{width}}{''.join(cells)}")
    return lines
