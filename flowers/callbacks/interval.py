"""Says how far an accuracy can be believed."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from flowers.callbacks.collect import is_all
from flowers.data import FlowersDataModule
from flowers.evaluation import wilson_interval


class PrintInterval(Callback):
    """Prints the accuracy of ``validate`` and ``test`` with its 95 % interval."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the accuracy on the validation split, unless this is a training's own validation."""
        if trainer.state.fn == "validate" and is_all(trainer.limit_val_batches):
            _print(trainer, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the accuracy on the test split."""
        if is_all(trainer.limit_test_batches):
            _print(trainer, "test")


def _print(trainer: Trainer, split: str) -> None:
    data = trainer.datamodule  # type: ignore[attr-defined]
    if trainer.is_global_zero and isinstance(data, FlowersDataModule):
        total = len(data.indices[split])
        for name in (f"{split}/acc", f"{split}/acc_tta"):
            if name in trainer.callback_metrics:
                right = round(float(trainer.callback_metrics[name]) * total)
                low, high = wilson_interval(right, total)
                print(
                    f"{name}: {right} of {total} images are right, {right / total:.1%} ({low:.1%} to {high:.1%}, 95 %)"
                )
