"""Console output of a run."""

import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from rich import box, get_console
from rich.markup import escape
from rich.table import Table

from flowers.callbacks.collect_predictions import is_all
from flowers.data import FlowersDataModule
from flowers.evaluation import wilson_interval

_METRICS = ("train/loss", "train/acc", "val/loss", "val/acc")


class PrintEpochs(Callback):
    """Prints a table of the training: the metrics and duration of each epoch, and the time left."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._seconds: list[float] = []
        self._is_validated = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the number of parameters and the device."""
        size = f"{sum(p.numel() for p in pl_module.parameters()):,} parameters"
        if num_frozen := sum(p.numel() for p in pl_module.parameters() if not p.requires_grad):
            size += f", {num_frozen:,} of them frozen"
        device = trainer.strategy.root_device
        device_name = str(device)
        if device.type == "cuda":
            device_name = torch.cuda.get_device_name(device)
        rank_zero_info(f"{type(pl_module).__name__}: {size}, on {device_name}")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start = time.monotonic()
        self._is_validated = False

    on_train_start = on_train_epoch_start  # a run may resume inside an epoch

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that this epoch has a validation."""
        self._is_validated = True

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the row of the epoch, and the column names before the first row."""
        if not self._seconds:
            print(_row("epoch", _METRICS, "time", "left"))
        values = []
        for name in _METRICS:
            is_old = name.startswith("val/") and not self._is_validated
            value = trainer.callback_metrics.get(name)
            text = "" if value is None or is_old else f"{float(value):.4f}"
            values.append(text)
        self._seconds.append(time.monotonic() - self._start)
        epochs_left = (trainer.max_epochs or 0) - trainer.current_epoch - 1
        time_left = ""
        if epochs_left > 0:
            time_left = duration(sum(self._seconds) / len(self._seconds) * epochs_left)
        epoch = f"{trainer.current_epoch}/{trainer.max_epochs}"
        print(_row(epoch, values, duration(self._seconds[-1]), time_left), flush=True)


def _row(epoch: str, values: Iterable[str], seconds: str, left: str) -> str:
    columns = "".join(f"{value:>12}" for value in values)
    return f"{epoch:>9}{columns}{seconds:>10}{left:>10}".rstrip()


def duration(seconds: float) -> str:
    """Return a time in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class EpochBar(RichProgressBar):
    """A progress bar of the epoch, or of the evaluated split, below the table of epochs."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return no metrics: the table shows them."""
        return {}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Erase the bar."""
        if self.progress is not None:
            self.progress.live.transient = True
        super().teardown(trainer, pl_module, stage)


class PrintInterval(Callback):
    """Prints the accuracy of ``validate`` and ``test`` with its 95 % confidence interval."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the accuracy on the validation split after ``validate``, not during a training."""
        if trainer.state.fn == "validate" and is_all(trainer.limit_val_batches):
            _print_accuracy(trainer, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the accuracy on the test split."""
        if is_all(trainer.limit_test_batches):
            _print_accuracy(trainer, "test")


def _print_accuracy(trainer: Trainer, split: str) -> None:
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not (trainer.is_global_zero and isinstance(data, FlowersDataModule)):
        return
    total = len(data.indices[split])
    acc = float(trainer.callback_metrics[f"{split}/acc"])
    low, high = wilson_interval(acc, total)
    text = f"{acc * total:.0f} of {total} images are correct, {acc:.1%}"
    print(f"{split}/acc: {text} (95 % interval: {low:.1%} to {high:.1%})", flush=True)
    print(f"{split}/loss: {float(trainer.callback_metrics[f'{split}/loss']):.4f}", flush=True)


def print_classes(numbers: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table of precision, recall and F1 of each class.

    Args:
        numbers: ``precision``, ``recall``, ``F1`` and ``support`` of each class, by class name.
    """
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("class")
    for column in ("images", "precision", "recall", "F1"):
        table.add_column(column, justify="right")
    for name, values in numbers.items():
        metrics = [f"{values[metric]:.3f}" for metric in ("precision", "recall", "F1")]
        table.add_row(escape(name), f"{values['support']:,}", *metrics)
    get_console().print(table)  # the progress bar's console, which keeps the bar below the table


def console_callbacks(trainer: Any) -> list[Callback]:  # noqa: ANN401
    """Return the callbacks that show progress: a row per epoch, and on a terminal a bar.

    Args:
        trainer: The trainer's options.
    """
    has_bar = any(isinstance(callback, ProgressBar) for callback in trainer.callbacks or [])
    if sys.stdout.isatty() and trainer.enable_progress_bar is not False and not has_bar:
        return [PrintEpochs(), EpochBar(refresh_rate=4)]
    return [PrintEpochs()]
