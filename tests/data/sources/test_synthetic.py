from __future__ import annotations

import numpy as np
from PIL import Image

from flowers.data import ensure_root, generate_flower, generate_flowers, index_folder

NAMES = ("daisy", "dandelion", "roses", "sunflowers", "tulips")


def test_the_classes_are_those_of_flower_photos(synthetic):
    index = index_folder(synthetic)
    assert index.class_names == NAMES
    assert np.bincount(index.labels).tolist() == [30] * 5
    with Image.open(synthetic / index.paths[0]) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (48, 48))


def test_the_same_seed_gives_the_same_files_and_another_seed_others(synthetic, tmp_path):
    same, other = tmp_path / "same", tmp_path / "other"
    generate_flowers(same, per_class=2, image_size=48)
    generate_flowers(other, per_class=2, image_size=48, seed=1)
    for path in index_folder(same).paths:
        assert (same / path).read_bytes() == (synthetic / path).read_bytes()
        assert (same / path).read_bytes() != (other / path).read_bytes()


def test_an_existing_folder_is_not_changed(tmp_path):
    root = tmp_path / "synthetic_flowers"
    root.mkdir()
    (root / "note.txt").write_text("mine")
    assert ensure_root(root) == root
    assert [path.name for path in root.iterdir()] == ["note.txt"]


def test_the_average_colour_does_not_tell_the_classes_apart():
    """The nearest mean colour classifies few correctly, because the shapes have to be learnt."""

    def colours(seed):
        """Return the mean colours ``(5, 30, 3)`` of thirty flowers of each class."""
        means = np.empty((5, 30, 3))
        for label, name in enumerate(NAMES):
            for number in range(30):
                rng = np.random.default_rng([seed, label, number])
                image = generate_flower(name, image_size=24, rng=rng)
                means[label, number] = np.asarray(image).mean(axis=(0, 1))
        return means

    class_colours = colours(0).mean(axis=1)
    distances = np.linalg.norm(colours(1)[:, :, None] - class_colours, axis=3)
    nearest = distances.argmin(axis=2)
    assert (nearest == np.arange(5)[:, None]).mean() < 0.6
