from __future__ import annotations

import warnings

import pytest
import torch

from flowers.callbacks import WarnAtChance
from flowers.data import FlowersDataModule


@pytest.fixture
def epochs(photos):
    """Return a function that runs the callback over epochs with some accuracies.

    The validation has five images of each of two classes, the training eighty; None stands for no
    validation.
    """
    data = FlowersDataModule(str(photos(cat=50, dog=50)), duplicates="exact")

    class Trainer:
        datamodule = data
        callback_metrics: dict
        sanity_checking = False

    def run(*accuracies, callback=None):
        callback = callback or WarnAtChance()
        for train, val in accuracies:
            if val is not None:
                Trainer.callback_metrics = {
                    "train/acc": torch.tensor(train),
                    "val/acc": torch.tensor(val),
                }
                callback.on_validation_end(Trainer, None)
            callback.on_train_epoch_end(Trainer, None)
        return callback

    return run


@pytest.mark.parametrize("scatter", [[0.5], [0.4, 0.5, 0.6]])
def test_five_epochs_at_chance_while_training_learns_are_reported_once(scatter, epochs):
    with pytest.warns(
        UserWarning, match=r"validation accuracy \(.*%\) has been at chance \(50.0%"
    ) as reported:
        epochs(*[(0.97, scatter[epoch % len(scatter)]) for epoch in range(9)])
    assert len(reported) == 1


def test_other_courses_of_a_training_are_not_reported(epochs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        epochs(*[(0.6, 0.5)] * 9)  # training learns nothing either
        epochs(*[(0.97, 0.9)] * 9)
        epochs(*[(0.97, 0.5)] * 4, (0.97, 0.9), *[(0.97, 0.5)] * 4)
        epochs((0.97, 0.5), *[(0.97, None)] * 9)  # a single validation


def test_a_resumed_run_continues_the_count(epochs):
    before = epochs(*[(0.97, 0.5)] * 3)
    resumed = WarnAtChance()
    resumed.load_state_dict(before.state_dict())
    with pytest.warns(UserWarning, match="at chance"):
        epochs(*[(0.97, 0.5)] * 2, callback=resumed)
