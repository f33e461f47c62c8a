"""Images per second of the input pipeline beside a plain torchvision ImageFolder and DataLoader, in interleaved runs.

python scripts/bench_input.py --root data/flower_photos
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from statistics import median

import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from flowers import startup
from flowers.data import FlowersDataModule


def plain(root: str, batch_size: int, *, augment: bool, workers: int) -> DataLoader:
    """Return what most people write: each image decoded, augmented and collated in Python."""
    resize = [v2.Resize((160, 160))]
    draws = [v2.RandomResizedCrop(128, (0.35, 1)), v2.RandomHorizontalFlip(), v2.RandomRotation(15)]
    transforms = [*draws, v2.ColorJitter(0.3, 0.3, 0.3)] if augment else resize
    to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    folder = ImageFolder(root, v2.Compose([*transforms, *to_tensor]))
    persistent = workers > 0
    return DataLoader(folder, batch_size, shuffle=True, num_workers=workers, persistent_workers=persistent)


def ours(data: FlowersDataModule, *, augment: bool) -> Iterable[torch.Tensor]:
    """Yield the training batches of the data module, as it gives them to the network."""
    for batch in data.train_dataloader():
        if not augment:
            yield batch.images
            continue
        images = data.augment(batch.images, indices=batch.indices, size=data.crop_size, seed=0, epoch=0)
        images, _ = data.augment.mix(images, batch.targets, num_classes=len(data.class_names), seed=0, step=0)
        yield images.contiguous(memory_format=torch.channels_last)


def rate(batches: Iterable[torch.Tensor | list[torch.Tensor]]) -> float:
    """Return images per second over one pass."""
    start = time.perf_counter()
    count = sum(len(batch[0]) if isinstance(batch, list) else len(batch) for batch in batches)
    return count / (time.perf_counter() - start)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--root", default="data/flower_photos")
parser.add_argument("--runs", type=int, default=5)
args = parser.parse_args()
startup.prepare()
data = FlowersDataModule(args.root)
data.setup("fit")
for augment in (False, True):
    loaders = {n: plain(args.root, data.batch_size, augment=augment, workers=n) for n in (0, 1, 2, 4)}
    best = max(loaders, key=lambda n, loaders=loaders: (rate(loaders[n]), rate(loaders[n]))[1])  # the second is warm
    pairs = [(rate(ours(data, augment=augment)), rate(loaders[best])) for _ in range(args.runs)]
    print("with augmentation" if augment else "reading alone", f"(the plain loader's best: {best} workers)")
    print(f"  ours {median(a for a, _ in pairs):8,.0f}  plain {median(b for _, b in pairs):8,.0f} images/s", end="  ")
    print(f"ratio {median(a / b for a, b in pairs):.1f} ({min(a / b for a, b in pairs):.1f} to ", end="")
    print(f"{max(a / b for a, b in pairs):.1f}, {args.runs} pairs)", flush=True)
