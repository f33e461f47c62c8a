"""Which checkpoints are kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import Tensor

from flowers.callbacks.monitor import monitor_mode


class _SaveOne(ModelCheckpoint):
    """Keeps one file; a run that goes on in its own folder knows it again, wherever that was moved to."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, unless the run goes on in another folder, which has no such checkpoint yet."""
        if self.dirpath is not None and (Path(self.dirpath) / f"{self.filename}.ckpt").exists():
            super().load_state_dict(_moved(state_dict, str(self.dirpath)))


class SaveBest(_SaveOne):
    """Keeps ``best.ckpt``: the epoch with the best validation metric, and of equals the one with the lower loss.

    Accuracies of a few hundred images tie often.

    Args:
        monitor: Metric to compare, ``val/loss``, ``val/acc``, ``val/f1`` or ``val/recall/<class>``;
            early stopping watches the same.
        mode: Whether more (``max``) or less (``min``) is better; follows from the metric.

    Raises:
        ValueError: The mode contradicts the metric.
    """

    def __init__(self, monitor: str = "val/acc", mode: Literal["min", "max"] | None = None) -> None:
        mode = monitor_mode(monitor, mode)
        super().__init__(monitor=monitor, mode=mode, filename="best", enable_version_counter=False)
        self.best_epoch = -1
        self.best_loss = float("inf")

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Return whether the current epoch is the best so far."""
        loss = float(trainer.callback_metrics.get("val/loss", float("inf")))
        tied = (
            current is not None
            and self.best_model_score is not None
            and bool(current == self.best_model_score)
        )
        better = loss < self.best_loss if tied else super().check_monitor_top_k(trainer, current)
        if better:
            self.best_epoch, self.best_loss = trainer.current_epoch, loss
        return better

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with the best epoch and its loss."""
        return super().state_dict() | {"best_epoch": self.best_epoch, "best_loss": self.best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, with the best epoch and its loss."""
        super().load_state_dict(state_dict)
        if self.best_model_score is not None:
            self.best_epoch, self.best_loss = state_dict["best_epoch"], state_dict["best_loss"]


class SaveLast(_SaveOne):
    """Keeps ``last.ckpt`` to resume from: the state after the last epoch, or where a run was asked to end.

    Args:
        every_n_epochs: Epochs between two saves.
    """

    def __init__(self, every_n_epochs: int = 1) -> None:
        # A callback of its own: beside a monitor, Lightning's save_last keeps the best epoch, not
        # the last.
        super().__init__(
            filename="last",
            every_n_epochs=every_n_epochs,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )

    def save_now(self, trainer: Trainer) -> str:
        """Save the state as it is, and return the file; every process has to call it."""
        file = str(Path(str(self.dirpath)) / f"{self.filename}.ckpt")
        trainer.save_checkpoint(file, weights_only=False)
        return file


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its target and renames it, so that a kill or a full disk leaves the previous whole.

    Lightning writes into the system's temporary folder and copies from there where that is another
    disk (https://github.com/Lightning-AI/pytorch-lightning/issues/21253).
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None
    ) -> None:
        """Write the file.

        Raises:
            OSError: It cannot be written; what was there before still is.
        """
        file = Path(path).resolve()  # of a link, what it leads to
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.partial")
        try:
            with partial.open("wb") as opened:
                torch.save(checkpoint, opened)
                opened.flush()
                os.fsync(opened.fileno())
            partial.replace(file)
        except BaseException as error:
            partial.unlink(missing_ok=True)  # half a file would keep a full disk full
            # torch, closing its file, hides the disk's error behind one of its own.
            cause = error if isinstance(error, OSError) else error.__context__
            if isinstance(cause, OSError):
                raise OSError(
                    cause.errno,
                    f"{cause.strerror}, the checkpoint before stays as it was",
                    str(file),
                ) from error
            raise


def _moved(state_dict: dict[str, Any], dirpath: str) -> dict[str, Any]:
    """Return a checkpoint callback's state with its paths in another folder."""

    def move(path: str) -> str:
        return str(Path(dirpath) / Path(path).name) if path else path

    paths = ("best_model_path", "kth_best_model_path", "last_model_path")
    best = {move(path): score for path, score in state_dict["best_k_models"].items()}
    return (
        state_dict
        | {name: move(state_dict[name]) for name in paths}
        | {"dirpath": dirpath, "best_k_models": best}
    )
