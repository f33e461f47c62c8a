"""Warns where training learns and validation does not."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from flowers.data import FlowersDataModule
from flowers.evaluation import wilson_interval

# Early stopping waits for 15 epochs by default; five in a row at chance are no accident where training learns.
_NUM_EPOCHS = 5


class WarnAtChance(Callback):
    """Warns once if the validation accuracy stays at chance for five epochs while the training accuracy is above it.

    Chance is the accuracy of always answering the largest class.
    """

    def __init__(self) -> None:
        self._epochs_at_chance = 0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the epochs at chance."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        metrics = trainer.callback_metrics
        if not isinstance(data, FlowersDataModule) or not {"train/acc", "val/acc"} <= metrics.keys():
            return
        val_chance = _chance(data, "val")
        val_acc = float(metrics["val/acc"])
        train_acc = float(metrics["train/acc"])
        num_images = len(data.indices["train"])
        lowest_train_acc, _ = wilson_interval(round(train_acc * num_images), num_images)
        learns = lowest_train_acc > _chance(data, "train")
        self._epochs_at_chance = self._epochs_at_chance + 1 if learns and val_acc <= val_chance else 0
        if self._epochs_at_chance == _NUM_EPOCHS:
            rank_zero_warn(
                f"The validation accuracy ({val_acc:.1%}) has been no better than always answering the largest class "
                f"({val_chance:.1%}) for {_NUM_EPOCHS} epochs, while the training accuracy is {train_acc:.1%}. Do the "
                f"validation images carry the labels of the training images? Look at them, and try --model.ema_decay "
                f"null and --model.lr lower."
            )


def _chance(data: FlowersDataModule, split: str) -> float:
    counts = data.class_counts(split)
    return max(counts) / max(1, sum(counts))
