"""What a frozen backbone says of every image, computed once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from tqdm import tqdm

from flowers.data import DECODING_FORMAT, FlowersDataModule, build_once, cache_key, to_float
from flowers.tasks import TransferTask

_BATCH_SIZE = 32
# Raise it when the features or the augmentation change: what was cached before is then computed
# anew.
_FORMAT = 1


def cache_features(
    task: TransferTask, data: FlowersDataModule, *, views: int
) -> list[NDArray[np.float32]]:
    """Return the features of the training and validation images, from the data module's cache where they are there.

    Args:
        task: Whose backbone gives them, on its device.
        data: Whose images.
        views: Number of augmented views of the training images.

    Returns:
        ``1 + views`` arrays ``(N, F)``, the plain images first; rows of other images are NaN.
    """
    weights = hashlib.sha256()
    for module in (task.net.standardize, task.net.backbone):
        for name, tensor in module.state_dict().items():
            weights.update(name.encode())
            weights.update(tensor.cpu().contiguous().numpy().tobytes())
    plain = np.sort(np.concatenate([data.indices["train"], data.indices["val"]]))
    return [
        _cached(
            task,
            data,
            plain if view == 0 else data.indices["train"],
            view=view,
            weights=weights.hexdigest(),
        )
        for view in range(views + 1)
    ]


def _cached(
    task: TransferTask,
    data: FlowersDataModule,
    indices: NDArray[np.int64],
    *,
    view: int,
    weights: str,
) -> NDArray[np.float32]:
    """Return one view's features ``(N, F)`` of the images of some indices."""

    def build(folder: Path) -> None:
        np.save(folder / "features.npy", _compute(task, data, indices, view=view))

    how = f"{data.augment} {data.seed} {data.crop_size} {view}" if view else "plain"
    shape = f"{data.image_size} {data.resize} {data.interpolation}"
    images = [f"{index} {data.facts.sha256[index]}" for index in indices]
    key = cache_key(
        f"features {_FORMAT} {DECODING_FORMAT}", task.hparams["arch"], weights, how, shape, *images
    )
    features: NDArray[np.float32] = np.load(
        build_once(data.cache_dir, key, build) / "features.npy", mmap_mode="r"
    )
    return features


@torch.inference_mode()
def _compute(
    task: TransferTask, data: FlowersDataModule, indices: NDArray[np.int64], *, view: int
) -> NDArray[np.float32]:
    features, training = None, task.net.training
    net = task.net.eval()
    # Not --data.batch_size, which a head without its backbone may want large.
    batches = np.array_split(indices, -(-len(indices) // _BATCH_SIZE))
    name = f"the features of view {view}" if view else "the features"
    rank_zero_info(f"Computing {name} of {len(indices):,} images, once")
    for chosen in tqdm(batches, desc=f"Computing {name}", unit="batch", disable=None):
        pixels = data.images(chosen).to(task.device)
        images = to_float(pixels)
        if view:
            where = torch.from_numpy(chosen).to(task.device)
            images = data.augment(
                pixels, indices=where, size=data.crop_size, seed=data.seed, epoch=view
            )
        images = images.contiguous(memory_format=torch.channels_last)
        found = net.backbone(net.standardize(images)).float().cpu().numpy()
        if features is None:
            features = np.full((len(data.index.paths), found.shape[1]), np.nan, dtype=np.float32)
        features[chosen] = found
    net.train(training)
    assert features is not None
    return features
