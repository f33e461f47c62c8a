"""Duplicates: identical files, and near duplicates, which have similar thumbnails."""

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
        pool: Side of the square of pixels that are averaged; more than one, against noise.
        stride: From one such square to the next, in pixels.
        width: Of a pixel's surroundings, in pixels.
        steps: Gauss-Newton steps.
        threshold: Pairs with less similarity are rejected.
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
        spectra: Lowest frequencies ``(N, 10, 10)`` of the centres, of length 1; zero for a flat
            image.
        gradients: Histograms of gradient directions ``(N, 8, 8, 8)``, of length 1, in bfloat16.
    """

    thumbnails: Tensor
    spectra: Tensor
    gradients: Tensor


# Measured on the 3,308 photos of flower_photos at hand. 36 pairs reach this threshold, all with
# 0.74 or more, and all of them are duplicates. The other pairs from 0.46 up were looked at,
# too: 4 of one scene taken a moment later (0.61 to 0.65), then only pairs of different dandelions
# (0.59 and less). The margin is for images that are more alike than photos are: of the 50 million
# pairs of 10,000 synthetic flowers 5 reach the threshold, all of roses of the same shape, and of
# the pairs of textures cut out by one outline 2 %. scripts/benchmark.py measures how many
# are missed.
_THRESHOLD = 0.65
# The 36 pairs have 0.73 or more; 5 of 10,000 pairs of these photos reach the threshold, and 29 of
# synthetic flowers. Without it 5 more pairs of the same scene would be found, two of which others
# connect anyway.
_SPECTRA_THRESHOLD = 0.70
# Of the changed photos of scripts/benchmark.py that are found without it 0.3 % have less;
# it leaves 10 % of the candidates among these photos, and 5 % of those among synthetic flowers.
_GRADIENTS_THRESHOLD = 0.78
# Frequencies (10, 10) of the coarse comparison: half waves across and down the image that are
# together fewer than this.
_FREQUENCIES = 10
_TOTAL = np.add.outer(np.arange(_FREQUENCIES), np.arange(_FREQUENCIES))
_IS_USED = (_TOTAL > 0) & (_TOTAL < _FREQUENCIES)
# Pixels at each edge of a thumbnail that the coarse comparison leaves out: a frame may be there, or
# a crop's loss.
_EDGE = 4
# Length of a coarse descriptor below which an image is flat: a contrast of a quarter of a grey
# level.
_FLAT = 10.0
# Deviation in grey levels that rounding and compression make by themselves.
_NOISE = 2.0
# Mean square of the local contrast, about 1 in texture, that counts as different: two skies with
# one bird each are no duplicates because the bird is the same.
_BLANK = 0.05
# Largest change of an image's sides, and shift in halves of a side, that the alignment makes.
_MOST_CHANGE = 0.2
# In a larger group not all pairs are looked for: one placeholder saved in N ways would have N * N /
# 2.
_LARGE_GROUP = 50
# Directions of gradients.
_DIRECTIONS = 8
# The first stage finds the transform at a third of the resolution, and ends for most pairs.
_STAGES = (
    _Stage(pool=3, stride=3, width=3, steps=3, threshold=0.55),
    _Stage(pool=2, stride=1, width=5, steps=2, threshold=_THRESHOLD),
)
# Images compared at a time: the products of eight orientations take 64 MiB a thread.
_ROWS = 512
_COLUMNS = 4096
_BATCH = 2048
# Tiles compared at a time, whatever the number of cores, so that it does not matter.
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
        rule: Identical files and ``near`` duplicates, ``exact`` ones only, or none.
        cache_dir: Folder of the cache, which stores near duplicates.

    Raises:
        OSError: The cache cannot be written.
    """
    if rule == "ignore":
        return identical_pairs([])
    exact = identical_pairs(info.sha256)
    if rule == "exact":
        return exact
    # One file of each content.
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
    """Return pairs of each repeated content (or checksum) and its first occurrence."""
    first: dict[str | bytes, int] = {}
    pairs = []
    for index, content in enumerate(contents):
        if content and first.setdefault(content, index) != index:
            pairs.append((first[content], index))
    indices = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return Pairs(indices, np.ones(len(indices), dtype=np.float32))


def similar_pairs(thumbnails: NDArray[np.uint8]) -> Pairs:
    """Return the pairs of images that are duplicates, also if turned, mirrored or slightly cropped.

    First all pairs are compared by the lowest frequencies of their centres, as perceptual hashes do
    (https://www.hackerfactor.com/blog/index.php?/archives/432-Looks-Like-It.html). Mirroring an
    image changes the signs of its odd frequencies and transposing it exchanges the two axes, so one
    matrix product compares eight orientations.

    Then the pairs left are compared by histograms of gradient directions
    (https://doi.org/10.1109/CVPR.2005.177), which a small shift or rotation hardly changes.

    The few pairs left are aligned: Gauss-Newton steps find the shift, scale, rotation and
    shear between the two (https://doi.org/10.1023/B:VISI.0000011205.11775.fd), at a third of the
    resolution first. What is compared is the local contrast, each pixel's deviation from its
    surroundings as a multiple of their standard deviation
    (http://yann.lecun.com/exdb/publis/pdf/jarrett-iccv-09.pdf): light and colour hardly change it,
    and an outline on a plain ground counts no more than what is inside. The similarity is its
    cosine where the aligned images overlap.

    Of images with the very same thumbnail, as a placeholder saved many times, each is paired with
    the first only; a group of many similar ones has pairs enough to connect it. The order of the
    images does not matter.

    Args:
        thumbnails: Grey bytes ``(N, 48, 48)``.
    """
    contents = []
    for thumbnail in thumbnails:
        digest = hashlib.sha256(thumbnail.tobytes()).digest()
        contents.append(digest if np.ptp(thumbnail) else b"")  # plain images are all different
    same = identical_pairs(contents)
    different = np.setdiff1d(np.arange(len(thumbnails)), same.indices[:, 1])
    # Compared in the order of their contents, images have the same pairs whatever their order.
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
    for row in range(0, count, _ROWS):
        for column in range(row, count, _COLUMNS):
            tiles.append((row, column))
    pairs = identical_pairs([])
    # Each thread of the pool computes alone. Torch shares every operation between all cores, which
    # with small ones on a busy machine is nine times as slow.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(num_allowed_cores()) as pool:
            blocks = [thumbnails[start : start + _ROWS] for start in range(0, count, _ROWS)]
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
    """Return the lowest frequencies ``(N, 10, 10)``, of length 1, or 0 for flat images."""
    centres = thumbnails[:, _EDGE:-_EDGE, _EDGE:-_EDGE].astype(np.float32)
    spectra = dctn(centres, axes=(1, 2), norm="ortho")[:, :_FREQUENCIES, :_FREQUENCIES] * _IS_USED
    # A few large ones, as of a bright object on a dark ground, would outweigh all others.
    limit = 2 * np.abs(spectra).sum(axis=(1, 2), keepdims=True) / _IS_USED.sum()
    spectra = spectra.clip(-limit, limit)
    length = np.linalg.norm(spectra, axis=(1, 2), keepdims=True)
    return torch.from_numpy(np.where(length < _FLAT, 0, spectra / length.clip(_FLAT)))


def _gradients(thumbnails: NDArray[np.uint8]) -> Tensor:
    """Return histograms of gradient directions ``(N, 8, 8, 8)``: directions, rows, columns."""
    smooth = _mean(torch.from_numpy(thumbnails).float(), torch.arange(2, 44), 3)
    across = smooth[:, 1:-1, 2:] - smooth[:, 1:-1, :-2]
    down = smooth[:, 2:, 1:-1] - smooth[:, :-2, 1:-1]
    direction = torch.atan2(down, across)[:, None] * _DIRECTIONS / (2 * torch.pi)
    distance = (direction - torch.arange(_DIRECTIONS)[:, None, None]).remainder(_DIRECTIONS)
    # Divided between the nearest two directions.
    weight = (1 - torch.minimum(distance, _DIRECTIONS - distance)).clip(0)
    # Counted in squares of 12 pixels, one every 4 pixels.
    starts = torch.arange(0, 32, 4)
    histograms = _mean(weight * torch.hypot(across, down)[:, None], starts, 12).sqrt()
    centred = histograms - histograms.mean((1, 2, 3), keepdim=True)
    return normalize(centred.flatten(1)).view_as(histograms).bfloat16()


def _oriented_gradients(gradients: Tensor, orientation: Tensor) -> Tensor:
    """Return the histograms ``(P, 8, 8, 8)`` of the images as ``_oriented`` turns them."""
    orientation = orientation[:, None, None, None]
    turn = torch.arange(_DIRECTIONS)
    gradients = torch.where(orientation % 2 == 1, gradients[:, (4 - turn) % 8].flip(3), gradients)
    gradients = torch.where(orientation // 2 % 2 == 1, gradients[:, -turn % 8].flip(2), gradients)
    return torch.where(orientation >= 4, gradients[:, (2 - turn) % 8].transpose(2, 3), gradients)


def _oriented(images: Tensor, orientation: Tensor) -> Tensor:
    """Return images ``(P, S, S)`` in one of eight orientations each, numbers ``(P,)``."""
    orientation = orientation[:, None, None]
    images = torch.where(orientation % 2 == 1, images.flip(2), images)
    images = torch.where(orientation // 2 % 2 == 1, images.flip(1), images)
    return torch.where(orientation >= 4, images.transpose(1, 2), images)


def _tile_pairs(images: _Images, tile: tuple[int, int], known: NDArray[np.int64]) -> Pairs:
    """Return the duplicates between 512 images and 4,096 others.

    Args:
        images: All N images.
        tile: Numbers of the first images of both.
        known: Pairs ``(P, 2)`` of other tiles.
    """
    pairs = identical_pairs([])
    candidates = _candidates(images.spectra, *tile)
    group = connected(len(images.spectra), known)
    while len(candidates) > 0:
        in_large_group = np.bincount(group)[group] > _LARGE_GROUP
        first, second, _ = candidates.T
        candidates = candidates[~in_large_group[first] | (group[first] != group[second])]
        batch = candidates[:_BATCH]
        candidates = candidates[_BATCH:]
        similarity = _similarity(images, batch)
        is_similar = similarity > 0
        if is_similar.any():
            pairs = _joined([pairs, Pairs(batch[is_similar, :2], similarity[is_similar])])
            group = connected(len(images.spectra), np.concatenate([known, pairs.indices]))
    return pairs


def _candidates(spectra: Tensor, row: int, column: int) -> NDArray[np.int64]:
    """Return pairs with similar spectra ``(P, 3)``: two images, orientation of the first."""
    rows = spectra[row : row + _ROWS]
    others = spectra[column : column + _COLUMNS, _IS_USED]
    # In the eight orientations of ``_oriented``.
    sign = (-1.0) ** torch.arange(_FREQUENCIES)
    mirrored = torch.stack([rows, rows * sign, rows * sign[:, None], rows * sign * sign[:, None]])
    oriented = torch.cat([mirrored, mirrored.transpose(2, 3)])[:, :, _IS_USED]
    cosine = (oriented.flatten(0, 1) @ others.T).view(8, -1, len(others))
    first, second = (cosine.amax(0) >= _SPECTRA_THRESHOLD).nonzero(as_tuple=True)
    orientation = cosine[:, first, second].argmax(0)
    candidates = torch.stack([first + row, second + column, orientation], dim=1).numpy()
    candidates = candidates[candidates[:, 0] < candidates[:, 1]]
    # In random order, so that a few batches connect images that are all alike.
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
    """Return each pixel's deviation from its neighbourhood's mean in standard deviations."""
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
        starts: First columns and first rows of the squares ``(T,)``; what is outside the image is
            left out.
        width: Of the squares, in pixels.
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
    # Derivatives (P, 6, S * S) by the six parameters of the transform.
    jacobian = torch.stack([across * x, across * y, across, down * x, down * y, down], 1)
    jacobian = (jacobian * _edge(size)).flatten(2)
    normal = jacobian @ jacobian.transpose(1, 2)
    # Little contrast determines the transform badly: it is changed less.
    damping = 0.02 * normal.diagonal(dim1=1, dim2=2).mean(1) + 1e-3
    normal += damping[:, None, None] * torch.eye(6)
    for _ in range(steps):
        warped, overlap = _warped(transform, moving)
        difference = ((reference - warped) * overlap).flatten(1)
        step = torch.linalg.solve(normal, jacobian @ difference[:, :, None]).view(-1, 2, 3)
        transform = identity + (transform + step - identity).clamp(-_MOST_CHANGE, _MOST_CHANGE)
    return transform


def _overlap_cosine(transform: Tensor, reference: Tensor, moving: Tensor) -> Tensor:
    """Return the cosine ``(P,)`` of references and aligned images; less if most is blank."""
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
    width = max(2, round(size / 12))  # a frame of 5 % and most pixels whose surroundings it is in
    return pad(torch.ones(size - 2 * width, size - 2 * width), 4 * [width])
