"""The accuracy of a run's checkpoint as ONNX and as int8, beside PyTorch's, on images of its split.

python scripts/bench_export.py --run lightning_logs/version_0 --root data/flower_photos
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from flowers import startup

startup.prepare()

import numpy as np  # noqa: E402
import torch  # noqa: E402

from flowers import FlowerPredictor  # noqa: E402
from flowers.data import load_named, read_manifest  # noqa: E402
from flowers.evaluation import wilson_interval  # noqa: E402
from flowers.export_formats import Classifier, onnx_runner, write_onnx  # noqa: E402

parser = argparse.ArgumentParser(allow_abbrev=False, description="Compare the accuracy of exported files.")
parser.add_argument("--run", type=Path, required=True, help="run folder")
parser.add_argument("--root", type=Path, default="data/flower_photos", help="its photos (data/flower_photos)")
parser.add_argument("--split", choices=("val", "test"), default="val", help="images to look at (val)")
args = parser.parse_args()
predictor = FlowerPredictor(args.run / "checkpoints" / "best.ckpt", device="cpu")
module = Classifier(predictor.task.net, predictor.temperature).eval()
rows = read_manifest(args.run / "manifest.csv")
train, shown = ([row for row in rows if row.split == split] for split in ("train", args.split))
ranges, images = (
    np.stack([load_named(args.root / row.path, **predictor.decoding).permute(1, 2, 0).numpy() for row in chosen])
    for chosen in (train[:: max(1, len(train) // 200)], shown)
)
labels = np.array([predictor.class_names.index(row.label) for row in shown])
parts = np.array_split(images, -(-len(images) // 32))
with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
    plain, small = Path(folder, "plain.onnx"), Path(folder, "small.onnx")
    write_onnx(module, images, plain, metadata={})
    write_onnx(module, images, small, metadata={}, ranges=ranges)
    runs = {
        "PyTorch": lambda batch: module(torch.from_numpy(batch)).numpy(),
        "ONNX": onnx_runner(plain),
        "int8": onnx_runner(small),
    }
    found = {name: np.concatenate([run(part) for part in parts]).argmax(axis=1) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(7):
        for name, run in runs.items():
            start = time.perf_counter()
            run(parts[0])
            seconds[name].append(time.perf_counter() - start)
for name, predicted in found.items():
    right, agree = int((predicted == labels).sum()), float((predicted == found["PyTorch"]).mean())
    low, high = wilson_interval(right, len(labels))
    speed = len(parts[0]) / statistics.median(seconds[name][2:])
    print(
        f"{name:<8} {right} of {len(labels)} right, {right / len(labels):.1%} ({low:.1%} to {high:.1%}); as PyTorch "
        f"{agree:.1%}; {speed:.0f} images/s"
    )
