"""Goes on inside of an epoch."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torchmetrics import Metric

from flowers.data import ResumableLoader
from flowers.tasks import ClassificationTask


class ResumeEpoch(Callback):
    """Lets a run that ended inside of an epoch go on there: with the images that are left, and what was counted.

    Lightning restores the loader only if nobody has asked for the number of steps before, as a
    schedule does.
    """

    def __init__(self) -> None:
        self._loader: dict[str, int] = {}
        self._metrics: dict[str, dict[str, Tensor]] = {}

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the metrics of the epoch so far, of all processes."""
        stored = checkpoint["train_metrics"] = {}
        for name, metric in _metrics(pl_module).items():
            with metric.sync_context():
                stored[name] = {
                    key: torch.as_tensor(value).cpu().clone()
                    for key, value in metric.metric_state.items()
                }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember what the checkpoint says of its epoch."""
        [self._loader] = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", [{}])
        self._metrics = checkpoint.get("train_metrics", {})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take it up, if the epoch was not over: of steps of another size, as many as are left.

        Raises:
            ValueError: The processes go on from different checkpoints, as those of machines without
                a common disk may.
        """
        _check_agreement(trainer)
        progress = trainer.fit_loop.epoch_loop.batch_progress
        if (
            not (trainer.fit_loop.restarting and self._loader) or progress.is_last_batch
        ):  # saved after the last step
            return
        if trainer.is_global_zero:  # the sums of all processes are counted once
            for name, metric in _metrics(pl_module).items():
                for key, value in self._metrics[name].items():
                    setattr(metric, key, value.to(metric.device))
        loader = trainer.train_dataloader
        assert isinstance(loader, ResumableLoader)
        loader.load_state_dict(self._loader)
        first = loader.first_batch = min(loader.first_batch, int(trainer.num_training_batches) - 1)
        for stage in ("ready", "started", "processed", "completed"):
            setattr(progress.current, stage, first)
        if trainer.fit_loop.epoch_loop.restarted_on_train_batch_end:
            progress.current.completed -= 1  # Lightning counts the step it was saved in later


def _check_agreement(trainer: Trainer) -> None:
    step = trainer.global_step
    steps = torch.tensor([step, -step], device=trainer.strategy.root_device)
    most, least = (
        trainer.strategy.reduce(steps, reduce_op="max").tolist()
        if trainer.world_size > 1
        else (step, -step)
    )
    if most != -least:
        raise ValueError(
            f"--ckpt_path: expected the same checkpoint in every process, got steps {-least} to {most} ({step} in "
            f"process {trainer.global_rank}). All machines need the run folder on a disk they share."
        )


def _metrics(task: LightningModule) -> dict[str, Metric]:
    assert isinstance(task, ClassificationTask)
    return {"loss": task.train_loss} | dict(
        task.train_metrics.items(keep_base=True, copy_state=False)
    )
