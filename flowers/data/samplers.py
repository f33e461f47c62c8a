"""The images that a process reads, and their order."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

T = TypeVar("T")


def share(items: Sequence[T], *, batch_size: int, rank: int, world_size: int) -> Sequence[T]:
    """Return the items that one process evaluates.

    The processes divide the list of batches, so results are bit-identical to those of one process.

    Args:
        items: The items of all processes.
        batch_size: Number of items in a batch.
        rank: Number of the process.
        world_size: Number of processes.
    """
    num_batches = math.ceil(len(items) / batch_size)
    start = rank * num_batches // world_size
    stop = (rank + 1) * num_batches // world_size
    return items[start * batch_size : stop * batch_size]


@dataclass(eq=False)
class ShardedSampler(Sampler[int]):
    """The positions in a split that one process reads, in training shuffled by (seed, epoch).

    The r-th repetition of image i in an epoch has the position ``i + r * num_images``: the position
    determines the seed of the augmentation, so repetitions are augmented differently.

    In evaluation each image is read by exactly one process (torch's ``DistributedSampler`` repeats
    images). The processes divide the list of batches, or the list of images if there are fewer
    batches than processes. In training all processes get the same number of images, so that none
    waits forever for the gradients of another; the few images left over differ from epoch to epoch.

    Args:
        num_images: Number of images of the split.
        batch_size: Number of images in a batch.
        shuffle: Whether the order changes with each epoch, as in training.
        seed: Seed of the run.
        rank: Number of this process.
        world_size: Number of processes.
        balance: Labels ``(num_images,)``, to sample all classes equally often in training: images
            of small classes are repeated, and some of large classes are left out of an epoch.
    """

    num_images: int
    _: KW_ONLY
    batch_size: int
    shuffle: bool
    seed: int
    rank: int
    world_size: int
    balance: NDArray[np.int64] | None = None
    epoch = 0
    start = 0  # number of images of the order that were read before resuming

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that determines the order; Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.shuffle:
            return self.num_images // self.world_size
        return len(self._evaluated())

    def _evaluated(self) -> Sequence[int]:
        batch_size = self.batch_size
        if math.ceil(self.num_images / batch_size) < self.world_size:
            batch_size = 1
        images = range(self.num_images)
        return share(images, batch_size=batch_size, rank=self.rank, world_size=self.world_size)

    def __iter__(self) -> Iterator[int]:
        if not self.shuffle:
            return iter(self._evaluated())
        rng = np.random.default_rng([self.seed, self.epoch])
        if self.balance is None:
            order = rng.permutation(self.num_images)
        else:
            order = rng.permutation(_balanced(self.balance, rng))
        end = len(self) - self.start // self.world_size
        return iter(order[self.start :][self.rank :: self.world_size][:end].tolist())


def _balanced(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return N positions with equally many of each class, and of each image within a class.

    Repetitions r = 1, 2, ... of an image are marked by adding r * N to its position.

    Args:
        labels: Labels ``(N,)``.
        rng: Random generator.
    """
    classes = np.unique(labels)
    order = []
    for number, label in enumerate(rng.permutation(classes)):
        positions = np.flatnonzero(labels == label)
        count = (len(labels) + number) // len(classes)
        num_rounds = math.ceil(count / len(positions))
        rounds = [rng.permutation(positions) + r * len(labels) for r in range(num_rounds)]
        order.append(np.concatenate(rounds)[:count])
    return np.concatenate(order)
