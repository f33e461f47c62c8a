"""``FlowerPredictor`` gives the probabilities of the validation, from the checkpoint alone."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from flowers import FlowerPredictor
from flowers.callbacks.collect_predictions import CollectPredictions, as_predictions
from flowers.cli import training
from flowers.data import FlowersDataModule


@pytest.fixture(scope="module")
def tested(task_checkpoint):
    """Return the predictions of ``test``: a dictionary for each test image."""
    training.main(["test", "--ckpt_path", str(task_checkpoint)])
    with (task_checkpoint.parents[1] / "predictions.csv").open(newline="") as opened:
        return [*csv.DictReader(opened)]


@pytest.mark.parametrize("batch_size", [1, 64])
def test_a_predictor_gives_the_probabilities_of_test(
    task_checkpoint, tested, synthetic, batch_size
):
    predictor = FlowerPredictor(task_checkpoint, batch_size=batch_size)
    answers = predictor([synthetic / row["path"] for row in tested])
    for answer, row in zip(answers, tested, strict=True):
        assert answer.label == row["predicted"]
        for name in predictor.class_names:
            assert answer.probabilities[name] == pytest.approx(float(row[name]), rel=1e-4, abs=1e-6)
        assert answer.probability == max(answer.probabilities.values())
        assert sum(answer.probabilities.values()) == pytest.approx(1)
        assert answer.rejected == (answer.probability < predictor.threshold)


@pytest.mark.parametrize("batch_size", ["1", "64"])
def test_a_predictor_gives_the_probabilities_of_validate_to_the_last_bit(
    task_checkpoint, synthetic, batch_size
):
    words = ["--ckpt_path", str(task_checkpoint), "--data.batch_size", batch_size]
    run = training.main(["validate", *words])
    callbacks = run.trainer.callbacks
    [collected] = [callback for callback in callbacks if isinstance(callback, CollectPredictions)]
    predictor = FlowerPredictor(task_checkpoint, batch_size=int(batch_size))
    expected = as_predictions(
        collected.gather(run.trainer), run.datamodule, temperature=predictor.temperature
    )
    assert len(expected.paths) == 15
    answers = predictor([synthetic / path for path in expected.paths])
    for answer, probs in zip(answers, expected.probs.tolist(), strict=True):
        assert list(answer.probabilities.values()) == probs
    labels = np.array([predictor.class_names.index(answer.label) for answer in answers])
    assert (labels == expected.probs.argmax(axis=1)).all()
    accuracy = float((labels == expected.labels).mean())
    assert accuracy == pytest.approx(float(run.trainer.callback_metrics["val/acc"]))


def test_an_image_may_be_a_file_bytes_a_pil_image_or_an_array(task_checkpoint, synthetic):
    predictor = FlowerPredictor(task_checkpoint)
    file = min((synthetic / "roses").iterdir())
    image = Image.open(file)
    kinds = [file, str(file), file.read_bytes(), image, np.asarray(image)]
    answers = [predictor(kind) for kind in kinds]
    assert all(answer == answers[0] for answer in answers)
    grey = Image.new("L", (50, 30), 99)
    for mode in ("L", "RGB", "CMYK", "P", "LA", "1"):
        assert predictor(grey.convert(mode)).label in predictor.class_names
    with pytest.raises(
        TypeError, match="expected a path, bytes, a PIL image or an array of bytes, got float"
    ):
        predictor(0.5)
    with pytest.raises(OSError, match=r"nowhere\.jpg"):
        predictor([file, "nowhere.jpg"])


def test_a_pil_image_is_turned_upright_and_left_unchanged(task_checkpoint, synthetic, tmp_path):
    image = Image.open(min((synthetic / "roses").iterdir())).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    image.resize((400, 300)).save(tmp_path / "phone.png", exif=exif)
    predictor = FlowerPredictor(task_checkpoint)
    opened = Image.open(tmp_path / "phone.png")
    size = opened.size
    answers = predictor([opened] * 16)
    expected = predictor(tmp_path / "phone.png")
    probabilities = [answer.probability for answer in answers]
    assert probabilities == pytest.approx([expected.probability] * 16, rel=1e-5)
    assert predictor(opened) == expected
    assert predictor(np.asarray(opened)) != expected  # an array has no orientation
    assert opened.size == size


def test_arrays_and_batch_sizes_that_cannot_be_are_refused(task_checkpoint):
    predictor = FlowerPredictor(task_checkpoint)
    with pytest.raises(TypeError, match="got array of uint16"):
        predictor(np.zeros((8, 8), dtype=np.uint16))
    with pytest.raises(ValueError, match="batch_size"):
        FlowerPredictor(task_checkpoint, batch_size=0)


def test_a_checkpoint_that_cannot_be_restored_is_refused(task_checkpoint, tmp_path):
    content = torch.load(task_checkpoint, weights_only=True)
    weights = content["state_dict"]
    name = next(name for name, value in weights.items() if value.ndim == 4)
    changes = [
        {"state_dict": weights | {name: weights[name] * float("nan")}},
        {"FlowersDataModule": {}},
        {"state_dict": {}},
        {"state_dict": {name: torch.zeros(1).expand(10**9)}},
    ]
    for change in changes:
        torch.save(content | change, tmp_path / "odd.ckpt")
        with pytest.raises(ValueError, match=r"odd\.ckpt: expected a checkpoint of this project"):
            FlowerPredictor(tmp_path / "odd.ckpt")


def test_a_stream_holds_at_most_two_batches(trained_run, synthetic):
    predictor = FlowerPredictor(trained_run, batch_size=4)
    file = min((synthetic / "roses").iterdir())
    files_read = []

    def endless():
        while True:
            files_read.append(file)
            yield file

    answers = predictor.stream(endless())
    for _ in range(5):
        assert next(answers).label
    assert len(files_read) == 12


def test_test_time_augmentation_averages_the_mirrored_image(task_checkpoint, synthetic):
    plain = FlowerPredictor(task_checkpoint)
    augmented = FlowerPredictor(task_checkpoint, tta="flip")
    image = np.asarray(Image.open(min((synthetic / "roses").iterdir())))
    assert augmented(image) != plain(image)
    mirrored = np.ascontiguousarray(image[:, ::-1])
    assert augmented(image).probability == pytest.approx(augmented(mirrored).probability, rel=1e-3)


@pytest.mark.parametrize(
    "name", ["os.system", "flowers.training.main", "flowers.tasks.expect", "antigravity.Task"]
)
def test_a_checkpoint_with_a_class_from_elsewhere_is_refused(name, trained_run, tmp_path):
    content = torch.load(trained_run / "checkpoints" / "best.ckpt", weights_only=True)
    content["config"] = f"model:\n  class_path: {name}\n"
    torch.save(content, tmp_path / "hostile.ckpt")
    with pytest.raises(ValueError, match="of this project, with a task of this package, got"):
        FlowerPredictor(tmp_path / "hostile.ckpt")


def test_trainer_predict_gives_the_answers_of_the_predictor(trained_run, synthetic):
    predictor = FlowerPredictor(trained_run, device="cpu")
    data = FlowersDataModule(str(synthetic), image_size=40, crop_size=32)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    answers = []
    for batch in trainer.predict(predictor.task, data):
        answers += batch
    paths = [str(synthetic / data.index.paths[index]) for index in data.indices["test"]]
    assert [answer.path for answer in answers] == paths
    expected = predictor(paths)
    assert [answer.path for answer in expected] == paths
    assert [answer.label for answer in answers] == [answer.label for answer in expected]
    for answer, other in zip(answers, expected, strict=True):
        assert answer.probabilities == pytest.approx(other.probabilities, abs=1e-6)
        assert answer.rejected == other.rejected
