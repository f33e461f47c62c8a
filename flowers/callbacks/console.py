"""What a person sees while a run is going on."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar
from lightning.pytorch.utilities import rank_zero_info
from rich import box, get_console
from rich.markup import escape
from rich.table import Table

from flowers.callbacks.collect_predictions import is_all
from flowers.data import FlowersDataModule
from flowers.evaluation import wilson_interval

_METRICS = ("train/loss", "train/acc", "val/loss", "val/acc")


class PrintEpochs(Callback):
    """Prints a table of the training: a row per epoch with its metrics, its time, and the time left."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._seconds: list[float] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the size of the network and the device."""
        total = sum(parameter.numel() for parameter in pl_module.parameters())
        trained = sum(
            parameter.numel() for parameter in pl_module.parameters() if parameter.requires_grad
        )
        frozen = f", {total - trained:,} of them frozen" if trained < total else ""
        device = trainer.strategy.root_device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
        rank_zero_info(f"{type(pl_module).__name__}: {total:,} parameters{frozen}, on {name}")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start = time.monotonic()

    on_train_start = on_train_epoch_start  # a run may resume inside of an epoch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the row, the first one below the names of its columns."""
        if not trainer.is_global_zero:
            return
        if not self._seconds:
            print(_row("epoch", _METRICS, "time", "left"))
        metrics = trainer.callback_metrics
        values = [f"{float(metrics[name]):.4f}" if name in metrics else "" for name in _METRICS]
        self._seconds.append(time.monotonic() - self._start)
        epochs_left = (trainer.max_epochs or 0) - trainer.current_epoch - 1
        seconds_left = sum(self._seconds) / len(self._seconds) * epochs_left
        time_left = duration(seconds_left) if epochs_left > 0 else ""
        epoch = f"{trainer.current_epoch}/{trainer.max_epochs}"
        print(_row(epoch, values, duration(self._seconds[-1]), time_left), flush=True)


def _row(epoch: str, values: Iterable[str], seconds: str, left: str) -> str:
    columns = "".join(f"{value:>12}" for value in values)
    return f"{epoch:>9}{columns}{seconds:>10}{left:>10}".rstrip()


def duration(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class EpochBar(RichProgressBar):
    """A bar below everything that is printed, for the epoch or the split; the metrics are in the lines."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=4)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return no metrics."""
        return {}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Erase the bar."""
        if self.progress is not None:
            self.progress.live.transient = True
        super().teardown(trainer, pl_module, stage)


class PrintInterval(Callback):
    """Prints the accuracy of ``validate`` and ``test`` with its 95 % interval."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the accuracy on the validation split, unless this is a training's own validation."""
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
    correct = round(float(trainer.callback_metrics[f"{split}/acc"]) * total)
    low, high = wilson_interval(correct, total)
    accuracy = f"{correct / total:.1%} ({low:.1%} to {high:.1%}, 95 %)"
    print(f"{split}/acc: {correct} of {total} images are correct, {accuracy}", flush=True)
    print(f"{split}/loss: {float(trainer.callback_metrics[f'{split}/loss']):.4f}", flush=True)


def print_classes(numbers: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table of precision, recall and F1 of each class.

    Args:
        numbers: ``precision``, ``recall``, ``F1`` and ``support`` of each class, by its name.
    """
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("class")
    for column in ("images", "precision", "recall", "F1"):
        table.add_column(column, justify="right")
    for name, values in numbers.items():
        metrics = [f"{values[metric]:.3f}" for metric in ("precision", "recall", "F1")]
        table.add_row(escape(name), f"{values['support']:,}", *metrics)
    get_console().print(table)  # that of the bar, which moves down


def console_callbacks(trainer: Any) -> list[Callback]:  # noqa: ANN401
    """Return what shows the progress of a run: a line per epoch, and on a terminal a bar.

    Args:
        trainer: The trainer's options.
    """
    has_bar = any(isinstance(callback, ProgressBar) for callback in trainer.callbacks or [])
    if sys.stdout.isatty() and trainer.enable_progress_bar is not False and not has_bar:
        return [PrintEpochs(), EpochBar()]
    return [PrintEpochs()]
