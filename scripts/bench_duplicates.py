"""Misses and false alarms of the search of near duplicates: changed photos hidden among the photos of a folder.

python scripts/bench_duplicates.py --root data/flower_photos
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from flowers.data import index_folder, read_facts
from flowers.data.quality.duplicates import connected, similar_pairs

FLIP = Image.Transpose.FLIP_LEFT_RIGHT
TURN = Image.Transpose.ROTATE_90


def crop(image: Image.Image, fraction: float) -> Image.Image:
    """Cut a fraction of the width off at the left and the right, and of the height at the top and the bottom."""
    x = round(image.width * fraction)
    y = round(image.height * fraction)
    return image.crop((x, y, image.width - x, image.height - y))


def shift(image: Image.Image, fraction: float) -> Image.Image:
    """Move the content left and up by a fraction of the sides; what comes in is black."""
    move = (1, 0, image.width * fraction, 0, 1, image.height * fraction)
    return image.transform(image.size, Image.Transform.AFFINE, move)


def frame(image: Image.Image, fraction: float, *, colour: str) -> Image.Image:
    """Add a border of a fraction of the sides."""
    return ImageOps.expand(
        image, (round(image.width * fraction), round(image.height * fraction)), fill=colour
    )


def rotate(image: Image.Image, degrees: float) -> Image.Image:
    """Rotate by a small angle; the corners become black."""
    return image.rotate(degrees, Image.Resampling.BICUBIC)


def recolour(image: Image.Image) -> Image.Image:
    """Strengthen the colours, brighten, and weaken the contrast."""
    image = ImageEnhance.Brightness(ImageEnhance.Color(image).enhance(1.6)).enhance(1.2)
    return ImageEnhance.Contrast(image).enhance(0.8)


CHANGES = {
    "recompressed at quality 30": lambda image: image,
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "recoloured": recolour,
    "grey": lambda image: image.convert("L").convert("RGB"),
    "mirrored": lambda image: image.transpose(FLIP),
    "upside down": lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    "turned by 90 degrees": lambda image: image.transpose(TURN),
    "turned by 180 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_180),
    "turned by 270 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_270),
    "shifted by 2 % both ways": lambda image: shift(image, 0.02),
    "shifted by 4 % one way": lambda image: image.crop(
        (round(image.width * 0.04), 0, image.width, image.height)
    ),
    "shifted by 4 % both ways": lambda image: shift(image, 0.04),
    "3 % cut off each side": lambda image: crop(image, 0.03),
    "5 % cut off each side": lambda image: crop(image, 0.05),
    "8 % cut off each side": lambda image: crop(image, 0.08),
    "white border of 5 %": lambda image: frame(image, 0.05, colour="white"),
    "black border of 5 %": lambda image: frame(image, 0.05, colour="black"),
    "rotated by 3 degrees": lambda image: rotate(image, 3),
    "rotated by 6 degrees": lambda image: rotate(image, 6),
    "mirrored, 5 % cut off": lambda image: crop(image.transpose(FLIP), 0.05),
    "turned, 3 % cut off, grey": lambda image: crop(
        image.transpose(TURN).convert("L").convert("RGB"), 0.03
    ),
    "mirrored, white border": lambda image: frame(image.transpose(FLIP), 0.05, colour="white"),
    "mirrored, rotated by 3": lambda image: rotate(image.transpose(FLIP), 3),
    "cut to a square": lambda image: ImageOps.fit(image, (min(image.size), min(image.size))),
}

parser = argparse.ArgumentParser()
parser.add_argument("--root", type=Path, required=True)
parser.add_argument("--images", type=int, default=120, help="photos to change in each way")


def main(root: Path, images: int) -> None:
    """Print a table: for each change, how many changed photos were found, and how many pairs are incorrect."""
    index = index_folder(root)
    count = len(index.paths)
    rng = np.random.default_rng(0)
    originals = rng.choice(count, min(images, count), replace=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        thumbnails = read_facts(index.root, index.paths, cache_dir=folder / "cache").thumbnails
        start = time.perf_counter()
        pairs = similar_pairs(thumbnails)
        print(
            f"{len(pairs.indices)} pairs among {count:,} photos in {time.perf_counter() - start:.1f} s"
        )
        # A photo that the folder holds twice has two originals.
        group = connected(count, pairs.indices)
        print(f"{'change':<28}{'found':>12}{'false alarms':>14}{'least similarity':>18}")
        for change, function in CHANGES.items():
            for number, original in enumerate(originals):
                with Image.open(index.root / index.paths[original]) as image:
                    function(image.convert("RGB")).save(
                        folder / f"{number}.jpg", quality=30 if "30" in change else 90
                    )
            files = [f"{number}.jpg" for number in range(len(originals))]
            changed = read_facts(folder, files, cache_dir=folder / "cache").thumbnails
            pairs = similar_pairs(np.concatenate([thumbnails, changed]))
            crosses = (pairs.indices[:, 0] < count) & (pairs.indices[:, 1] >= count)
            first, second = pairs.indices[crosses].T
            original = originals[second - count]
            is_correct = group[first] == group[original]
            found = f"{len(np.unique(second[is_correct]))} of {len(originals)}"
            false_alarms = (~is_correct).sum()
            similarity = pairs.similarity[crosses][is_correct].min(initial=1)
            print(f"{change:<28}{found:>12}{false_alarms:>14}{similarity:>18.2f}", flush=True)


if __name__ == "__main__":
    args = parser.parse_args()
    main(args.root, args.images)
