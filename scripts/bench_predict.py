"""Time predictions beside a plain loop of Pillow and torch with the same network, and the start to the first answer.

python scripts/bench_predict.py --ckpt_path lightning_logs/version_0/checkpoints/best.ckpt --root
data/flower_photos
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from flowers import runtime

runtime.prepare()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from flowers import FlowerPredictor  # noqa: E402
from flowers.data import find_images  # noqa: E402
from flowers.decoding import open_image  # noqa: E402

parser = argparse.ArgumentParser(
    allow_abbrev=False, description="Time predictions beside a plain loop."
)
parser.add_argument("--ckpt_path", required=True, help="checkpoint")
parser.add_argument(
    "--root", default="data/flower_photos", help="folder of images (data/flower_photos)"
)
parser.add_argument("--rounds", type=int, default=3, help="interleaved measurements of each (3)")
args = parser.parse_args()
files, _ = find_images([args.root], option="--root")
predictor = FlowerPredictor(args.ckpt_path, device="cpu")
size = predictor.decoding["image_size"]


def plain() -> None:
    """Open, resize and classify image after image."""
    net = predictor.task.net
    with torch.inference_mode():
        for file in files:
            with open_image(file) as image:
                square = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
            pixels = np.asarray(square)
            images = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
            net(images).softmax(dim=1).argmax().item()


speeds: dict[str, list[float]] = {"predict": [], "plain loop": []}
for _ in range(args.rounds):
    for name, run in (("predict", lambda: [*predictor.stream(files)]), ("plain loop", plain)):
        start = time.perf_counter()
        run()
        speeds[name].append(len(files) / (time.perf_counter() - start))
ours, theirs = (statistics.median(values) for values in speeds.values())
ratios = [a / b for a, b in zip(*speeds.values(), strict=True)]
low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
print(f"{len(files):,} images: predict {ours:.0f} images/s, plain loop {theirs:.0f}")
print(f"predict is {middle:.2f} times as fast ({low:.2f} to {high:.2f})")
code = f"from flowers import FlowerPredictor; print(FlowerPredictor({args.ckpt_path!r})({files[0]!r}).label)"
start = time.perf_counter()
subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, cwd=Path.cwd())
print(f"From the start of Python to the first answer: {time.perf_counter() - start:.1f} s")
