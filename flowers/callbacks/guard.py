"""Ends a run that can no longer learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor


class StopOnBadLoss(Callback):
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
        if not (trainer.is_last_batch or (batch_idx + 1) % every == 0):
            return
        if not self._finite:
            saved = trainer.checkpoint_callback.best_model_path if trainer.checkpoint_callback else ""  # type: ignore[attr-defined]
            raise FloatingPointError(
                f"The training loss became NaN or infinite in epoch {trainer.current_epoch}, by step "
                f"{trainer.global_step}. The last good checkpoint: {saved or 'none yet'}. Lower --model.lr, clip with "
                f"--trainer.gradient_clip_val 1.0, or train with --trainer.precision 32-true."
            )
        self._finite = None
