"""Writes what ``predict`` finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from flowers.callbacks.collect import Collector, as_predictions
from flowers.data import FlowersDataModule
from flowers.evaluation import predictions_csv
from flowers.tasks import ClassificationTask


class WritePredictions(Callback):
    """Writes ``path, label, predicted`` and the probability of each class, a row per image, in the folder's order.

    The probabilities are calibrated where the checkpoint carries a calibration.

    Args:
        file: CSV file to write; it must not exist.
    """

    def __init__(self, file: str = "predictions.csv") -> None:
        self.file = Path(file)
        self._collector = Collector()

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
        self._collector.clear()

    def on_predict_batch_end(  # noqa: PLR0917 (Lightning's signature)
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what the network says of the batch."""
        self._collector.add(outputs)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file, from the predictions of all processes."""
        collected, data = self._collector.gather(trainer), trainer.datamodule  # type: ignore[attr-defined]
        if not (trainer.is_global_zero and isinstance(data, FlowersDataModule)):
            return
        assert isinstance(pl_module, ClassificationTask)
        found = as_predictions(collected, data, temperature=(pl_module.calibration or {}).get("temperature", 1.0))
        with self.file.open("x", newline="", encoding="utf-8", errors="surrogateescape") as opened:
            opened.write(predictions_csv(found))
        print(f"Predictions of {len(found.paths):,} images: {self.file}")
