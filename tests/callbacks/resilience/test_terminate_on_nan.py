"""A broken loss ends the run before it is saved; the command line's own tests have the rest."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from flowers.callbacks import TerminateOnNaN


def test_a_loss_that_broke_since_it_was_looked_at_is_not_saved():
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
