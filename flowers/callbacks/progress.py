"""Progress for logs: what a progress bar is on a terminal."""

from __future__ import annotations

import sys
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary, ProgressBar, TQDMProgressBar

_SHOWN = ("train/loss", "train/acc", "val/loss", "val/acc", "val/f1")


class PrintEpochs(Callback):
    """Prints one line per epoch, for output that goes to a file or a pipe."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start = time.monotonic()

    on_train_start = on_train_epoch_start  # a run may go on inside of an epoch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epoch's metrics and its duration, validation included."""
        if trainer.is_global_zero:
            metrics = trainer.callback_metrics
            shown = "  ".join(f"{name} {float(metrics[name]):.4f}" for name in _SHOWN if name in metrics)
            seconds = time.monotonic() - self._start
            print(f"epoch {trainer.current_epoch:3d} of {trainer.max_epochs}  {shown}  {seconds:.1f} s", flush=True)


def progress(trainer: Any) -> tuple[bool, list[Callback]]:  # noqa: ANN401
    """Return whether there is a bar, and what shows progress: a bar on a terminal, lines elsewhere.

    Args:
        trainer: The trainer's options.
    """
    # Named here, since Lightning would choose others wherever `rich` happens to be installed.
    summary: list[Callback] = [] if trainer.enable_model_summary is False else [ModelSummary()]
    chosen = any(isinstance(callback, ProgressBar) for callback in trainer.callbacks or [])
    if trainer.enable_progress_bar is False or chosen:
        return chosen, summary
    if sys.stdout.isatty():
        return True, [TQDMProgressBar(), *summary]
    return False, [PrintEpochs(), *summary]
