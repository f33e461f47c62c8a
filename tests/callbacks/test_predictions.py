from __future__ import annotations

import csv
from types import SimpleNamespace

import pytest
import torch

from flowers.callbacks import WritePredictions
from flowers.data import FlowersDataModule
from flowers.tasks import CNNTask, Prediction


@pytest.fixture
def data(photos):
    return FlowersDataModule(str(photos(cat=3, dog=3)), image_size=16, crop_size=16)


TASK = CNNTask(["cat", "dog"], widths=(8,))


def trainer(data, *, world_size=1):
    return SimpleNamespace(world_size=world_size, is_global_zero=True, datamodule=data)


def test_rows_stand_in_the_folders_order(data, tmp_path):
    callback = WritePredictions("out.csv")
    callback.on_predict_start(trainer(data), None)
    for indices in ([4, 1], [3]):
        probs = torch.tensor([[0.75, 0.25] if index < 2 else [0.125, 0.875] for index in indices])
        callback.on_predict_batch_end(trainer(data), TASK, Prediction(torch.tensor(indices), probs.log()), None, 0)
    callback.on_predict_end(trainer(data), TASK)
    with (tmp_path / "out.csv").open() as file:
        assert list(csv.reader(file)) == [
            ["path", "label", "predicted", "cat", "dog"],
            ["cat/001.png", "cat", "cat", "0.75", "0.25"],
            ["dog/000.png", "dog", "dog", "0.125", "0.875"],
            ["dog/001.png", "dog", "dog", "0.125", "0.875"],
        ]


def test_all_processes_predictions_stand_in_one_file(data, tmp_path, monkeypatch):
    other = [Prediction(torch.tensor([0, 2]), torch.tensor([[9.0, 0.0], [9.0, 0.0]]))]

    def gather(parts, mine):
        parts[:] = [mine, other]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    callback = WritePredictions("out.csv")
    outputs = Prediction(torch.tensor([1, 3]), torch.tensor([[0.0, 9.0], [0.0, 9.0]]))
    callback.on_predict_batch_end(trainer(data), TASK, outputs, None, 0)
    callback.on_predict_end(trainer(data, world_size=2), TASK)
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == ["cat/000.png", "cat/001.png", "cat/002.png", "dog/000.png"]
    assert [row["predicted"] for row in rows] == ["cat", "dog", "cat", "dog"]


def test_a_file_made_while_it_predicts_stays(data, tmp_path, capsys):
    callback = WritePredictions("out.csv")
    callback.on_predict_start(trainer(data), None)
    (tmp_path / "out.csv").write_text("mine")
    callback.on_predict_batch_end(trainer(data), TASK, Prediction(torch.tensor([0]), torch.zeros(1, 2)), None, 0)
    callback.on_predict_end(trainer(data), TASK)
    assert (tmp_path / "out.csv").read_text() == "mine"
    assert "cat/000.png" in (tmp_path / "out-2.csv").read_text()
    assert "Predictions of 1 images: out-2.csv" in capsys.readouterr().out


def test_a_file_that_exists_or_has_no_folder_is_refused_before_any_work(data, tmp_path):
    (tmp_path / "there.csv").write_text("mine")
    with pytest.raises(FileExistsError, match=r"--predictions\.file there\.csv"):
        WritePredictions("there.csv").on_predict_start(trainer(data), None)
    with pytest.raises(FileNotFoundError, match=r"--predictions\.file nowhere/p\.csv"):
        WritePredictions("nowhere/p.csv").on_predict_start(trainer(data), None)
