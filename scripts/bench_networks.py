"""Measure what networks cost on this machine: parameters, multiplications, images per second.

python scripts/bench_networks.py mobilenet_v2 resnet50
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING

from flowers import runtime

runtime.prepare()

import torch  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from flowers.models import preprocessing, pretrained  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

parser = argparse.ArgumentParser(
    allow_abbrev=False, description="Measure what networks cost on this machine."
)
parser.add_argument("arch", nargs="+", help="classifiers of torchvision's")
parser.add_argument("--batch_size", type=int, default=16, help="images at once (16)")
parser.add_argument(
    "--rounds", type=int, default=5, help="measurements of each, of which the median counts (5)"
)
args = parser.parse_args()
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def images_per_second(run: Callable[[], object]) -> float:
    """Return the median speed after one run to warm up."""
    seconds = []
    for _ in range(args.rounds + 1):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return args.batch_size / statistics.median(seconds[1:])


print(
    f"{'arch':<20} {'size':>5} {'parameters':>12} {'multiply-adds':>14} {'predict/s':>10} {'train/s':>8}"
)
for arch in args.arch:
    size = preprocessing(arch, "none").image_size
    net = pretrained(arch, 5, weights="none").to(device, memory_format=torch.channels_last)
    images = torch.rand(args.batch_size, 3, size, size, device=device).contiguous(
        memory_format=torch.channels_last
    )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(images[:1])
    with torch.inference_mode():
        predicting = images_per_second(lambda net=net, images=images: net(images))
    net.train()
    training = images_per_second(lambda net=net, images=images: net(images).sum().backward())
    millions = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    billions = counter.get_total_flops() / 2e9  # a multiplication and an addition are one
    print(
        f"{arch:<20} {size:>5} {millions:>10.1f} M {billions:>12.2f} G {predicting:>10.1f} {training:>8.1f}"
    )
