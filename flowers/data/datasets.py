"""Decoded images from the cache or from files, data sets and loaders of whole batches."""

import hashlib
import math
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_convert

from flowers.data.cache import build_once, cache_key, in_threads
from flowers.data.image_folder import FolderIndex
from flowers.data.quality.image_info import FolderInfo
from flowers.data.samplers import ShardedSampler
from flowers.data.transforms import load_named

# Increase this number when the decoding changes, to decode cached images again.
DECODING_FORMAT = 6


class Batch(NamedTuple):
    """A batch.

    Args:
        images: Bytes ``(B, 3, S, S)`` from the loader, floats in [0, 1] on the device; or features
            ``(B, F)`` of a frozen backbone.
        targets: Labels ``(B,)``, or soft targets ``(B, K)`` after MixUp or CutMix.
        indices: Positions of the images in the folder's index ``(B,)``.
        keys: Seed of each image's augmentation ``(B,)``: the image's index; other numbers where
            the image is repeated in an epoch.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
    keys: Tensor


def _reduce(batch: Batch) -> tuple[Callable[..., Batch], tuple[Any, ...]]:
    """Send a worker's batch in shared memory, or through its pipe if /dev/shm is full.

    Containers have only 64 MB of /dev/shm by default. When that is full, a worker would by torch's
    default drop the batch, and the loader would wait for the batch forever.
    """
    try:
        for tensor in batch:
            tensor.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError:
        return pickle.loads, (pickle.dumps(batch),)
    return Batch, tuple(batch)


ForkingPickler.register(Batch, _reduce)


@dataclass(eq=False)
class SplitImages(Dataset[Batch]):
    """The images of one split, read a batch at a time.

    Args:
        read: Maps indices ``(B,)`` of the folder to bytes ``(B, 3, S, S)``, or to the images'
            features ``(B, F)``.
        labels: Integers ``(N,)`` of all images of the folder.
        indices: Indices of the split's images in the folder.
    """

    read: Callable[[NDArray[np.int64]], Tensor]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        """Return the batch at the positions that the sampler yields; torch calls this per batch."""
        repetitions, rows = np.divmod(np.asarray(positions), len(self.indices))
        indices = self.indices[rows]
        keys = indices + len(self.labels) * repetitions
        arrays = (self.labels[indices], indices, keys)
        return Batch(self.read(indices), *map(torch.from_numpy, arrays))


def decode_all(
    index: FolderIndex, info: FolderInfo, *, decoding: dict[str, Any], cache_dir: Path
) -> NDArray[np.uint8]:
    """Return all images decoded, ``(N, S, S, 3)``, memory-mapped from the cache.

    Args:
        index: The folder.
        info: Image info; the checksums are a part of the cache's key, and images with an error are
            black.
        decoding: Options of ``load_image``.
        cache_dir: Folder of the cache.

    Raises:
        OSError: The disk cannot hold the decoded images, or a file became unreadable after it was
            checked.
    """

    def build(folder: Path) -> None:
        size = decoding["image_size"]
        images = _allocate(folder / "images.npy", (len(index.paths), size, size, 3))

        def decode(number: int) -> None:
            file = index.root / index.paths[number]
            content = file.read_bytes()
            if hashlib.sha256(content).hexdigest() != info.sha256[number]:
                raise OSError(f"{file}: its content changed after it was checked. Start again.")
            images[number] = load_named(file, content=content, **decoding).permute(1, 2, 0).numpy()

        decodable = [number for number in range(len(index.paths)) if number not in info.errors]
        in_threads(decode, decodable, description="Decoding images")
        images.flush()

    settings = ["pixels", DECODING_FORMAT, *decoding.values(), sorted(info.errors)]
    entry = build_once(cache_dir, cache_key(" ".join(map(str, settings)), *info.sha256), build)
    return np.load(entry / "images.npy", mmap_mode="r")


def _allocate(file: Path, shape: tuple[int, ...]) -> np.memmap[tuple[int, ...], np.dtype[np.uint8]]:
    """Create an array and allocate its disk space: a sparse file on a full disk causes SIGBUS."""
    size = math.prod(shape)
    free = shutil.disk_usage(file.parent).free
    if size > free:
        raise OSError(
            f"`cache_dir` {file.parent.parent}: the decoded images take {size / 2**20:,.0f} MiB, "
            f"the disk has {free / 2**20:,.0f} MiB free. Make room, give a folder on another disk, "
            "lower `image_size`, or decode while training with `cache` false."
        )
    images = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    return images


def read_files(
    indices: NDArray[np.int64], *, index: FolderIndex, decoding: dict[str, Any]
) -> Tensor:
    """Return decoded files as bytes ``(B, 3, S, S)``, channels_last.

    Args:
        indices: The images ``(B,)``.
        index: The folder.
        decoding: Options of ``load_image``.

    Raises:
        OSError: A file became unreadable after it was checked; the message names it.
    """
    images = [load_named(index.root / index.paths[number], **decoding) for number in indices]
    return torch.stack(images).contiguous(memory_format=torch.channels_last)


class ResumableLoader(DataLoader[Batch]):
    """A loader that can resume inside an epoch; its length is always that of the whole epoch."""

    first_batch = 0  # index of the first batch to read in the resumed epoch
    _resumed_epoch = -1
    _next_batch = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self._next_batch = self.first_batch if self._epoch == self._resumed_epoch else 0
        self.sampler.start = self._next_batch * self._images_a_step  # type: ignore[attr-defined]
        for batch in super().__iter__():
            self._next_batch += 1
            yield batch

    @property
    def _epoch(self) -> int:
        return getattr(self.sampler, "epoch", 0)  # torch's sampler for overfit_batches has none

    @property
    def _images_a_step(self) -> int:
        assert self.batch_size is not None
        return self.batch_size * getattr(self.sampler, "world_size", 1)

    def state_dict(self) -> dict[str, int]:
        """Return the epoch, and the number of images read in it, summed over all processes."""
        return {"epoch": self._epoch, "images": self._next_batch * self._images_a_step}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Resume after the images that were read, rounded up to whole steps of this loader."""
        self._resumed_epoch = state_dict["epoch"]
        self.first_batch = min(-(-state_dict["images"] // self._images_a_step), len(self) - 1)


def batch_loader(
    dataset: Dataset[Batch], sampler: ShardedSampler, *, num_workers: int
) -> DataLoader[Batch]:
    """Return a loader of whole batches.

    If the sampler shuffles, an incomplete last batch is dropped, unless it is the only batch: its
    images would have more weight than those of full batches. The dropped images differ from epoch
    to epoch.

    Args:
        dataset: The data set.
        sampler: The sampler.
        num_workers: Number of worker processes; 0 reads in this process.
    """
    # Evaluation uses DataLoader: Trainer.predict re-creates its loader without a batch size, which
    # ResumableLoader needs.
    loader = ResumableLoader if sampler.shuffle else DataLoader
    return loader(
        dataset,
        batch_size=sampler.batch_size,
        sampler=sampler,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        collate_fn=default_convert,  # the data set returns batches
        worker_init_fn=partial(_limit_pixels, Image.MAX_IMAGE_PIXELS),
        pin_memory=torch.cuda.is_available(),
        drop_last=sampler.shuffle and len(sampler) >= sampler.batch_size,
    )


def _limit_pixels(limit: int | None, worker: int) -> None:
    Image.MAX_IMAGE_PIXELS = limit  # a spawned worker does not inherit the limit
