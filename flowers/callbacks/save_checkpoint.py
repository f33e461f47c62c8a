"""Saving checkpoints."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import Tensor

from flowers.callbacks.monitor import Mode, monitor_mode


class _SaveOne(ModelCheckpoint):
    """Keeps one file. The run folder may be moved before the run is resumed."""

    @property
    def file(self) -> Path:
        """Path of the file, which may not exist yet."""
        return Path(str(self.dirpath)) / f"{self.filename}.ckpt"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state if this run folder has the file; resuming may use a new folder."""
        if self.file.exists():
            moved = state_dict | {"dirpath": self.dirpath}
            for name in ("best_model_path", "kth_best_model_path"):
                moved[name] = str(self.file) if state_dict[name] else ""
            if state_dict["best_k_models"]:
                moved["best_k_models"] = {str(self.file): state_dict["best_model_score"]}
            super().load_state_dict(moved)


class SaveBest(_SaveOne):
    """Keeps ``best.ckpt``, the checkpoint of the epoch with the best validation metric.

    Between epochs with equal metrics, the lower validation loss decides: accuracies on a few
    hundred images are often equal.

    Args:
        monitor: Metric that selects the best epoch: ``val/loss``, ``val/acc``, ``val/f1`` or
            ``val/recall/<class>``. Early stopping monitors the same metric.
        mode: Whether the largest (``max``) or the smallest (``min``) value is the best; by default
            it follows from the metric.

    Raises:
        ValueError: The mode contradicts the metric.
    """

    def __init__(self, monitor: str = "val/acc", mode: Mode | None = None) -> None:
        mode = monitor_mode(monitor, mode)
        super().__init__(monitor=monitor, mode=mode, filename="best", enable_version_counter=False)
        self.best_epoch = -1
        self.best_loss = float("inf")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the last epoch, which ``check_val_every_n_epoch`` may exclude."""
        if trainer.current_epoch + 1 == trainer.max_epochs and trainer.check_val_every_n_epoch:
            trainer.check_val_every_n_epoch = 1

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Return whether the current epoch is the best so far."""
        loss = float(trainer.callback_metrics.get("val/loss", float("inf")))
        if self.best_model_score is not None and bool(current == self.best_model_score):
            is_better = loss < self.best_loss
        else:
            is_better = super().check_monitor_top_k(trainer, current)
        if is_better:
            self.best_epoch = trainer.current_epoch
            self.best_loss = loss
        return is_better

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with the best epoch and its loss."""
        return super().state_dict() | {"best_epoch": self.best_epoch, "best_loss": self.best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, with the best epoch and its loss."""
        super().load_state_dict(state_dict)
        if self.best_model_score is not None:
            self.best_epoch = state_dict["best_epoch"]
            self.best_loss = state_dict["best_loss"]


class SaveLast(_SaveOne):
    """Keeps ``last.ckpt`` to resume from: the state after the latest epoch or at an interruption.

    Args:
        every_n_epochs: Number of epochs between two saves.
    """

    def __init__(self, every_n_epochs: int = 1) -> None:
        # A separate callback: with a monitor, Lightning's save_last saves only new best epochs.
        super().__init__(
            filename="last",
            every_n_epochs=every_n_epochs,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )

    def save_now(self, trainer: Trainer) -> str:
        """Save the current state and return the path; all processes must call this method."""
        trainer.save_checkpoint(self.file, weights_only=False)
        return str(self.file)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a partial file beside its target and renames it.

    A killed process or a full disk thus leaves the previous checkpoint unchanged. Lightning writes
    into the system's temporary folder; if the target is on another disk, it copies the file, which
    can be interrupted (https://github.com/Lightning-AI/pytorch-lightning/issues/21253).
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None
    ) -> None:
        """Write the file.

        Raises:
            OSError: The file cannot be written; the previous file is unchanged.
        """
        file = Path(path).resolve()  # the target of a link
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.partial")
        try:
            with partial.open("wb") as opened:
                torch.save(checkpoint, opened)
                opened.flush()
                os.fsync(opened.fileno())
            partial.replace(file)
        except BaseException as error:
            partial.unlink(missing_ok=True)  # a partial file would keep a full disk full
            # torch raises its own error while handling the OSError.
            cause = error if isinstance(error, OSError) else error.__context__
            if isinstance(cause, OSError):
                message = f"{cause.strerror}, the previous checkpoint is unchanged"
                raise OSError(cause.errno, message, str(file)) from error
            raise
