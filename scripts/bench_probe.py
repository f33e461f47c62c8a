"""Time a linear probe from a cold start, beside the same written with plain torchvision and scikit-learn.

python scripts/bench_probe.py --root data/flower_photos
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

parser = argparse.ArgumentParser(
    allow_abbrev=False, description="Time a linear probe beside a plain one."
)
parser.add_argument(
    "--root", default="data/flower_photos", help="folder root/<class>/<image> (data/flower_photos)"
)
parser.add_argument(
    "--weights", default="DEFAULT", help="weights of MobileNetV2: a name or a .pth file (DEFAULT)"
)
parser.add_argument("--size", type=int, default=224, help="side of the images, in pixels (224)")
parser.add_argument("--manifest", help=argparse.SUPPRESS)  # whose split the plain probe takes
args = parser.parse_args()


def plain() -> None:
    """Take features through a DataLoader with two workers, and fit a logistic regression on them."""
    import torch  # noqa: PLC0415 (the time of the imports counts)
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from torchvision import datasets, models, transforms  # noqa: PLC0415

    standardize = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    resize = transforms.Resize((args.size, args.size))
    photos = datasets.ImageFolder(
        args.root, transforms.Compose([resize, transforms.ToTensor(), standardize])
    )
    with open(args.manifest, newline="") as opened:  # noqa: PTH123
        split_of = {
            str(Path(args.root, row["path"])): row["split"] for row in csv.DictReader(opened)
        }
    file = args.weights.endswith((".pth", ".pt"))
    net = models.mobilenet_v2(weights=None if file else args.weights).eval()
    if file:
        net.load_state_dict(torch.load(args.weights, weights_only=True), strict=False)
    net.classifier = torch.nn.Identity()
    parts = []
    for split in ("train", "val"):
        chosen = [
            number
            for number, (path, _) in enumerate(photos.samples)
            if split_of[str(Path(path))] == split
        ]
        batches = torch.utils.data.DataLoader(
            torch.utils.data.Subset(photos, chosen), batch_size=32, num_workers=2
        )
        with torch.inference_mode():
            parts += [
                torch.cat([net(images) for images, _ in batches]),
                [photos.targets[number] for number in chosen],
            ]
    print(f"val/acc {LogisticRegression(max_iter=1000).fit(*parts[:2]).score(*parts[2:]):.4f}")


if args.manifest:
    sys.exit(plain())
with tempfile.TemporaryDirectory() as folder:
    ours = [
        sys.executable,
        "-m",
        "flowers",
        "fit",
        "--config",
        "configs/probe.yaml",
        "--model.weights",
        args.weights,
    ]
    ours += [
        "--data.root",
        args.root,
        "--data.image_size",
        str(args.size),
        "--data.crop_size",
        str(args.size),
    ]
    ours += ["--data.cache_dir", f"{folder}/cache", "--trainer.default_root_dir", folder]
    manifest = f"{folder}/lightning_logs/version_0/manifest.csv"
    for name, command in {
        "flowers": ours,
        "plain": [sys.executable, *sys.argv, "--manifest", manifest],
    }.items():
        start = time.perf_counter()
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        best = next(
            line.split()[1] for line in said.splitlines() if line.strip().startswith("val/acc ")
        )
        print(
            f"{name:<8} {time.perf_counter() - start:6.1f} s  validation accuracy {best}",
            flush=True,
        )
