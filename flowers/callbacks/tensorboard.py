"""Logging to TensorBoard."""

import copy
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.tensorboard.summary import hparams

from flowers.callbacks.collect_predictions import CollectPredictions, as_predictions
from flowers.data import FlowersDataModule
from flowers.evaluation import (
    PredictionTable,
    confusion,
    confusion_figure,
    gallery_figure,
    scores,
    worst_mistakes,
)
from flowers.tasks import ClassificationTask, expect

# The charts of TensorBoard's Custom Scalars tab; tags are regular expressions.
_LAYOUT = {
    "Training and validation": {
        "loss": ["Multiline", ["^train/loss$", "^val/loss$"]],
        "accuracy": ["Multiline", ["^train/acc$", "^val/acc$"]],
    }
}
# Metrics of the HParams tab, from the epoch with the best validation accuracy.
_HP_METRICS = ("val/best_acc", "val/loss_at_best_acc")
# With more classes, TensorBoard would show too many curves.
_MAX_CLASSES = 20
_NUM_IMAGES = 16


class FailSafeTensorBoardLogger(TensorBoardLogger):
    """A TensorBoard logger that stops logging with a warning after an error, such as a full disk.

    Args:
        run: The run folder, into which the logger writes.
        options: Options of data and training for the HParams tab, besides the model's options.
    """

    _silenced = False

    def __init__(self, run: Path, *, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(
            run.parent.parent, name=run.parent.name, version=run.name, default_hp_metric=False
        )
        self.options = options or {}

    @property
    def log_dir(self) -> str:
        """The run folder; Lightning would replace variables such as ``$HOME`` in its name."""
        return str(Path(self.root_dir) / str(self.version))

    def attempt(self, write: Callable[[], None]) -> None:
        """Call a function that logs, unless logging has failed before."""
        if self._silenced:
            return
        try:
            write()
        except (OSError, ValueError, RuntimeError) as error:
            self._silenced = True
            reason = error.__cause__ or error  # Lightning raises a ValueError from its cause
            rank_zero_warn(f"Logging to TensorBoard stopped (the run continues): {reason}")

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars; the epoch is logged as a tensor for ``read_history``, without a chart."""
        scalars = dict(metrics)
        number = scalars.pop("epoch", None)
        self.attempt(partial(super().log_metrics, scalars, step))
        if number is not None:
            epoch = torch.tensor(float(number))
            self.attempt(lambda: self.experiment.add_tensor("epoch", epoch, step))

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:  # noqa: ANN401
        """Log hyper-parameters, the chart layout, and the metric names of the HParams tab.

        Lightning's own method would also log a value of each metric before the first validation.
        """
        self.hparams.update(params)
        self.hparams.update(self.options)
        flat = dict(self.hparams)
        for name, value in flat.items():
            if isinstance(value, list | tuple):
                flat[name] = str(value)
        summaries = hparams(flat, dict.fromkeys(_HP_METRICS, 0.0))  # type: ignore[no-untyped-call]

        def write() -> None:
            for summary in summaries:
                self.experiment.file_writer.add_summary(summary)
            self.experiment.add_custom_scalars(_LAYOUT)

        self.attempt(write)

    def save(self) -> None:
        """Write buffered events."""
        self.attempt(super().save)

    def finalize(self, status: str) -> None:
        """Write buffered events and close the events file."""
        self.attempt(partial(super().finalize, status))


class LogToTensorBoard(CollectPredictions):
    """Logs an augmented batch, the recall of each class, gradient norm, speed, and figures.

    Args:
        every_n_epochs: Number of epochs between two sets of figures: confusion matrix,
            precision-recall curves and worst mistakes. The first and the last validation have
            figures too.
        graph: Whether to log the graph of the network.

    Raises:
        ValueError: The number of epochs is below 1.
    """

    def __init__(self, every_n_epochs: int = 5, *, graph: bool = False) -> None:
        super().__init__()
        expect(every_n_epochs >= 1, "every_n_epochs", "at least 1", every_n_epochs)
        self.every_n_epochs = every_n_epochs
        self.graph = graph
        self._best_hp_metrics = {"val/best_acc": -1.0, "val/loss_at_best_acc": 0.0}
        self._num_images = 0
        self._wait_seconds = 0.0
        self._start = 0.0
        self._last_batch_end = 0.0
        self._next_figures = 0  # epoch
        self._pending_figures: Callable[[], None] | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clocks."""
        self._num_images = 0
        self._wait_seconds = 0.0
        self._start = time.perf_counter()
        self._last_batch_end = self._start

    on_train_start = on_train_epoch_start  # a run may resume inside an epoch

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Add the time spent waiting for the batch; log the first batch of the run."""
        self._wait_seconds += time.perf_counter() - self._last_batch_end
        self._num_images += len(batch.images)
        if trainer.global_step == 0 and batch_idx == 0 and batch.images.ndim == 4:
            assert isinstance(pl_module, ClassificationTask)
            images: Tensor = batch.images[:_NUM_IMAGES].float()
            pixels = (images * 255).byte().permute(0, 2, 3, 1).cpu().numpy()
            titles = [_target_text(target, pl_module.class_names) for target in batch.targets]
            figure = gallery_figure([*pixels], titles)
            _write(trainer, lambda log: log.add_figure("train/augmented_batch", figure, 0))
            if self.graph:
                _write(trainer, partial(_add_graph, pl_module.net, images[:1]))

    def on_train_batch_end(self, *args: object) -> None:
        """Start measuring the wait for the next batch."""
        self._last_batch_end = time.perf_counter()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, *args: object
    ) -> None:
        """Log the gradient norm every ``log_every_n_steps`` steps."""
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            pl_module.log("train/grad_norm", torch.nn.utils.get_total_norm(gradients))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log images per second and the fraction of time spent waiting, without validation."""
        seconds = self._last_batch_end - self._start
        if seconds <= 0:
            return
        speed = {
            "train/images_per_s": self._num_images * trainer.world_size / seconds,
            "train/data_wait": self._wait_seconds / seconds,
        }
        for logger in trainer.loggers:
            logger.log_metrics(speed, step=trainer.global_step)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log recalls, the metrics of the HParams tab, and every few epochs figures."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.sanity_checking or not isinstance(data, FlowersDataModule):
            return
        collected = self.gather(trainer)
        predictions = as_predictions(collected, data)
        is_finite = np.isfinite(predictions.probs).all()
        values = scores(predictions) if is_finite else {}
        for name in self.recall_classes(data):
            recall = values.get(f"{name}/recall", float("nan"))
            # All processes have the same value; sync_dist avoids a warning of Lightning.
            pl_module.log(f"val/recall/{name}", recall, sync_dist=True)
        # TerminateOnNaN ends a run with values that are not finite.
        if not is_finite or not trainer.is_global_zero or trainer.logger is None:
            return
        if values["accuracy"] > self._best_hp_metrics["val/best_acc"]:
            best = {"val/best_acc": values["accuracy"], "val/loss_at_best_acc": values["log loss"]}
            self._best_hp_metrics = best
        # Logged even if unchanged: a resumed run has a new events file, which needs these metrics.
        trainer.logger.log_metrics(self._best_hp_metrics, step=trainer.global_step)
        indices = collected.indices.numpy()
        self._pending_figures = partial(
            _log_figures, trainer, predictions, indices, trainer.current_epoch, trainer.global_step
        )
        if trainer.current_epoch >= self._next_figures:
            self._next_figures = trainer.current_epoch + self.every_n_epochs
            self.on_train_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the figures of the last validation, if they are not logged yet."""
        if self._pending_figures is not None:
            self._pending_figures()
            self._pending_figures = None

    @staticmethod
    def recall_classes(data: FlowersDataModule) -> list[str]:
        """Return the names of the classes whose recall is logged, as ``val/recall/<class>``."""
        return data.class_names[:_MAX_CLASSES]

    def state_dict(self) -> dict[str, Any]:
        """Return the best accuracy so far, and the loss of that epoch."""
        return dict(self._best_hp_metrics)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best accuracy so far, and the loss of that epoch."""
        self._best_hp_metrics = dict(state_dict)


def _log_figures(
    trainer: Trainer,
    predictions: PredictionTable,
    indices: NDArray[np.int64],
    epoch: int,
    step: int,
) -> None:
    names = predictions.class_names
    data = trainer.datamodule  # type: ignore[attr-defined]
    try:
        figures = _figures(data, predictions, indices)
    except Exception as error:  # a failed figure must not end training
        rank_zero_warn(f"TensorBoard lacks the figures of epoch {epoch}: {error}")
        return

    def write(log: Any) -> None:  # noqa: ANN401
        for tag, figure in figures.items():
            log.add_figure(tag, figure, step)
        if len(names) <= _MAX_CLASSES:
            for label, name in enumerate(names):
                is_class = predictions.labels == label
                log.add_pr_curve(f"val/pr/{name}", is_class, predictions.probs[:, label], step)

    _write(trainer, write)


def _figures(
    data: FlowersDataModule, predictions: PredictionTable, indices: NDArray[np.int64]
) -> dict[str, Any]:
    """Return figures of the confusion matrix and of the most confident mistakes, if any."""
    names = predictions.class_names
    figures = {"val/confusion": confusion_figure(confusion(predictions), names)}
    worst = worst_mistakes(predictions, _NUM_IMAGES)
    if worst:
        pixels = data.images(indices[worst]).permute(0, 2, 3, 1).numpy()
        titles = []
        for number in worst:
            label = names[predictions.labels[number]]
            predicted = names[predictions.predicted[number]]
            confidence = predictions.confidence[number]
            titles.append(f"{label}, predicted\n{predicted} ({confidence:.0%})")
        figures["val/worst_mistakes"] = gallery_figure([*pixels], titles)
    return figures


def _target_text(target: Tensor, class_names: list[str]) -> str:
    """Return the class of a label, or the classes of a soft target with their probabilities."""
    if target.ndim == 0:
        return class_names[int(target)]
    classes = target.nonzero()[:, 0].tolist()
    return "\n".join(f"{class_names[label]} {target[label]:.0%}" for label in classes)


def _add_graph(net: nn.Module, images: Tensor, log: Any) -> None:  # noqa: ANN401
    # In evaluation mode, batch norm keeps its statistics. A copy, so that `net` keeps its mode.
    copied = copy.deepcopy(net).eval()
    # TensorBoard traces with a deprecated function of torch, which warns.
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        log.add_graph(copied, images)


def _write(trainer: Trainer, write: Callable[[Any], None]) -> None:
    """Call a function with TensorBoard's writer in the process that logs to TensorBoard."""
    logger = trainer.logger
    if isinstance(logger, FailSafeTensorBoardLogger) and trainer.is_global_zero:
        logger.attempt(lambda: write(logger.experiment))
