"""Which checkpoints are kept."""

from __future__ import annotations

from typing import Any, Literal

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor


class SaveBest(ModelCheckpoint):
    """Keeps ``best.ckpt``: the epoch with the best validation metric, and of equals the one with the lower loss.

    Accuracies of a few hundred images tie often.

    Args:
        monitor: Metric to compare; early stopping watches the same.
        mode: Whether more (``max``) or less (``min``) is better.
    """

    def __init__(self, monitor: str = "val/acc", mode: Literal["min", "max"] = "max") -> None:
        super().__init__(monitor=monitor, mode=mode, filename="best", auto_insert_metric_name=False)
        self.best_epoch = -1
        self.best_loss = float("inf")

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Return whether the current epoch is the best so far."""
        loss = float(trainer.callback_metrics.get("val/loss", float("inf")))
        tied = current is not None and self.best_model_score is not None and bool(current == self.best_model_score)
        better = loss < self.best_loss if tied else super().check_monitor_top_k(trainer, current)
        if better:
            self.best_epoch, self.best_loss = trainer.current_epoch, loss
        return better

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with the best epoch and its loss."""
        return super().state_dict() | {"best_epoch": self.best_epoch, "best_loss": self.best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, unless the run goes on in another folder, which has no best checkpoint yet."""
        super().load_state_dict(state_dict)
        if self.best_model_score is not None:
            self.best_epoch, self.best_loss = state_dict["best_epoch"], state_dict["best_loss"]


class SaveLast(ModelCheckpoint):
    """Keeps ``last.ckpt``: the state after the last whole epoch, to resume from.

    Args:
        every_n_epochs: Epochs between two saves.
    """

    def __init__(self, every_n_epochs: int = 1) -> None:
        # A callback of its own: beside a monitor, Lightning's save_last keeps the best epoch, not the last.
        super().__init__(filename="last", every_n_epochs=every_n_epochs, save_on_train_epoch_end=True)
