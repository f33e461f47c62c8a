from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from flowers.callbacks import Calibrate
from flowers.callbacks.collect_predictions import as_predictions
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
    task, callback = CNNTask(["cat", "dog"], widths=(8,)), Calibrate(**options)
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


def test_the_calibration_is_that_of_the_whole_split(data):
    logits = example()
    found = as_predictions(Prediction(torch.arange(80), logits), data)
    calibration = calibrate(data, logits, selective_accuracy=0.9)
    assert calibration["temperature"] == fit_temperature(found)
    probs = with_temperature(found, calibration["temperature"]).probs
    answered = probs.max(axis=1) >= calibration["threshold"]
    right = (probs.argmax(axis=1) == found.labels)[answered]
    assert right.mean() == pytest.approx(calibration["accuracy"])
    assert right.mean() >= 0.9
    assert answered.mean() == pytest.approx(calibration["coverage"])
    assert all(type(value) is float for value in calibration.values())  # loads with weights_only


def test_the_sanity_check_calibrates_nothing(data):
    assert calibrate(data, example(), sanity=True) is None


def test_validate_says_what_it_found(data, capsys):
    calibration = calibrate(data, example(), stage="validate")
    assert f"temperature {calibration['temperature']:.3f}" in capsys.readouterr().out


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_out_of_range_is_named(share):
    with pytest.raises(ValueError, match=r"`selective_accuracy`"):
        Calibrate(selective_accuracy=share)
