"""Early stopping."""

from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer, callbacks
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's early stopping, with two differences.

    Between epochs with equal metrics, the lower validation loss decides, as in ``SaveBest``. The
    patience can be changed when a run is resumed.
    """

    _loss = float("inf")
    _best_loss: float | None = None

    @property
    def monitor_op(self) -> Callable[[Tensor, Tensor], Any]:
        """Function that returns whether the current metric is better than the best so far."""
        is_better = super().monitor_op
        if self._best_loss is None:  # Lightning's constructor compares it with torch.gt
            return is_better
        has_lower_loss = self._loss < self._best_loss
        return lambda current, best: is_better(current, best) | (current.eq(best) & has_lower_loss)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the metric with the best so far, and store the loss of the best epoch."""
        self._loss = float(trainer.callback_metrics.get("val/loss", float("inf")))
        if self._best_loss is None:
            self._best_loss = float("inf")
        super().on_validation_end(trainer, pl_module)
        if self.wait_count == 0 and not self._should_skip_check(trainer):
            self._best_loss = self._loss

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report why training was stopped."""
        if self.stopped_epoch and self.wait_count >= self.patience:
            rank_zero_info(
                f"Early stopping: {self.monitor} has not improved for {self.wait_count} "
                f"validations (`patience` {self.patience})"
            )
        elif self.stopped_epoch:
            rank_zero_info(f"Early stopping: {self.stopping_reason_message}")

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with the loss of the best epoch."""
        return super().state_dict() | {"best_loss": self._best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, but not the patience: the current run's option applies."""
        super().load_state_dict(state_dict | {"patience": self.patience})
        self._best_loss = state_dict.get("best_loss")
