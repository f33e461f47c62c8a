"""Ending a training whose loss is NaN or infinite."""

import math
from collections.abc import Mapping
from typing import NoReturn

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from flowers.callbacks.save_checkpoint import SaveBest


class TerminateOnNaN(Callback):
    """Ends training when the loss is NaN or infinite, before a checkpoint is written."""

    _sum: float | Tensor = 0.0  # of the losses: NaN or infinite if any loss is

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, *args: object
    ) -> None:
        """Add the loss to the sum, and check the sum in logged steps and at the end of an epoch.

        Reading the sum in every step would wait for the GPU.

        Raises:
            FloatingPointError: A loss was NaN or infinite.
        """
        if isinstance(outputs, Mapping):
            self._sum = self._sum + outputs["loss"]
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if trainer.is_last_batch or trainer.global_step % every == 0:
            self._check(trainer)

    def on_save_checkpoint(self, trainer: Trainer, *args: object) -> None:
        """Check the loss of the steps so far.

        Raises:
            FloatingPointError: A loss was NaN or infinite.
        """
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        if not math.isfinite(self._sum):
            _stop(trainer, "training loss")
        self._sum = 0.0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the validation loss: the last step may have made the weights NaN.

        Raises:
            FloatingPointError: The validation loss was NaN or infinite.
        """
        if not math.isfinite(trainer.callback_metrics.get("val/loss", 0.0)):
            _stop(trainer, "validation loss")


def _stop(trainer: Trainer, loss: str) -> NoReturn:
    best = "none yet"
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, SaveBest) and callback.best_model_path:
            best = callback.best_model_path
    raise FloatingPointError(
        f"The {loss} became NaN or infinite in epoch {trainer.current_epoch}, at or "
        f"before step {trainer.global_step}. Best checkpoint so far: {best}. Lower `lr`, clip "
        f"gradients with `gradient_clip_val` 1.0, or train with `precision` 32-true."
    )
