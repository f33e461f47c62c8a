"""Which images are the same picture: identical files, and near duplicates found by comparing thumbnails."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, pad
from tqdm import tqdm

from flowers.data.cache import build_once, cache_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

DuplicateRule = Literal["near", "exact", "ignore"]

# CONSTANTS
_COARSE_THRESHOLD = 0.70
# Of each stage of the alignment: by how much thumbnails are reduced, Gauss-Newton steps, smallest similarity.
_STAGES = ((2, 2, 0.4), (2, 4, 0.7), (1, 3, 0.6))
# Frequencies of the coarse comparison: half waves across and down the image that are together fewer than this.
_FREQUENCIES = 10
# Pixels at each edge of a thumbnail that the coarse comparison leaves out: a frame may be there, or a crop's loss.
_EDGE = 4
# Length of a coarse descriptor below which an image is flat: a contrast of a quarter of a grey level.
_FLAT = 10.0
# Deviation in grey levels that rounding and compression make by themselves.
_NOISE = 2.0
# Largest change of an image's sides, and shift in halves of a side, that the alignment makes.
_MOST_CHANGE = 0.25
# In a larger group not all pairs are looked for: one placeholder saved in N ways would have N * N / 2.
_LARGE_GROUP = 50
_ROWS = 512
_COLUMNS = 4096
_BATCH = 512
_FORMAT = 2  # raise it when the similarity changes: pairs cached before are then computed anew


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
        thumbnails: Grey bytes ``(N, 48, 48)``.
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
    entry = build_once(cache_dir, cache_key(f"similar {_FORMAT}", content), build)
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
    """Return the pairs of images that are the same picture, whole or nearly whole, turned and mirrored or not.

    First all pairs are compared by the lowest frequencies of their centres, as perceptual hashes do
    (https://www.hackerfactor.com/blog/index.php?/archives/432-Looks-Like-It.html). Mirroring an image changes the signs
    of its odd frequencies and transposing it exchanges the two axes, so one matrix product compares eight orientations.

    The few pairs left are then aligned: Gauss-Newton steps find the shift, scale, rotation and shear between the two
    (https://doi.org/10.1023/B:VISI.0000011205.11775.fd), at half the resolution first. What is compared is the local
    contrast, each pixel's deviation from its surroundings as a multiple of their standard deviation
    (http://yann.lecun.com/exdb/publis/pdf/jarrett-iccv-09.pdf): light and colour hardly change it, and an outline on a
    plain ground counts no more than what is inside. The similarity is its cosine where the aligned images overlap.

    Of images with the very same thumbnail, as a placeholder saved many times, each is paired with the first only; a
    group of many similar ones has pairs enough to connect it. The order of the images does not matter.

    Args:
        thumbnails: Grey bytes ``(N, 48, 48)``.
    """
    contents = [_content(thumbnail) for thumbnail in thumbnails]
    same = identical_pairs(contents)
    different = np.setdiff1d(np.arange(len(thumbnails)), same.indices[:, 1])
    # Compared in the order of their contents, images have the same pairs whatever their order.
    order = np.array(sorted(different, key=contents.__getitem__), dtype=np.int64)
    spectra = _spectra(thumbnails, order)
    pairs = np.empty((0, 2), dtype=np.int64)
    similarity = np.empty(0, dtype=np.float32)
    group = np.arange(len(order))
    in_large_group = np.zeros(len(order), dtype=bool)
    for candidates in _candidates(spectra):
        while len(candidates):
            first, second = candidates.T
            candidates = candidates[~in_large_group[first] | (group[first] != group[second])]
            batch = candidates[:_BATCH]
            candidates = candidates[_BATCH:]
            cosine = _similarity(thumbnails, order, spectra, batch)
            is_duplicate = cosine > 0
            if is_duplicate.any():
                pairs = np.concatenate([pairs, batch[is_duplicate]])
                similarity = np.concatenate([similarity, cosine[is_duplicate]])
                group = connected(len(order), pairs)
                in_large_group = np.bincount(group)[group] > _LARGE_GROUP
    pairs = np.sort(order[pairs], axis=1)
    by_index = np.lexsort(pairs.T[::-1])
    return Pairs(
        np.concatenate([same.indices, pairs[by_index]]), np.concatenate([same.similarity, similarity[by_index]])
    )


def connected(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a number ``(count,)`` for each image that is the same for all images connected by pairs ``(P, 2)``."""
    first, second = pairs.T
    graph = coo_array((np.ones(len(pairs), dtype=bool), (first, second)), shape=(count, count))
    numbers: NDArray[np.int64] = connected_components(graph, directed=False)[1]
    return numbers


def _content(thumbnail: NDArray[np.uint8]) -> bytes:
    """Return a checksum; empty for a thumbnail of one grey."""
    if np.ptp(thumbnail) == 0:
        return b""
    return hashlib.sha256(thumbnail.tobytes()).digest()


def _spectra(thumbnails: NDArray[np.uint8], order: NDArray[np.int64]) -> Tensor:
    """Return the lowest frequencies ``(N, 10, 10)`` of the thumbnails' centres, of length 1; zero for a flat image."""
    frequency = np.arange(_FREQUENCIES)
    total = frequency[:, None] + frequency
    is_used = (total > 0) & (total < _FREQUENCIES)
    spectra = np.zeros((len(order), _FREQUENCIES, _FREQUENCIES), dtype=np.float32)
    for start in range(0, len(order), _COLUMNS):
        images = thumbnails[order[start : start + _COLUMNS]][:, _EDGE:-_EDGE, _EDGE:-_EDGE].astype(np.float32)
        values = dctn(images, axes=(1, 2), norm="ortho")[:, :_FREQUENCIES, :_FREQUENCIES] * is_used
        # A few strong ones, as of a bright object on a dark ground, would outweigh all others.
        limit = 2 * np.abs(values).sum(axis=(1, 2), keepdims=True) / is_used.sum()
        values = values.clip(-limit, limit)
        length = np.linalg.norm(values, axis=(1, 2), keepdims=True)
        spectra[start : start + _COLUMNS] = np.where(length < _FLAT, 0, values / length.clip(_FLAT))
    return torch.from_numpy(spectra)


def _in_all_orientations(spectra: Tensor) -> Tensor:
    """Return the spectra ``(8, N, 10, 10)`` of the images as ``_oriented`` turns them."""
    sign = (-1.0) ** torch.arange(_FREQUENCIES)
    mirrored = [spectra, spectra * sign, spectra * sign[:, None], spectra * sign * sign[:, None]]
    return torch.stack(mirrored + [spectrum.transpose(1, 2) for spectrum in mirrored])


def _oriented(images: Tensor, orientation: Tensor) -> Tensor:
    """Return images ``(P, S, S)`` mirrored and transposed as their numbers from 0 to 7 ``(P,)`` say."""
    orientation = orientation[:, None, None]
    images = torch.where(orientation % 2 == 1, images.flip(2), images)
    images = torch.where(orientation // 2 % 2 == 1, images.flip(1), images)
    return torch.where(orientation >= 4, images.transpose(1, 2), images)


def _candidates(spectra: Tensor) -> Iterator[NDArray[np.int64]]:
    """Yield the pairs ``(P, 2)``, in any order, whose spectra are similar in one of eight orientations."""
    count = len(spectra)
    total = torch.arange(_FREQUENCIES)[:, None] + torch.arange(_FREQUENCIES)
    is_used = (total > 0) & (total < _FREQUENCIES)
    packed = spectra[:, is_used]
    starts = range(0, count, _ROWS)
    generator = torch.Generator().manual_seed(0)
    for row in tqdm(starts, desc="Comparing images", unit="row", disable=None if count > _COLUMNS else True):
        oriented = _in_all_orientations(spectra[row : row + _ROWS])[:, :, is_used]
        for column in range(row, count, _COLUMNS):
            others = packed[column : column + _COLUMNS]
            cosine = (oriented.flatten(0, 1) @ others.T).unflatten(0, (8, -1)).amax(0)
            pairs = (cosine >= _COARSE_THRESHOLD).nonzero() + torch.tensor([row, column])
            pairs = pairs[pairs[:, 0] < pairs[:, 1]]
            # At random, a few batches connect images that are all alike.
            yield pairs[torch.randperm(len(pairs), generator=generator)].numpy()


def _similarity(
    thumbnails: NDArray[np.uint8], order: NDArray[np.int64], spectra: Tensor, pairs: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the similarity ``(P,)`` of pairs ``(P, 2)`` in their best orientation; 0 for no duplicates."""
    first, second = torch.from_numpy(pairs).T
    cosine = (_in_all_orientations(spectra[first]) * spectra[second]).sum((2, 3))
    orientation, pair = (cosine >= _COARSE_THRESHOLD).nonzero().T
    reference = torch.from_numpy(thumbnails[order[second[pair]]]).float()
    moving = _oriented(torch.from_numpy(thumbnails[order[first[pair]]]).float(), orientation)
    similarity = torch.zeros(len(pairs)).scatter_reduce(0, pair, _aligned_similarity(reference, moving), "amax")
    values: NDArray[np.float32] = similarity.numpy()
    return values


def _aligned_similarity(reference: Tensor, moving: Tensor) -> Tensor:
    """Return the similarity ``(P,)`` of images ``(P, S, S)`` after alignment; 0 where it is below a threshold."""
    similarity = torch.zeros(len(reference))
    left = torch.arange(len(reference))
    if len(left) == 0:
        return similarity
    transform = torch.eye(2, 3).repeat(len(reference), 1, 1)
    for reduction, steps, threshold in _STAGES:
        images = avg_pool2d(torch.stack([reference[left], moving[left]]), reduction)
        cosine, transform = _align(*_local_contrast(images), transform, steps=steps)
        is_similar = cosine >= threshold
        left = left[is_similar]
        transform = transform[is_similar]
        if len(left) == 0:
            return similarity
    similarity[left] = cosine[is_similar]
    return similarity


def _local_contrast(images: Tensor) -> Tensor:
    """Return each pixel's deviation from the mean of 5 x 5 pixels, in their standard deviations."""
    mean = avg_pool2d(images, 5, stride=1, padding=2, count_include_pad=False)
    deviation = images - mean
    variance = avg_pool2d(deviation**2, 5, stride=1, padding=2, count_include_pad=False)
    return deviation / (variance + _NOISE**2).sqrt()


def _align(reference: Tensor, moving: Tensor, transform: Tensor, *, steps: int) -> tuple[Tensor, Tensor]:
    """Improve the affine transforms that lay one image on the other.

    Args:
        reference: Images ``(P, S, S)``.
        moving: Images ``(P, S, S)``.
        transform: Where in the moving image each pixel of the reference lies, ``(P, 2, 3)`` as of ``affine_grid``.
        steps: Gauss-Newton steps.

    Returns:
        Cosine ``(P,)`` of the images where they overlap, and the transforms.
    """
    size = reference.shape[-1]
    # Derivative of the reference by the six numbers of the transform, without the outermost pixels.
    position = (torch.arange(size) + 0.5) * 2 / size - 1
    slopes = [(reference[:, 2:-2, 3:-1] - reference[:, 2:-2, 1:-3]), (reference[:, 3:-1, 2:-2] - reference[:, 1:-3, 2:-2])]
    derivatives = []
    for slope in slopes:
        slope = pad(slope * size / 4, (2, 2, 2, 2))
        derivatives += [slope * position, slope * position[:, None], slope]
    jacobian = torch.stack(derivatives, 1).flatten(2)
    normal = jacobian @ jacobian.transpose(1, 2)
    damping = 0.02 * normal.diagonal(dim1=1, dim2=2).mean(1) + 1e-3
    solver = torch.linalg.solve(normal + damping[:, None, None] * torch.eye(6), jacobian)

    inside = torch.zeros(size, size, dtype=torch.bool)
    inside[2:-2, 2:-2] = True
    identity = torch.eye(2, 3)
    for step in range(steps + 1):
        grid = affine_grid(transform, [len(moving), 1, size, size], align_corners=False)
        overlap = (grid.abs() <= 1 - 1 / size).all(-1) & inside
        warped = grid_sample(moving[:, None], grid, align_corners=False)[:, 0]
        if step < steps:
            difference = ((reference - warped) * overlap).flatten(1)
            update = (solver @ difference[:, :, None]).unflatten(1, (2, 3))[..., 0]
            transform = identity + (transform + update - identity).clamp(-_MOST_CHANGE, _MOST_CHANGE)
    first = (reference * overlap).flatten(1)
    second = (warped * overlap).flatten(1)
    return torch.cosine_similarity(first, second), transform
