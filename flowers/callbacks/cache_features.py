"""Features of a frozen backbone, computed once."""

import hashlib
import math
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from tqdm import tqdm

from flowers.data import DECODING_FORMAT, FlowersDataModule, build_once, cache_key, to_float
from flowers.tasks import TransferTask

# Part of the cache's key. Increase it when a change of the code changes the features.
_FORMAT = 1


def cache_features(task: TransferTask, data: FlowersDataModule) -> NDArray[np.float32]:
    """Return the features of the training and validation images, from the cache if possible.

    Args:
        task: The task with the backbone, on its device.
        data: The data module of the images; its cache stores the features.

    Returns:
        Features ``(N, F)`` of the N images of the index, without augmentation. Only the rows of
        training and validation images are computed; all other rows are NaN.
    """
    weights = hashlib.sha256()
    for module in (task.net.standardize, task.net.backbone):
        for name, tensor in module.state_dict().items():
            weights.update(name.encode())
            weights.update(tensor.cpu().contiguous().numpy().tobytes())
    indices = np.sort(np.concatenate([data.indices["train"], data.indices["val"]]))

    def build(folder: Path) -> None:
        np.save(folder / "features.npy", _compute(task, data, indices))

    shape = f"{data.image_size} {data.resize} {data.interpolation}"
    images = [f"{index} {data.info.sha256[index]}" for index in indices]
    version = f"features {_FORMAT} {DECODING_FORMAT}"
    key = cache_key(version, task.hparams["arch"], weights.hexdigest(), shape, *images)
    entry = build_once(data.cache_dir, key, build)
    return np.load(entry / "features.npy", mmap_mode="r")


@torch.inference_mode()
def _compute(
    task: TransferTask, data: FlowersDataModule, indices: NDArray[np.int64]
) -> NDArray[np.float32]:
    training = task.net.training
    net = task.net.eval()
    # data.batch_size may be too large for the backbone: it is meant for training only the head.
    batches = np.array_split(indices, math.ceil(len(indices) / 32))
    rank_zero_info(f"Computing the features of {len(indices):,} images, once")
    outputs = []
    for batch in tqdm(batches, desc="Computing the features", unit="batch", disable=None):
        images = to_float(data.images(batch).to(task.device))
        images = images.contiguous(memory_format=torch.channels_last)
        outputs.append(net.backbone(net.standardize(images)).float().cpu().numpy())
    net.train(training)
    shape = (len(data.index.paths), outputs[0].shape[1])
    features = np.full(shape, np.nan, dtype=np.float32)
    features[indices] = np.concatenate(outputs)
    return features
