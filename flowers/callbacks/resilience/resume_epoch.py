"""Resuming inside an epoch."""

from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torchmetrics import Metric

from flowers.data import ResumableLoader
from flowers.tasks import ClassificationTask


class ResumeEpoch(Callback):
    """Resumes a run inside an epoch with the remaining images and the metrics so far.

    Lightning does not restore the loader's state, because the learning-rate schedule reads
    ``estimated_stepping_batches``, which sets up the loader before states are restored.
    """

    def __init__(self) -> None:
        self._loader: dict[str, int] = {}
        self._metrics: dict[str, dict[str, Tensor]] = {}

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the metrics of the epoch so far, summed over all processes."""
        checkpoint["train_metrics"] = {}
        for name, metric in _metrics(pl_module):
            state = {}
            with metric.sync_context():
                for key, value in metric.metric_state.items():
                    state[key] = torch.as_tensor(value).cpu().clone()
            checkpoint["train_metrics"][name] = state

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Read the state of the loader and the metrics."""
        [self._loader] = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", [{}])
        self._metrics = checkpoint.get("train_metrics", {})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore loader and metrics of an unfinished epoch; the batch size may have changed.

        Raises:
            ValueError: The processes resume from different checkpoints, as on machines without a
                shared disk.
        """
        _check_agreement(trainer)
        progress = trainer.fit_loop.epoch_loop.batch_progress
        is_inside_epoch = trainer.fit_loop.restarting and self._loader
        if not is_inside_epoch or progress.is_last_batch:  # saved after the epoch's last step
            return
        if trainer.is_global_zero:  # stored metrics are sums over processes: restore them once
            for name, metric in _metrics(pl_module):
                for key, value in self._metrics[name].items():
                    setattr(metric, key, value.to(metric.device))
        loader = trainer.train_dataloader
        assert isinstance(loader, ResumableLoader)
        loader.load_state_dict(self._loader)
        first = loader.first_batch = min(loader.first_batch, int(trainer.num_training_batches) - 1)
        for stage in ("ready", "started", "processed", "completed"):
            setattr(progress.current, stage, first)
        if trainer.fit_loop.epoch_loop.restarted_on_train_batch_end:
            progress.current.completed -= 1  # Lightning adds the step of the checkpoint later


def _check_agreement(trainer: Trainer) -> None:
    if trainer.world_size == 1:
        return
    step = trainer.global_step
    steps = torch.tensor([step, -step], device=trainer.strategy.root_device)
    last, negative_first = trainer.strategy.reduce(steps, reduce_op="max").tolist()
    if last != -negative_first:
        raise ValueError(
            f"`ckpt_path`: expected the same checkpoint in every process, got steps "
            f"{-negative_first} to {last} ({step} in process {trainer.global_rank}). All machines "
            f"need the run folder on a shared disk."
        )


def _metrics(task: LightningModule) -> Iterable[tuple[str, Metric]]:
    assert isinstance(task, ClassificationTask)
    return task.train_metrics.items(keep_base=True, copy_state=False)
