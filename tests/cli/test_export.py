"""``python -m flowers export``: a file that agrees with the checkpoint, or none."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from contextlib import redirect_stdout
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from PIL import Image, PngImagePlugin

from flowers import FlowerPredictor, deploy
from flowers.__main__ import run_function
from flowers.callbacks import AtomicCheckpointIO
from flowers.checkpoint import FORMAT
from flowers.cli import export
from flowers.tasks import CNNTask

README = Path(__file__).parents[2] / "README.md"
NAMES = ["daisy", "dandelion", "roses", "sunflowers", "tulips"]


def write_checkpoint(folder: Path) -> Path:
    """Write a checkpoint of a small network, as a training leaves it.

    Its low temperature shows small differences of the logits.
    """
    task = CNNTask(NAMES, widths=(8, 16))
    content = {
        "format": FORMAT,
        "state_dict": task.state_dict(),
        "hyper_parameters": dict(task.hparams),
        "config": yaml.safe_dump({"model": {"class_path": "flowers.CNNTask"}}),
        "FlowersDataModule": {"image_size": 40, "resize": "stretch", "interpolation": "bicubic"},
        "calibration": {"temperature": 0.02, "threshold": 0.6},
    }
    AtomicCheckpointIO().save_checkpoint(content, folder / "best.ckpt")
    return folder / "best.ckpt"


@pytest.fixture
def checkpoint(tmp_path):
    return write_checkpoint(tmp_path)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return an ONNX file beside its checkpoint, and what was printed while it was made."""
    checkpoint = write_checkpoint(tmp_path_factory.mktemp("exported"))
    with redirect_stdout(io.StringIO()) as printed:
        assert export.export(str(checkpoint)) == 0
    return checkpoint.with_suffix(".onnx"), printed.getvalue()


@pytest.mark.parametrize("kind", [pytest.param("onnx", marks=pytest.mark.slow), "torch_export"])
def test_the_file_maps_bytes_to_the_probabilities_of_the_predictor(
    kind, request, checkpoint, synthetic, capsys
):
    if kind == "onnx":
        file, printed = request.getfixturevalue("exported")
    else:
        assert export.export(str(checkpoint), format=kind) == 0
        file = checkpoint.with_suffix(".pt2")
        printed = capsys.readouterr().out
    messages = ("Exporting ", "Comparing ", "Largest difference of a probability on 200 ")
    positions = [printed.index(message) for message in messages]
    assert positions == sorted(positions)
    assert "batch of 32: " in printed
    _, _, runner = deploy.FORMATS[kind]
    run = runner(file)
    predictor = FlowerPredictor(file.with_name("best.ckpt"))
    files = sorted((synthetic / "roses").iterdir())[:7]
    resized = []
    for image in map(Image.open, files):
        resized.append(np.asarray(image.resize((40, 40), Image.Resampling.BICUBIC)))
    pixels = np.stack(resized)
    expected = [answer.probabilities for answer in predictor([*pixels])]
    for size in (1, 7):
        probs = run(pixels[:size])
        assert probs.sum(axis=1) == pytest.approx(np.ones(size), abs=1e-5)
        for row, answer in zip(probs, expected, strict=False):
            assert row.tolist() == pytest.approx([*answer.values()], abs=1e-4)


@pytest.mark.slow
def test_the_metadata_describe_the_input_and_the_output(exported):
    metadata = {entry.key: entry.value for entry in onnx.load(exported[0]).metadata_props}
    assert json.loads(metadata["class_names"]) == NAMES
    assert (metadata["image_size"], metadata["resize"], metadata["interpolation"]) == (
        "40",
        "stretch",
        "bicubic",
    )
    assert metadata["confidence_threshold"] == "0.6"
    assert "decode_image of flowers/decoding.py" in metadata["preprocessing"]
    assert "after temperature scaling" in metadata["output"]


def all_kinds_of_photos(folder: Path) -> list[Path]:
    """Write a photo in formats and modes that three lines of Pillow convert incorrectly."""
    colours = np.random.default_rng(0).integers(0, 256, (12, 18, 3), dtype=np.uint8)
    photo = Image.fromarray(colours).resize((90, 60), Image.Resampling.BICUBIC)
    alpha = Image.linear_gradient("L").resize(photo.size)
    grey = photo.convert("L")
    clear = photo.copy()
    clear.putalpha(alpha)
    grey16 = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    clear_grey = grey.copy()
    clear_grey.putalpha(alpha)
    exif = Image.Exif()
    exif[0x0112] = 6
    linear = PngImagePlugin.PngInfo()
    linear.add(b"gAMA", struct.pack(">I", 100_000))
    images = {
        "small.jpg": (photo, {}),
        "large.jpg": (photo.resize((1200, 800)), {}),
        "large-grey.jpg": (grey.resize((800, 1200)), {}),
        "rgba.png": (clear, {}),
        "la.png": (clear_grey, {}),
        "palette.png": (photo.quantize(16), {"transparency": 3}),
        "grey16.png": (grey16, {}),
        "grey16.tif": (grey16, {}),
        "linear.png": (photo, {"pnginfo": linear}),
        "cmyk.jpg": (photo.convert("CMYK"), {}),
        "cmyk.tif": (photo.convert("CMYK"), {}),
        "rotated.jpg": (photo, {"exif": exif}),
        "rotated.png": (photo, {"exif": exif}),
        "photo.gif": (photo, {}),
        "clear.webp": (clear, {}),
        "clear.avif": (clear, {}),
        "photo.bmp": (photo, {}),
    }
    for name, (image, options) in images.items():
        image.save(folder / name, **options)
    return [folder / name for name in images]


# Runs a program in each of a list of folders.
RUN_EVERYWHERE = """
import os, sys
program, *folders = sys.argv[1:]
for folder in folders:
    os.chdir(folder)
    exec(program, {})
"""


@pytest.mark.slow
def test_the_program_in_the_readme_agrees_with_the_predictor_without_torch(exported, tmp_path):
    [program] = re.findall(r"```python\n([^`]*InferenceSession[^`]*)```", README.read_text("utf-8"))
    (tmp_path / "photos").mkdir()
    photos = all_kinds_of_photos(tmp_path / "photos")
    onnx_file, _ = exported
    model = onnx.load(onnx_file)
    predictor = FlowerPredictor(onnx_file.with_suffix(".ckpt"), device="cpu")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    folders = []
    expected = []
    for resize, interpolation in product(("stretch", "crop"), ("bilinear", "bicubic")):
        decoding = {"resize": resize, "interpolation": interpolation}
        file = tmp_path / f"{resize}-{interpolation}.onnx"
        onnx.helper.set_model_props(model, metadata | decoding)
        onnx.save(model, file)
        predictor.decoding |= decoding
        for photo, answer in zip(photos, predictor(photos), strict=True):
            folder = tmp_path / file.stem / photo.name
            folder.mkdir(parents=True)
            (folder / "best.onnx").symlink_to(file)
            shutil.copy(photo, folder / "photo.jpg")  # the content decides
            folders.append(folder)
            expected.append(answer)
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "torch.py").write_text("raise ImportError('there is no torch')")
    search = os.pathsep.join([str(tmp_path / "stub"), str(README.parent)])
    printed = subprocess.run(
        [sys.executable, "-c", RUN_EVERYWHERE, program, *map(str, folders)],
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for folder, line, answer in zip(folders, printed, expected, strict=True):
        label, probability = line.split()
        assert label == answer.label, folder
        assert float(probability) == pytest.approx(answer.probability, abs=1e-4), folder


def test_a_file_that_disagrees_with_the_checkpoint_is_deleted(
    checkpoint, synthetic, monkeypatch, capsys
):
    suffix, write, runner = deploy.FORMATS["torch_export"]

    def run_upside_down(file):
        return lambda images: runner(file)(images[:, ::-1].copy()) + 0.001

    monkeypatch.setitem(deploy.FORMATS, "torch_export", (suffix, write, run_upside_down))
    options = {"format": "torch_export", "images": [str(synthetic / "roses")]}
    assert export.export(str(checkpoint), **options) == 1
    assert "is deleted: it differs from the checkpoint" in capsys.readouterr().out
    assert not checkpoint.with_suffix(".pt2").exists()


def test_a_file_made_during_the_export_is_not_overwritten(
    checkpoint, synthetic, monkeypatch, capsys
):
    file = checkpoint.with_suffix(".pt2")
    compare = export.largest_difference

    def largest_difference(*args, **options):
        file.write_text("mine")
        return compare(*args, **options)

    monkeypatch.setattr(export, "largest_difference", largest_difference)
    assert (
        export.export(str(checkpoint), format="torch_export", images=[str(synthetic / "roses")])
        == 0
    )
    assert file.read_text() == "mine"
    _, _, runner = deploy.FORMATS["torch_export"]
    assert runner(file.with_name("best-2.pt2"))(np.zeros((1, 40, 40, 3), dtype=np.uint8)).size
    assert "Not overwritten: best.pt2. Written instead: best-2.pt2" in capsys.readouterr().out
    assert {path.name for path in file.parent.glob("*")} == {"best.ckpt", "best.pt2", "best-2.pt2"}


def test_the_images_to_compare_with_can_be_given(checkpoint, synthetic, capsys):
    words = [str(checkpoint), "--format", "torch_export", "--images", str(synthetic / "roses")]
    assert run_function(export.export, words) == 0
    assert "Largest difference of a probability on 30 images: " in capsys.readouterr().out
    with pytest.raises(FileExistsError, match=r"`out` .*best\.pt2: the file exists"):
        export.export(str(checkpoint), format="torch_export")


def test_a_missing_extra_is_named(checkpoint, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ValueError, match=r"--format onnx: .* pip install -e '\.\[export\]'"):
        export.export(str(checkpoint))
