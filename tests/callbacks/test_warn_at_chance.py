from __future__ import annotations

import warnings

import pytest
import torch

from flowers.callbacks import WarnAtChance
from flowers.data import FlowersDataModule


@pytest.fixture
def epochs(photos, monkeypatch):
    """Return a function that runs the callback over epochs with these (training, validation) accuracies."""
    data = FlowersDataModule(str(photos(cat=60, dog=40)))

    class Trainer:
        datamodule = data
        callback_metrics: dict

    def run(*accuracies):
        callback = WarnAtChance()
        for train, val in accuracies:
            Trainer.callback_metrics = {"train/acc": torch.tensor(train), "val/acc": torch.tensor(val)}
            callback.on_train_epoch_end(Trainer, None)

    return run


def test_five_epochs_at_chance_while_training_learns_are_reported_once(epochs):
    with pytest.warns(UserWarning, match=r"validation accuracy \(40.0%\).*largest class \(60.0%\) for 5") as reported:
        epochs(*[(0.9, 0.4)] * 9)
    assert len(reported) == 1


def test_whatever_else_happens_is_not_reported(epochs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        epochs(*[(0.62, 0.5)] * 9)  # training learns nothing either
        epochs(*[(0.9, 0.7)] * 9)
        epochs(*[(0.9, 0.4), (0.9, 0.4), (0.9, 0.4), (0.9, 0.4), (0.9, 0.7)] * 2)
