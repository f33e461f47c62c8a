from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from functools import partial
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch

from flowers.data import index_folder
from flowers.data.datasets import Batch, SplitImages, batch_loader, read_files
from flowers.data.samplers import ShardedSampler


def reader(images):
    return lambda indices: torch.from_numpy(images[indices]).permute(0, 3, 1, 2)


def sampler(count, *, batch_size, shuffle=False, rank=0, world_size=1):
    return ShardedSampler(
        count, batch_size=batch_size, shuffle=shuffle, seed=0, rank=rank, world_size=world_size
    )


def test_cached_batches_have_the_requested_images_in_channels_last():
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    dataset = SplitImages(reader(images), np.arange(10) % 3, np.array([9, 7, 2]))
    assert len(dataset) == 3
    batch = dataset.__getitems__([1, 2, 1 + 2 * len(dataset)])
    assert np.array_equal(batch.images.permute(0, 2, 3, 1).numpy(), images[[7, 2, 7]])
    assert batch.targets.tolist() == [1, 2, 1]
    assert batch.indices.tolist() == [7, 2, 7]
    assert batch.keys.tolist() == [7, 2, 7 + 2 * 10]  # the third time that it comes in an epoch
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("count", "batches"), [(9, 2), (8, 2), (3, 1)])
def test_a_short_last_batch_is_left_out_unless_it_is_the_only_one(count, batches):
    dataset = SplitImages(
        reader(np.zeros((20, 4, 4, 3), dtype=np.uint8)), np.zeros(20, dtype=np.int64), np.arange(20)
    )
    train = batch_loader(dataset, sampler(count, batch_size=4, shuffle=True), num_workers=0)
    assert len(list(train)) == len(train) == batches
    evaluation = batch_loader(dataset, sampler(count, batch_size=4), num_workers=0)
    assert sum(len(batch.targets) for batch in evaluation) == count


def loaders(world_size, batch_size, epoch):
    images = np.zeros((100, 2, 2, 3), dtype=np.uint8)
    dataset = SplitImages(reader(images), np.arange(100), np.arange(100))
    where = {"batch_size": batch_size, "shuffle": True, "world_size": world_size}
    shards = [sampler(100, rank=rank, **where) for rank in range(world_size)]
    for shard in shards:
        shard.set_epoch(epoch)
    return [batch_loader(dataset, shard, num_workers=0) for shard in shards]


@pytest.mark.parametrize(
    ("world_size", "batch_size", "left"),
    [(1, 6, 10), (3, 2, 10), (1, 5, 12), (2, 8, 3), (1, 50, 1)],
)
def test_a_resumed_epoch_reads_the_remaining_images_for_any_batch_size(
    world_size, batch_size, left
):
    before = loaders(3, 2, epoch=1)
    iterators = [iter(loader) for loader in before]
    seen = {
        int(i) for iterator in iterators for _ in range(6) for i in next(iterator).indices
    }  # 36 of 100 images
    state = before[0].state_dict()
    after = loaders(world_size, batch_size, epoch=1)
    whole = len(after[0])
    for loader in after:
        loader.load_state_dict(state)
    batches = [[batch.indices for batch in loader] for loader in after]
    assert [len(mine) for mine in batches] == [left] * world_size
    assert len(after[0]) == whole == after[0].first_batch + left
    read = torch.cat([indices for mine in batches for indices in mine]).tolist()
    assert len(set(read)) == len(read)
    assert not seen & set(read) or batch_size == 50  # of two steps one is over and one has begun
    after[0].sampler.set_epoch(2)
    assert len(list(after[0])) == whole


def test_a_file_that_became_unreadable_is_named(photos):
    index = index_folder(photos(cat=2, dog=2))
    read = partial(read_files, index=index, decoding={"image_size": 8, "resize": "stretch"})
    dataset = SplitImages(read, index.labels, np.arange(4))
    (index.root / index.paths[1]).write_bytes(b"gone bad")
    with pytest.raises(OSError, match=r"cat/001\.png"):
        dataset.__getitems__([0, 1])


@pytest.mark.parametrize("shape", [(5, 3, 8, 6), (5, 7)])
def test_a_batch_of_a_worker_is_unchanged_where_shared_memory_is_full(shape, monkeypatch):
    def full(tensor):
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    if images.ndim == 4:
        images = images.contiguous(memory_format=torch.channels_last)
    batch = Batch(images, torch.arange(5), torch.arange(5) + 9, torch.arange(5) + 20)
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    received = pickle.loads(ForkingPickler.dumps(batch))
    assert isinstance(received, Batch)
    assert all(torch.equal(mine, sent) for mine, sent in zip(received, batch, strict=True))
    assert received.images.stride() == images.stride()


READ_BATCHES = """
import sys
from functools import partial
from flowers.data import FlowersDataModule
options = {"image_size": 256, "crop_size": 256, "batch_size": 16, "cache": False, "num_workers": 2}
data = FlowersDataModule(sys.argv[1], **options)
data.setup("fit")
print(sum(len(batch.targets) for batch in data.train_dataloader()))
"""


def can_mount():
    if shutil.which("unshare") is None:
        return False
    mounting = subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True)
    return mounting.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="needs a mount namespace")
def test_workers_do_not_hang_where_shared_memory_is_smaller_than_a_batch(synthetic):
    mount = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", mount, "sh"]
    command += [sys.executable, "-c", READ_BATCHES, str(synthetic)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=120)
    assert done.stdout == "112\n"  # full batches of 120 images
