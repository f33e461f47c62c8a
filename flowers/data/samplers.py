"""Which images a process reads, and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from torch.utils.data import Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

T = TypeVar("T")


def share(items: Sequence[T], *, batch_size: int, rank: int, world_size: int) -> Sequence[T]:
    """Return what one process evaluates: whole batches, as a single process looks at them, for the same last digit.

    Args:
        items: What all processes evaluate.
        batch_size: How many of them the network looks at together.
        rank: Number of the process.
        world_size: Number of processes.
    """
    batches = -(-len(items) // batch_size)
    start, stop = (number * batches // world_size * batch_size for number in (rank, rank + 1))
    return items[start:stop]


class ShardedSampler(Sampler[int]):
    """The positions of a split that one process reads, in an order that depends on (seed, epoch) alone.

    The r-th repetition of an image in an epoch has the position ``i + r * num_images``, so that it
    can be augmented in another way.

    Evaluation reads each image exactly once over all processes, where torch's
    ``DistributedSampler`` pads with
    duplicates: whole batches, or single images where there are fewer batches than processes. In
        training all processes
    get the same number of images, so that none waits for a step that never comes; the few left over
    differ from epoch to epoch.

    Args:
        num_images: Images of the split.
        batch_size: Images in a batch.
        shuffle: Whether the order changes with each epoch; set for training.
        seed: Seed of the run.
        rank: Number of this process.
        world_size: Number of processes.
        balance: Labels ``(num_images,)``; if given, every class comes equally often in training,
            the images of a small one several times, those of a large one not all in every epoch.
    """

    def __init__(
        self,
        num_images: int,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        rank: int,
        world_size: int,
        balance: NDArray[np.int64] | None = None,
    ) -> None:
        self.num_images = num_images
        self.batch_size = batch_size
        self.balance = balance
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.start = 0  # how many images of the order are left out, since they were read before

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; Lightning calls it before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.shuffle:
            return self.num_images // self.world_size
        return len(self._evaluated())

    def _evaluated(self) -> Sequence[int]:
        enough = -(-self.num_images // self.batch_size) >= self.world_size
        where = {"rank": self.rank, "world_size": self.world_size}
        return share(range(self.num_images), batch_size=self.batch_size if enough else 1, **where)

    def __iter__(self) -> Iterator[int]:
        if not self.shuffle:
            return iter(self._evaluated())
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(
            self.num_images if self.balance is None else _balanced(self.balance, rng)
        )
        end = len(self) - self.start // self.world_size
        return iter(order[self.start :][self.rank :: self.world_size][:end].tolist())


def _balanced(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return as many positions as there are labels, each class, and within it each image, as often as the others.

    In its r-th round over the images of a class, counted from 0, a position is increased by r times
    their number N.
    """
    classes = np.unique(labels)
    order = []
    for number, label in enumerate(rng.permutation(classes)):
        positions = np.flatnonzero(labels == label)
        count = (len(labels) + number) // len(classes)
        num_rounds = -(-count // len(positions))
        rounds = [rng.permutation(positions) + r * len(labels) for r in range(num_rounds)]
        order.append(np.concatenate(rounds)[:count])
    return np.concatenate(order)
