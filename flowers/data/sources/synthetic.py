"""Synthetic flowers: the small data set of the quickstart, generated without photos."""

import math
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFilter
from tqdm import tqdm

Colour = tuple[int, ...]
Point = tuple[float, float]

_PALETTES = {
    "white": "#fafaf5 #f0ebf5 #faf0e1",
    "yellow": "#fad21e #f5be14 #fae146",
    "orange": "#f5a019 #f08c28",
    "rose": "#c8192d #e15a82 #f5aab4 #faebdc #f5cd5a #96143c",
    "tulip": "#d71e28 #f07896 #fac832 #82328c #f5ebe6 #f08232",
    "brown": "#5a3714 #3c280f #78501e",
    "green": "#3c7828 #5a8c3c #2d5f2d",
    "ground": "#466e32 #78965a #96b9dc #6e5a46 #283c28 #bebeb4",
}


def generate_flowers(
    root: Path, *, per_class: int = 200, image_size: int = 112, seed: int = 0
) -> None:
    """Generate five classes similar to flower_photos, as ``root/<class>/<number>.jpg``.

    The flowers vary in colour, size, position, number and shape of petals, background, blur and
    noise, and the classes share colours, so the average colour does not identify the class.

    Args:
        root: Folder to make, which must not exist.
        per_class: Number of images of each class.
        image_size: Side of the images, in pixels.
        seed: Seed of the images.
    """
    partial = root.with_name(f".{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    classes = tqdm(SYNTHETIC_CLASSES, desc=f"Generating {root}", unit="class", disable=None)
    for label, name in enumerate(classes):
        (partial / name).mkdir(parents=True)
        for number in range(per_class):
            rng = np.random.default_rng([seed, label, number])
            image = generate_flower(name, image_size=image_size, rng=rng)
            image.save(partial / name / f"{number:04d}.jpg", quality=88)
    partial.replace(root)


def generate_flower(name: str, *, image_size: int, rng: np.random.Generator) -> Image.Image:
    """Return an image of one to three flowers.

    Args:
        name: One of ``SYNTHETIC_CLASSES``.
        image_size: Side of the image, in pixels.
        rng: Random generator.
    """
    canvas = _Canvas(2 * image_size, rng)  # drawn at twice the size, for antialiasing
    for _ in range(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15])):
        x, y = (canvas.size * rng.uniform(0.25, 0.75, size=2)).tolist()
        radius = canvas.size * rng.uniform(0.16, 0.4)
        canvas.stem((x, y), radius)
        _BRUSHES[name](canvas, (x, y), radius)
    return canvas.photograph(image_size)


class _Canvas:
    """A background that flowers are drawn on."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size = size
        self.rng = rng
        top = np.array(self.colour("ground", spread=20))
        bottom = np.array(self.colour("ground", spread=20))
        ramp = np.linspace(0, 1, size)[:, None, None]
        rows = (top * (1 - ramp) + bottom * ramp).astype(np.uint8)
        self.image = Image.fromarray(np.repeat(rows, size, axis=1))
        self.draw = ImageDraw.Draw(self.image)
        for _ in range(rng.integers(5, 25)):
            x, y = size * rng.uniform(0, 1, size=2)
            radius = size * rng.uniform(0.02, 0.15)
            palette = str(rng.choice(["ground", "green"]))
            self.draw.circle((x, y), radius, fill=self.colour(palette, spread=20))
        blur = ImageFilter.GaussianBlur(size * rng.uniform(0.005, 0.04))
        self.image = self.image.filter(blur)
        self.draw = ImageDraw.Draw(self.image)

    def colour(self, palette: str, *, spread: float = 12) -> Colour:
        colour = str(self.rng.choice(_PALETTES[palette].split()))
        return self.shade(ImageColor.getrgb(colour), spread=spread)

    def shade(self, colour: Colour, *, spread: float = 12) -> Colour:
        """Return a colour that differs at random in brightness, and a little in hue."""
        light = self.rng.normal(0, spread)
        shaded = np.array(colour) + light + self.rng.normal(0, spread / 3, size=3)
        return tuple(shaded.clip(0, 255).astype(int).tolist())

    def petal(
        self, at: Point, *, angle: float, length: float, width: float, colour: Colour, tip: float
    ) -> None:
        """Draw a petal from a point; ``tip`` above 1 moves its widest part towards the tip."""
        t = np.linspace(0, 2 * math.pi, 20)
        along = length * ((1 - np.cos(t)) / 2) ** (1 / tip)
        across = width / 2 * np.sin(t)
        xs = at[0] + along * math.cos(angle) - across * math.sin(angle)
        ys = at[1] + along * math.sin(angle) + across * math.cos(angle)
        outline = tuple(int(value * 0.8) for value in colour)
        points = list(zip(xs.tolist(), ys.tolist(), strict=True))
        self.draw.polygon(points, fill=colour, outline=outline)

    def ring(
        self, centre: Point, inner: float, outer: float, *, count: int, width: float, colour: Colour
    ) -> None:
        """Draw petals around a centre, from the radius ``inner`` to the radius ``outer``."""
        turn = self.rng.uniform(0, 2 * math.pi)
        numbers = np.arange(count) + self.rng.normal(0, 0.12, size=count)
        for angle in turn + 2 * math.pi * numbers / count:
            start = _moved(centre, angle, inner)
            length = (outer - inner) * self.rng.uniform(0.85, 1.1)
            varied = width * self.rng.uniform(0.8, 1.2)
            shade = self.shade(colour)
            self.petal(start, angle=angle, length=length, width=varied, colour=shade, tip=1)

    def stem(self, at: Point, radius: float) -> None:
        foot = at[0] + self.rng.normal(0, 0.1) * self.size
        width = max(2, int(radius * 0.13))
        self.draw.line((*at, foot, self.size), fill=self.colour("green"), width=width)

    def photograph(self, size: int) -> Image.Image:
        """Return the image at its final size, with blur, light and noise of a camera."""
        small = self.image.resize((size, size), Image.Resampling.LANCZOS)
        small = small.filter(ImageFilter.GaussianBlur(self.rng.uniform(0, 0.9)))
        light = self.rng.uniform(0.7, 1.2) * self.rng.normal(1, 0.04, size=3)
        noise = self.rng.normal(0, self.rng.uniform(0, 12), size=(size, size, 3))
        return Image.fromarray((np.asarray(small) * light + noise).clip(0, 255).astype(np.uint8))


def _moved(point: Point, angle: float, distance: float) -> Point:
    return point[0] + distance * math.cos(angle), point[1] + distance * math.sin(angle)


def _daisy(canvas: _Canvas, centre: Point, radius: float) -> None:
    count = int(canvas.rng.integers(10, 26))
    name = "white" if canvas.rng.random() < 0.85 else "yellow"
    colour = canvas.colour(name)
    disc = radius * canvas.rng.uniform(0.2, 0.34)
    width = 5.5 * radius / count
    canvas.ring(centre, disc * 0.7, radius, count=count, width=width, colour=colour)
    canvas.draw.circle(centre, disc, fill=canvas.colour("yellow"))


def _dandelion(canvas: _Canvas, centre: Point, radius: float) -> None:
    if canvas.rng.random() < 0.25:  # gone to seed
        for angle in canvas.rng.uniform(0, 2 * math.pi, size=70):
            tip = _moved(centre, angle, radius * canvas.rng.uniform(0.6, 1))
            canvas.draw.line((*centre, *tip), fill=canvas.colour("white", spread=25), width=1)
            canvas.draw.circle(tip, radius * 0.05, fill=canvas.colour("white", spread=20))
        return
    colour = canvas.colour("yellow")
    for reach in (1, 0.75, 0.5, 0.28):
        count = int(46 * reach) + 8
        canvas.ring(centre, 0, radius * reach, count=count, width=radius * 0.13, colour=colour)


def _rose(canvas: _Canvas, centre: Point, radius: float) -> None:
    colour = canvas.colour("rose")
    turn = canvas.rng.uniform(0, 2 * math.pi)
    layers = int(canvas.rng.integers(12, 20))
    for layer in range(layers):  # petals from the outside in, each turned by about the golden angle
        reach = radius * (1 - layer / layers)
        angle = turn + 2.4 * layer + canvas.rng.normal(0, 0.15)
        light = 1 if layer % 2 else 0.78
        shaded = tuple(int(value * light) for value in colour)
        middle = _moved(centre, angle, 0.3 * reach)
        canvas.draw.circle(middle, 0.78 * reach, fill=canvas.shade(shaded, spread=8))


def _sunflower(canvas: _Canvas, centre: Point, radius: float) -> None:
    count = int(canvas.rng.integers(15, 28))
    disc = radius * canvas.rng.uniform(0.38, 0.58)
    width = 6.5 * radius / count
    for outer in (1.0, 0.88):
        colour = canvas.colour(str(canvas.rng.choice(["yellow", "yellow", "orange"])))
        canvas.ring(centre, disc * 0.8, radius * outer, count=count, width=width, colour=colour)
    canvas.draw.circle(centre, disc, fill=canvas.colour("brown"))
    for seed in range(60):  # seeds in the sunflower's spiral (Vogel, 1979)
        position = _moved(centre, 2.39996 * seed, disc * math.sqrt(seed / 60))
        canvas.draw.circle(position, radius * 0.025, fill=canvas.colour("brown"))


def _tulip(canvas: _Canvas, centre: Point, radius: float) -> None:
    x, y = centre
    base = (x, y + radius * 2)
    for side in (-1, 1):
        angle = side * canvas.rng.uniform(0.15, 0.6) - math.pi / 2
        green = canvas.colour("green")
        canvas.petal(
            base, angle=angle, length=radius * 1.8, width=radius * 0.3, colour=green, tip=1
        )
    colour = canvas.colour("tulip")
    tilt = -math.pi / 2 + canvas.rng.normal(0, 0.15)
    base = (x, y + radius * 0.7)
    for lean in (-0.32, 0.32, -0.16, 0.16, 0):
        length = radius * canvas.rng.uniform(1.5, 1.8)
        width = radius * canvas.rng.uniform(0.75, 0.95)
        shade = canvas.shade(colour, spread=14)
        canvas.petal(base, angle=tilt + lean, length=length, width=width, colour=shade, tip=0.8)


_BRUSHES = {
    "daisy": _daisy,
    "dandelion": _dandelion,
    "roses": _rose,
    "sunflowers": _sunflower,
    "tulips": _tulip,
}
SYNTHETIC_CLASSES = tuple(_BRUSHES)
