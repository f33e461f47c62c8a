"""A training whose loss is NaN ends before it is saved."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback

from flowers.callbacks import TerminateOnNaN


def break_weights(task):
    with torch.no_grad():
        task.net.head[-1].bias.fill_(float("nan"))


class BreakTraining(Callback):
    """Makes a weight NaN before the third epoch."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 2:
            break_weights(pl_module)


class BreakValidation(Callback):
    """Makes a weight NaN after the last step of the second epoch."""

    def on_validation_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            break_weights(pl_module)


@pytest.mark.filterwarnings("ignore:Encountered `nan` values")
def test_a_nan_loss_ends_the_run_and_keeps_the_last_finite_checkpoint(
    fit_small, load_last, synthetic, tmp_path
):
    message = r"training loss became NaN or infinite in epoch 2.*best\.ckpt.*--model\.lr"
    with pytest.raises(FloatingPointError, match=message):
        fit_small(tmp_path, synthetic, "--trainer.callbacks+", f"{__name__}.BreakTraining")
    checkpoint = load_last(tmp_path / "lightning_logs" / "version_0")
    assert checkpoint["epoch"] == 1
    for value in checkpoint["state_dict"].values():
        assert torch.isfinite(value).all()


@pytest.mark.filterwarnings("ignore:Encountered `nan` values")
def test_weights_that_are_nan_after_the_last_step_are_not_saved(
    fit_small, load_last, synthetic, tmp_path
):
    options = ["--trainer.callbacks+", f"{__name__}.BreakValidation", "--model.ema_decay", "null"]
    with pytest.raises(FloatingPointError, match="validation loss became NaN"):
        fit_small(tmp_path, synthetic, *options)
    assert load_last(tmp_path / "lightning_logs" / "version_0")["epoch"] == 0


def test_a_loss_that_became_nan_since_it_was_last_read_is_not_saved():
    guard = TerminateOnNaN()
    trainer = SimpleNamespace(
        is_last_batch=False,
        log_every_n_steps=50,
        checkpoint_callbacks=[],
        current_epoch=0,
        global_step=1,
    )
    guard.on_train_batch_end(trainer, None, {"loss": torch.tensor(1.0)}, None, 0)
    guard.on_save_checkpoint(trainer, None, {})
    guard.on_train_batch_end(trainer, None, {"loss": torch.tensor(float("nan"))}, None, 1)
    with pytest.raises(FloatingPointError, match="training loss became NaN"):
        guard.on_save_checkpoint(trainer, None, {})
