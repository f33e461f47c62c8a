from __future__ import annotations

import csv
import shutil
from types import SimpleNamespace

import numpy as np
import torch

from flowers.callbacks.collect_predictions import CollectPredictions, as_predictions, is_all
from flowers.cli import training
from flowers.data import FlowersDataModule
from flowers.tasks import Prediction

TRAINER = SimpleNamespace(world_size=1)


def test_the_predictions_of_all_batches_are_in_the_order_of_the_folder():
    collected = CollectPredictions()
    logits = torch.arange(10.0).reshape(5, 2)
    collected.on_test_epoch_start(TRAINER, None)
    for indices in (torch.tensor([4, 0, 2]), torch.tensor([3, 1])):
        batch = Prediction(indices, logits[indices])
        collected.on_test_batch_end(TRAINER, None, batch, None, 0)
    predictions = collected.gather(TRAINER)
    assert predictions.indices.tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(predictions.logits, logits)


def test_a_new_epoch_drops_the_predictions_of_the_last_one():
    collected = CollectPredictions()
    for value in (0.0, 1.0):
        collected.on_validation_epoch_start(TRAINER, None)
        batch = Prediction(torch.tensor([7]), torch.full((1, 2), value))
        collected.on_validation_batch_end(TRAINER, None, batch, None, 0)
    assert collected.gather(TRAINER).logits.tolist() == [[1.0, 1.0]]


def test_predictions_have_paths_labels_and_probabilities(photos):
    data = FlowersDataModule(str(photos(cat=12, dog=12)))
    collected = Prediction(torch.tensor([1, 12]), torch.tensor([[0.0, 0.0], [0.0, 2.0]]))
    table = as_predictions(collected, data, temperature=2.0)
    assert table.class_names == ("cat", "dog")
    assert table.paths == ("cat/001.png", "dog/000.png")
    assert table.labels.tolist() == [0, 1]
    odds = np.exp(2.0 / 2.0)
    assert np.allclose(table.probs, [[0.5, 0.5], [1 / (1 + odds), odds / (1 + odds)]])


def test_a_limit_of_1_is_one_batch_and_of_1_0_all_batches():
    assert is_all(1.0)
    assert not is_all(1)
    assert not is_all(0.5)


def test_a_folder_divided_into_splits_is_tested_on_its_test_images(fit_small, photos, tmp_path):
    splits = ("train", "val", "test")
    for file in sorted(photos(cat=12, dog=12).glob("*/*.png")):
        split = splits[int(file.stem) % 3]
        folder = tmp_path / "divided" / split / file.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder)
    fit_small(tmp_path, tmp_path / "divided", "--trainer.max_epochs=1")
    run = tmp_path / "lightning_logs" / "version_0"
    training.main(["test", "--ckpt_path", str(run / "checkpoints" / "best.ckpt")])
    with (run / "predictions.csv").open(newline="") as opened:
        rows = [*csv.DictReader(opened)]
    assert len(rows) == 8
    for row in rows:
        assert row["path"].split("/")[:2] == ["test", row["label"]]
