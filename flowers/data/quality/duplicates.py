"""Duplicates: identical files, and near duplicates, whose thumbnails are similar."""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import grid_sample, normalize, pad
from tqdm import tqdm

from flowers.data.cache import build_once, cache_key
from flowers.data.quality.image_info import FolderInfo
from flowers.runtime import num_allowed_cores

DuplicateRule = Literal["near", "exact", "ignore"]


class _Stage(NamedTuple):
    """A stage of the alignment.

    Args:
        pool: Side of the squares of the average pooling, in pixels; above 1 to reduce noise.
        stride: Stride of the average pooling, in pixels.
        width: Side of the window of the local mean and standard deviation, in pooled pixels.
        steps: Number of Gauss-Newton steps.
        threshold: Pairs with a lower similarity are rejected.
    """

    pool: int
    stride: int
    width: int
    steps: int
    threshold: float


class _Images(NamedTuple):
    """Descriptors of N images.

    Args:
        thumbnails: Grey bytes ``(N, 48, 48)``.
        spectra: Low-frequency DCT coefficients ``(N, 10, 10)`` of the thumbnails without their
            edges, L2-normalized; zero for a flat image.
        gradients: Histograms of oriented gradients ``(N, 8, 8, 8)``, L2-normalized, in bfloat16.
    """

    thumbnails: Tensor
    spectra: Tensor
    gradients: Tensor


# Measured on 3,308 photos of flower_photos. 36 pairs reach this threshold, all with at least 0.74,
# and all of them are duplicates. The pairs from 0.46 to the threshold were inspected: 4 show one
# scene, taken a moment later (0.61 to 0.65); all others show different dandelions (at most 0.59).
# The margin is for data sets that are more uniform than photos. Of the 50 million pairs among
# 10,000 synthetic flowers, 5 reach the threshold, all of them roses of the same shape. Of pairs of
# different textures with the same outline, 2 % reach it. scripts/benchmark.py measures how many
# duplicates are missed.
_THRESHOLD = 0.65
# The 36 pairs of duplicates have at least 0.73. Of all pairs of these photos 0.05 % reach this
# threshold, of all pairs of synthetic flowers 0.29 %. Without this comparison 5 more pairs of one
# scene would be detected, 2 of which are already connected by other images.
_SPECTRA_THRESHOLD = 0.70
# This threshold loses 0.3 % of the changed photos of scripts/benchmark.py that would be detected
# without it. 10 % of the candidates among photos pass it, and 5 % of those among synthetic flowers.
_GRADIENTS_THRESHOLD = 0.78
# Side of the block of DCT coefficients; those whose row and column add up to 1 to 9 are used.
_FREQUENCIES = 10
_TOTAL = np.add.outer(np.arange(_FREQUENCIES), np.arange(_FREQUENCIES))
_IS_USED = (_TOTAL > 0) & (_TOTAL < _FREQUENCIES)
# Pixels at each edge of a thumbnail that the DCT leaves out, because a copy may have a frame or be
# cropped.
_EDGE = 4
# L2 norm of the DCT coefficients below which an image is flat: a contrast of a quarter of a grey
# level.
_FLAT = 10.0
# Standard deviation that rounding and compression cause, in grey levels.
_NOISE = 2.0
# Added to the mean squares in the denominator of the cosine (about 1 in textured images). Without
# it, two photos of a blank sky with the same bird would count as duplicates.
_BLANK = 0.05
# Largest change of each entry of the affine matrix from the identity: 20 % of scale or shear, or a
# shift by 20 % of half a side.
_MOST_CHANGE = 0.2
# In a larger group only as many pairs are compared as connect it: one placeholder saved in N ways
# would have N * N / 2 pairs.
_LARGE_GROUP = 50
# Bins of the gradient directions.
_DIRECTIONS = 8
# The first stage estimates the transform at a third of the resolution and rejects most pairs.
_STAGES = (
    _Stage(pool=3, stride=3, width=3, steps=3, threshold=0.55),
    _Stage(pool=2, stride=1, width=5, steps=2, threshold=_THRESHOLD),
)
# Images of a tile: the products of its eight orientations take 64 MiB a thread.
ROWS = 512
COLUMNS = 4096
# Pairs aligned at a time.
BATCH = 2048
# Tiles compared at a time; the same on all machines, so that the pairs are the same.
_TILES = 16
_FORMAT = 3  # increase it when the similarity changes, to compute cached pairs again


class Pairs(NamedTuple):
    """Pairs of duplicates.

    Args:
        indices: Indices of the two images ``(P, 2)``, the smaller first.
        similarity: Similarity ``(P,)``; 1 for identical files.
    """

    indices: NDArray[np.int64]
    similarity: NDArray[np.float32]


def duplicate_pairs(info: FolderInfo, *, rule: DuplicateRule, cache_dir: Path) -> Pairs:
    """Return the pairs of images that count as duplicates.

    Args:
        info: Image info.
        rule: ``near`` for identical files and near duplicates, ``exact`` for identical files only,
            ``ignore`` for no pairs.
        cache_dir: Folder of the cache, which stores near duplicates.

    Raises:
        OSError: The cache cannot be written.
    """
    if rule == "ignore":
        return identical_pairs([])
    exact = identical_pairs(info.sha256)
    if rule == "exact":
        return exact
    # The first of identical files stands for all of them.
    others = np.setdiff1d(np.arange(len(info.sha256)), exact.indices[:, 1])
    thumbnails = info.thumbnails[others]

    def build(folder: Path) -> None:
        similar = similar_pairs(thumbnails)
        np.savez(folder / "pairs.npz", indices=similar.indices, similarity=similar.similarity)

    content = hashlib.sha256(thumbnails.data).hexdigest()
    entry = build_once(cache_dir, cache_key(f"similar {_FORMAT}", content), build)
    with np.load(entry / "pairs.npz") as stored:
        similar = Pairs(others[stored["indices"]], stored["similarity"])
    return _joined([exact, similar])


def identical_pairs(contents: Sequence[str | bytes]) -> Pairs:
    """Return a pair for each repetition of a content (or checksum), with its first occurrence."""
    first: dict[str | bytes, int] = {}
    pairs = []
    for index, content in enumerate(contents):
        if content and first.setdefault(content, index) != index:
            pairs.append((first[content], index))
    indices = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return Pairs(indices, np.ones(len(indices), dtype=np.float32))


def similar_pairs(thumbnails: NDArray[np.uint8]) -> Pairs:
    """Return the pairs of images that are duplicates, also if turned, mirrored or slightly cropped.

    First, all pairs are compared by their low-frequency DCT coefficients, as by a perceptual hash
    (https://www.hackerfactor.com/blog/index.php?/archives/432-Looks-Like-It.html). Mirroring an
    image changes the signs of its odd frequencies and transposing it exchanges the two axes, so one
    matrix product compares eight orientations.

    Second, the remaining pairs are compared by histograms of oriented gradients
    (https://doi.org/10.1109/CVPR.2005.177), which a small shift or rotation hardly changes.

    Third, the images of the few remaining pairs are aligned: Gauss-Newton steps estimate shift,
    scale, rotation and shear (https://doi.org/10.1023/B:VISI.0000011205.11775.fd), first at a third
    of the resolution. The images are compared by their local contrast, the deviation of each pixel
    from the mean of its neighbourhood in standard deviations
    (http://yann.lecun.com/exdb/publis/pdf/jarrett-iccv-09.pdf). Light and colour hardly change the
    local contrast, and an outline on a plain background counts no more than the texture inside.
    The similarity is the cosine of the two local contrasts where the aligned images overlap.

    An image whose thumbnail equals earlier ones, such as a placeholder saved many times, is paired
    with the first of them only. For a group of more than 50 similar images, not all pairs are
    returned, but enough to connect the group. The order of the images does not matter.

    Args:
        thumbnails: Grey bytes ``(N, 48, 48)``.
    """
    contents = []
    for thumbnail in thumbnails:
        digest = b""  # plain images are all different
        if np.ptp(thumbnail) > 0:
            digest = hashlib.sha256(thumbnail.tobytes()).digest()
        contents.append(digest)
    same = identical_pairs(contents)
    different = np.setdiff1d(np.arange(len(thumbnails)), same.indices[:, 1])
    # Sorted by checksum, so that the pairs do not depend on the order of the input.
    order = np.array(sorted(different, key=contents.__getitem__), dtype=np.int64)
    similar = _compare_all(thumbnails[order])
    indices = np.sort(order[similar.indices], axis=1)
    by_index = np.lexsort(indices.T[::-1])
    return _joined([same, Pairs(indices[by_index], similar.similarity[by_index])])


def connected(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the group number ``(count,)`` of each image; pairs ``(P, 2)`` connect images."""
    graph = coo_array((np.ones(len(pairs), dtype=bool), tuple(pairs.T)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _joined(parts: Iterable[Pairs]) -> Pairs:
    indices, similarity = zip(*parts, strict=True)
    return Pairs(np.concatenate(indices), np.concatenate(similarity))


def _compare_all(thumbnails: NDArray[np.uint8]) -> Pairs:
    """Return the pairs of similar thumbnails ``(N, 48, 48)``, compared in tiles of all pairs."""
    count = len(thumbnails)
    tiles = []
    for row in range(0, count, ROWS):
        for column in range(row, count, COLUMNS):
            tiles.append((row, column))
    pairs = identical_pairs([])
    # Each thread of the pool computes its operations alone. By default torch divides every
    # operation among all cores, which is nine times as slow for small operations on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(num_allowed_cores()) as pool:
            blocks = [thumbnails[start : start + ROWS] for start in range(0, count, ROWS)]
            images = _Images(
                torch.from_numpy(thumbnails),
                torch.cat(list(pool.map(_spectra, blocks))),
                torch.cat(list(pool.map(_gradients, blocks))),
            )
            starts = range(0, len(tiles), _TILES)
            disable = None if len(starts) > 1 else True
            for start in tqdm(starts, desc="Comparing images", disable=disable):
                compare = partial(_tile_pairs, images, known=pairs.indices)
                pairs = _joined([pairs, *pool.map(compare, tiles[start : start + _TILES])])
    finally:
        torch.set_num_threads(threads)
    return pairs


def _spectra(thumbnails: NDArray[np.uint8]) -> Tensor:
    """Return the L2-normalized DCT coefficients ``(N, 10, 10)``; 0 for flat images."""
    centres = thumbnails[:, _EDGE:-_EDGE, _EDGE:-_EDGE].astype(np.float32)
    spectra = dctn(centres, axes=(1, 2), norm="ortho")[:, :_FREQUENCIES, :_FREQUENCIES] * _IS_USED
    # Otherwise a few large coefficients, as of a bright object on a dark background, would outweigh
    # all others.
    limit = 2 * np.abs(spectra).sum(axis=(1, 2), keepdims=True) / _IS_USED.sum()
    spectra = spectra.clip(-limit, limit)
    length = np.linalg.norm(spectra, axis=(1, 2), keepdims=True)
    return torch.from_numpy(np.where(length < _FLAT, 0, spectra / length.clip(_FLAT)))


def _gradients(thumbnails: NDArray[np.uint8]) -> Tensor:
    """Return histograms of oriented gradients ``(N, 8, 8, 8)``: directions, rows, columns."""
    smooth = _mean(torch.from_numpy(thumbnails).float(), torch.arange(2, 44), 3)
    across = smooth[:, 1:-1, 2:] - smooth[:, 1:-1, :-2]
    down = smooth[:, 2:, 1:-1] - smooth[:, :-2, 1:-1]
    direction = torch.atan2(down, across)[:, None] * _DIRECTIONS / (2 * torch.pi)
    distance = (direction - torch.arange(_DIRECTIONS)[:, None, None]).remainder(_DIRECTIONS)
    # Each gradient is divided between the two nearest bins.
    weight = (1 - torch.minimum(distance, _DIRECTIONS - distance)).clip(0)
    # The cells are squares of 12 pixels, at a stride of 4.
    starts = torch.arange(0, 32, 4)
    histograms = _mean(weight * torch.hypot(across, down)[:, None], starts, 12).sqrt()
    centred = histograms - histograms.mean((1, 2, 3), keepdim=True)
    return normalize(centred.flatten(1)).view_as(histograms).bfloat16()


def _oriented_gradients(gradients: Tensor, orientation: Tensor) -> Tensor:
    """Return the histograms ``(P, 8, 8, 8)`` of images that ``_oriented`` has turned."""
    orientation = orientation[:, None, None, None]
    turn = torch.arange(_DIRECTIONS)
    gradients = torch.where(orientation % 2 == 1, gradients[:, (4 - turn) % 8].flip(3), gradients)
    gradients = torch.where(orientation // 2 % 2 == 1, gradients[:, -turn % 8].flip(2), gradients)
    return torch.where(orientation >= 4, gradients[:, (2 - turn) % 8].transpose(2, 3), gradients)


def _oriented(images: Tensor, orientation: Tensor) -> Tensor:
    """Return images ``(P, S, S)``, each turned to one of the orientations 0 to 7 ``(P,)``."""
    orientation = orientation[:, None, None]
    images = torch.where(orientation % 2 == 1, images.flip(2), images)
    images = torch.where(orientation // 2 % 2 == 1, images.flip(1), images)
    return torch.where(orientation >= 4, images.transpose(1, 2), images)


def _tile_pairs(images: _Images, tile: tuple[int, int], known: NDArray[np.int64]) -> Pairs:
    """Return the duplicates between the 512 images of a tile's rows and 4,096 of its columns.

    Args:
        images: All N images.
        tile: Number of the first image of its rows, and of its columns.
        known: Pairs ``(P, 2)`` of earlier tiles.
    """
    pairs = identical_pairs([])
    candidates = _candidates(images.spectra, *tile)
    group = connected(len(images.spectra), known)
    while len(candidates) > 0:
        in_large_group = np.bincount(group)[group] > _LARGE_GROUP
        first, second, _ = candidates.T
        candidates = candidates[~in_large_group[first] | (group[first] != group[second])]
        batch = candidates[:BATCH]
        candidates = candidates[BATCH:]
        similarity = _similarity(images, batch)
        is_similar = similarity > 0
        if is_similar.any():
            pairs = _joined([pairs, Pairs(batch[is_similar, :2], similarity[is_similar])])
            group = connected(len(images.spectra), np.concatenate([known, pairs.indices]))
    return pairs


def _candidates(spectra: Tensor, row: int, column: int) -> NDArray[np.int64]:
    """Return pairs with similar spectra ``(P, 3)``: two images, and how to turn the first."""
    rows = spectra[row : row + ROWS]
    others = spectra[column : column + COLUMNS, _IS_USED]
    # The spectra of the images in the eight orientations of ``_oriented``.
    sign = (-1.0) ** torch.arange(_FREQUENCIES)
    mirrored = torch.stack([rows, rows * sign, rows * sign[:, None], rows * sign * sign[:, None]])
    oriented = torch.cat([mirrored, mirrored.transpose(2, 3)])[:, :, _IS_USED]
    cosine = (oriented.flatten(0, 1) @ others.T).view(8, -1, len(others))
    first, second = (cosine.amax(0) >= _SPECTRA_THRESHOLD).nonzero(as_tuple=True)
    orientation = cosine[:, first, second].argmax(0)
    candidates = torch.stack([first + row, second + column, orientation], dim=1).numpy()
    candidates = candidates[candidates[:, 0] < candidates[:, 1]]
    # In random order, so that the first batches already connect a group of many similar images.
    return np.random.default_rng(0).permutation(candidates)


def _similarity(images: _Images, candidates: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the similarity ``(P,)`` of candidates ``(P, 3)`` after alignment; 0 if rejected."""
    first, second, orientation = torch.from_numpy(candidates).T
    oriented = _oriented_gradients(images.gradients[first], orientation)
    cosine = (oriented * images.gradients[second]).flatten(1).sum(1, dtype=torch.float32)
    left = (cosine >= _GRADIENTS_THRESHOLD).nonzero()[:, 0]
    transform = torch.eye(2, 3).repeat(len(left), 1, 1)
    result = torch.zeros(len(candidates))
    for stage in _STAGES:
        moving = _local_contrast(images.thumbnails[first[left]].float(), stage)
        moving = _oriented(moving, orientation[left])
        reference = _local_contrast(images.thumbnails[second[left]].float(), stage)
        transform = _aligned(transform, reference, moving, steps=stage.steps)
        similarity = _overlap_cosine(transform, reference, moving)
        is_similar = similarity >= stage.threshold
        left = left[is_similar]
        transform = transform[is_similar]
    result[left] = similarity[is_similar]
    return result.numpy()


def _local_contrast(images: Tensor, stage: _Stage) -> Tensor:
    """Return the deviation of each pixel from its neighbourhood's mean, in standard deviations."""
    starts = torch.arange(0, images.shape[1] - stage.pool + 1, stage.stride)
    images = _mean(images, starts, stage.pool)
    starts = torch.arange(images.shape[1]) - stage.width // 2
    deviation = images - _mean(images, starts, stage.width)
    variance = _mean(deviation**2, starts, stage.width)
    return deviation / (variance + _NOISE**2).sqrt()


def _mean(images: Tensor, starts: Tensor, width: int) -> Tensor:
    """Return the means of squares of pixels, ten times as fast as ``avg_pool2d`` for one channel.

    Args:
        images: Images ``(..., S, S)``.
        starts: First columns, and first rows, of the squares ``(T,)``. A square may reach beyond
            the image; the mean is of the pixels inside.
        width: Side of the squares, in pixels.
    """
    distance = torch.arange(images.shape[-1]) - starts[:, None]
    is_inside = ((distance >= 0) & (distance < width)).float()
    mean = is_inside / is_inside.sum(1, keepdim=True)
    return mean @ images @ mean.T


def _aligned(transform: Tensor, reference: Tensor, moving: Tensor, *, steps: int) -> Tensor:
    """Return improved affine transforms ``(P, 2, 3)`` from references to moving images."""
    identity = torch.eye(2, 3)
    size = reference.shape[-1]
    down, across = torch.stack(torch.gradient(reference, dim=(1, 2))) * size / 2
    x, y, _ = _coordinates(size).T.view(3, size, size)
    # Derivatives (P, 6, S * S) with respect to the six parameters of the transform.
    jacobian = torch.stack([across * x, across * y, across, down * x, down * y, down], 1)
    jacobian = (jacobian * _edge(size)).flatten(2)
    normal = jacobian @ jacobian.transpose(1, 2)
    # Levenberg damping: smaller steps where low contrast makes the equations ill-conditioned.
    damping = 0.02 * normal.diagonal(dim1=1, dim2=2).mean(1) + 1e-3
    normal += damping[:, None, None] * torch.eye(6)
    for _ in range(steps):
        warped, overlap = _warped(transform, moving)
        difference = ((reference - warped) * overlap).flatten(1)
        step = torch.linalg.solve(normal, jacobian @ difference[:, :, None]).view(-1, 2, 3)
        transform = identity + (transform + step - identity).clamp(-_MOST_CHANGE, _MOST_CHANGE)
    return transform


def _overlap_cosine(transform: Tensor, reference: Tensor, moving: Tensor) -> Tensor:
    """Return the cosine ``(P,)`` of references and aligned images, lowered for blank images."""
    warped, overlap = _warped(transform, moving)
    blank = _BLANK * overlap.sum((1, 2))
    product = (reference * warped * overlap).sum((1, 2))
    first = (reference**2 * overlap).sum((1, 2)) + blank
    second = (warped**2 * overlap).sum((1, 2)) + blank
    return product / (first * second).sqrt().clip(1e-6)


def _warped(transform: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
    """Return the aligned moving images and their overlap with the references, ``(P, S, S)``."""
    size = moving.shape[-1]
    grid = (_coordinates(size) @ transform.transpose(1, 2)).view(-1, size, size, 2)
    overlap = (grid.abs().amax(-1) < 1) * _edge(size)
    warped = grid_sample(moving[:, None], grid, padding_mode="border", align_corners=False)
    return warped[:, 0], overlap


def _coordinates(size: int) -> Tensor:
    """Return x, y and 1 of each pixel ``(S * S, 3)``, from -1 to 1 as in ``affine_grid``."""
    across = (torch.arange(size) + 0.5) * 2 / size - 1
    y, x = torch.meshgrid(across, across, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)], -1).view(-1, 3)


def _edge(size: int) -> Tensor:
    """Return 1 for the pixels ``(S, S)`` that are compared, and 0 for those at the edges."""
    # As wide as a frame of 5 % and most of the windows of local contrast that overlap it.
    width = max(2, round(size / 12))
    return pad(torch.ones(size - 2 * width, size - 2 * width), 4 * [width])
