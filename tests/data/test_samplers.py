from __future__ import annotations

import numpy as np
import pytest

from flowers.data import share
from flowers.data.samplers import ShardedSampler


def sampler(count, *, shuffle=False, seed=0, rank=0, world_size=1, balance=None):
    shard = {"rank": rank, "world_size": world_size, "balance": balance}
    return ShardedSampler(count, batch_size=4, shuffle=shuffle, seed=seed, **shard)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 7, 21, 64])
def test_evaluation_reads_each_image_exactly_once(count, world_size):
    shards = [list(sampler(count, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert sorted(i for shard in shards for i in shard) == list(range(count))
    assert [len(shard) for shard in shards] == [
        len(sampler(count, rank=rank, world_size=world_size)) for rank in range(world_size)
    ]
    assert all(shards) or count < world_size  # a process without images would not join the others


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 40])
def test_processes_divide_an_evaluation_into_complete_batches(count, world_size):
    files = [f"{number}.jpg" for number in range(count)]
    shares = [
        share(files, batch_size=4, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    assert [file for part in shares for file in part] == files
    assert all(files.index(part[0]) % 4 == 0 for part in shares if part)
    assert max(map(len, shares)) - min(map(len, shares)) <= 7


def test_training_gives_every_process_the_same_number_of_different_images():
    shards = [list(sampler(23, shuffle=True, rank=rank, world_size=4)) for rank in range(4)]
    assert {len(shard) for shard in shards} == {5}
    assert len({i for shard in shards for i in shard}) == 20


def test_two_processes_see_the_global_batches_of_one():
    one = list(sampler(32, shuffle=True))
    two = [list(sampler(32, shuffle=True, rank=rank, world_size=2)) for rank in range(2)]
    for batch in range(4):
        ours = two[0][4 * batch : 4 * batch + 4] + two[1][4 * batch : 4 * batch + 4]
        assert set(ours) == set(one[8 * batch : 8 * batch + 8])


def test_the_order_depends_on_seed_and_epoch():
    first, again, other = (
        sampler(50, shuffle=True),
        sampler(50, shuffle=True),
        sampler(50, shuffle=True, seed=1),
    )
    assert list(first) == list(again) != list(other)
    again.set_epoch(1)
    assert list(first) != list(again)
    assert sorted(first) == sorted(again)


def test_a_balanced_epoch_shows_every_class_equally_often_and_its_images_evenly():
    labels = np.repeat([0, 1, 2], [100, 10, 31])
    order = sampler(141, shuffle=True, balance=labels)
    positions = np.array(list(order))
    images = positions % 141
    assert len(np.unique(positions)) == 141  # repetitions of an image have different positions
    assert np.bincount(labels[images]).tolist() == [47] * 3
    for label in range(3):
        times = np.bincount(images[labels[images] == label], minlength=141)[labels == label]
        assert times.max() - times.min() <= 1
    assert list(order) == positions.tolist()
    order.set_epoch(1)
    assert {position % 141 for position in order} != set(
        images.tolist()
    )  # other images of the large class
    assert len(np.unique(labels[images[:20]])) == 3  # shuffled, not class after class


def test_processes_divide_a_balanced_epoch():
    labels = np.repeat([0, 1], [30, 6])
    shards = [
        list(sampler(36, shuffle=True, rank=rank, world_size=2, balance=labels))
        for rank in range(2)
    ]
    assert np.bincount(labels[np.array(shards[0] + shards[1]) % 36]).tolist() == [18, 18]
