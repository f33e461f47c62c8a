from __future__ import annotations

from types import SimpleNamespace

import torch

from flowers.callbacks.console import PrintEpochs


def test_a_row_per_epoch_has_the_metrics_of_its_own_validation(capsys):
    metrics = {
        "train/loss": torch.tensor(0.5),
        "val/acc": torch.tensor(0.75),
        "val/other": torch.tensor(1.0),
    }
    table = PrintEpochs()
    for epoch in (8, 9):
        trainer = SimpleNamespace(
            is_global_zero=True, callback_metrics=metrics, current_epoch=epoch, max_epochs=10
        )
        table.on_train_epoch_start(trainer, None)
        if epoch == 8:  # the last epoch has no validation
            table.on_validation_end(trainer, None)
        table.on_train_epoch_end(trainer, None)
    header, first, last = capsys.readouterr().out.splitlines()
    assert header.split() == [
        "epoch",
        "train/loss",
        "train/acc",
        "val/loss",
        "val/acc",
        "time",
        "left",
    ]
    assert first.split() == ["8/10", "0.5000", "0.7500", "0.0", "s", "0.0", "s"]
    assert last.split() == ["9/10", "0.5000", "0.0", "s"]
    assert first.index("0.5000") + 6 == header.index("train/loss") + len("train/loss")
    assert max(len(line) for line in (header, first, last)) <= 80
