"""Ends a run that can no longer learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from flowers.callbacks.checkpoint import SaveBest


class TerminateOnNaN(Callback):
    """Ends training with an error when the loss is NaN or infinite, before a checkpoint of that state is written."""

    def __init__(self) -> None:
        self._finite: Tensor | None = None

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Note whether the loss is finite; look at the notes where the loggers wait for the device anyway.

        Raises:
            FloatingPointError: A loss was NaN or infinite.
        """
        if not isinstance(outputs, Mapping):
            return
        finite = torch.isfinite(outputs["loss"])
        self._finite = finite if self._finite is None else self._finite & finite
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if trainer.is_last_batch or (batch_idx + 1) % every == 0:
            self._check(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Look at the notes before they are lost.

        Raises:
            FloatingPointError: A loss was NaN or infinite.
        """
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        if self._finite is not None and not self._finite:
            _stop(trainer, "training loss")
        self._finite = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the validation loss too: the last step may have broken the weights.

        Raises:
            FloatingPointError: The validation loss was NaN or infinite.
        """
        if not torch.isfinite(torch.as_tensor(trainer.callback_metrics.get("val/loss", 0.0))):
            _stop(trainer, "validation loss")


def _stop(trainer: Trainer, what: str) -> NoReturn:
    saved = [
        callback.best_model_path
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, SaveBest)
    ]
    raise FloatingPointError(
        f"The {what} became NaN or infinite in epoch {trainer.current_epoch}, by step {trainer.global_step}. The best "
        f"checkpoint before: {''.join(saved) or 'none yet'}. Lower --model.lr, clip with "
        f"--trainer.gradient_clip_val 1.0, or train with --trainer.precision 32-true."
    )
