"""Time, memory and disk of the data module alone on many drawn images, and on a tenth of them.

python scripts/bench_data_module.py --images 100000
"""

from __future__ import annotations

import argparse
import logging
import resource
import subprocess
import sys
import tempfile
import time
from math import log10
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image

from flowers.data import FlowersDataModule, index_folder

parser = argparse.ArgumentParser(
    allow_abbrev=False, description="Measure how the data module grows with the images."
)
parser.add_argument("--images", type=int, default=100_000, help="images to draw (100000)")
parser.add_argument("--classes", type=int, default=200, help="classes they are dealt to (200)")
parser.add_argument(
    "--size", type=int, default=64, help="side they are drawn and decoded at, in pixels (64)"
)
parser.add_argument(
    "--step", nargs=3, metavar=("NAME", "ROOT", "CACHE"), help=argparse.SUPPRESS
)  # in its own process
args = parser.parse_args()
PARTS = {"facts": "facts", "duplicates + split": "assignment", "decode": "pixels"}
STEPS = ("imports alone", "index", *PARTS, "first start", "second start")


def draw(file: Path) -> None:
    """Draw a cloud of colours: among 256 random points each, no two are near duplicates."""
    points = np.random.default_rng([1, int(file.stem)]).integers(
        0, 256, (16, 16, 3), dtype=np.uint8
    )
    Image.fromarray(points).resize((args.size, args.size), Image.Resampling.BICUBIC).save(
        file, quality=88
    )


def measure(name: str, root: str, cache_dir: str) -> None:
    """Print the seconds of a step, those of all cores, and the peak memory of its process in MiB."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    start, cpu = time.perf_counter(), time.process_time()
    if name == "index":
        index_folder(root)
    elif name != "imports alone":
        data = FlowersDataModule(
            root, image_size=args.size, crop_size=args.size, cache_dir=cache_dir
        )
        if name in ("duplicates + split", "decode"):
            assert data.facts  # of the step before: read again, and not timed
        if name in PARTS:
            start, cpu = time.perf_counter(), time.process_time()
        getattr(data, PARTS[name]) if name in PARTS else data.setup("fit")
    # The decoded array's pages in memory count, though the system can take them back at any time.
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(time.perf_counter() - start, time.process_time() - cpu, memory)


def blocks(folder: Path) -> int:
    """Return the disk space of a folder in blocks of 512 bytes, whatever those of the disk are."""
    return sum(file.stat().st_blocks for file in folder.rglob("*"))


if args.step:
    sys.exit(measure(*args.step))
print(
    "step                images   seconds  of all cores  memory MiB  disk MiB  power of N that the cores' grow with"
)
with tempfile.TemporaryDirectory(prefix="bench_data_module_") as folder:
    before: dict[str, float] = {}
    for size in (args.images // 10, args.images):
        root = Path(folder, str(size))
        files = [
            root / f"{number % args.classes:03d}" / f"{number:07d}.jpg" for number in range(size)
        ]
        for file in files[: args.classes]:
            file.parent.mkdir(parents=True)
        with Pool() as pool:
            pool.map(draw, files, chunksize=100)
        for name in STEPS:
            cache = root.with_suffix(".starts" if "start" in name else ".steps")
            used, command = (
                blocks(cache),
                [sys.executable, *sys.argv, "--step", name, str(root), str(cache)],
            )
            said = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True
            ).stdout.split()
            seconds, cpu, memory = map(float, said[-3:])
            power = f"{log10(cpu / before[name]):.1f}" if before.get(name, 0) > 0.02 else ""
            before[name], disk = cpu, (blocks(cache) - used) / 2**11
            print(
                f"{name:<18}{size:>8,}{seconds:>10.2f}{cpu:>14.2f}{memory:>12,.0f}{disk:>10,.0f}  {power}",
                flush=True,
            )
