"""Time and memory of an audit: of your own photos, or of any number of drawn ones.

python scripts/bench_audit.py --root data/flower_photos
python scripts/bench_audit.py --root data/many/drawn_flowers --images 100000
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from multiprocessing import Pool
from pathlib import Path

import numpy as np

from flowers.data import DRAWN_CLASSES, draw_flower

parser = argparse.ArgumentParser()
parser.add_argument("--root", type=Path, required=True)
parser.add_argument(
    "--images", type=int, default=1000, help="images to draw where the folder is missing"
)


def draw(number: int) -> None:
    """Draw one image of the folder."""
    name = DRAWN_CLASSES[number % len(DRAWN_CLASSES)]
    image = draw_flower(name, image_size=64, rng=np.random.default_rng([1, number]))
    image.save(parser.parse_args().root / name / f"{number:07d}.jpg", quality=88)


if __name__ == "__main__":
    args = parser.parse_args()
    if not args.root.exists():
        for name in DRAWN_CLASSES:
            (args.root / name).mkdir(parents=True)
        with Pool() as pool:
            pool.map(draw, range(args.images), chunksize=100)
    with tempfile.TemporaryDirectory() as folder:
        command = ["audit", args.root, "--out", f"{folder}/audit", "--cache_dir", f"{folder}/cache"]
        for state in ("cold", "warm"):
            start = time.perf_counter()
            status = subprocess.run(
                [sys.executable, "-m", "flowers", *map(str, command)], check=False
            ).returncode
            assert status in (0, 1)  # 1: something is wrong with the folder
            memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
            print(
                f"{state}: {time.perf_counter() - start:.1f} s, at most {memory:.2f} GiB so far",
                flush=True,
            )
            command[command.index("--out") + 1] += "-again"
