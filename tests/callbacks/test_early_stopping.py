"""When a training ends before its last epoch."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from flowers.callbacks import EarlyStopping


def run(stopping: EarlyStopping, accuracies: list[float], losses: list[float]) -> int | None:
    """Return the epoch after which the training ends; None if it does not."""
    strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)
    trainer = SimpleNamespace(
        state=SimpleNamespace(fn=TrainerFn.FITTING), sanity_checking=False, fast_dev_run=False,
        should_stop=False,
        strategy=strategy, current_epoch=0, world_size=1, global_rank=0,
    )  # fmt: skip
    for epoch, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True)):
        trainer.current_epoch = epoch
        trainer.callback_metrics = {
            "val/acc": torch.tensor(accuracy),
            "val/loss": torch.tensor(loss),
        }
        stopping.on_validation_end(trainer, None)
        if trainer.should_stop:
            return epoch
    return None


def make(patience: int = 2) -> EarlyStopping:
    return EarlyStopping("val/acc", mode="max", patience=patience, check_on_train_epoch_end=False)


def test_of_equal_metrics_the_lower_loss_is_an_improvement_as_for_the_best_checkpoint():
    assert run(make(), [0.5] * 6, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]) is None
    assert run(make(), [0.5] * 6, [1.0, 1.1, 1.2, 0.7, 0.6, 0.5]) == 2
    assert (
        run(make(), [0.5, 0.4, 0.4, 0.4], [1.0, 0.5, 0.4, 0.3]) == 2
    )  # a lower loss with a lower accuracy is no improvement


def test_a_resumed_run_has_the_best_loss_so_far():
    first, second = make(), make()
    assert run(first, [0.5, 0.5], [1.0, 0.8]) is None
    second.load_state_dict(first.state_dict())
    assert run(second, [0.5, 0.5], [0.9, 0.9]) == 1


def test_the_patience_may_be_changed_when_resuming():
    first = make(patience=2)
    assert run(first, [0.5, 0.4, 0.4], [1.0, 1.0, 1.0]) == 2
    second = make(patience=4)
    second.load_state_dict(first.state_dict())
    assert run(second, [0.4, 0.4], [1.0, 1.0]) == 1


def test_the_reason_and_the_way_to_wait_longer_are_reported(capsys, caplog):
    stopping = make()
    run(stopping, [0.5, 0.4, 0.4], [1.0, 1.0, 1.0])
    with caplog.at_level("INFO"):
        stopping.on_train_end(None, None)
    printed = caplog.text + capsys.readouterr().err
    assert (
        "Early stopping: val/acc has not improved for 2 validations (--early_stopping.patience 2)"
        in printed
    )


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_first_epoch_is_always_an_improvement(mode):
    stopping = EarlyStopping("val/acc", mode=mode, patience=1, check_on_train_epoch_end=False)
    assert run(stopping, [0.5], [1.0]) is None
