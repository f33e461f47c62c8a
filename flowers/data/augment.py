"""Augmentation of a batch on its device."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample
from torchvision.transforms import v2

_MASK = 0xFFFFFFFF  # the low 32 bits

# Images augmented at a time on a CPU. The intermediate results of 8 images fit into its caches:
# 3,500 images/s on the reference machine, against 2,200 images/s for a whole batch of 32.
_CPU_CHUNK = 8


def uniform_draws(indices: Tensor, *, seed: int, epoch: int, num: int) -> Tensor:
    """Return uniform numbers in [0, 1) that depend on (seed, epoch, image index) alone.

    The numbers come from a hash, not from a generator: they depend neither on the batch nor on the
    device nor on earlier draws, so resumed and distributed runs get the numbers of an uninterrupted
    run on one device. The hash is the 32-bit finalizer "lowbias32"
    (https://github.com/skeeto/hash-prospector).

    Args:
        indices: Image indices ``(B,)``.
        seed: Seed of the run.
        epoch: Number of the epoch.
        num: Numbers per image.

    Returns:
        Floats ``(B, num)``.
    """
    key = _hash32(torch.tensor([seed & _MASK])) ^ (epoch & _MASK)
    columns = torch.arange(num, device=indices.device)
    rows = _hash32(_hash32(key).to(indices.device) ^ (indices.long() & _MASK))
    bits = _hash32(rows[:, None] ^ _hash32(columns + 1)[None, :])
    return (bits >> 8).float() / 2**24  # a float32 below 1 represents 24 bits exactly


def _hash32(x: Tensor) -> Tensor:
    # The products may overflow int64; their low 32 bits are still correct.
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


@dataclass(frozen=True, kw_only=True)
class BatchAugmentation:
    """Random crop, flip, rotation, colour and erasing per image, MixUp or CutMix per batch.

    Args:
        min_scale: Smallest area of a crop, as a fraction of the image (1: no crop); the largest is
            the whole image.
        max_aspect: Largest ratio of a crop's sides.
        rotation: Largest rotation either way, in degrees.
        hflip_prob: Probability of a horizontal flip.
        brightness: Largest relative change of the brightness (0.4: a factor between 0.6 and 1.4).
        contrast: Largest relative change of the contrast.
        saturation: Largest relative change of the saturation.
        erase_prob: Probability that a rectangle is filled with grey
            (https://arxiv.org/abs/1708.04896).
        mixup_prob: Probability that MixUp blends a batch (https://arxiv.org/abs/1710.09412).
        cutmix_prob: Probability that CutMix recombines a batch (https://arxiv.org/abs/1905.04899).
    """

    min_scale: float = 0.35
    max_aspect: float = 4 / 3
    rotation: float = 15.0
    hflip_prob: float = 0.5
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    erase_prob: float = 0.0
    mixup_prob: float = 0.0
    cutmix_prob: float = 0.3

    def __post_init__(self) -> None:
        probs = ("hflip_prob", "erase_prob", "mixup_prob", "cutmix_prob")
        for name in (*probs, "brightness", "contrast", "saturation"):
            value = getattr(self, name)
            _expect(0 <= value <= 1, name, "a number from 0 to 1", value)
        scale = self.min_scale
        _expect(0 < scale <= 1, "min_scale", "a fraction of the area above 0, up to 1", scale)
        _expect(self.max_aspect >= 1, "max_aspect", "a ratio of at least 1", self.max_aspect)
        _expect(0 <= self.rotation <= 180, "rotation", "degrees from 0 to 180", self.rotation)
        total = self.mixup_prob + self.cutmix_prob
        _expect(total <= 1, "mixup_prob", "at most 1 together with cutmix_prob", total)

    def __call__(
        self, images: Tensor, *, indices: Tensor, size: int, seed: int, epoch: int
    ) -> Tensor:
        """Augment each image independently.

        Args:
            images: Bytes ``(B, 3, S0, S0)``.
            indices: Image indices ``(B,)``, or other keys, that determine the random numbers.
            size: Side S of the result, in pixels.
            seed: Seed of the run.
            epoch: Number of the epoch.

        Returns:
            Floats ``(B, 3, S, S)`` in [0, 1], in channels_last.
        """
        # As many numbers as _augment uses.
        draws = uniform_draws(indices, seed=seed, epoch=epoch, num=14)
        # Pool images at least twice as large as the result: bilinear sampling reads only four
        # pixels, so it would alias.
        factor = images.shape[-1] // size
        if factor > 1:
            images = avg_pool2d(images.float(), factor)
        shape = (len(images), 3, size, size)
        out = torch.empty(shape, device=images.device, memory_format=torch.channels_last)
        chunk = _CPU_CHUNK if images.device.type == "cpu" else len(images)
        for start in range(0, len(images), chunk):
            part = slice(start, start + chunk)
            out[part] = self._augment(images[part], draws[part], size)
        return out

    def mix(
        self, images: Tensor, labels: Tensor, *, num_classes: int, seed: int, step: int
    ) -> tuple[Tensor, Tensor]:
        """Apply CutMix, MixUp or neither to a batch, by their probabilities.

        Args:
            images: Floats ``(B, 3, S, S)``.
            labels: Integers ``(B,)``.
            num_classes: Number of classes K.
            seed: Seed of the run.
            step: Number of the batch in the run.

        Returns:
            The images, and targets: the labels ``(B,)``, or soft targets ``(B, K)`` that sum to 1.
        """
        # CutMix and MixUp draw from torch's global generator; fork_rng restores its state.
        with torch.random.fork_rng(devices=[]):
            state = np.random.SeedSequence([seed, step]).generate_state(1)
            torch.default_generator.manual_seed(int(state[0]))
            choice = float(torch.rand(()))
            if choice < self.cutmix_prob + self.mixup_prob:
                mixing = v2.CutMix if choice < self.cutmix_prob else v2.MixUp
                images, labels = mixing(num_classes=num_classes)(images, labels)
        return images, labels

    def _augment(self, images: Tensor, draws: Tensor, size: int) -> Tensor:
        grid = _sampling_grid(self.affine(draws[:, :6]), size)
        # Once pooled, crops are less than twice as large as the result, so bilinear sampling needs
        # no antialiasing.
        out = grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
        return self.erase(self.jitter(out.div_(255), draws[:, 6:9]), draws[:, 9:14])

    def affine(self, draws: Tensor) -> Tensor:
        """Return matrices ``(B, 2, 3)`` that map [-1, 1] coordinates of the result to the image."""
        area = self.min_scale + (1 - self.min_scale) * draws[:, 0]
        aspect = torch.exp((2 * draws[:, 1] - 1) * math.log(self.max_aspect))
        # Sides longer than the image are clamped to 1; the lower bound of the other side then keeps
        # the area at least min_scale.
        width = (area * aspect).sqrt().clamp(self.min_scale, 1)
        height = (area / aspect).sqrt().clamp(self.min_scale, 1)
        angle = (2 * draws[:, 2] - 1) * math.radians(self.rotation)
        flip = 1 - 2 * (draws[:, 3] < self.hflip_prob).float()
        x, y = (1 - width) * (2 * draws[:, 4] - 1), (1 - height) * (2 * draws[:, 5] - 1)
        cos, sin = angle.cos(), angle.sin()
        rows = (cos * width * flip, -sin * height, x), (sin * width * flip, cos * height, y)
        return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)

    def jitter(self, images: Tensor, draws: Tensor) -> Tensor:
        """Change brightness, contrast and saturation by a matrix and an offset for each image.

        Args:
            images: Floats ``(B, 3, S, S)`` in [0, 1].
            draws: Uniform random numbers ``(B, 3)`` in [0, 1).
        """
        strength = images.new_tensor([self.brightness, self.contrast, self.saturation])
        brightness, contrast, saturation = (1 + strength * (2 * draws - 1)).unbind(dim=1)
        # Rec. 601 luma weights, which Pillow and torchvision use for greyscale.
        luma = images.new_tensor([0.299, 0.587, 0.114])
        identity = torch.eye(3, device=images.device)
        saturate = saturation[:, None, None] * identity + (1 - saturation)[:, None, None] * luma
        matrix = (brightness * contrast)[:, None, None] * saturate
        grey = images.mean(dim=(2, 3)) @ luma
        offset = (brightness * (1 - contrast) * grey)[:, None, None]
        out = torch.baddbmm(offset, matrix, images.flatten(2)).clamp_(0, 1)
        return out.view_as(images)

    def erase(self, images: Tensor, draws: Tensor) -> Tensor:
        """Fill a grey rectangle of 2 to 25 % of the area in some images.

        Args:
            images: Floats ``(B, 3, S, S)``.
            draws: Uniform random numbers ``(B, 5)`` in [0, 1).
        """
        if self.erase_prob == 0:
            return images
        size = images.shape[-1]
        side = size * (0.02 + 0.23 * draws[:, 1]).sqrt()
        stretch = torch.exp((draws[:, 4] - 0.5) * math.log(3))
        width, height = side * stretch, side / stretch
        left, top = (size - width) * draws[:, 2], (size - height) * draws[:, 3]
        pixels = torch.arange(size, device=images.device)
        columns = (pixels >= left[:, None]) & (pixels < (left + width)[:, None])
        rows = (pixels >= top[:, None]) & (pixels < (top + height)[:, None])
        is_erased = (draws[:, 0] < self.erase_prob)[:, None, None]
        rectangle = rows[:, :, None] & columns[:, None, :] & is_erased
        return images.masked_fill(rectangle[:, None], 0.5)


def _sampling_grid(affine: Tensor, size: int) -> Tensor:
    """Return ``affine_grid`` ``(B, S, S, 2)`` by broadcast sums, faster than a matrix product."""
    centres = (torch.arange(size, device=affine.device) * 2 + 1) / size - 1
    grid = affine.new_empty((len(affine), size, size, 2))
    for axis in (0, 1):
        along_x = affine[:, axis, 0, None] * centres
        along_y = affine[:, axis, 1, None] * centres + affine[:, axis, 2, None]
        torch.add(along_y[:, :, None], along_x[:, None, :], out=grid[..., axis])
    return grid


def _expect(holds: bool, name: str, expected: str, got: object) -> None:
    if not holds:
        raise ValueError(f"`augment.{name}`: expected {expected}, got {got}")
