"""Images per second of the input pipeline beside a plain torchvision ImageFolder and DataLoader, in interleaved runs.

python scripts/bench_input.py --root data/flower_photos
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from functools import partial
from statistics import median

from flowers import runtime

runtime.prepare()  # the allocator comes before torch
import torch  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402
from torchvision.datasets import ImageFolder  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

from flowers.data import FlowersDataModule  # noqa: E402


def plain(root: str, batch_size: int, *, augment: bool, workers: int) -> DataLoader:
    """Return what most people write: each image decoded, augmented and collated in Python."""
    draws = [v2.RandomResizedCrop(160, (0.35, 1)), v2.RandomHorizontalFlip(), v2.RandomRotation(15)]
    transforms = [*draws, v2.ColorJitter(0.3, 0.3, 0.3)] if augment else [v2.Resize((192, 192))]
    folder = ImageFolder(
        root, v2.Compose([*transforms, v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    )
    return DataLoader(
        folder, batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )


def ours(data: FlowersDataModule, *, augment: bool) -> Iterable[torch.Tensor]:
    """Yield the training batches of the data module, as it gives them to the network."""
    for step, batch in enumerate(data.train_dataloader()):
        images = batch.images
        if augment:
            images = data.augment(
                images, indices=batch.indices, size=data.crop_size, seed=0, epoch=0
            )
            images, _ = data.augment.mix(
                images, batch.targets, num_classes=len(data.class_names), seed=0, step=step
            )
        yield images.contiguous(memory_format=torch.channels_last)


def rate(batches: Iterable[torch.Tensor | list[torch.Tensor]]) -> float:
    """Return images per second over one pass."""
    start = time.perf_counter()
    count = sum(len(batch[0]) if isinstance(batch, list) else len(batch) for batch in batches)
    return count / (time.perf_counter() - start)


def plain_rate(root: str, batch_size: int, *, augment: bool, workers: int) -> float:
    """Return the rate of a second, warm pass; the workers end with it, lest they slow down what is timed next."""
    loader = plain(root, batch_size, augment=augment, workers=workers)
    return (rate(loader), rate(loader))[1]


parser = argparse.ArgumentParser()
parser.add_argument("--root", default="data/flower_photos")
parser.add_argument("--runs", type=int, default=5)
args = parser.parse_args()
data = FlowersDataModule(args.root)
data.setup("fit")
for augment in (False, True):
    theirs = partial(plain_rate, args.root, data.batch_size, augment=augment)
    best = max((0, 1, 2, 4), key=lambda workers, theirs=theirs: theirs(workers=workers))
    pairs = [(rate(ours(data, augment=augment)), theirs(workers=best)) for _ in range(args.runs)]
    rates, ratios = (
        [median(side) for side in zip(*pairs, strict=True)],
        sorted(a / b for a, b in pairs),
    )
    print(
        "with augmentation:" if augment else "reading alone:",
        f"ours {rates[0]:,.0f} images/s,",
        end=" ",
    )
    print(f"plain {rates[1]:,.0f} (its best: {best} workers),", end=" ")
    print(
        f"ratio {median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f} in {args.runs} pairs)",
        flush=True,
    )
