"""What TensorBoard shows beyond the metrics, and a logger that never ends a run."""

from __future__ import annotations

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
from torchvision.utils import make_grid

from flowers.callbacks.collect_predictions import CollectsPredictions, as_predictions
from flowers.data import FlowersDataModule
from flowers.evaluation import (
    PredictionTable,
    confusion,
    confusion_figure,
    gallery_figure,
    scores,
    worst_mistakes,
)
from flowers.tasks import ClassificationTask

# The charts on TensorBoard's first page; a tag is a regular expression.
_LAYOUT = {
    "Training and validation": {
        "loss": ["Multiline", ["^train/loss$", "^val/loss$"]],
        "accuracy": ["Multiline", ["^train/acc$", "^val/acc$"]],
    }
}
# What the HParams tab compares runs by: accuracy and loss of the most accurate epoch.
_HP_METRICS = ("hp/val_acc", "hp/val_loss")
# More curves, or scalars of classes, than these bury what one looks for.
_MAX_CLASSES = 20
_SHOWN_IMAGES = 16


class ForgivingLogger(TensorBoardLogger):
    """A TensorBoard logger whose troubles, as a full disk, are said once and end no training.

    Args:
        run: The run folder, into which it logs.
        options: Options of the run that the HParams tab shows beside the model's.
    """

    _silenced = False

    def __init__(self, run: Path, *, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(
            run.parent.parent, name=run.parent.name, version=run.name, default_hp_metric=False
        )
        self.options = options or {}

    def attempt(self, write: Callable[[], None]) -> None:
        """Write something, unless writing has failed before."""
        if self._silenced:
            return
        try:
            write()
        except (OSError, ValueError, RuntimeError) as error:
            self._silenced = True
            reason = error.__cause__ or error  # Lightning calls every trouble an unsupported value
            rank_zero_warn(f"TensorBoard gets no more of this run, which goes on without: {reason}")

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars; the epoch, a straight line, is logged as a tensor, which ``read_history`` reads."""
        scalars = {name: value for name, value in metrics.items() if name != "epoch"}
        self.attempt(lambda: super(ForgivingLogger, self).log_metrics(scalars, step))
        if "epoch" in metrics:
            epoch = torch.tensor(float(metrics["epoch"]))
            self.attempt(lambda: self.experiment.add_tensor("epoch", epoch, step))

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:  # noqa: ANN401
        """Log hyper-parameters, the layout, and the names of the metrics that the HParams tab compares.

        Lightning would log a first value of these metrics too, which nobody has measured.
        """
        self.hparams.update(dict(params) | dict(self.options))
        flat = {
            name: str(value) if isinstance(value, list | tuple) else value
            for name, value in self.hparams.items()
        }
        summaries = hparams(flat, dict.fromkeys(_HP_METRICS, 0.0))  # type: ignore[no-untyped-call]
        for summary in summaries:
            self.attempt(partial(self._add_summary, summary))
        self.attempt(lambda: self.experiment.add_custom_scalars(_LAYOUT))

    def _add_summary(self, summary: Any) -> None:  # noqa: ANN401
        self.experiment.file_writer.add_summary(summary)

    def save(self) -> None:
        """Write what waits."""
        self.attempt(super().save)

    def finalize(self, status: str) -> None:
        """Write what waits and close."""
        self.attempt(lambda: super(ForgivingLogger, self).finalize(status))


class LogToTensorBoard(CollectsPredictions):
    """Adds an augmented batch, the recall of each class, gradient norm, speed, and every few epochs figures.

    Args:
        every_n_epochs: Epochs between two confusion matrices, precision-recall curves and galleries
            of mistakes; the first and the last epoch have them too.
        graph: Whether the network's graph is added.

    Raises:
        ValueError: The number of epochs is below 1.
    """

    def __init__(self, every_n_epochs: int = 5, *, graph: bool = False) -> None:
        super().__init__()
        if every_n_epochs < 1:
            raise ValueError(
                f"--tensorboard.every_n_epochs: expected at least 1, got {every_n_epochs}"
            )
        self.every_n_epochs = every_n_epochs
        self.graph = graph
        self._best = {"hp/val_acc": -1.0, "hp/val_loss": 0.0}
        self._images, self._waited, self._began, self._last = 0, 0.0, 0.0, 0.0
        self._without_figures: Callable[[], None] | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clocks."""
        self._images, self._waited, self._began = 0, 0.0, time.perf_counter()
        self._last = self._began

    on_train_start = on_train_epoch_start  # a run may go on inside of an epoch

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Count what was waited for; show the first batch as the network sees it."""
        self._waited += time.perf_counter() - self._last
        self._images += len(batch.images)
        if trainer.global_step == 0 and batch_idx == 0 and batch.images.ndim == 4:
            images: Tensor = batch.images[:_SHOWN_IMAGES].float()
            _write(
                trainer,
                lambda log: log.add_image("train/augmented_batch", make_grid(images, nrow=4), 0),
            )
            if self.graph:
                assert isinstance(pl_module, ClassificationTask)
                _write(trainer, partial(_add_graph, pl_module.net, images[:1]))

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Begin to wait for the next batch."""
        self._last = time.perf_counter()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:  # noqa: ANN401
        """Log the norm of the gradient, where the loggers wait for the device anyway."""
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            pl_module.log("train/grad_norm", torch.nn.utils.get_total_norm(gradients))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the speed of the epoch, validation left out: it ran before."""
        seconds = self._last - self._began
        if seconds <= 0:
            return
        images_per_s = self._images * trainer.world_size / seconds
        speed = {"train/images_per_s": images_per_s, "train/data_wait": self._waited / seconds}
        for logger in trainer.loggers:
            logger.log_metrics(speed, step=trainer.global_step)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log recalls and what the HParams tab compares; figures every few epochs."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.sanity_checking or not isinstance(data, FlowersDataModule):
            return
        collected = self.gather(trainer)
        found = as_predictions(collected, data)
        is_finite = np.isfinite(found.probs).all()
        values = scores(found) if is_finite else {}
        for name in self.recalls(data):
            # Every process has the same value; Lightning asks for an average, or warns.
            pl_module.log(
                f"val/recall/{name}", values.get(f"{name}/recall", float("nan")), sync_dist=True
            )
        # Of a network that gives NaN another callback says so, and ends the run.
        if not (is_finite and trainer.is_global_zero and trainer.logger is not None):
            return
        if values["accuracy"] > self._best["hp/val_acc"]:
            self._best = {"hp/val_acc": values["accuracy"], "hp/val_loss": values["log loss"]}
        # Every time: a resumed run begins with the placeholders anew.
        trainer.logger.log_metrics(self._best, step=trainer.global_step)
        log_figures = partial(
            self._log_figures,
            trainer,
            data,
            found,
            collected.indices.numpy(),
            epoch=trainer.current_epoch,
            step=trainer.global_step,
        )
        if trainer.current_epoch % self.every_n_epochs == 0:
            self._without_figures = None
            log_figures()
        else:
            self._without_figures = log_figures

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the figures of the last epoch, if it has none yet."""
        if self._without_figures is not None:
            self._without_figures()
            self._without_figures = None

    @staticmethod
    def recalls(data: FlowersDataModule) -> list[str]:
        """Return the names of the classes whose recall is logged, as ``val/recall/<class>``."""
        return data.class_names[:_MAX_CLASSES]

    def _log_figures(
        self,
        trainer: Trainer,
        data: FlowersDataModule,
        found: PredictionTable,
        indices: NDArray[np.int64],
        *,
        epoch: int,
        step: int,
    ) -> None:
        try:
            self._add_figures(trainer, data, found, indices, step=step)
        except Exception as error:  # a figure is not worth a training
            rank_zero_warn(f"TensorBoard lacks figures of epoch {epoch}: {error}")

    def _add_figures(
        self,
        trainer: Trainer,
        data: FlowersDataModule,
        found: PredictionTable,
        indices: NDArray[np.int64],
        *,
        step: int,
    ) -> None:
        names = found.class_names
        matrix = confusion_figure(confusion(found), names)
        _write(trainer, lambda log: log.add_figure("val/confusion", matrix, step))
        if (mistakes := _mistakes(data, found, indices)) is not None:
            _write(trainer, lambda log: log.add_figure("val/worst_mistakes", mistakes, step))
        if len(names) <= _MAX_CLASSES:
            for label, name in enumerate(names):
                is_class, probs = found.labels == label, found.probs[:, label]
                _write(trainer, partial(_add_pr_curve, f"val/pr/{name}", is_class, probs, step))

    def state_dict(self) -> dict[str, Any]:
        """Return the best accuracy so far, and its loss."""
        return dict(self._best)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best accuracy so far, and its loss."""
        self._best = dict(state_dict)


def _mistakes(data: FlowersDataModule, found: PredictionTable, indices: NDArray[np.int64]) -> Any:  # noqa: ANN401
    """Return a figure of the most confident mistakes, or None if there is none."""
    confidence, predicted = found.confidence, found.predicted
    worst = worst_mistakes(found, _SHOWN_IMAGES)
    if not worst:
        return None
    pixels = data.images(indices[worst]).permute(0, 2, 3, 1).numpy()
    names = found.class_names
    titles = [
        f"{names[found.labels[i]]}, taken for\n{names[predicted[i]]} ({confidence[i]:.0%})"
        for i in worst
    ]
    return gallery_figure([*pixels], titles)


def _add_pr_curve(
    tag: str, is_class: NDArray[np.bool_], probs: NDArray[np.float64], step: int, log: Any
) -> None:  # noqa: ANN401
    log.add_pr_curve(tag, is_class, probs, step)


def _add_graph(net: nn.Module, images: Tensor, log: Any) -> None:  # noqa: ANN401
    training = net.training
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # TensorBoard's own way of tracing is deprecated
        log.add_graph(
            net.eval(), images
        )  # in training mode it would move the statistics of batch norm
    net.train(training)


def _write(trainer: Trainer, write: Callable[[Any], None]) -> None:
    """Write with TensorBoard's own writer, if that is where the run logs."""
    logger = trainer.logger
    if isinstance(logger, ForgivingLogger) and trainer.is_global_zero:
        logger.attempt(lambda: write(logger.experiment))
