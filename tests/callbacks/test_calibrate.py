from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from flowers.callbacks import Calibrate
from flowers.callbacks.collect_predictions import as_predictions
from flowers.cli import training
from flowers.data import FlowersDataModule
from flowers.evaluation import fit_temperature, with_temperature
from flowers.tasks import CNNTask, Prediction


@pytest.fixture
def data(photos):
    return FlowersDataModule(str(photos(cat=40, dog=40)), image_size=16, crop_size=16)


def calibrate(data, logits, *, stage="fit", sanity=False, **options):
    """Return the calibration after a validation with these logits, in two batches."""
    trainer = SimpleNamespace(
        world_size=1,
        is_global_zero=True,
        datamodule=data,
        sanity_checking=sanity,
        state=SimpleNamespace(fn=stage),
    )
    task = CNNTask(["cat", "dog"], widths=(8,))
    callback = Calibrate(**options)
    callback.on_validation_epoch_start(trainer, task)
    for indices in (torch.arange(40, 80), torch.arange(40)):
        callback.on_validation_batch_end(
            trainer, task, Prediction(indices, logits[indices]), None, 0
        )
    callback.on_validation_epoch_end(trainer, task)
    return task.calibration


def example():
    rng = np.random.default_rng(0)
    sign = np.repeat([1.0, -1.0], 40)[:, None] * np.array([1.0, -1.0])
    return torch.from_numpy((rng.normal(0, 3, (80, 2)) + 1.5 * sign).astype(np.float32))


def test_the_calibration_is_computed_from_the_whole_split(data):
    logits = example()
    table = as_predictions(Prediction(torch.arange(80), logits), data)
    calibration = calibrate(data, logits, selective_accuracy=0.9)
    assert calibration["temperature"] == fit_temperature(table)
    probs = with_temperature(table, calibration["temperature"]).probs
    answered = probs.max(axis=1) >= calibration["threshold"]
    correct = (probs.argmax(axis=1) == table.labels)[answered]
    assert correct.mean() == pytest.approx(calibration["accuracy"])
    assert correct.mean() >= 0.9
    assert answered.mean() == pytest.approx(calibration["coverage"])
    assert all(type(value) is float for value in calibration.values())  # loads with weights_only


def test_the_sanity_check_calibrates_nothing(data):
    assert calibrate(data, example(), sanity=True) is None


def test_validate_prints_the_calibration(data, capsys):
    calibration = calibrate(data, example(), stage="validate")
    assert f"temperature {calibration['temperature']:.3f}" in capsys.readouterr().out


@pytest.mark.parametrize("accuracy", [0.0, 1.5])
def test_an_accuracy_out_of_range_is_named(accuracy):
    with pytest.raises(ValueError, match=r"`selective_accuracy`"):
        Calibrate(selective_accuracy=accuracy)


def test_the_calibrate_command_replaces_only_the_calibration(finished_run, tmp_path, capsys):
    file = tmp_path / "best.ckpt"
    before = torch.load(finished_run / "checkpoints" / "best.ckpt", weights_only=True)
    torch.save({key: value for key, value in before.items() if key != "calibration"}, file)
    training.calibrate(str(file), selective_accuracy=0.5)
    assert "calibration stored" in capsys.readouterr().out
    after = torch.load(file, weights_only=True)
    temperature = after["calibration"]["temperature"]
    assert temperature == pytest.approx(before["calibration"]["temperature"], rel=1e-4)
    assert after["calibration"]["selective_accuracy"] == 0.5
    assert after.keys() == before.keys()
    for name, value in before["state_dict"].items():
        assert torch.equal(after["state_dict"][name], value)
    trained = "selective_accuracy: 0.99"  # of the training, the default of later commands
    assert trained in after["config"]
    torch.save(
        after | {"config": after["config"].replace(trained, "selective_accuracy: 0.8")}, file
    )
    training.calibrate(str(file))
    again = torch.load(file, weights_only=True)["calibration"]
    assert again["selective_accuracy"] == 0.8
    some = ["--data.batch_size", "5", "--trainer.limit_val_batches", "2"]
    with pytest.raises(ValueError, match="all validation images"):
        training.calibrate(str(file), validate_options=some)
