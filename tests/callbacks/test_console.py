from __future__ import annotations

from types import SimpleNamespace

import torch

from flowers.callbacks import PrintEpochs


def test_one_line_an_epoch_with_what_was_measured(capsys):
    metrics = {"train/loss": torch.tensor(0.5), "val/acc": torch.tensor(0.75), "val/other": torch.tensor(1.0)}
    trainer = SimpleNamespace(is_global_zero=True, callback_metrics=metrics, current_epoch=3, max_epochs=10)
    progress = PrintEpochs()
    progress.on_train_epoch_start(trainer, None)
    progress.on_train_epoch_end(trainer, None)
    [line] = capsys.readouterr().out.splitlines()
    assert line == "epoch   3 of 10  train/loss 0.5000  val/acc 0.7500  0.0 s, 0 s left"
