"""Progress for logs: what a progress bar is on a terminal."""

from __future__ import annotations

import time

from lightning.pytorch import Callback, LightningModule, Trainer

_SHOWN = ("train/loss", "train/acc", "val/loss", "val/acc", "val/f1")


class PrintEpochs(Callback):
    """Prints one line per epoch, for output that goes to a file or a pipe."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epoch's metrics and its duration, validation included."""
        if trainer.is_global_zero:
            metrics = trainer.callback_metrics
            shown = "  ".join(f"{name} {float(metrics[name]):.4f}" for name in _SHOWN if name in metrics)
            seconds = time.monotonic() - self._start
            print(f"epoch {trainer.current_epoch:3d} of {trainer.max_epochs}  {shown}  {seconds:.1f} s", flush=True)
