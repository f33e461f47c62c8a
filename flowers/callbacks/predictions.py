"""Writes what ``predict`` finds."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer

from flowers.data import FlowersDataModule
from flowers.tasks import Prediction


class WritePredictions(Callback):
    """Writes ``path, label, predicted`` and the probability of each class, a row per image, in the folder's order.

    Args:
        file: CSV file to write; it must not exist.
    """

    def __init__(self, file: str = "predictions.csv") -> None:
        self.file = Path(file)
        self._predictions: list[Prediction] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse to overwrite, before any work.

        Raises:
            FileExistsError: The file exists.
            FileNotFoundError: Its folder does not.
        """
        if self.file.exists():
            raise FileExistsError(f"--predictions.file {self.file}: the file exists. Give another name, or move it.")
        if not self.file.absolute().parent.is_dir():
            raise FileNotFoundError(f"--predictions.file {self.file}: expected a folder that exists, make it first")
        self._predictions = []

    def on_predict_batch_end(  # noqa: PLR0917 (Lightning's signature)
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the batch's probabilities."""
        self._predictions.append(Prediction(outputs.indices.cpu(), outputs.probs.cpu()))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file, from the predictions of all processes."""
        parts: list[list[Prediction] | None] = [self._predictions]
        if trainer.world_size > 1:
            parts = [None] * trainer.world_size
            torch.distributed.all_gather_object(parts, self._predictions)
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not (trainer.is_global_zero and isinstance(data, FlowersDataModule)):
            return
        batches = [batch for part in parts if part is not None for batch in part]
        indices = torch.cat([batch.indices for batch in batches])
        probs = torch.cat([batch.probs for batch in batches])[indices.argsort()]
        names = data.class_names
        with self.file.open("x", newline="", encoding="utf-8", errors="surrogateescape") as opened:
            writer = csv.writer(opened)
            writer.writerow(["path", "label", "predicted", *names])
            for index, row in zip(indices.sort().values.tolist(), probs, strict=True):
                label, predicted = names[data.index.labels[index]], names[int(row.argmax())]
                writer.writerow([data.index.paths[index], label, predicted, *(f"{p:.6f}" for p in row.tolist())])
        print(f"Predictions of {len(indices):,} images: {self.file}")
