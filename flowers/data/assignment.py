"""Which side each image of a folder goes to, by everything that has a say in it: copies, groups, folds, lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flowers.data.credits import read_credits
from flowers.data.duplicates import connected
from flowers.data.manifest import QUARANTINED, SKIPPED, read_manifest, split_of_manifest
from flowers.data.quarantine import in_quarantine
from flowers.data.splits import SPLITS, SplitOptions, stratified_folds, stratified_split, tf_for_poets_split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from flowers.data.duplicates import Pairs
    from flowers.data.facts import FolderFacts
    from flowers.data.folder import FolderIndex


@dataclass(frozen=True)
class Assignment:
    """Where the N images of a folder went.

    Args:
        split: Split ``(N,)`` of each, or why it is in none, in the words of a manifest.
        notes: What a person should know about it.
    """

    split: NDArray[np.object_]
    notes: list[str]


def assign_splits(index: FolderIndex, facts: FolderFacts, copies: Pairs, *, options: SplitOptions) -> Assignment:
    """Return the split of every image.

    Copies of one picture go to one side. A picture that is there under two labels says nothing about which of them is
    right: unless asked otherwise it is only trained on.

    Args:
        index: The folder.
        facts: What its files are; those that cannot be decoded are skipped.
        copies: Pairs that count as the same picture.
        options: How to split.

    Raises:
        OSError: A list cannot be read.
        ValueError: A list does not fit the folder, a manifest has copies on two sides, or a class has too few images.
    """
    notes: list[str] = []
    usable = np.ones(len(index.paths), dtype=bool)
    usable[[*facts.errors]] = False
    quarantined = _quarantined(index, facts, options, notes)
    usable[quarantined] = False
    pairs = copies.indices[usable[copies.indices].all(axis=1)]
    if options.manifest is not None:
        split = _stated(index, facts, options.manifest)
        split[~usable] = SKIPPED
        _refuse_leaks(split, pairs, index.paths, options.manifest)
    else:
        contradicting = _contradicting(index, pairs, options, notes)
        if options.contradictions == "leave_out":
            usable &= ~contradicting
        only_train = contradicting & (options.contradictions == "train")
        if options.split == "tf_for_poets":
            split = _published([*index.paths], usable, pairs, only_train, notes)
        else:
            split = _drawn(index, usable, _groups(index, facts, pairs, options, notes), only_train, options)
    split[quarantined] = QUARANTINED
    return Assignment(split, notes)


def split_table(index: FolderIndex, split: NDArray[np.object_]) -> list[str]:
    """Return lines that say how many images of each class are in which split; of many classes only the sums."""
    counts = {name: np.bincount(index.labels[split == name], minlength=len(index.class_names)) for name in SPLITS}
    rows = [(name, [counts[side][label] for side in SPLITS]) for label, name in enumerate(index.class_names)]
    rows = [*(rows if len(rows) <= 20 else []), ("all", [counts[side].sum() for side in SPLITS])]
    width = max(len(name) for name, _ in rows)
    left_out = len(split) - sum(rows[-1][1])
    return [
        f"{len(split):,} images of {len(index.class_names)} classes in {index.root}"
        + (f", {left_out:,} of them in no split" if left_out else ""),
        *(
            f"  {name:<{width}}" + "".join(f"  {side} {count:>6,}" for side, count in zip(SPLITS, row, strict=True))
            for name, row in rows
        ),
    ]


def _quarantined(index: FolderIndex, facts: FolderFacts, options: SplitOptions, notes: list[str]) -> NDArray[np.int64]:
    if options.quarantine is None:
        return np.empty(0, dtype=np.int64)
    named, others = in_quarantine(options.quarantine, paths=index.paths, sha256=facts.sha256)
    notes.append(f"{len(named)} images are in quarantine: {_listing([index.paths[i] for i in named])}")
    if others:
        notes.append(
            f"--data.quarantine: {len(others)} lines name a file that is gone or has another content since, not "
            f"followed: {_listing(others)}"
        )
    return named


def _contradicting(
    index: FolderIndex, pairs: NDArray[np.int64], options: SplitOptions, notes: list[str]
) -> NDArray[np.bool_]:
    """Return ``(N,)`` whether an image is in a group of copies with more than one label."""
    numbers = connected(len(index.labels), pairs)
    labels = index.labels[pairs]
    found = np.isin(numbers, numbers[pairs[labels[:, 0] != labels[:, 1], 0]])
    if found.any():
        what = {"train": "only trained on", "leave_out": "left out", "keep": "kept as any other"}
        notes.append(
            f"{found.sum()} images are the same picture under two labels, {what[options.contradictions]} "
            f"(--data.contradictions): {_listing([index.paths[i] for i in np.flatnonzero(found)])}"
        )
    return found


def _groups(
    index: FolderIndex, facts: FolderFacts, pairs: NDArray[np.int64], options: SplitOptions, notes: list[str]
) -> NDArray[np.str_]:
    """Return a key of each image; images that have to stay together have the same."""
    if options.group_by is not None:
        pairs = np.concatenate([pairs, _same_photographer(index, notes)])
    numbers, sha256 = connected(len(index.paths), pairs), np.array(facts.sha256)
    # The smallest checksum of a group names it, whatever the order of the files.
    order = np.argsort(sha256, kind="stable")
    _, first = np.unique(numbers[order], return_index=True)
    keys: NDArray[np.str_] = sha256[order[first]][numbers]
    return keys


def _same_photographer(index: FolderIndex, notes: list[str]) -> NDArray[np.int64]:
    """Return each photo with the first of the same photographer, as pairs."""
    photographers = {path: credit.photographer for path, credit in read_credits(index.root).items()}
    first: dict[str, int] = {}
    named = [(i, photographers[path]) for i, path in enumerate(index.paths) if path in photographers]
    pairs = [(first.setdefault(photographer, i), i) for i, photographer in named]
    if not pairs:
        raise ValueError(
            f"--data.group_by photographer: expected {index.root / 'LICENSE.txt'} with lines "
            f"'class/file.jpg CC-BY by NAME - URL', got none of a photo at hand. Write them, or leave the option out."
        )
    notes.append(
        f"{len(first):,} photographers, each on one side; {len(index.paths) - len(named):,} photos without a credit, "
        f"each on its own"
    )
    return np.array(pairs, dtype=np.int64)


def _drawn(
    index: FolderIndex,
    usable: NDArray[np.bool_],
    groups: NDArray[np.str_],
    only_train: NDArray[np.bool_],
    options: SplitOptions,
) -> NDArray[np.object_]:
    """Split at random, or by folds: one tests, and a share of the others validates."""
    split = np.full(len(usable), SKIPPED, dtype=object)
    only_train = usable & np.isin(groups, groups[only_train])  # with all that has to stay with them
    split[only_train] = "train"
    chosen, test_fraction = np.flatnonzero(usable & ~only_train), options.test_fraction
    how: dict[str, Any] = {"seed": options.split_seed, "class_names": index.class_names}
    if options.folds is not None:
        folds = stratified_folds(index.labels[chosen], groups[chosen].tolist(), folds=options.folds, **how)
        split[chosen[folds == options.fold]] = "test"
        chosen, test_fraction = chosen[folds != options.fold], 0.0
    how |= {"val_fraction": options.val_fraction, "test_fraction": test_fraction}
    for name, where in stratified_split(index.labels[chosen], groups[chosen].tolist(), **how).items():
        split[chosen[where]] = name
    return split


def _published(
    paths: list[str],
    usable: NDArray[np.bool_],
    pairs: NDArray[np.int64],
    only_train: NDArray[np.bool_],
    notes: list[str],
) -> NDArray[np.object_]:
    """Split as the published rule does; its test is fixed, so what copies an image of it is left out elsewhere."""
    split = np.full(len(paths), SKIPPED, dtype=object)
    for name, where in tf_for_poets_split(paths).items():
        split[where] = name
    split[~usable | (only_train & (split != "train"))] = SKIPPED
    order = (SKIPPED, "train", "val", "test")
    ranks, numbers = np.array([order.index(name) for name in split]), connected(len(paths), pairs)
    highest = np.zeros(len(paths), dtype=np.int64)
    np.maximum.at(highest, numbers, ranks)
    leaking = np.flatnonzero((ranks > 0) & (ranks < highest[numbers]))
    if len(leaking):
        notes.append(
            f"{len(leaking)} images are copies of one that validates or tests, left out: "
            f"{_listing([paths[i] for i in leaking.tolist()])}"
        )
    split[leaking] = SKIPPED
    return split


def _stated(index: FolderIndex, facts: FolderFacts, manifest: str) -> NDArray[np.object_]:
    """Split as a manifest says."""
    split = np.full(len(index.paths), SKIPPED, dtype=object)
    decodable = [i for i, image in enumerate(facts.images) if image.error is None]
    labels = [index.class_names[label] for label in index.labels]
    files = {index.paths[i]: (labels[i], facts.images[i].sha256) for i in decodable}
    for name, where in split_of_manifest(read_manifest(manifest), files=files).items():
        split[np.array(decodable)[where]] = name
    return split


def _refuse_leaks(split: NDArray[np.object_], pairs: NDArray[np.int64], paths: Sequence[str], manifest: str) -> None:
    leaks = [(a, b) for a, b in pairs if split[a] != split[b] and SKIPPED not in (split[a], split[b])]
    if leaks:
        listing = "\n  ".join(f"{paths[a]} ({split[a]}) = {paths[b]} ({split[b]})" for a, b in leaks[:20])
        raise ValueError(
            f"--data.manifest {manifest}: {len(leaks)} pairs of identical or nearly identical images stand on two "
            f"sides:\n  {listing}\nPut each pair on one side, or say with --data.duplicates exact, or ignore, that "
            f"they are different pictures."
        )


def _listing(names: Sequence[str], limit: int = 6) -> str:
    return ", ".join(names[:limit]) + (" ..." if len(names) > limit else "")
