"""Which images are the same picture: identical files, and near duplicates found by comparing thumbnails."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from flowers.data.cache import build_once, cache_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

DuplicateRule = Literal["near", "exact", "ignore"]

# On the 3,308 photos of flower_photos at hand the pairs from 0.53 up are all the same picture, looked at by eye, and
# below 0.50 nearly none is. A recompressed, halved, brightened or grey copy has 0.92 or more; 3 % cut off gives 0.5 to
# 0.9. The rest up to the threshold is a margin for sets whose images are more alike than flowers are.
_THRESHOLD = 0.75
# At half the resolution, which is cheap to compare, no pair above the threshold had less than 0.80.
_COARSE_THRESHOLD = 0.70
_TILE = 4096
_FORMAT = 1  # raise it when the similarity changes: pairs cached before are then computed anew


class Pairs(NamedTuple):
    """Pairs of images that show the same picture.

    Args:
        indices: Indices of the two images ``(P, 2)``, the smaller first.
        similarity: Similarity ``(P,)``; 1 for identical files.
    """

    indices: NDArray[np.int64]
    similarity: NDArray[np.float32]


def duplicate_pairs(
    sha256: Sequence[str], thumbnails: NDArray[np.uint8], *, rule: DuplicateRule, cache_dir: Path
) -> Pairs:
    """Return the pairs of images that count as the same picture.

    Args:
        sha256: Checksums of the N files; empty where a file could not be read.
        thumbnails: Grey bytes ``(N, 32, 32)``.
        rule: Identical files and ``near`` duplicates, ``exact`` ones only, or none.
        cache_dir: Folder of the cache, where near duplicates are remembered.

    Raises:
        OSError: The cache cannot be written.
    """
    if rule == "ignore":
        return Pairs(np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.float32))
    exact = identical_pairs(sha256)
    if rule == "exact":
        return exact

    def build(folder: Path) -> None:
        similar = similar_pairs(thumbnails[others])
        np.savez(folder / "pairs.npz", indices=similar.indices, similarity=similar.similarity)

    others = np.setdiff1d(np.arange(len(sha256)), exact.indices[:, 1])  # one file of each content
    content = hashlib.sha256(thumbnails[others].data).hexdigest()
    entry = build_once(cache_dir, cache_key(f"similar {_FORMAT} {_THRESHOLD} {_COARSE_THRESHOLD}", content), build)
    with np.load(entry / "pairs.npz") as stored:
        return Pairs(
            np.concatenate([exact.indices, others[stored["indices"]]]),
            np.concatenate([exact.similarity, stored["similarity"]]),
        )


def identical_pairs(contents: Sequence[str | bytes]) -> Pairs:
    """Return each index of a content (or its checksum) that is there before, with the first such; none if empty."""
    first: dict[str | bytes, int] = {}
    pairs = [(first.setdefault(content, index), index) for index, content in enumerate(contents) if content]
    indices = np.array([pair for pair in pairs if pair[0] != pair[1]], dtype=np.int64).reshape(-1, 2)
    return Pairs(indices, np.ones(len(indices), dtype=np.float32))


def similar_pairs(thumbnails: NDArray[np.uint8]) -> Pairs:
    """Return the pairs of images whose thumbnails have much the same gradients.

    The similarity is the cosine between the brightness gradients of two thumbnails: whatever brightness, contrast,
    colour, size and compression change leaves it near 1. So that two skies, two frames or two outlines on black are not
    all that counts, the mean gradient is taken away, large ones are cut off, and the outermost pixels left out. It is a
    dHash (https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html) with values in place of
    bits, so that all pairs are compared by matrix products: at half the resolution first, then the few that are left.
    Of images with the very same thumbnail, as a placeholder saved many times, each is paired with the first only.

    Args:
        thumbnails: Grey bytes ``(N, 32, 32)``.
    """
    same = identical_pairs(["" if np.ptp(thumbnail) == 0 else thumbnail.tobytes() for thumbnail in thumbnails])
    different = np.setdiff1d(np.arange(len(thumbnails)), same.indices[:, 1])
    thumbnails, count = thumbnails[different], len(different)
    coarse = _coarse_descriptors(thumbnails)
    found, similarity = [same.indices], [same.similarity]
    starts = range(0, count, _TILE)
    tiles = [(row, column) for row in starts for column in starts if column >= row]
    for row, column in tqdm(tiles, desc="Comparing images", unit="tile", disable=None if count > _TILE else True):
        close = coarse[row : row + _TILE] @ coarse[column : column + _TILE].T >= _COARSE_THRESHOLD
        pairs = np.argwhere(np.triu(close, 1) if row == column else close) + np.array([row, column])
        fine = _fine_similarity(thumbnails, pairs)
        found.append(different[pairs[fine >= _THRESHOLD]])
        similarity.append(fine[fine >= _THRESHOLD])
    return Pairs(np.concatenate(found), np.concatenate(similarity))


def connected(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a number ``(count,)`` for each image that is the same for all images connected by pairs ``(P, 2)``."""
    first, second = pairs.T
    graph = coo_array((np.ones(len(pairs), dtype=bool), (first, second)), shape=(count, count))
    numbers: NDArray[np.int64] = connected_components(graph, directed=False)[1]
    return numbers


def _coarse_descriptors(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return unit vectors ``(N, 364)``."""
    half = thumbnails.shape[1] // 2
    blocks = [
        _gradients(thumbnails[at : at + _TILE].reshape(-1, half, 2, half, 2).mean((2, 4), dtype=np.float32), border=1)
        for at in range(0, len(thumbnails), _TILE)
    ]
    return np.concatenate(blocks) if blocks else np.empty((0, 1), dtype=np.float32)


def _fine_similarity(thumbnails: NDArray[np.uint8], pairs: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the similarity ``(P,)`` of pairs ``(P, 2)`` at full resolution."""
    blocks = [np.empty(0, dtype=np.float32)]
    for at in range(0, len(pairs), _TILE):
        first, second = (_gradients(thumbnails[side].astype(np.float32), border=2) for side in pairs[at : at + _TILE].T)
        blocks.append(np.einsum("nd,nd->n", first, second))
    return np.concatenate(blocks)


def _gradients(images: NDArray[np.float32], *, border: int) -> NDArray[np.float32]:
    """Return the gradients of images ``(N, S, S)`` as unit vectors; zero for an image without any."""
    inner = images[:, border:-border, border:-border]
    gradients = (np.diff(inner, axis=axis).reshape(len(images), -1) for axis in (2, 1))
    vectors = np.concatenate([values - values.mean(axis=1, keepdims=True) for values in gradients], axis=1)
    limit = 2 * np.abs(vectors).mean(axis=1, keepdims=True)
    vectors = vectors.clip(-limit, limit)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = vectors / np.maximum(lengths, 1e-6)
    return unit
