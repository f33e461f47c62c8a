"""Draws a small flower data set: what the quickstart trains on when no photos are at hand."""

from __future__ import annotations

import math
import shutil
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock
from PIL import Image, ImageDraw, ImageFilter
from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Colour = tuple[int, int, int]
    Brush = Callable[["_Canvas", float, float, float], None]

_PALETTES: dict[str, Sequence[Colour]] = {
    "white": [(250, 250, 245), (240, 235, 245), (250, 240, 225)],
    "yellow": [(250, 210, 30), (245, 190, 20), (250, 225, 70)],
    "orange": [(245, 160, 25), (240, 140, 40)],
    "rose": [
        (200, 25, 45),
        (225, 90, 130),
        (245, 170, 180),
        (250, 235, 220),
        (245, 205, 90),
        (150, 20, 60),
    ],
    "tulip": [
        (215, 30, 40),
        (240, 120, 150),
        (250, 200, 50),
        (130, 50, 140),
        (245, 235, 230),
        (240, 130, 50),
    ],
    "brown": [(90, 55, 20), (60, 40, 15), (120, 80, 30)],
    "green": [(60, 120, 40), (90, 140, 60), (45, 95, 45)],
    "ground": [
        (70, 110, 50),
        (120, 150, 90),
        (150, 185, 220),
        (110, 90, 70),
        (40, 60, 40),
        (190, 190, 180),
    ],
}


def draw_flowers(root: Path, *, per_class: int = 200, image_size: int = 112, seed: int = 0) -> None:
    """Generate five classes similar to flower_photos, as ``root/<class>/<number>.jpg``.

    The flowers vary in colour, size, position, number and shape of petals, background, blur and
    noise, and the classes share colours, so one look at the average colour does not tell them
    apart. Several processes may call at once.

    Args:
        root: Folder to make; its parent is made too.
        per_class: Images of each class.
        image_size: Side of the images, in pixels.
        seed: Same seed, same images.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(root.with_name(f".{root.name}.lock")):
        if root.exists():
            return
        partial = root.with_name(f".{root.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for label, name in enumerate(
            tqdm(_BRUSHES, desc=f"Drawing {root}", unit="class", disable=None)
        ):
            (partial / name).mkdir(parents=True)
            for number in range(per_class):
                image = draw_flower(
                    name, image_size=image_size, rng=np.random.default_rng([seed, label, number])
                )
                image.save(partial / name / f"{number:04d}.jpg", quality=88)
        partial.replace(root)


def draw_flower(name: str, *, image_size: int, rng: np.random.Generator) -> Image.Image:
    """Draw one picture of one to three flowers.

    Args:
        name: One of daisy, dandelion, roses, sunflowers, tulips.
        image_size: Side of the image, in pixels.
        rng: Source of all that varies.
    """
    canvas = _Canvas(2 * image_size, rng)  # twice the size: scaling down smoothes the edges
    canvas.background()
    for _ in range(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15])):
        x, y = canvas.size * rng.uniform(0.25, 0.75, size=2)
        _BRUSHES[name](canvas, float(x), float(y), float(canvas.size * rng.uniform(0.16, 0.4)))
    return canvas.photograph(image_size)


class _Canvas:
    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size = size
        self.rng = rng
        self.image = Image.new("RGB", (size, size))
        self.draw = ImageDraw.Draw(self.image)

    def colour(self, palette: str, *, spread: float = 12) -> Colour:
        base = self.rng.choice(np.array(_PALETTES[palette]))
        return self.shade((int(base[0]), int(base[1]), int(base[2])), spread=spread)

    def shade(self, colour: Colour, *, spread: float = 12) -> Colour:
        light = self.rng.normal(0, spread)
        red, green, blue = (
            int(np.clip(value + light + self.rng.normal(0, spread / 3), 0, 255)) for value in colour
        )
        return red, green, blue

    def background(self) -> None:
        top, bottom = (
            np.array(self.colour("ground", spread=20)),
            np.array(self.colour("ground", spread=20)),
        )
        ramp = np.linspace(0, 1, self.size)[:, None, None]
        rows = (top * (1 - ramp) + bottom * ramp).astype(np.uint8)
        self.image.paste(Image.fromarray(np.repeat(rows, self.size, axis=1)))
        for _ in range(self.rng.integers(5, 25)):
            x, y = self.size * self.rng.uniform(0, 1, size=2)
            radius = self.size * self.rng.uniform(0.02, 0.15)
            self.disc(
                x, y, radius, self.colour(str(self.rng.choice(["ground", "green"])), spread=20)
            )
        self.image = self.image.filter(
            ImageFilter.GaussianBlur(self.size * self.rng.uniform(0.005, 0.04))
        )
        self.draw = ImageDraw.Draw(self.image)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def petal(
        self,
        x: float,
        y: float,
        *,
        angle: float,
        length: float,
        width: float,
        colour: Colour,
        tip: float = 1,
    ) -> None:
        """Draw a petal from (x, y); ``tip`` above 1 moves its widest part towards the tip."""
        t = np.linspace(0, 2 * math.pi, 20)
        along = length * ((1 - np.cos(t)) / 2) ** (1 / tip)
        across = width / 2 * np.sin(t)
        xs = x + along * math.cos(angle) - across * math.sin(angle)
        ys = y + along * math.sin(angle) + across * math.cos(angle)
        dark = tuple(int(value * 0.8) for value in colour)
        self.draw.polygon(
            list(zip(xs.tolist(), ys.tolist(), strict=True)), fill=colour, outline=dark
        )

    def ring(
        self,
        x: float,
        y: float,
        *,
        count: int,
        inner: float,
        outer: float,
        width: float,
        colour: Colour,
    ) -> None:
        turn = self.rng.uniform(0, 2 * math.pi)
        for angle in (
            turn + 2 * math.pi * (np.arange(count) + self.rng.normal(0, 0.12, size=count)) / count
        ):
            self.petal(
                x + inner * math.cos(angle),
                y + inner * math.sin(angle),
                angle=angle,
                length=(outer - inner) * self.rng.uniform(0.85, 1.1),
                width=width * self.rng.uniform(0.8, 1.2),
                colour=self.shade(colour),
            )

    def stem(self, x: float, y: float, radius: float) -> None:
        foot = x + self.rng.normal(0, 0.1) * self.size
        self.draw.line(
            (x, y, foot, self.size), fill=self.colour("green"), width=max(2, int(radius * 0.13))
        )

    def photograph(self, size: int) -> Image.Image:
        small = self.image.resize((size, size), Image.Resampling.LANCZOS)
        small = small.filter(ImageFilter.GaussianBlur(self.rng.uniform(0, 0.9)))
        light = self.rng.uniform(0.7, 1.2) * self.rng.normal(1, 0.04, size=3)
        noise = self.rng.normal(0, self.rng.uniform(0, 12), size=(size, size, 3))
        return Image.fromarray((np.asarray(small) * light + noise).clip(0, 255).astype(np.uint8))


def _daisy(canvas: _Canvas, x: float, y: float, radius: float) -> None:
    canvas.stem(x, y, radius)
    count = int(canvas.rng.integers(10, 26))
    petals = canvas.colour("white" if canvas.rng.random() < 0.85 else "yellow")
    disc = radius * canvas.rng.uniform(0.2, 0.34)
    canvas.ring(
        x, y, count=count, inner=disc * 0.7, outer=radius, width=5.5 * radius / count, colour=petals
    )
    canvas.disc(x, y, disc, canvas.colour("yellow"))


def _dandelion(canvas: _Canvas, x: float, y: float, radius: float) -> None:
    canvas.stem(x, y, radius)
    if canvas.rng.random() < 0.25:  # gone to seed
        for angle in canvas.rng.uniform(0, 2 * math.pi, size=70):
            reach = radius * canvas.rng.uniform(0.6, 1)
            tip = (x + reach * math.cos(angle), y + reach * math.sin(angle))
            canvas.draw.line((x, y, *tip), fill=canvas.colour("white", spread=25), width=1)
            canvas.disc(*tip, radius * 0.05, canvas.colour("white", spread=20))
        return
    colour = canvas.colour("yellow")
    for reach in (1, 0.75, 0.5, 0.28):
        canvas.ring(
            x,
            y,
            count=int(46 * reach) + 8,
            inner=0,
            outer=radius * reach,
            width=radius * 0.13,
            colour=colour,
        )


def _rose(canvas: _Canvas, x: float, y: float, radius: float) -> None:
    canvas.stem(x, y, radius)
    colour = canvas.colour("rose")
    turn = canvas.rng.uniform(0, 2 * math.pi)
    layers = int(canvas.rng.integers(12, 20))
    for layer in range(layers):  # petals from the outside in, each turned by about the golden angle
        reach = radius * (1 - layer / layers)
        angle = turn + 2.4 * layer + canvas.rng.normal(0, 0.15)
        light = 1 if layer % 2 else 0.78
        shaded = (int(colour[0] * light), int(colour[1] * light), int(colour[2] * light))
        middle = (x + 0.3 * reach * math.cos(angle), y + 0.3 * reach * math.sin(angle))
        canvas.disc(*middle, 0.78 * reach, canvas.shade(shaded, spread=8))


def _sunflower(canvas: _Canvas, x: float, y: float, radius: float) -> None:
    canvas.stem(x, y, radius)
    count = int(canvas.rng.integers(15, 28))
    disc = radius * canvas.rng.uniform(0.38, 0.58)
    for outer in (1.0, 0.88):
        colour = canvas.colour(str(canvas.rng.choice(["yellow", "yellow", "orange"])))
        width = 6.5 * radius / count
        canvas.ring(
            x, y, count=count, inner=disc * 0.8, outer=radius * outer, width=width, colour=colour
        )
    canvas.disc(x, y, disc, canvas.colour("brown"))
    for seed in range(60):  # seeds in the sunflower's spiral (Vogel, 1979)
        reach, angle = disc * math.sqrt(seed / 60), 2.39996 * seed
        canvas.disc(
            x + reach * math.cos(angle),
            y + reach * math.sin(angle),
            radius * 0.025,
            canvas.colour("brown"),
        )


def _tulip(canvas: _Canvas, x: float, y: float, radius: float) -> None:
    canvas.stem(x, y, radius)
    for side in (-1, 1):
        lean = side * canvas.rng.uniform(0.15, 0.6)
        green, angle = canvas.colour("green"), lean - math.pi / 2
        canvas.petal(
            x, y + radius * 2, angle=angle, length=radius * 1.8, width=radius * 0.3, colour=green
        )
    colour = canvas.colour("tulip")
    tilt = -math.pi / 2 + canvas.rng.normal(0, 0.15)
    for lean in (-0.32, 0.32, -0.16, 0.16, 0):
        length, width = (
            radius * canvas.rng.uniform(1.5, 1.8),
            radius * canvas.rng.uniform(0.75, 0.95),
        )
        shaded = canvas.shade(colour, spread=14)
        canvas.petal(
            x,
            y + radius * 0.7,
            angle=tilt + lean,
            length=length,
            width=width,
            colour=shaded,
            tip=0.8,
        )


_BRUSHES: dict[str, Brush] = {
    "daisy": _daisy,
    "dandelion": _dandelion,
    "roses": _rose,
    "sunflowers": _sunflower,
    "tulips": _tulip,
}

# The classes that can be drawn.
DRAWN_CLASSES = tuple(_BRUSHES)
