from __future__ import annotations

import numpy as np
from PIL import Image

from flowers.data import generate_flower, generate_flowers, index_folder

NAMES = ("daisy", "dandelion", "roses", "sunflowers", "tulips")


def test_the_classes_are_those_of_flower_photos(synthetic):
    index = index_folder(synthetic)
    assert index.class_names == NAMES
    assert np.bincount(index.labels).tolist() == [30] * 5
    with Image.open(synthetic / index.paths[0]) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (48, 48))


def test_same_seed_same_files_other_seed_others(synthetic, tmp_path):
    same, other = tmp_path / "same", tmp_path / "other"
    generate_flowers(same, per_class=2, image_size=48)
    generate_flowers(other, per_class=2, image_size=48, seed=1)
    for path in index_folder(same).paths:
        assert (same / path).read_bytes() == (synthetic / path).read_bytes()
        assert (same / path).read_bytes() != (other / path).read_bytes()


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note.txt").write_text("mine")
    generate_flowers(tmp_path / "mine", per_class=1)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["note.txt"]


def test_the_average_colour_does_not_tell_the_classes_apart():
    """The nearest mean colour gets few right: the shapes have to be learnt."""

    def colours(first):
        rngs = [[np.random.default_rng([first, label, i]) for i in range(30)] for label in range(5)]
        pictures = [
            [generate_flower(n, image_size=24, rng=r) for r in rs]
            for n, rs in zip(NAMES, rngs, strict=True)
        ]
        return np.array(
            [[np.asarray(picture).mean(axis=(0, 1)) for picture in row] for row in pictures]
        )

    means, tested = colours(0).mean(axis=1), colours(1)
    nearest = np.linalg.norm(tested[:, :, None] - means, axis=3).argmin(axis=2)
    assert (nearest == np.arange(5)[:, None]).mean() < 0.6
